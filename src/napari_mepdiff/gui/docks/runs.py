"""Runs of a session and their earlier frames: a part of the Reconstruct dock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QSlider

from ...session.choices import Watching
from ..widgets.basic import Section, Status, button, combo, row
from ..widgets.forms import Form

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ...session.runs import RunRecord
    from ..workspace import Workspace


class RunsSection(Section):
    """Which runs there are, what is done with them, and a look back through their frames.

    Parameters
    ----------
    workspace : Workspace
    show : callable
        Called when another run is to be shown, or none.
    """

    def __init__(self, workspace: Workspace, show: Callable[[], None]) -> None:
        super().__init__("Runs and their frames")
        self.workspace, self.session, self._show = workspace, workspace.session, show
        self.keep_form = Form(
            Watching,
            ("keep_every", "budget"),
            lambda n, v: self.session.change("watching", **{n: v}),
        )
        self.runs = combo(
            tip="Runs of this session. Curves and frames below are those of the chosen one."
        )
        self.runs.activated.connect(lambda _i: self.show_run())
        self.show_button = button(
            "Show layer", "Bring the layer of this run back, or to the top", self._show_layer
        )
        self.remove_button = button(
            "Remove",
            "Forget this run with its frames and layers. Exported files stay.",
            self._remove,
        )
        self.again_button = button(
            "Its settings",
            "Set all fields as they were at the start of this run (undo brings yours back)",
            self._take_settings,
        )
        self.scrub = QSlider(Qt.Orientation.Horizontal)
        self.scrub.setToolTip(
            "Look back through the frames of this run; the newest is at the right"
        )
        self.scrub.valueChanged.connect(self._scrub)
        self.scrub_text = Status(2)
        self.frames_button = button(
            "Frames as a layer",
            "All kept frames as one layer with a step axis to scrub through",
            self._frames_layer,
        )
        self.replay_button = button(
            "Replay…",
            "Make a run again from an exported volume, or from the .json beside it: with its data, "
            "its settings and every change, to the same volume",
            self._ask_replay,
        )
        self.add(
            self.runs,
            row(self.show_button, self.again_button, self.remove_button),
            self.scrub,
            self.scrub_text,
            row(self.frames_button, self.replay_button, stretch=True),
            self.keep_form,
        )
        self.fill()

    def selected(self) -> Any:
        """The chosen run, or None."""
        return self.session.run_named(self.runs.currentData() or "")

    def select(self, run: RunRecord) -> None:
        """Choose a run."""
        self.runs.setCurrentIndex(self.runs.findData(run.name))

    def fill(self) -> None:
        """List the runs of the session with their states."""
        chosen = self.runs.currentData()
        self.runs.clear()
        for run in self.session.runs:
            self.runs.addItem(f"{run.name}, {run.state}", run.name)
        index = self.runs.findData(chosen)
        self.runs.setCurrentIndex(index if index >= 0 else self.runs.count() - 1)
        there = self.runs.count() > 0
        for widget in (
            self.show_button,
            self.remove_button,
            self.again_button,
            self.frames_button,
            self.scrub,
        ):
            widget.setEnabled(there)

    def show_run(self) -> None:
        """Tell that a run was chosen; offer its frames."""
        self._show()
        self.set_scrub_range()

    def _show_layer(self) -> None:
        run = self.selected()
        if run is not None:
            layer = self.workspace.run_layers.bring_back(run)
            if layer is None:
                self.session.message.emit("info", f"{run.name} has no volume yet", "")
            else:
                layer.visible = True
                self.workspace.viewer.layers.move(
                    self.workspace.viewer.layers.index(layer), len(self.workspace.viewer.layers)
                )
                self.workspace.viewer.layers.selection = {layer}

    def _remove(self) -> None:
        run = self.selected()
        if run is None:
            return
        if run.going_on:
            self.session.message.emit("warning", f"{run.name} is still going on: stop it first", "")
            return
        self.workspace.run_layers.remove(run)  # while it still has the frames that they show
        self.session.remove_run(run)
        self.fill()
        self.show_run()

    def _ask_replay(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self,
            "Replay a run",
            str(self.workspace.export_folder()),
            "Volumes and their records (*.json *.h5 *.tif *.mrc *.npy);;All files (*)",
        )
        if path:
            self.replay(Path(path))

    def replay(self, path: Path) -> None:
        """Make a run again from its volume or record, on its own measurement."""
        number = self.session.next_number()

        def work(report: Report) -> tuple[RunRecord, list[str]]:
            from ...session.replay import play, read_record

            record = read_record(path)
            report(0.1)
            return play(record, folder=path.parent, number=number), record.caveats()

        def failed(error: BaseException) -> None:
            self.session.report(error, f"{path.name} was not played again")

        def done(found: tuple[RunRecord, list[str]]) -> None:
            run, caveats = found
            try:
                self.workspace.runner.take(run)
            except ValueError as error:
                failed(error)
                return
            if caveats:
                text = f"{run.name}: the last digits may differ: {'; '.join(caveats)}"
                self.session.message.emit("info", text, "")

        self.workspace.jobs.run("replay", f"reading {path.name}", work, done, failed)

    def _take_settings(self) -> None:
        run = self.selected()
        if run is not None:
            self.session.change(
                "setup",
                **{
                    **run.setup.model_dump(),
                    "device": self.session.choices.setup.device,
                    "start": "",
                },
            )
            self.session.change_settings(run.solver, **run.first.model_dump())

    # ---- frames -----------------------------------------------------------------------------
    def set_scrub_range(self) -> None:
        """Offer the frames that are kept by now."""
        run = self.selected()
        count = 0 if run is None else len(run.frames)
        at_end = self.scrub.value() >= self.scrub.maximum()
        self.scrub.blockSignals(True)
        self.scrub.setRange(0, max(0, count - 1))
        if at_end or (run is not None and run.going_on):
            self.scrub.setValue(max(0, count - 1))
        self.scrub.blockSignals(False)
        on_disk = (
            ""
            if run is None or not run.frames.on_disk
            else f", {run.frames.on_disk} of them on disk"
        )
        self.scrub_text.setText(f"{count} frames kept{on_disk}" if count else "no frames yet")

    def _scrub(self, number: int) -> None:
        run = self.selected()
        if run is None or number >= len(run.frames):
            return
        if run.state == "running":
            self.workspace.runner.pause()  # one cannot look back and forward at once
        record = run.frames.kept[number]
        self.workspace.run_layers.scrub(run, run.frames.volume(number))
        index = int(record["index"])
        branch = next((b for b in run.branches if b.first <= index <= b.last), None)
        left = ""
        if branch is not None and branch.back_to is not None:
            left = f", of a branch that was left for step {branch.back_to}"
        self.scrub_text.setText(
            f"frame {number + 1} of {len(run.frames)}: step {record['step']}, "
            f"misfit {record['loss']:.4g} × shot noise{left}"
        )

    def _frames_layer(self) -> None:
        run = self.selected()
        if run is None or not len(run.frames) or run.problem is None:
            return
        self.workspace.run_layers.add_frames(run)
