"""The Reconstruct dock: choose, estimate, run, watch, look back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QProgressBar

from ...reconstruction.estimate import clock
from ...session.choices import Watching
from ..dock import Dock
from ..widgets.basic import COLOURS, Section, Status, button, row, words
from ..widgets.curves import Curves
from ..widgets.forms import Form
from .automatic import AutomaticPart
from .diagnosis import DiagnosisSection
from .estimate import EstimateLine
from .lost import LostRunSection
from .runs import RunsSection
from .settings import SettingsSection
from .setup import SetupSection
from .undo import UndoSection

if TYPE_CHECKING:
    from ...measurement.dataset import FourDSTEM
    from ...session.runs import RunRecord

CURVES = 1.0  # s between drawings of the curves: they cost more than the picture
STOP = "End after the present step; the volume stays (Alt+S)"
LEAVE = (
    "Do not wait for the present step: the volume of the last whole step stays, what the step "
    "still brings is dropped. It goes on in the background until it ends, with its memory. (Alt+S)"
)


class ReconstructDock(Dock):
    """Runs: settings, start and stop, progress, curves, earlier frames."""

    title = "Reconstruct"

    def build(self) -> Iterator[None]:
        """Make the sections."""
        self._clock: list[tuple[int, float]] = []
        self._drawn = 0.0
        self.lost = LostRunSection(self.workspace)
        self.add(self.lost)
        self.setup = SetupSection(self.workspace)
        self.settings = SettingsSection(self.session)
        self.estimate = EstimateLine(self.workspace, self)
        self.automatic = AutomaticPart(self.workspace, self)
        self.add(self.setup, self.settings, self.settings.more)
        yield
        self.settings.of_solver(self.session.choices.setup.solver)
        yield
        self._build_run()
        yield
        self.runs = RunsSection(self.workspace, self._show_run)
        self.diagnosis = DiagnosisSection(self.workspace, self.runs.selected)
        self.add(self.diagnosis, self.runs)
        self.undo = UndoSection(self.workspace)
        self.add(self.undo)
        yield
        self._curves_due = QTimer(self)
        self._curves_due.setSingleShot(True)
        self._curves_due.timeout.connect(self._draw_curves)
        self._second = QTimer(self)
        self._second.setInterval(1000)
        self._second.timeout.connect(self._tick)
        s = self.session
        self.listen(s.measurement_changed, self._measured)
        self.listen(s.choices_changed, self._chosen)
        self.listen(s.run_added, self._run_added)
        self.listen(s.run_changed, self._run_changed)
        self.listen(s.settings_taken, self._taken)
        self.listen(s.frame_shown, self._frame)
        self.listen(self.workspace.chain.changed, self._buttons)
        self.listen(self.workspace.book.layers_changed, self.setup.layers_changed)
        self.setup.fill_devices()
        self.setup.layers_changed()
        self._show_choices()
        self._measured(s.data)
        for run in s.runs:
            self._run_added(run)

    def _taken(self, _run: Any, _settings: Any) -> None:
        self._show_choices()

    def _chosen(self, old: Any, new: Any) -> None:
        if old.setup != new.setup or old.settings != new.settings or old.watching != new.watching:
            self._show_choices()

    def _show_choices(self) -> None:
        self.setup.show_choices()
        self.settings.show_choices()
        self.watch_form.show_values(self.session.choices.watching)
        self.runs.keep_form.show_values(self.session.choices.watching)
        self.estimate.changed()
        self.automatic.changed()

    def _measured(self, data: FourDSTEM | None) -> None:
        self.estimate.forget()
        self.settings.read_elements(data)
        self._show_choices()
        self._buttons()

    # ---- run --------------------------------------------------------------------------------
    def _build_run(self) -> None:
        w = self.workspace
        self.start_button = button(
            "Start", "Begin a run with these settings (Alt+R)", w.do_toggle, primary=True
        )
        self.pause_button = button(
            "Pause",
            "Hold before the next step; settings can be changed meanwhile (Alt+P)",
            w.do_hold,
        )
        self.step_button = button("Step", "One step, then hold (Alt+N)", w.do_single)
        self.stop_button = button("Stop", STOP, w.do_stop)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.state_text = Status(3)
        self.doubt = words()
        self.doubt.setStyleSheet(f"color: {COLOURS['warning']};")
        self.doubt.hide()
        self.curves = Curves()
        self.watch_form = Form(
            Watching,
            ("follow", "sweep", "prediction"),
            lambda n, v: self.session.change("watching", **{n: v}),
        )
        self.run_section = Section("Run").add(
            self.estimate.text,
            row(self.start_button, self.pause_button, self.step_button, self.stop_button),
            self.automatic.row,
            self.automatic.said,
            self.bar,
            self.state_text,
            self.doubt,
            self.watch_form,
            self.curves,
        )
        self.add(self.run_section)
        self._buttons()

    def _buttons(self) -> None:
        run = self.session.active
        state = "" if run is None else run.state
        self.start_button.setText("Go on" if state == "paused" else "Start")
        between = self.workspace.chain.going_on and run is None  # two runs, or before the first
        free = self.session.data is not None and not between
        self.start_button.setEnabled(free and state in ("", "paused"))
        self.pause_button.setText("Resume" if state == "paused" else "Pause")
        self.pause_button.setEnabled(state in ("running", "paused"))
        self.step_button.setEnabled(state in ("running", "paused"))
        leave = self.workspace.runner.can_leave
        self.stop_button.setText("Leave it" if leave else "Stop")
        self.stop_button.setToolTip(LEAVE if leave else STOP)
        stops = between or state in ("starting", "running", "paused")
        self.stop_button.setEnabled(leave or stops)
        self.automatic.show_steps()

    def _run_changed(self, run: RunRecord) -> None:
        if run.state == "stopping":
            self._second.start()
        self._buttons()
        self.settings.lock()
        self.runs.fill()
        if self.session.active not in (None, run):  # of one that ended before, something is known
            self.diagnosis.show_run()
            return
        self._show_state(run)
        if run.state in ("done", "stopped", "failed"):
            self.estimate.soon()  # none was made for what changed while it went on
            self._clock.clear()
            self.runs.select(run)
            self.curves.show_run(run.number, run.frames.records, run.control.changes)
            self.runs.set_scrub_range()
            self.diagnosis.run_ended(run)

    def _run_added(self, run: RunRecord) -> None:
        self._clock.clear()
        self.runs.fill()
        self.runs.select(run)
        self.curves.clear()
        self.runs.show_run()

    def _show_run(self) -> None:
        """Curves and state of the run that is chosen."""
        run = self.runs.selected()
        self.diagnosis.show_run()
        if run is None:
            self.curves.clear()
            return
        self.curves.show_run(run.number, run.frames.records, run.control.changes)
        self._show_state(run)

    def _frame(self, run: RunRecord) -> None:
        frame = run.frame
        self._clock.append((frame.step, time.monotonic()))
        del self._clock[:-40]
        self._show_state(run)
        if self.runs.selected() is run and not self._curves_due.isActive():
            left = CURVES - (time.monotonic() - self._drawn)
            self._curves_due.start(max(0, round(1e3 * left)))

    def _draw_curves(self) -> None:
        """What has come since they were last drawn; the last frame before a pause, too."""
        run = self.runs.selected()
        if run is not None and run.going_on:
            self._drawn = time.monotonic()
            self.curves.show_run(run.number, run.frames.records, run.control.changes)
            self.runs.set_scrub_range()

    def _show_state(self, run: RunRecord) -> None:
        frame = run.frame
        # what is known of the cause stands in a section of its own
        doubt = "" if run.outcome is None or run.diagnosis else run.outcome.verdict
        self.doubt.setText(doubt)
        self.doubt.setVisible(bool(doubt))
        if frame is None:
            self.bar.setRange(0, 0 if run.state == "starting" else 1)
            self.bar.setFormat(run.state)
            stopping = run.state == "stopping"
            text = self._waiting_for(run) if stopping else f"{run.name}: {run.error or run.state}"
            self.state_text.setText(text)
            return
        # QProgressBar repaints at once, and the whole window with it: the repaint waits for others
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, frame.total)
        self.bar.setValue(frame.step)
        self.bar.setFormat(f"step {frame.step} of {frame.total}")
        self.bar.setUpdatesEnabled(True)
        parts = [f"<b>{run.name}</b>: {run.error or run.state}"]
        if run.state == "stopping":
            parts = [self._waiting_for(run)]
        elif run.going_on and run.stage:
            parts.append(run.stage)
        if (
            run.state == "running"
            and len(self._clock) > 1
            and self._clock[-1][0] > self._clock[0][0]
        ):
            rate = (self._clock[-1][0] - self._clock[0][0]) / max(
                1e-6, self._clock[-1][1] - self._clock[0][1]
            )
            parts.append(f"{rate:.2g} steps/s, {clock((frame.total - frame.step) / rate)} left")
        parts.append(f"misfit {frame.loss:.4g} × shot noise")
        if frame.log_snr is not None:
            parts.append(f"λ {frame.log_snr:.2f}")
        parts.append(f"{clock(frame.seconds)}")
        self.state_text.setText(" · ".join(parts))

    def _waiting_for(self, run: RunRecord) -> str:
        """What a run that shall stop is still doing, and for how long."""
        since = clock(self.workspace.runner.stopping_for or 0.0)
        doing = run.control.doing or "finishing the present step"
        kept = "" if run.frame is None else "; the volume so far is kept"
        return f"<b>{run.name}</b>: stopping since {since}, {doing}{kept}"

    def _tick(self) -> None:
        run = self.session.active
        if run is not None and run.state == "stopping":
            self._show_state(run)
            self._buttons()
        else:
            self._second.stop()
