"""The Guidance dock: how strongly the data steer, live while a run goes on."""

from __future__ import annotations

import math
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget, QSlider, QSpinBox

from ...reconstruction.dps import DPSSettings
from ..dock import Dock
from ..forms import Form, ScientificBox
from ..plots import CurveEditor, default_curve
from ..tips import tip
from ..widgets import Section, button, row, words

DECADES, PER_DECADE = (-3, 2), 50  # of the weight slider; its left end is 0


class GuidanceDock(Dock):
    """Weight, schedule and what else of the guidance can be turned while the picture forms."""

    title = "Guidance"

    def build(self) -> None:
        """Make the sections."""
        self.note = words()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, (DECADES[1] - DECADES[0]) * PER_DECADE + 1)
        self.slider.setTickPosition(QSlider.TickPosition.TicksBelow)
        self.slider.setTickInterval(PER_DECADE)
        self.slider.setToolTip(tip("weight", "guidance weight on a logarithmic scale from 0.001 to 100; the left end is 0"))
        self.slider.valueChanged.connect(self._slid)
        self.box = ScientificBox()
        self.box.setRange(0, 1e4)
        self.box.setKeyboardTracking(False)
        self.box.setMaximumWidth(90)
        self.box.setToolTip(self.slider.toolTip())
        self.box.valueChanged.connect(lambda v: self._change("weight", float(f"{v:.6g}")))
        self.editor = CurveEditor(lambda points: self._change("curve", points))
        self.form = Form(DPSSettings, ("guidance", "schedule", "misfit", "fraction", "inner", "odds"), self._changed_field)
        self.draw = button("Draw my own", "Make the present schedule a free curve, with points to drag", self._own_curve)
        self.straighten = button("Reset points", "Six points on the paper's schedule again", self._reset_curve)
        self.add(self.note,
                 Section("Weight").add(row(self.slider, self.box)),
                 Section("Schedule g(λ)").add(self.editor, row(self.draw, self.straighten, stretch=True)),
                 Section("Guidance").add(self.form))
        self.back_ten = button("Back 10", "Back ten steps, and on from there (Alt+B)", self.workspace.do_back)
        self.step_box = QSpinBox()
        self.step_box.setPrefix("to step ")
        self.step_box.setToolTip("Where to go back to; the nearest kept step before it is taken")
        self.back_to = button("Go back", "Go on from that step with the settings as they are now: a branch", self._back)
        self.changes = QListWidget()
        self.changes.setMaximumHeight(110)
        self.changes.setToolTip("What was changed in this run, and at which step. It is stored with every export, and mepdiff "
                                "replay does "
                                "it all again.")
        self.undo_button = button("Undo", "Take the last change of settings back, in the run too (Alt+Z)", self.workspace.do_undo)
        self.redo_button = button("Redo", "Make it again (Alt+Y)", self.workspace.do_redo)
        self.hold = button("Pause", "Hold before the next step, or go on (Alt+P)", self.workspace.do_hold)
        self.add(Section("Steer").add(row(self.hold, self.undo_button, self.redo_button, stretch=True),
                                      row(self.back_ten, self.step_box, self.back_to, stretch=True), self.changes))
        self.listen(self.session.choices_changed, self._show)
        self.listen(self.session.frame_shown, self._frame)
        self.listen(self.session.run_changed, self._run_changed)
        self._show()
        self._buttons()

    # ---- values ------------------------------------------------------------------------------------------------
    def _settings(self) -> Any:
        return self.session.settings("dps")

    def _show(self, *_: Any) -> None:
        s = self._settings()
        run = self.session.active
        for widget, value in ((self.slider, to_slider(s.weight)), (self.box, s.weight)):
            widget.blockSignals(True)
            widget.setValue(value)
            widget.blockSignals(False)
        self.form.show_values(s)
        self.editor.show_schedule(s.schedule, s.weight, s.curve, s.sigma_max, s.sigma_min)
        kind = self._kind()
        atoms = kind == "atoms"
        self.form.set_row_visible("odds", atoms)
        self.form.set_row_visible("inner", kind in ("decoupled",))
        self.form.set_enabled(("guidance",), run is None)
        self.draw.setEnabled(s.schedule != "curve")
        self.straighten.setEnabled(s.schedule == "curve")
        if self.session.choices.setup.solver != "dps":
            self.note.setText("Guidance belongs to diffusion posterior sampling; the chosen solver has none.")
        elif atoms:
            self.note.setText("Guidance by whole atoms: the data choose the slices of atoms between passes, and the odds say "
                              "how firmly "
                              "the network's samples pull. Weight and schedule act on free voxels only; choose the guidance "
                              "'decoupled', 'adam' or 'paper' to use them.")
        else:
            self.note.setText("")
        self.note.setVisible(bool(self.note.text()))

    def _kind(self) -> str:
        """The guidance that a run would have, or has."""
        run = self.session.active
        if run is not None and run.frame is not None and "guidance" in run.frame.info:
            return str(run.frame.info["guidance"])
        s = self._settings()
        if self.session.choices.setup.preview:
            return "paper"
        return "atoms" if s.guidance == "atoms" or (s.guidance == "auto" and s.elements) else s.guidance

    def _slid(self, position: int) -> None:
        self._change("weight", from_slider(position))

    def _change(self, name: str, value: Any) -> None:
        try:
            self.session.change_settings("dps", **{name: value})
        except ValueError as error:
            self.session.report(error, "not taken")
            self._show()

    def _changed_field(self, name: str, value: Any) -> None:
        if name == "schedule" and value == "curve" and not self._settings().curve:
            self._own_curve()
            return
        self.session.change_settings("dps", **{name: value})

    def _own_curve(self) -> None:
        s = self._settings()
        schedule = s.schedule if s.schedule != "curve" else "shifted-sigmoid"
        self.session.change_settings("dps", curve=default_curve(schedule, s.sigma_max, s.sigma_min), schedule="curve")

    def _reset_curve(self) -> None:
        s = self._settings()
        self._change("curve", default_curve("shifted-sigmoid", s.sigma_max, s.sigma_min))

    # ---- the run -----------------------------------------------------------------------------------------------
    def _frame(self, run: Any) -> None:
        self.editor.show_position(run.frame.log_snr, self._settings().weight)
        self.step_box.setMaximum(max(0, run.frame.step - 1))
        if self.changes.count() != len(run.control.changes):
            self._show_changes(run)

    def _run_changed(self, run: Any) -> None:
        self._buttons()
        self._show_changes(run)
        self._show()

    def _show_changes(self, run: Any) -> None:
        self.changes.clear()
        for step, change in run.control.changes:
            if "back" in change:
                self.changes.addItem(f"step {step}: back to step {change['back']}")
            else:
                who = " (the solver itself)" if change.get("by") == "solver" else ""
                text = ", ".join(f"{k} → {v if not isinstance(v, list) else f'{len(v)} points'}" for k, v in change.items()
                                 if k not in ("by", "reason"))
                self.changes.addItem(f"step {step}: {text}{who}")
        self.changes.scrollToBottom()

    def _buttons(self) -> None:
        run = self.session.active
        dps = run is not None and run.solver == "dps"
        for widget in (self.back_ten, self.step_box, self.back_to):
            widget.setEnabled(dps)
        self.hold.setEnabled(run is not None and run.state in ("running", "paused"))
        self.hold.setText("Resume" if run is not None and run.state == "paused" else "Pause")
        if run is None:
            self.editor.show_position(None, 1.0)

    def _back(self) -> None:
        self.workspace.runner.back(self.step_box.value())


def to_slider(weight: float) -> int:
    """Position of a weight on the logarithmic slider; 0 at the left end."""
    if weight < 10.0 ** DECADES[0]:
        return 0
    return 1 + round((min(math.log10(weight), DECADES[1]) - DECADES[0]) * PER_DECADE)


def from_slider(position: int) -> float:
    """The weight there."""
    return 0.0 if position == 0 else float(f"{10 ** (DECADES[0] + (position - 1) / PER_DECADE):.3g}")
