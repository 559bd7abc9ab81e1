"""Watching a run: is the window alive, how soon is a step on the screen, what does it cost?

    python benchmarks/streaming.py [--json FILE] [--shot shot.png]

Without a display it runs under Xvfb with software OpenGL. Gaps: time between beats of a 10 ms timer
in the GUI thread, less those 10 ms. Step to screen: from the moment the solver hands a frame over
to the swap of the canvas that shows it. Slowdown: seconds a step while it is watched in 2D, over
seconds a step of the same run in a thread that nobody watches; runs in turn, medians. Preview: from
Start to the first volume on the screen whose depth sum correlates with the truth by 0.8.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
try:
    import napari_mepdiff  # noqa: F401
except ImportError:  # from a fresh clone: set everything up, and go on in its environment
    subprocess.run(["make", "install", "display"], cwd=ROOT, check=True)
    python = str(ROOT / ".venv" / "bin" / "python")
    os.execv(python, [python, *sys.argv])

sys.path.insert(0, str(ROOT))  # for `python benchmarks/streaming.py`
from benchmarks import output  # noqa: E402
from napari_mepdiff.base.folders import places_of_its_own  # noqa: E402
from napari_mepdiff.base.headless import ensure_display  # noqa: E402

STEPS = 60


def main() -> None:
    """Run all of it."""
    parser = output.parser(__doc__)
    parser.add_argument("--shot", type=Path, help="write a picture of the window in mid-run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind for the slowdown")
    args = output.parse(parser)
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        import shutil

        if shutil.which("Xvfb") is None:
            subprocess.run(["make", "display"], cwd=ROOT, check=True)
    ensure_display()
    folder = places_of_its_own("mepdiff-streaming-")
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
    os.environ.setdefault("QT_API", "pyqt6")
    numbers = Bench(args).measure()
    print("\n".join(f"{name:36} {value}" for name, value in numbers.items()))
    output.write(numbers, args.json)


class Beat:
    """Gaps between beats of a timer in the GUI thread, ms."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps: list[float] = []
        self._last: float | None = None
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(10)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def _beat(self) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self.gaps.append(max(0.0, (now - self._last) * 1e3 - 10))
        self._last = now

    def take(self) -> list[float]:
        """The gaps since the last call."""
        out, self.gaps = self.gaps, []
        return out


