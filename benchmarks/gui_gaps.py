"""How long the window does not answer: the longest gaps of a user's session, action by action.

    python benchmarks/gui_gaps.py [--whose] [--json FILE]

One real viewer, under Xvfb with software OpenGL where there is no display. A timer of 2 ms beats in
the GUI thread; a gap is the time between two beats. For each action: the longest gap from the call
that begins it until it is done and drawn, how many gaps are over 50 ms, and their sum; and the same
in processor time of the GUI thread, which other work on the machine does not lengthen.

`--whose` profiles the GUI thread (which makes everything slower, so that its gaps are no figures)
and says whose code its processor time was spent in.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python benchmarks/gui_gaps.py`
from benchmarks import output

LIMIT = 50.0  # ms
OWNERS = {  # a library that is called counts for who calls it
    "ours": ("napari_mepdiff",),
    "napari": ("napari", "vispy", "pint", "flexparser", "npe2", "app_model", "in_n_out"),
    "pyqtgraph": ("pyqtgraph",),
}
QT = "Qt, Python"  # what nobody's code called: drawing, layout


def main() -> None:
    """Play the session, say the gaps."""
    parser = output.parser(__doc__)
    parser.add_argument("--sample", default="srtio3", help="the data that are opened")
    parser.add_argument("--steps", type=int, default=40, help="steps of the run that is stopped")
    parser.add_argument("--whose", action="store_true", help="in whose code time was spent")
    args = output.parse(parser)
    from napari_mepdiff.base.folders import places_of_its_own
    from napari_mepdiff.base.headless import ensure_display

    ensure_display()
    folder = places_of_its_own("mepdiff-gaps-")
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
    os.environ.setdefault("QT_API", "pyqt6")
    found = Session(args.sample, args.steps, str(folder), whose=args.whose).play()
    for name, gaps in found.items():
        line = (
            f"{name:32} {gaps['longest_ms']:8.1f} ms   {gaps['over_50_ms']:3} over 50 ms;  "
            f"processor {gaps['longest_own_ms']:7.1f} ms   {gaps['own_over_50_ms']:3} over"
        )
        shares = (f"{owner} {100 * part:.0f} %" for owner, part in gaps.get("whose", {}).items())
        print(line, *shares, sep="  ")
    output.write({**found, "cores": os.cpu_count(), "load": os.getloadavg()[0]}, args.json)


class Session:
    """A viewer, its docks, and the gaps of what is done with them."""

    def __init__(self, sample: str, steps: int, folder: str, *, whose: bool = False) -> None:
        import napari
        from qtpy.QtCore import Qt, QTimer

        self.sample, self.steps, self.folder, self.whose = sample, steps, folder, whose
        self.found: dict[str, dict[str, Any]] = {}
        self.docks: dict[str, Any] = {}
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1366, 768)
        self._gaps: list[tuple[float, float]] = []  # ms on the clock, ms of this thread's work
        self._last = time.perf_counter(), time.thread_time()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(2)
        self._timer.timeout.connect(self._beat)
        self._timer.start()
        self.spin(2)

    def _beat(self) -> None:
        now = time.perf_counter(), time.thread_time()
        self._gaps.append(((now[0] - self._last[0]) * 1e3, (now[1] - self._last[1]) * 1e3))
        self._last = now

    def spin(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let Qt work, as its own loop would; whether `until` came true in time."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop, came = QEventLoop(), [until is None]

        def look() -> None:
            if until is not None and until():
                came[0] = True
                loop.quit()

        end, check = QTimer(), QTimer()
        end.setSingleShot(True)
        end.timeout.connect(loop.quit)
        end.start(round(seconds * 1e3))
        check.timeout.connect(look)
        check.start(20)
        loop.exec()
        check.stop()
        end.stop()
        return came[0]

    def measure(
        self, name: str, act: Callable[[], Any], until: Callable[[], bool] | None = None
    ) -> Any:
        """Do something as an event of its own, wait until it is done and drawn, keep the gaps."""
        from qtpy.QtCore import QTimer

        self.spin(0.3)
        self._gaps.clear()
        out: list[Any] = []
        profile = cProfile.Profile(time.thread_time)
        if self.whose:
            profile.enable()
        QTimer.singleShot(0, lambda: out.append(act()))
        if not self.spin(180, lambda: bool(out) and (until is None or until())):
            raise TimeoutError(f"{name}: not done within 180 s")
        self.spin(0.5)
        profile.disable()
        found = self.found[name] = {}
        for kind, gaps in zip(("", "own_"), zip(*self._gaps, strict=True), strict=True):
            over = [gap for gap in gaps if gap > LIMIT]
            found[f"longest_{kind}ms"] = round(max(gaps), 1)
            found[f"{kind}over_50_ms"] = len(over)
            found[f"sum_{kind}over_50_ms"] = round(sum(over), 1)
        if self.whose:
            found["whose"] = owners(pstats.Stats(profile))
        return out[0]

    def play(self) -> dict[str, dict[str, Any]]:
        """The session, from the first dock to closing the window."""
        from napari_mepdiff.gui.contributions import DOCKS, show_docks

        for name in DOCKS:
            panels: list[Any] = []
            self.measure(
                f"open the dock {name}",
                lambda name=name, panels=panels: panels.extend(show_docks(self.viewer, (name,))),
                lambda panels=panels: panels[0].dock is not None,
            )
            self.docks[name] = panels[0].dock
        workspace = self.docks["Data"].workspace
        session, jobs = workspace.session, workspace.jobs

        def idle() -> bool:
            return not jobs.running

        self.measure(
            "open a file",
            lambda: workspace.files.open(self.sample),
            lambda: session.findings is not None and idle(),
        )
        session.change("setup", preview=False)
        session.change_settings(
            "dps", guidance="newton", elements=(), steps=self.steps, evaluations=20
        )
        self.measure(
            "change the preparation", lambda: session.change("preparation", rotation=2.0), idle
        )
        self.measure("change a setting", lambda: session.change_settings("dps", weight=0.9), idle)
        run = self.measure(
            "Start to the first frame", workspace.start, lambda: session.runs[-1].frame is not None
        )
        step = run.frame.step
        self.measure("frames streaming", lambda: True, lambda: run.frame.step >= step + 10)
        self.measure("change while it runs", lambda: session.change_settings("dps", weight=0.8))
        self.measure("Pause", workspace.runner.pause, lambda: run.state == "paused")
        self.measure(
            "Resume and Stop",
            lambda: (workspace.runner.resume(), workspace.runner.stop()),
            lambda: not run.going_on,
        )
        compare = self.docks["Compare"]
        for box, name in ((compare.reference, "ground truth"), (compare.test, run.name)):
            box.setCurrentIndex(box.findText(name))
        self.measure("Compare", compare.run, lambda: compare.found is not None and idle())
        export = self.docks["Export"]
        session.change("export", folder=self.folder)
        export.tick(run.name)
        self.measure("Export", export.export, idle)
        run = workspace.start()
        self.spin(60, lambda: run.frame is not None)
        workspace.window.ask = lambda _run: "save"
        self.measure("close the window in mid-run", self.viewer.close)
        return self.found


def owners(stats: pstats.Stats) -> dict[str, float]:
    """Parts of the time of a profile, by whose code it was spent in or for; the largest first."""
    table: dict[Any, Any] = stats.stats  # type: ignore[attr-defined]
    known: dict[Any, dict[str, float]] = {}

    def parts(function: Any) -> dict[str, float]:
        packages = Path(function[0]).parts
        for owner, names in OWNERS.items():
            if any(name in packages for name in names):
                return {owner: 1.0}
        if function not in known:
            known[function] = {QT: 1.0}  # while its callers are asked, which may call in a circle
            callers = table[function][4] if function in table else {}
            total = sum(edge[2] for edge in callers.values())
            mixed: dict[str, float] = {}
            for caller, edge in callers.items() if total > 0 else ():
                for owner, part in parts(caller).items():
                    mixed[owner] = mixed.get(owner, 0.0) + part * edge[2] / total
            known[function] = mixed or {QT: 1.0}
        return known[function]

    spent: dict[str, float] = {}
    for function, (_, _, own, _, _) in table.items():
        for owner, part in parts(function).items():
            spent[owner] = spent.get(owner, 0.0) + own * part
    whole = sum(spent.values()) or 1.0
    return {o: round(t / whole, 3) for o, t in sorted(spent.items(), key=lambda item: -item[1])}


if __name__ == "__main__":
    main()
