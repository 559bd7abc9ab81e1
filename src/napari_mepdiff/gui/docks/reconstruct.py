"""The Reconstruct dock: choose, estimate, run, watch, look back."""

from __future__ import annotations

import time
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QProgressBar

from ...reconstruction.estimate import clock
from ...reconstruction.preview import NOTICE
from ...reconstruction.registry import SOLVERS
from ..choices import Setup, Watching
from ..dock import Dock
from ..forms import Form
from ..layers import images
from ..plots import Curves
from ..widgets import Section, Status, button, combo, row, words
from .runs import RunsPart

FIRST = {
    "dps": ("elements", "steps", "samples", "seed"),
    "adam": ("iterations", "learning_rate", "misfit", "non_negative", "seed"),
    "lbfgs": ("iterations", "evaluations", "batch", "misfit", "non_negative", "seed"),
    "atomic": ("elements", "iterations", "misfit"),
    "refine": ("iterations", "learning_rate", "probe_rate", "position_rate", "misfit"),
}
ELSEWHERE = {"weight", "schedule", "curve", "misfit", "fraction", "inner", "guidance", "odds"}  # in the Guidance dock
CURVES = 1.0  # s between drawings of the curves: they cost more than the picture
HIDDEN = {"solver", "engine", "keep"}


class ReconstructDock(RunsPart, Dock):
    """Runs: settings, start and stop, progress, curves, earlier frames."""

    title = "Reconstruct"

    def build(self) -> None:
        """Make the sections."""
        self._forms: dict[str, tuple[Form, Form]] = {}
        self._offered = ""  # the file whose elements were taken over
        self._clock: list[tuple[int, float]] = []
        self._estimated: Any = None
        self._drawn = 0.0
        self._build_interrupted()
        self._build_setup()
        self._build_run()
        self._build_runs()
        self._build_keys()
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(500)
        self._wait.timeout.connect(self.estimate)
        s = self.session
        self.listen(s.measurement_changed, self._measured)
        self.listen(s.choices_changed, self._chosen)
        self.listen(s.run_added, self._run_added)
        self.listen(s.run_changed, self._run_changed)
        self.listen(s.frame_shown, self._frame)
        self.listen(self.viewer.layers.events.inserted, self._layers_changed)
        self.listen(self.viewer.layers.events.removed, self._layers_changed)
        self._fill_devices()
        self._layers_changed()
        self._show_choices()
        self._measured(s.data)
        for run in s.runs:
            self._run_added(run)

    # ---- setup -------------------------------------------------------------------------------------------------
    def _build_setup(self) -> None:
        self.solver = combo([(entry.title, name) for name, entry in SOLVERS.items()],
                            "Diffusion posterior sampling finds depth; the ordinary solvers are there to compare with")
        self.solver.activated.connect(lambda i: self._change("solver", self.solver.itemData(i)))
        self.device = combo(tip="Where the work is done. A GPU is many times faster.")
        self.device.activated.connect(lambda i: self._change("device", self.device.itemData(i)))
        self.start_from = combo(tip="A volume to begin from: a layer of the same grid. Diffusion sampling adds noise to it first.")
        self.start_from.activated.connect(lambda i: self._change("start", self.start_from.itemData(i)))
        self.preview = QCheckBox("Preview")
        self.preview.setToolTip("A first look within seconds on a machine without a GPU: every second detector pixel, a part "
                                "of the "
                                "positions, few steps, the compact prior. Not a result.")
        self.preview.toggled.connect(lambda on: self._change("preview", on))
        self.preview_text = words(NOTICE, small=True)
        self.form = Form(Setup, ("slices", "slice_thickness", "modes"), self._change)
        self.form.layout_.insertRow(0, "Solver", self.solver)
        self.form.layout_.addRow("Device", self.device)
        self.form.layout_.addRow("Start from", self.start_from)
        self.canvas = words("", small=True)
        self.setup = Section("What to reconstruct").add(self.form, self.canvas, row(self.preview, stretch=True), self.preview_text)
        self.settings = Section("Settings")
        self.more = Section("All settings", folded=True)
        self.add(self.setup, self.settings, self.more)

    def _fill_devices(self) -> None:
        from ...devices import devices

        self.device.clear()
        for item in devices():
            self.device.addItem(str(item), item.name)
        if self.session.choices.setup.device not in [self.device.itemData(i) for i in range(self.device.count())]:
            self._change("device", self.device.itemData(0))  # a GPU that is no longer there

    def _solver_forms(self, name: str) -> tuple[Form, Form]:
        """Forms of a solver, made when it is first chosen."""
        if name not in self._forms:
            model = SOLVERS[name].settings_type()
            base = name.removeprefix("ptyrad-")
            first = [f for f in FIRST[base] if f in model.model_fields]
            skip = {*first, *HIDDEN, *(ELSEWHERE if name == "dps" else ())}
            rest = [f for f in model.model_fields if f not in skip]
            forms = (Form(model, first, self._change_settings), Form(model, rest, self._change_settings))
            self.settings.add(forms[0])
            self.more.add(forms[1])
            self._forms[name] = forms
        return self._forms[name]

    def _change(self, name: str, value: Any) -> None:
        self.session.change("setup", **{name: value})

    def _change_settings(self, name: str, value: Any) -> None:
        self.session.change_settings(**{name: value})

    def _chosen(self, old: Any, new: Any) -> None:
        if old.setup != new.setup or old.settings != new.settings or old.watching != new.watching:
            self._show_choices()

    def _show_choices(self) -> None:
        setup = self.session.choices.setup
        self.solver.setCurrentIndex(self.solver.findData(setup.solver))
        self.device.setCurrentIndex(max(0, self.device.findData(setup.device)))
        self.start_from.setCurrentIndex(max(0, self.start_from.findData(setup.start)))
        self.preview.blockSignals(True)
        self.preview.setChecked(setup.preview)
        self.preview.blockSignals(False)
        self.preview_text.setVisible(setup.preview)
        data = self.session.data
        truth = None if data is None else data.truth
        self.form.show_values(setup, {"slices": truth.shape[0] if truth is not None else 8,
                                      "slice_thickness": truth.voxel_size[0] if truth is not None else 1.6})
        forms = self._solver_forms(setup.solver)
        for name, pair in self._forms.items():
            for form in pair:
                form.setVisible(name == setup.solver)
        settings: Any = self.session.settings()
        hints = {"samples": "8 with elements, else 1", "passes": "4 with elements, else 1", "rho": "1, or 7 for karras",
                 "batch": "all", "elements": "e.g. Sr, Ti, O"}
        for form in forms:
            form.show_values(settings, hints)
        self.watch_form.show_values(self.session.choices.watching)
        self._lock()
        self._show_canvas()
        if self._estimate_key() != self._estimated:
            self.estimate_text.setText("")
        self._wait.start()

    def _lock(self) -> None:
        """Grey out what a run that goes on cannot take."""
        run = self.session.active
        for name, pair in self._forms.items():
            fixed = SOLVERS[name].settings_type().fixed if run is not None and run.solver == name else frozenset()
            for form in pair:
                form.set_enabled(form.rows, True)
                form.set_enabled(fixed, False)

    def _layers_changed(self, _event: Any = None) -> None:
        chosen = self.session.choices.setup.start
        self.start_from.clear()
        self.start_from.addItem("nothing", "")
        for layer in images(self.viewer):
            self.start_from.addItem(layer.name, layer.name)
        index = self.start_from.findData(chosen)
        self.start_from.setCurrentIndex(max(0, index))
        if chosen and index < 0:
            self._change("start", "")

    def _measured(self, data: Any) -> None:
        self._estimated = None
        self._offer_elements(data)
        self._show_choices()
        self._buttons()

    def _offer_elements(self, data: Any) -> None:
        """The elements of a simulated crystal, which its file names."""
        if self.session.path == self._offered:
            return  # what the user made of them since then stays, and so does what can be undone
        self._offered = self.session.path
        crystal = None if data is None else data.provenance.get("crystal")
        formula = crystal.get("formula") if isinstance(crystal, dict) else None
        if not formula:
            return
        import re

        found = tuple(dict.fromkeys(re.findall("[A-Z][a-z]?", formula)))
        for name in ("dps", "atomic"):
            settings: Any = self.session.settings(name)
            if set(settings.elements) != set(found):
                self.session.change_settings(name, elements=found)

    def _show_canvas(self) -> None:
        data, setup = self.session.data, self.session.choices.setup
        if data is None:
            self.canvas.setText("no data yet: open some in the Data dock")
            return
        try:
            from ...physics.scan import canvas_shape

            pixel = data.real_pixel
            truth = data.truth
            slices = setup.slices or (truth.shape[0] if truth is not None else 8)
            thickness = setup.slice_thickness or (truth.voxel_size[0] if truth is not None else 1.6)
            canvas = data.canvas if data.boundary == "periodic" else canvas_shape(data.scan_positions(), pixel,
                                                                                  data.detector_shape)[0]
            assert canvas is not None
            self.canvas.setText(f"volume {slices} × {canvas[0]} × {canvas[1]} voxels of {thickness:.3g} × {pixel[0]:.3g} × "
                                f"{pixel[1]:.3g} Å: {slices * thickness:.1f} × {canvas[0] * pixel[0]:.1f} × "
                                f"{canvas[1] * pixel[1]:.1f} Å, "
                                f"{data.boundary} field")
        except (ValueError, AssertionError) as error:
            self.canvas.setText(str(error))

    # ---- estimate ----------------------------------------------------------------------------------------------
    def _estimate_key(self) -> Any:
        """What an estimate depends on."""
        choices = self.session.choices
        return choices.setup, choices.settings.get(choices.setup.solver), choices.preparation, self.session.path

    def estimate(self) -> None:
        """Measure how long the run would take, in the background."""
        data, session = self.session.data, self.session
        if data is None or session.active is not None or self.workspace.jobs.busy("look"):
            if data is not None and session.active is None:
                self._wait.start()
            return
        setup = session.choices.setup
        key = self._estimate_key()
        if self._estimated == key:
            return
        try:
            settings = session.run_settings()
        except ValueError as error:
            self.estimate_text.setText(str(error))
            return

        def work(_report: Any) -> Any:
            from ...reconstruction.estimate import estimate
            from ...reconstruction.problem import Problem

            problem = Problem.from_data(data, slices=setup.slices, slice_thickness=setup.slice_thickness, modes=setup.modes,
                                        device=setup.device, check=False)
            return estimate(problem, settings)

        def done(found: Any) -> None:
            if key != self._estimate_key():
                return
            self._estimated = key
            self.estimate_text.setText(f"Estimated: {found}.")

        self.workspace.jobs.run("estimate", "estimating time and memory", work, done,
                                lambda error: self.estimate_text.setText(f"No estimate: {error}"))

    # ---- run ---------------------------------------------------------------------------------------------------
    def _build_run(self) -> None:
        w = self.workspace
        self.estimate_text = words("", small=True)
        self.start_button = button("Start", "Begin a run with these settings (Alt+R)", w.do_toggle, primary=True)
        self.pause_button = button("Pause", "Hold before the next step; settings can be changed meanwhile (Alt+P)", w.do_hold)
        self.step_button = button("Step", "One step, then hold (Alt+N)", w.do_single)
        self.stop_button = button("Stop", "End after the present step; the volume stays (Alt+S)", w.do_stop)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.state_text = Status(3)
        self.curves = Curves()
        self.watch_form = Form(Watching, ("follow", "sweep", "prediction"), lambda n, v: self.session.change("watching", **{n: v}))
        self.keep_form = Form(Watching, ("keep_every", "budget"), lambda n, v: self.session.change("watching", **{n: v}))
        self.run_section = Section("Run").add(
            self.estimate_text, row(self.start_button, self.pause_button, self.step_button, self.stop_button), self.bar,
            self.state_text,
            self.watch_form, self.curves)
        self.add(self.run_section)
        self._buttons()

    def _buttons(self) -> None:
        run = self.session.active
        state = "" if run is None else run.state
        self.start_button.setText("Go on" if state == "paused" else "Start")
        self.start_button.setEnabled(self.session.data is not None and state in ("", "paused"))
        self.pause_button.setText("Resume" if state == "paused" else "Pause")
        self.pause_button.setEnabled(state in ("running", "paused"))
        self.step_button.setEnabled(state in ("running", "paused"))
        self.stop_button.setEnabled(state in ("starting", "running", "paused"))

    def _run_changed(self, run: Any) -> None:
        self._buttons()
        self._lock()
        self._fill_runs()
        self._show_state(run)
        if run.state in ("done", "stopped", "failed"):
            self._clock.clear()
            self._select(run)
            self.curves.show_run(run.number, run.frames.records, run.control.changes)
            self._set_scrub_range()

    def _frame(self, run: Any) -> None:
        frame = run.frame
        self._clock.append((frame.step, time.monotonic()))
        del self._clock[:-40]
        self._show_state(run)
        if self._selected() is run and time.monotonic() - self._drawn > CURVES:
            self._drawn = time.monotonic()
            self.curves.show_run(run.number, run.frames.records, run.control.changes)
            self._set_scrub_range()

    def _show_state(self, run: Any) -> None:
        frame = run.frame
        if frame is None:
            self.bar.setRange(0, 0 if run.state == "starting" else 1)
            self.bar.setFormat(run.state)
            self.state_text.setText(f"{run.name}: {run.error or run.state}")
            return
        # QProgressBar repaints at once, and the whole window with it; so the repaint is held and done with all others
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, frame.total)
        self.bar.setValue(frame.step)
        self.bar.setFormat(f"step {frame.step} of {frame.total}")
        self.bar.setUpdatesEnabled(True)
        parts = [f"<b>{run.name}</b>: {run.error or run.state}"]
        if run.going_on and run.stage:
            parts.append(run.stage)
        if run.state == "running" and len(self._clock) > 1 and self._clock[-1][0] > self._clock[0][0]:
            rate = (self._clock[-1][0] - self._clock[0][0]) / max(1e-6, self._clock[-1][1] - self._clock[0][1])
            parts.append(f"{rate:.2g} steps/s, {clock((frame.total - frame.step) / rate)} left")
        parts.append(f"misfit {frame.loss:.4g} × shot noise")
        if frame.log_snr is not None:
            parts.append(f"λ {frame.log_snr:.2f}")
        parts.append(f"{clock(frame.seconds)}")
        self.state_text.setText(" · ".join(parts))

    # ---- keyboard ----------------------------------------------------------------------------------------------
    def _build_keys(self) -> None:
        lines = [f"<tr><td><b>{key.replace('-', '+')}</b>&nbsp;&nbsp;</td><td>{title}</td></tr>"
                 for key, (title, _name) in self.workspace.KEYS.items()]
        self.undo_button = button("Undo", "Take the last change of settings back (Alt+Z)", self.workspace.do_undo)
        self.redo_button = button("Redo", "Make it again (Alt+Y)", self.workspace.do_redo)
        self.add(Section("Undo and keyboard", folded=True).add(row(self.undo_button, self.redo_button, stretch=True),
                                                               words("<table>" + "".join(lines) + "</table>"
                                                                     "All of these are in the command palette too.")))

