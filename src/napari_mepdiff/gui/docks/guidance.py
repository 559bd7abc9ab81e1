"""The Guidance dock: how strongly the data steer, live while a run goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget, QSlider, QSpinBox

from ...reconstruction.diffusion.dps import DPSSettings
from ...session.tips import tip
from ..dock import Dock
from ..widgets.basic import Section, button, row, words
from ..widgets.boxes import ScientificBox
from ..widgets.forms import Form
from ..widgets.schedule import CurveEditor, default_curve

if TYPE_CHECKING:
    from ...session.runs import RunRecord

DECADES, PER_DECADE = (-3, 2), 50  # of the weight slider; its left end is 0


class GuidanceDock(Dock):
    """Weight, schedule and what else of the guidance can be turned while the picture forms."""

    title = "Guidance"

    def build(self) -> Iterator[None]:
        """Make the sections."""
        self.note = words()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, (DECADES[1] - DECADES[0]) * PER_DECADE + 1)
        self.slider.setTickPosition(QSlider.TickPosition.TicksBelow)
        self.slider.setTickInterval(PER_DECADE)
        self.slider.setToolTip(
            tip(
                "weight",
                "guidance weight on a logarithmic scale from 0.001 to 100; the left end is 0",
            )
        )
        self.slider.valueChanged.connect(self._slid)
        self._drag = ExitStack()
        self.slider.sliderPressed.connect(self._pressed)
        self.slider.sliderReleased.connect(self._drag.close)
        self.box = ScientificBox()
        self.box.setRange(0, 1e4)
        self.box.setKeyboardTracking(False)
        self.box.setMaximumWidth(90)
        self.box.setToolTip(self.slider.toolTip())
        self.box.valueChanged.connect(
            lambda v: self._change("weight", float(f"{v:.6g}"), merge=True)
        )
        yield
        self.editor = CurveEditor(lambda points: self._change("curve", points))
        self.form = Form(
            DPSSettings,
            ("guidance", "schedule", "misfit", "fraction", "inner", "odds", "adam_strength"),
            self._changed_field,
        )
        yield
        self.draw = button(
            "Draw my own",
            "Make the present schedule a free curve, with points to drag",
            self._own_curve,
        )
        self.straighten = button(
            "Reset points", "Six points on the paper's schedule again", self._reset_curve
        )
        self.add(
            self.note,
            Section("Weight").add(row(self.slider, self.box)),
            Section("Schedule g(λ)").add(
                self.editor, row(self.draw, self.straighten, stretch=True)
            ),
            Section("Guidance").add(self.form),
        )
        yield
        self.back_ten = button(
            "Back 10", "Back ten steps, and on from there (Alt+B)", self.workspace.do_back
        )
        self.step_box = QSpinBox()
        self.step_box.setPrefix("to step ")
        self.step_box.setToolTip("Where to go back to; the nearest kept step before it is taken")
        self.back_to = button(
            "Go back",
            "Go on from that step with the settings as they are now: a branch",
            self._back,
        )
        self.changes = QListWidget()
        self.changes.setMaximumHeight(110)
        self.changes.setToolTip(
            "What was changed in this run, and at which step. It is stored with every export, and "
            "mepdiff replay does it all again."
        )
        self.undo_button = button(
            "Undo",
            "Take the last change of settings back, in the run too (Alt+Z)",
            self.workspace.do_undo,
        )
        self.redo_button = button("Redo", "Make it again (Alt+Y)", self.workspace.do_redo)
        self.hold = button(
            "Pause", "Hold before the next step, or go on (Alt+P)", self.workspace.do_hold
        )
        self.add(
            Section("Steer").add(
                row(self.hold, self.undo_button, self.redo_button, stretch=True),
                row(self.back_ten, self.step_box, self.back_to, stretch=True),
                self.changes,
            )
        )
        yield
        self.listen(self.session.choices_changed, self._show)
        self.listen(self.session.frame_shown, self._frame)
        self.listen(self.session.run_changed, self._run_changed)
        self.listen(self.session.settings_taken, self._show)
        self._show()
        self._buttons()

    # ---- values -----------------------------------------------------------------------------
    def _settings(self) -> Any:
        """Those of the run that goes on, with what it changed itself; else those of the next."""
        return self.session.settings_in_force("dps")

    def _run(self) -> Any:
        """The diffusion run that goes on, or None."""
        run = self.session.active
        return run if run is not None and run.solver == "dps" else None

    def _reasons(self) -> dict[str, str]:
        """Fields that cannot be changed now, or would change nothing, and why."""
        run, settings = self._run(), self._settings()
        if run is None:
            return dict(settings.idle())
        fixed = dict.fromkeys(
            type(settings).model_fields.keys() - settings.live,
            "It holds for the whole run: stop, and begin a new one for that.",
        )
        return {**fixed, **run.control.idle}

    def _show(self, *_: Any) -> None:
        s = self._settings()
        for widget, value in ((self.slider, to_slider(s.weight)), (self.box, s.weight)):
            widget.blockSignals(True)
            widget.setValue(value)
            widget.blockSignals(False)
        self.form.show_values(s)
        self.editor.show_schedule(s.schedule, s.weight, s.curve, s.sigma_max, s.sigma_min)
        reasons = self._reasons()
        self.form.block(reasons)
        for name in ("inner", "odds", "adam_strength"):  # each belongs to one kind of guidance
            self.form.set_row_visible(name, name not in s.idle())
        for name, widgets in (
            ("weight", (self.slider, self.box)),
            ("schedule", (self.editor, self.draw, self.straighten)),
        ):
            reason = reasons.get(name, "")
            for each in widgets:
                each.setEnabled(not reason)
                if not each.property("tip"):
                    each.setProperty("tip", each.toolTip())
                each.setToolTip(reason or each.property("tip"))
        free = "schedule" not in reasons
        self.draw.setEnabled(free and s.schedule != "curve")
        self.straighten.setEnabled(free and s.schedule == "curve")
        if self.session.choices.setup.solver != "dps" and self._run() is None:
            self.note.setText(
                "Guidance belongs to diffusion posterior sampling; the chosen solver has none."
            )
        else:
            idle = s.idle() if self._run() is None else self._run().control.idle
            self.note.setText(self._about(idle))
        self.note.setVisible(bool(self.note.text()))

    @staticmethod
    def _about(idle: dict[str, str]) -> str:
        """Why the weight or its schedule has no effect, in a sentence; empty where they have."""
        reason = idle.get("weight") or idle.get("schedule") or ""
        what = "Weight and schedule have" if "weight" in idle else "The schedule has"
        return f"{what} no effect: {reason}." if reason else ""

    def _slid(self, position: int) -> None:
        self._change("weight", from_slider(position), merge=True)

    def _pressed(self) -> None:
        """From here to the release, what the slider does is one step of undo."""
        self._drag.close()
        self._drag.enter_context(self.session.one_undo_step())

    def _change(self, name: str, value: Any, merge: bool = False) -> None:
        try:
            self.session.change_settings("dps", merge=merge, **{name: value})
        except ValueError as error:
            self.session.report(error, "not taken")
            self._show()

    def _changed_field(self, name: str, value: Any) -> None:
        if name == "schedule" and value == "curve" and not self._settings().curve:
            self._own_curve()
            return
        self._change(name, value)

    def _own_curve(self) -> None:
        s = self._settings()
        schedule = s.schedule if s.schedule != "curve" else "shifted-sigmoid"
        self.session.change_settings(
            "dps", curve=default_curve(schedule, s.sigma_max, s.sigma_min), schedule="curve"
        )

    def _reset_curve(self) -> None:
        s = self._settings()
        self._change("curve", default_curve("shifted-sigmoid", s.sigma_max, s.sigma_min))

    # ---- the run ----------------------------------------------------------------------------
    def _frame(self, run: RunRecord) -> None:
        self.editor.show_position(run.frame.log_snr, self._settings().weight)
        self.step_box.setMaximum(max(0, run.frame.step - 1))
        if self.changes.count() != len(run.control.changes):
            self._show_changes(run)

    def _run_changed(self, run: RunRecord) -> None:
        self._buttons()
        self._show_changes(run)
        self._show()

    def _show_changes(self, run: RunRecord) -> None:
        self.changes.clear()
        titles = {n: f.title or n for n, f in type(run.first).model_fields.items()}
        for change in run.control.changes:
            if change.back is not None:
                self.changes.addItem(
                    f"step {change.step}: back to step {change.back}; the frames of the branch "
                    "that was left stay in the Reconstruct dock"
                )
                continue
            values = [f"{titles.get(k, k)} → {_short(v)}" for k, v in change.settings.items()]
            who = f" (by the solver: {change.reason})" if change.by == "solver" else ""
            self.changes.addItem(f"step {change.step}: {', '.join(values)}{who}")
        self.changes.scrollToBottom()

    def _buttons(self) -> None:
        run = self.session.active
        dps = self._run() is not None
        for widget in (self.back_ten, self.step_box, self.back_to):
            widget.setEnabled(dps)
        self.hold.setEnabled(run is not None and run.state in ("running", "paused"))
        self.hold.setText("Resume" if run is not None and run.state == "paused" else "Pause")
        if run is None:
            self.editor.show_position(None, 1.0)

    def _back(self) -> None:
        self.workspace.runner.back(self.step_box.value())


def _short(value: Any) -> str:
    return f"{len(value)} points" if isinstance(value, (list, tuple)) else str(value)


def to_slider(weight: float) -> int:
    """Position of a weight on the logarithmic slider; 0 at the left end."""
    if weight < 10.0 ** DECADES[0]:
        return 0
    return 1 + round((min(math.log10(weight), DECADES[1]) - DECADES[0]) * PER_DECADE)


def from_slider(position: int) -> float:
    """The weight there."""
    return (
        0.0 if position == 0 else float(f"{10 ** (DECADES[0] + (position - 1) / PER_DECADE):.3g}")
    )
