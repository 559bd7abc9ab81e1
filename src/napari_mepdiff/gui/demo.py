"""The main job from end to end, in napari: open a sample, reconstruct, watch, compare, export.

On a screen the window stays open at the end. Without one the same session runs under Xvfb and
leaves its pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..base.folders import places_of_its_own
from ..base.headless import ensure_display, has_display

UNDER_XVFB = "MEPDIFF_DEMO_ALONE"


def main() -> None:
    """Run the demonstration; ``--output`` says where its pictures and volumes go."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", default="cuwo4")
    parser.add_argument("--steps", type=int, default=60, help="of diffusion posterior sampling")
    parser.add_argument("--guidance", default="auto", help="auto takes whole atoms")
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if not has_display():
        os.environ[UNDER_XVFB] = "1"
        try:
            ensure_display()  # does not come back: this program begins again with a screen
        except RuntimeError as error:
            sys.exit(f"demo: {error}")
    alone = os.environ.get(UNDER_XVFB) == "1"
    # the demonstration is the same for everyone: it neither takes nor leaves anybody's settings
    folder = places_of_its_own("mepdiff-demo-")
    if alone:
        os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
    Demo(args.sample, args.steps, args.output, args.guidance).play()
    if not alone:
        import napari

        print("napari stays open: look around, and close it when you like")
        napari.run()


class Demo:
    """The session, step by step, through the docks."""

    def __init__(self, sample: str, steps: int, output: Path, guidance: str = "auto") -> None:
        import napari

        from .contributions import DOCKS, show_docks

        self.sample, self.output = sample, output
        self.steps, self.guidance = steps, guidance
        self.viewer = napari.Viewer(title="napari-mepdiff")
        self.viewer.window.resize(1366, 860)
        panels = show_docks(self.viewer)
        self.until(lambda: all(panel.dock is not None for panel in panels))
        self.docks: dict[str, Any] = {n: p.dock for n, p in zip(DOCKS, panels, strict=True)}
        self.workspace = self.docks["Data"].workspace
        self.session = self.workspace.session
        self.session.message.connect(lambda level, text, _details: print(f"  {level}: {text}"))

    def play(self) -> None:
        """All of it."""
        from .contributions import raise_dock

        print(f"opening the sample {self.sample}")
        self.workspace.files.open(self.sample)
        self.until(lambda: self.session.findings is not None and not self.workspace.jobs.running)
        self.picture("1_data")
        raise_dock(self.docks["Reconstruct"])
        truth = self.session.data.truth
        assert truth is not None  # samples are simulated: their depth is known
        self.session.change(
            "setup",
            solver="lbfgs",
            preview=False,
            slices=truth.shape[0],
            slice_thickness=truth.voxel_size[0],
        )
        self.session.change_settings(
            "lbfgs",
            non_negative=True,
            misfit="poisson",
            batch=None,
            learning_rates=(1.0,),
            iterations=4,
            evaluations=10,
            line_search=True,
            detector_stride=2,
        )
        ordinary = self.run()
        self.session.change("setup", solver="dps")
        self.session.change_settings("dps", steps=self.steps, guidance=self.guidance)
        self.docks["Reconstruct"].settings.use_elements.click()
        run = self.run(
            lambda r: self.picture("2_running") if r.frame.step == self.steps // 2 else None
        )
        compare = self.docks["Compare"]
        raise_dock(compare)
        scores = {}
        for each in (ordinary, run):
            for box, name in ((compare.reference, "ground truth"), (compare.test, each.name)):
                box.setCurrentIndex(box.findText(name))
            compare.found = None
            compare.run()
            self.until(lambda: compare.found is not None)
            scores[each.name] = compare.found.scores
        atom = (
            self.session.data.truth_atoms["positions"][0]
            if self.session.data.truth_atoms
            else (0, 3.0, 3.0)
        )
        compare.depth_profile.pick(float(atom[1]), float(atom[2]))
        self.picture("3_comparison")
        export = self.docks["Export"]
        raise_dock(export)
        compare.clear()
        self.session.change(
            "export", folder=str(self.output.resolve()), format=".tif", overwrite=True
        )
        export.tick(run.name, ordinary.name)
        export.export()
        self.until(lambda: not self.workspace.jobs.running)
        export.figure.export_figure()
        self.until(lambda: not self.workspace.jobs.running)
        self.picture("4_export")
        for name, found in scores.items():
            known = {k: v for k, v in found.as_dict().items() if isinstance(v, float)}
            print(f"{name}:", ", ".join(f"{k} {v:.4g}" for k, v in known.items()))
        print("volumes:", ", ".join(self.session.exported[-2:]))
        print("figure:", export.written.last_file)
        print(
            "pictures of the window:",
            ", ".join(str(p) for p in sorted(self.output.glob("[1-4]_*.png"))),
        )

    def run(self, watch: Callable[[Any], Any] = lambda _run: None) -> Any:
        """One run to its end."""
        run = self.workspace.start()
        if run is None:
            raise SystemExit("demo: the run was not started")
        print(f"{run.name} …")
        seen: list[int] = []

        def look() -> bool:
            if run.frame is not None and (not seen or seen[-1] != run.frame.step):
                seen.append(run.frame.step)
                watch(run)
            return not run.going_on

        self.until(look, 1800)
        if run.frame is None or run.state != "done":
            raise SystemExit(f"demo: {run.name} {run.state}: {run.error}")
        print(f"  {run.frame.seconds:.0f} s, misfit {run.frame.loss:.3f} × shot noise")
        return run

    def picture(self, name: str) -> None:
        """The whole window."""
        self.wait(0.5)
        self.viewer.screenshot(str(self.output / f"{name}.png"), canvas_only=False)

    def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Let Qt work until something holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit("demo: it took too long")
            self.wait(0.03)

    @staticmethod
    def wait(seconds: float) -> None:
        """Let Qt work for a while."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(round(seconds * 1e3), loop.quit)
        loop.exec()


if __name__ == "__main__":
    main()
