"""The pictures of the tutorial and the docks' pages: a session on a sample, in both themes.

python docs/make_pictures.py [--output docs/pictures]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mepdiff.base.folders import places_of_its_own
from napari_mepdiff.base.headless import ensure_display

if TYPE_CHECKING:
    from napari_mepdiff.gui.demo import Demo

HERE = Path(__file__).parent


def main() -> None:
    """Play the session, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE / "pictures")
    args = parser.parse_args()
    ensure_display()
    folder = places_of_its_own("mepdiff-pictures-")
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
    os.environ.setdefault("QT_API", "pyqt6")
    from napari_mepdiff.gui.contributions import raise_dock
    from napari_mepdiff.gui.demo import Demo

    demo = Demo("cuwo4", 60, args.output)
    viewer, docks, workspace, session = demo.viewer, demo.docks, demo.workspace, demo.session
    viewer.window.resize(1366, 768)

    def shot(
        name: str, dock: str, scroll: float = 0.0, themes: tuple[str, ...] = ("dark", "light")
    ) -> None:
        page = docks[dock]
        raise_dock(page)
        for theme in themes:
            viewer.theme = theme
            demo.wait(0.3)
            bar = page.area.verticalScrollBar()
            bar.setValue(round(scroll * bar.maximum()))
            demo.picture(f"{name}_{theme}" if len(themes) > 1 else name)
        viewer.theme = "dark"

    session.change("export", folder=str(folder))
    workspace.files.open("cuwo4")
    demo.until(lambda: session.findings is not None and not workspace.jobs.running)
    docks["Data"].look.pick(8, 11)
    demo.wait(1)
    shot("data", "Data")
    docks["Data"].orientation.estimate_rotation()
    demo.until(lambda: not workspace.jobs.running)
    shot("data_below", "Data", 1.0, ("dark",))

    # a preview
    session.change("setup", preview=True)
    demo.run()
    shot("preview", "Reconstruct", 0.25, ("dark",))
    session.change("setup", preview=False)

    # steering free voxels
    session.change_settings("dps", guidance="newton", elements=(), steps=100)

    def steer(run: object) -> None:
        step = run.frame.step  # type: ignore[attr-defined]
        if step == 20:
            session.change_settings("dps", weight=3.0)
        if step == 40:
            docks["Guidance"].draw.click()
        if step == 45:
            curve = list(session.settings("dps").curve)
            curve[4] = (curve[4][0], 0.35)
            session.change_settings("dps", curve=tuple(curve))
        if step == 70:
            workspace.runner.pause()
            demo.wait(0.6)
            shot("guidance", "Guidance")
            shot("reconstruct", "Reconstruct", 0.55)
            workspace.runner.resume()

    demo.run(steer)
    # whole atoms
    session.change_settings(
        "dps",
        guidance="auto",
        elements=("Cu", "W", "O"),
        steps=60,
        weight=1.0,
        schedule="shifted-sigmoid",
    )
    run = demo.run(
        lambda r: shot("running", "Reconstruct", 0.45, ("dark",)) if r.frame.step == 30 else None
    )
    compare = docks["Compare"]

    def against(reference: str) -> None:
        for box, name in ((compare.reference, reference), (compare.test, run.name)):
            box.setCurrentIndex(box.findText(name))
        compare.found = None

    against("ground truth")
    compare.run()
    demo.until(lambda: compare.found is not None)
    atoms = session.data.truth_atoms["positions"]
    compare.depth_profile.pick(float(atoms[0][1]), float(atoms[0][2]))
    shot("compare", "Compare")
    compare.show_sums()
    demo.until(lambda: not workspace.jobs.running)
    shot("sums", "Compare", 0.0, ("dark",))
    session.change("comparison", view="difference")
    compare.run()
    demo.until(lambda: not workspace.jobs.running)
    shot("difference", "Compare", 0.0, ("dark",))
    compare.clear()
    compare.patterns.rows_box.setMaximum(25)
    compare.patterns.rows_box.setValue(8)
    compare.patterns.show_patterns()
    compare.spread.show_spread()
    demo.until(lambda: not workspace.jobs.running)
    shot("spread", "Compare", 1.0, ("dark",))
    compare.clear()
    session.change("comparison", view="side by side")
    export = docks["Export"]
    export.tick(run.name)
    export.export()
    demo.until(lambda: not workspace.jobs.running)
    shot("export", "Export")
    viewer.dims.ndisplay = 3
    viewer.scene.camera.angles = (10, 35, 60)
    viewer.scene.camera.zoom = 28
    shot("volume_3d", "Export", 0.0, ("dark",))
    viewer.dims.ndisplay = 2
    from napari_mepdiff.export.film import save_film

    kept = run.frames.kept
    part = range(0, len(kept), 2)
    save_film(
        [run.frames.volume(n) for n in part],
        args.output / "run.gif",
        voxel_size=run.problem.voxel_size,
        width=260,
        labels=[f"step {kept[n]['step']} of {kept[n]['total']}" for n in part],
        rate=6,
        overwrite=True,
    )
    # the microscope: a refinement of a defocus that is told wrong
    told = session.data.illumination().overfocus
    session.change("preparation", overfocus=told + 20)
    raise_dock(docks["Microscope"])
    docks["Microscope"].values.estimate()
    demo.until(lambda: workspace.microscopes.estimated is not None)
    session.change("setup", solver="refine", slices=4)
    session.change_settings("refine", iterations=8, modes=3)
    demo.run()
    demo.wait(1)
    docks["Microscope"].values.table.tick("C10", "refined")
    docks["Microscope"].positions.show_positions()
    shot("microscope", "Microscope")
    shot("microscope_below", "Microscope", 1.0, ("dark",))
    automatic(demo, folder, shot)
    viewer.close()


def automatic(demo: Demo, folder: Path, shot: Callable[..., None]) -> None:
    """The steps of Automatic on bare patterns, of which only what no pattern tells is told."""
    from napari_mepdiff.session.recipe import Opening

    workspace, session = demo.workspace, demo.session
    path, data = folder / "scan.npy", Opening(path="cuwo4_extended").open()
    np.save(path, np.asarray(data.data))
    workspace.files.open(str(path))
    demo.until(lambda: session.path == str(path) and session.findings is not None, 600)
    known = data.calibration
    session.change(
        "preparation",
        energy=known.energy,
        semi_angle=known.semi_angle,
        scan_step_y=known.scan_step[0],
        scan_step_x=known.scan_step[1],
        bin=2,
    )
    session.change("setup", solver="dps", slices=None, microscope="")
    session.change_settings("refine", iterations=8, modes=2)
    session.change_settings("dps", guidance="newton", elements=(), steps=20, evaluations=10)
    demo.until(lambda: not workspace.jobs.running, 600)
    before = len(session.runs)
    workspace.do_automatic()

    def sampling() -> bool:
        there = len(session.runs) == before + 2 and session.runs[-1].frame is not None
        return there and session.runs[-1].frame.step >= 4

    demo.until(sampling, 1800)
    demo.docks["Reconstruct"].notice.hide()
    shot("automatic", "Reconstruct", 0.42)
    workspace.do_stop()
    demo.until(lambda: not workspace.chain.going_on, 600)


if __name__ == "__main__":
    main()
