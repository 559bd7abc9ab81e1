"""Figures, films and the list of what was written: parts of the Export dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from ..widgets.basic import Section, button, combo, row

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ...session.session import Session
    from ..workspace import Workspace


class Writing(Protocol):
    """What these sections ask of the dock that they are part of."""

    workspace: Workspace
    session: Session
    written: WrittenSection

    def ticked(self) -> list[Any]:
        """The layers to write."""
        ...

    def require_folder(self) -> None:
        """Raises OSError if the chosen folder cannot take files."""
        ...

    def path(self, name: str, suffix: str = "", measurement: str = "") -> Path:
        """A file in the chosen folder."""
        ...

    def free(self, path: Path) -> Path:
        """A path that is not taken, unless replacing is allowed."""
        ...


class FigureSection(Section):
    """A figure of the ticked volumes, and a picture of the window.

    Parameters
    ----------
    dock : ExportDock
    """

    def __init__(self, dock: Writing) -> None:
        super().__init__("Figure")
        self.dock, self.workspace, self.session = dock, dock.workspace, dock.session
        self.format = combo([".png", ".pdf", ".svg"], "PNG for slides, PDF or SVG for print", 4)
        self.button = button(
            "Figure",
            "All slices and the depth sum of each volume, one row a volume, with scale bar, units "
            "and scores against the ground truth",
            self.export_figure,
        )
        self.window_button = button("Screenshot", "The whole window as it is", self.screenshot)
        self.add(row(self.format, self.button, self.window_button))

    def export_figure(self) -> None:
        """Write a figure of the ticked volumes, their ground truth first where there is one."""
        layers = self.dock.ticked()
        snapshots = {layer.name: self.workspace.run_layers.snapshot(layer) for layer in layers}
        runs = [s.run for s in snapshots.values() if s.run is not None]
        try:
            self.dock.require_folder()
            if not snapshots:
                raise ValueError("tick at least one volume")
            if len({s.taken.data.shape for s in snapshots.values()}) > 1:
                raise ValueError("a figure shows volumes of one grid; these differ: tick fewer")
            if len({run.path for run in runs}) > 1:
                raise ValueError(
                    "a figure shows volumes of one measurement; these runs belong to several: "
                    "tick fewer"
                )
        except (ValueError, OSError) as error:
            self.session.report(error, "no figure was made")
            return
        data = runs[0].data if runs else self.session.data
        name = runs[0].measurement_name if runs else self.session.measurement_name
        truth = None if data is None else data.truth
        own = None if data is None else self.workspace.measurement_layers.truth_layer(data)
        if own is not None:
            snapshots.pop(own.name, None)
        path = self.dock.free(self.dock.path("comparison", self.format.currentText(), name))

        def work(report: Report) -> Path:
            from ...evaluation.figures import compare_figure
            from ...evaluation.judge import judge

            volumes = {title: snapshot.volume() for title, snapshot in snapshots.items()}
            shapes = {volume.shape for volume in volumes.values()}
            scores = None
            if truth is not None and shapes <= {truth.shape}:
                scores = {title: judge(v, truth) for title, v in volumes.items()}
                volumes = {"ground truth": truth, **volumes}
            report(0.5)
            return compare_figure(volumes, path, scores, name)

        self.workspace.jobs.run("figure", "drawing a figure", work, self.dock.written.note)

    def screenshot(self) -> None:
        """The whole window to a PNG."""
        try:
            self.dock.require_folder()
            path = self.dock.free(self.dock.path("window", ".png", self.session.measurement_name))
            self.workspace.viewer.screenshot(str(path), canvas_only=False)
        except OSError as error:
            self.session.report(error, "no screenshot was made")
            return
        self.dock.written.note(path)


class FilmSection(Section):
    """A film of a run's kept frames.

    Parameters
    ----------
    dock : ExportDock
    """

    def __init__(self, dock: Writing) -> None:
        super().__init__("Film")
        self.dock, self.workspace, self.session = dock, dock.workspace, dock.session
        self.run = combo(tip="Which run")
        self.view = combo(
            [("all slices", "slices"), ("the slice shown", "slice"), ("depth sum", "sum")],
            "What each picture of the film shows",
        )
        self.format = combo(
            [".gif", ".mp4"],
            "GIF plays everywhere; MP4 is smaller, and needs the package imageio-ffmpeg",
            4,
        )
        self.button = button(
            "Film of the run",
            "The kept frames one after the other, with step and scale bar",
            self.export_film,
        )
        self.add(row(self.run, self.view), row(self.format, self.button, stretch=True))

    def fill(self) -> None:
        """The runs that have frames."""
        runs, kept = [r for r in self.session.runs if len(r.frames)], self.run.currentData()
        self.run.clear()
        for run in runs:
            self.run.addItem(run.name, run.number)
        index = self.run.findData(kept)
        self.run.setCurrentIndex(index if index >= 0 else len(runs) - 1)
        self.button.setEnabled(bool(runs))

    def export_film(self) -> None:
        """Write a film of a run's kept frames."""
        number = self.run.currentData()
        run = next((r for r in self.session.runs if r.number == number), None)
        if run is None or run.problem is None:
            return
        view, suffix = self.view.currentData(), self.format.currentText()
        try:
            self.dock.require_folder()
        except OSError as error:
            self.session.report(error, "no film was made")
            return
        path = self.dock.free(self.dock.path(f"{run.name} film", suffix, run.measurement_name))
        layer = self.workspace.run_layers.layer_of(run)
        slice_ = 0 if layer is None else self.workspace.book.shown_slice(layer)
        limits = None if layer is None or view == "sum" else tuple(layer.contrast_limits)
        frames, kept, voxels = run.frames, run.frames.kept, run.problem.voxel_size
        labels = [f"step {r['step']} of {r['total']}" for r in kept]

        def work(report: Report) -> Path:
            from ...export.film import save_film

            return save_film(
                cast(Any, _Kept(frames, len(kept))),
                path,
                voxel_size=voxels,
                view=view,
                number=slice_,
                limits=limits,
                labels=labels,
                progress=report,
                overwrite=True,
            )

        self.workspace.jobs.run("film", "making a film", work, self.dock.written.note)


