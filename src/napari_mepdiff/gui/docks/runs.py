"""Runs of a session and what a crash left: a part of the Reconstruct dock."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QSlider, QWidget

from ..widgets import Section, Status, button, combo, row, words


class RunsPart:
    """Which runs there are, their earlier frames, and those that were interrupted. Mixed into the dock."""

    add: Any
    session: Any
    workspace: Any
    viewer: Any
    curves: Any
    keep_form: Any
    _clock: list[tuple[int, float]]
    _show_state: Any

    # ---- interrupted runs --------------------------------------------------------------------------------------
    def _build_interrupted(self) -> None:
        from ..recovery import interrupted

        self.section_interrupted = Section("Interrupted run")
        self.add(self.section_interrupted)
        found = interrupted()
        self.section_interrupted.setVisible(bool(found))
        if not found:
            return
        lost = found[0]
        when = time.strftime("%d %b %H:%M", time.localtime(lost.description.get("started", 0)))
        self.lost_text = words(f"{lost.name} of {lost.path}, begun {when}, did not come to its end.")
        buttons: list[QWidget] = []
        if lost.checkpoint is not None:
            buttons.append(button("Go on", "Open its data and go on from its last state", lambda: self._go_on(lost)))
        if lost.volume is not None:
            buttons.append(button("Show its volume", "The last volume it left, as a layer",
                                  partial(self.workspace.open_volume, lost.volume)))
        buttons.append(button("Forget it", "Remove what it left on disk", lambda: self._forget(lost)))
        self.section_interrupted.add(self.lost_text, row(*buttons, stretch=True))

    def _forget(self, lost: Any) -> None:
        lost.discard()
        self.section_interrupted.hide()

    def _go_on(self, lost: Any) -> None:
        """Open the data of an interrupted run, set its choices, start from its state."""
        choices = lost.description["choices"]

        def then(data: Any) -> None:
            if data is None:
                return
            self.session.measurement_changed.disconnect(then)
            self.session.change("preparation", **choices["preparation"])
            self.session.change("setup", **choices["setup"])
            self.session.change_settings(lost.description["solver"], **lost.description["settings"])
            QTimer.singleShot(0, lambda: self.workspace.start(lost.checkpoint))
            self.section_interrupted.hide()

        self.session.measurement_changed.connect(then)
        self.workspace.open(lost.path)

    # ---- runs --------------------------------------------------------------------------------------------------
    def _build_runs(self) -> None:
        self.runs = combo(tip="Runs of this session. Curves and frames below are those of the chosen one.")
        self.runs.activated.connect(lambda _i: self._show_run())
        self.show_button = button("Show layer", "Bring the layer of this run back, or to the top", self._show_layer)
        self.remove_button = button("Remove", "Forget this run with its frames and layers. Exported files stay.", self._remove)
        self.again_button = button("Its settings", "Set all fields as they were at the start of this run (undo brings yours back)",
                                   self._take_settings)
        self.scrub = QSlider(Qt.Orientation.Horizontal)
        self.scrub.setToolTip("Look back through the frames of this run; the newest is at the right")
        self.scrub.valueChanged.connect(self._scrub)
        self.scrub_text = Status(1)
        self.frames_button = button("Frames as a layer", "All kept frames as one layer with a step axis to scrub through",
                                    self._frames_layer)
        self.runs_section = Section("Runs and their frames").add(
            self.runs, row(self.show_button, self.again_button, self.remove_button), self.scrub, self.scrub_text,
            row(self.frames_button, stretch=True), self.keep_form)
        self.add(self.runs_section)
        self.keep_form.show_values(self.session.choices.watching)
        self._fill_runs()

    def _selected(self) -> Any:
        return self.session.run_named(self.runs.currentData() or "")

    def _run_added(self, run: Any) -> None:
        self._clock.clear()
        self._fill_runs()
        self._select(run)
        self.curves.clear()
        self._show_run()

    def _select(self, run: Any) -> None:
        self.runs.setCurrentIndex(self.runs.findData(run.name))

    def _fill_runs(self) -> None:
        chosen = self.runs.currentData()
        self.runs.clear()
        for run in self.session.runs:
            self.runs.addItem(f"{run.name}, {run.state}", run.name)
        index = self.runs.findData(chosen)
        self.runs.setCurrentIndex(index if index >= 0 else self.runs.count() - 1)
        there = self.runs.count() > 0
        for widget in (self.show_button, self.remove_button, self.again_button, self.frames_button, self.scrub):
            widget.setEnabled(there)

    def _show_run(self) -> None:
        run = self._selected()
        if run is None:
            self.curves.clear()
            return
        self.curves.show_run(run.number, run.frames.records, run.control.changes)
        self._set_scrub_range()
        self._show_state(run)

    def _show_layer(self) -> None:
        run = self._selected()
        if run is not None:
            layer = self.workspace.book.bring_back(run)
            if layer is None:
                self.session.message.emit("info", f"{run.name} has no volume yet", "")
            else:
                layer.visible = True
                self.viewer.layers.move(self.viewer.layers.index(layer), len(self.viewer.layers))
                self.viewer.layers.selection = {layer}

    def _remove(self) -> None:
        run = self._selected()
        if run is None:
            return
        try:
            self.session.remove_run(run)
        except ValueError as error:
            self.session.message.emit("warning", str(error), "")
            return
        self.workspace.book.remove(run)
        self._fill_runs()
        self._show_run()

    def _take_settings(self) -> None:
        run = self._selected()
        if run is not None:
            self.session.change("setup", **{**run.setup.model_dump(), "device": self.session.choices.setup.device, "start": ""})
            self.session.change_settings(run.solver, **run.first.model_dump())

    # ---- frames ------------------------------------------------------------------------------------------------
    def _set_scrub_range(self) -> None:
        run = self._selected()
        count = 0 if run is None else len(run.frames)
        at_end = self.scrub.value() >= self.scrub.maximum()
        self.scrub.blockSignals(True)
        self.scrub.setRange(0, max(0, count - 1))
        if at_end or (run is not None and run.going_on):
            self.scrub.setValue(max(0, count - 1))
        self.scrub.blockSignals(False)
        on_disk = "" if run is None or not run.frames.on_disk else f", {run.frames.on_disk} of them on disk"
        self.scrub_text.setText(f"{count} frames kept{on_disk}" if count else "no frames yet")

    def _scrub(self, number: int) -> None:
        run = self._selected()
        if run is None or number >= len(run.frames):
            return
        if run.state == "running":
            self.workspace.runner.pause()  # one cannot look back and forward at once
        record = run.frames.kept[number]
        self.workspace.book.scrub(run, run.frames.volume(number))
        self.scrub_text.setText(f"frame {number + 1} of {len(run.frames)}: step {record['step']}, misfit {record['loss']:.4g} "
                                f"× shot noise")

    def _frames_layer(self) -> None:
        run = self._selected()
        if run is None or not len(run.frames) or run.problem is None:
            return
        self.workspace.book.add_frames(run)