class Bench:
    """One viewer with its docks, measured."""

    def __init__(self, args: Any) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        from napari_mepdiff.gui.contributions import raise_dock, show_docks

        self.args = args
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1366, 768)
        self.app = QApplication.instance()
        panels = show_docks(self.viewer)
        self.spin(60, until=lambda: all(panel.dock is not None for panel in panels))
        self.docks: list[Any] = [panel.dock for panel in panels]
        raise_dock(self.docks[1])  # the curves are drawn too
        self.workspace = self.docks[0].workspace
        self.beat = Beat()

    def spin(self, seconds: float, until: Any = None) -> None:
        """Let Qt work, as its own loop would."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(round(seconds * 1e3), loop.quit)
        check = QTimer()
        check.setInterval(20)
        if until is not None:
            check.timeout.connect(lambda: loop.quit() if until() else None)
            check.start()
        loop.exec()
        check.stop()

    def measure(self) -> dict[str, Any]:
        """All numbers."""
        from importlib.metadata import version

        session = self.workspace.session
        self.workspace.files.open("srtio3")
        self.spin(60, lambda: session.findings is not None)
        self.spin(3)
        preview = self.preview()
        session.change("setup", preview=False)
        session.change_settings("dps", guidance="newton", elements=(), steps=STEPS)
        self.spin(5, lambda: not self.workspace.jobs.running)
        watched, alone = [], []
        gaps: list[float] = []
        screen: list[float] = []
        for _ in range(self.args.repeats):
            alone.append(self.alone())
            rate, more, times = self.watched()
            watched.append(rate)
            gaps += more
            screen += times
        big = self.big()
        out = {
            "gui_gap_p99_ms": percentile(gaps, 99),
            "gui_gap_max_ms": max(gaps),
            "step_to_screen_ms": percentile(screen, 50),
            "step_to_screen_p95_ms": percentile(screen, 95),
            "slowdown": median(watched) / median(alone) - 1,
            "preview_seconds": preview[0],
            "preview_end_seconds": preview[1],
            "seconds_per_step_alone": median(alone),
            "seconds_per_step_watched": median(watched),
            "pictures": len(screen),
            "steps": STEPS * self.args.repeats,
            **big,
            "cores": os.cpu_count(),
            "napari": version("napari"),
        }
        self.viewer.close()
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items()}

    def preview(self) -> tuple[float, float]:
        """Seconds to the first recognisable volume on the screen, and to the end of the preview."""
        import numpy as np

        session = self.workspace.session
        truth = session.data.truth.depth_sum().ravel()
        session.change("setup", preview=True)
        self.spin(3, lambda: not self.workspace.jobs.running)
        first: list[float] = []
        begin = time.perf_counter()

        def seen(run: Any) -> None:
            layer = self.workspace.run_layers.layer_of(run)
            if (
                not first
                and np.corrcoef(np.asarray(layer.data).sum(axis=0).ravel(), truth)[0, 1] > 0.8
            ):
                first.append(time.perf_counter() - begin)

        session.frame_shown.connect(seen)
        run = self.workspace.start()
        self.spin(120, lambda: not run.going_on)
        session.frame_shown.disconnect(seen)
        return (first[0] if first else float("nan")), time.perf_counter() - begin

    def alone(self) -> float:
        """Seconds a step in a thread that nobody watches; the window is there and idle."""
        from napari_mepdiff.reconstruction.problem import Problem
        from napari_mepdiff.reconstruction.registry import solve

        session = self.workspace.session
        settings, data = session.settings(), session.data
        seconds: list[float] = []

        def work() -> None:
            seconds.append(rate(list(records(solve(Problem.from_data(data), settings)))))

        thread = threading.Thread(target=work)
        thread.start()
        self.spin(300, lambda: not thread.is_alive())
        thread.join()
        return seconds[0]

    def watched(self) -> tuple[float, list[float], list[float]]:
        """Seconds a step, gaps (ms) and times to the screen (ms) of a watched run in 2D."""
        from qtpy.QtOpenGLWidgets import QOpenGLWidget

        made: dict[int, float] = {}
        waiting: list[int] = []
        times: list[float] = []
        canvas = (
            self.viewer.window.main_window
            if hasattr(self.viewer.window, "main_window")
            else self.docks[0].window()
        )
        surface = canvas.findChildren(QOpenGLWidget)[0]
        session = self.workspace.session

        def shown(run: Any) -> None:
            waiting.append(id(run.frame))

        def swapped() -> None:
            now = time.perf_counter()
            for key in waiting:
                if key in made:
                    times.append((now - made[key]) * 1e3)
            waiting.clear()

        session.frame_shown.connect(shown)
        surface.frameSwapped.connect(swapped)
        run = self.workspace.start()
        append = run.frames.append

        def timed(frame: Any) -> None:
            made[id(frame)] = time.perf_counter()
            append(frame)

        run.frames.append = timed
        self.spin(60, lambda: run.frame is not None and run.frame.step >= 3)
        self.beat.take()
        if self.args.shot:
            self.spin(2)
            self.viewer.screenshot(str(self.args.shot), canvas_only=False)
            self.args.shot = None
            self.beat.take()
        self.spin(300, lambda: run.frame.step >= STEPS - 1 or not run.going_on)
        gaps = self.beat.take()
        self.spin(60, lambda: not run.going_on)
        session.frame_shown.disconnect(shown)
        surface.frameSwapped.disconnect(swapped)
        out = rate(run.frames.records)
        session.remove_run(run)
        self.workspace.run_layers.remove(run)
        return out, gaps, times

    def big(self) -> dict[str, float]:
        """Frames of 20 × 512 × 512 voxels at five a second, in 2D and in 3D: gaps in ms."""
        from dataclasses import replace
        from unittest.mock import patch

        import numpy as np

        from napari_mepdiff.reconstruction import registry
        from napari_mepdiff.reconstruction.frame import Frame
        from napari_mepdiff.reconstruction.problem import Problem

        shape = (20, 512, 512)
        base = np.random.default_rng(0).random(shape, dtype=np.float32)
        problem = replace(
            Problem.from_data(self.workspace.session.data), shape=shape, slice_thickness=(1.0,) * 20
        )

        def frames(_problem: Any, _settings: Any, control: Any, **_: Any) -> Any:
            for step in range(1, 61):
                if control.stopped:
                    return
                time.sleep(0.2)
                yield Frame(step, 60, np.roll(base, step, axis=1), 1.0, -2.0, 0.2 * step)

        out = {}
        with (
            patch.object(registry, "solve", frames),
            patch.object(Problem, "from_data", lambda *_a, **_k: problem),
        ):
            for ndisplay in (2, 3):
                self.viewer.dims.ndisplay = ndisplay
                run = self.workspace.start()
                self.spin(20, lambda r=run: r.frame is not None and r.frame.step >= 4)
                self.beat.take()
                self.spin(8)
                gaps = self.beat.take()
                out[f"gui_gap_p99_20x512x512_{ndisplay}d_ms"] = percentile(gaps, 99)
                self.workspace.runner.stop()
                self.spin(20, lambda r=run: not r.going_on)
                self.workspace.session.remove_run(run)
                self.workspace.run_layers.remove(run)
        self.viewer.dims.ndisplay = 2
        return out


def records(frames: Any) -> Any:
    """Step and seconds of each frame."""
    for frame in frames:
        yield {"step": frame.step, "seconds": frame.seconds}


def rate(rows: Any) -> float:
    """Seconds a step from the fifth step to the last."""
    rows = [r for r in rows if r["step"] >= 5]
    return float((rows[-1]["seconds"] - rows[0]["seconds"]) / (rows[-1]["step"] - rows[0]["step"]))


def percentile(values: list[float], part: float) -> float:
    """Of a list; NaN where it is empty."""
    import numpy as np

    return float(np.percentile(values, part)) if values else float("nan")


def median(values: list[float]) -> float:
    """Of a list."""
    return percentile(values, 50)


if __name__ == "__main__":
    main()