class WrittenSection(Section):
    """What was written, to open again.

    Parameters
    ----------
    dock : ExportDock
    """

    def __init__(self, dock: Writing) -> None:
        super().__init__("Written")
        self.workspace, self.session = dock.workspace, dock.session
        self.last_file: Path | None = None
        self.list = QListWidget()
        self.list.setFixedHeight(90)
        self.list.setToolTip("Volumes that were exported; double-click opens one as a layer")
        self.list.itemDoubleClicked.connect(
            lambda item: self.workspace.files.open_volume(item.data(Qt.ItemDataRole.UserRole))
        )
        self.reopen_button = button(
            "Open as a layer", "The chosen file, read back from disk", self.reopen
        )
        self.add(self.list, row(self.reopen_button, stretch=True))

    def fill(self, _paths: Any = None) -> None:
        """List the exported volumes, the newest first."""
        self.list.clear()
        for path in reversed(self.session.exported):
            item = QListWidgetItem(Path(path).name)
            item.setToolTip(path)
            item.setData(Qt.ItemDataRole.UserRole, path)
            self.list.addItem(item)
        if self.list.count():
            self.list.setCurrentRow(0)
        self.reopen_button.setEnabled(self.list.count() > 0)

    def note(self, path: Path) -> None:
        """A figure, film or picture was written."""
        self.last_file = path
        self.session.message.emit("info", f"written: {path}", "")

    def reopen(self) -> None:
        """Open the chosen file."""
        item = self.list.currentItem()
        if item is not None:
            self.workspace.files.open_volume(item.data(Qt.ItemDataRole.UserRole))


class _Kept:
    """The first n kept frames of a store as a sequence."""

    def __init__(self, frames: Any, count: int) -> None:
        self._frames, self._count = frames, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        return self._frames.volume(number)  # type: ignore[no-any-return]
