"""Session: the evented state that the docks share. No Qt here; everything works from Python as it does from the docks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ..reconstruction.registry import SOLVERS
from .choices import Choices
from .record import RunRecord

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..measurement.validation import Finding
    from ..measurement.virtual import Summary
    from ..reconstruction.stream import SolverSettings

UNDO = 100  # steps


class Session:
    """Measurement, choices and runs of one viewer.

    Attributes
    ----------
    raw, data : FourDSTEM or None
        As the file has it, and as prepared.
    path : str
        Of the file, or the name of a sample.
    summary, findings
        Of the prepared data; None until they have been looked through.
    choices : Choices
        Frozen; replaced by :meth:`change`.
    runs : list of RunRecord
        In the order they were started.
    """

    measurement_changed = Signal(object)  # FourDSTEM or None: another file, or prepared otherwise
    summary_changed = Signal()
    choices_changed = Signal(object, object)  # before, after
    run_added = Signal(object)
    run_changed = Signal(object)  # state, error, changes
    frame_shown = Signal(object)  # the RunRecord whose newest frame has been put on the screen
    exported_changed = Signal(object)  # list of paths
    message = Signal(str, str, str)  # level (info, warning, error), text, details

    def __init__(self, choices: Choices | None = None) -> None:
        self.choices = choices or Choices()
        self.raw: FourDSTEM | None = None
        self.data: FourDSTEM | None = None
        self.path = ""
        self.open_options: dict[str, Any] = {}
        self.summary: Summary | None = None
        self.findings: list[Finding] | None = None
        self.runs: list[RunRecord] = []
        self.exported: list[str] = []
        self._undo: list[Choices] = []
        self._redo: list[Choices] = []
        self._counter = 0

    # ---- choices -----------------------------------------------------------------------------------------------
    def change(self, part: str, **fields: Any) -> Choices:
        """Change fields of a part of the choices ('preparation', 'setup', 'watching', 'comparison', 'export'), validated.

        Raises
        ------
        ValueError
            If a value is out of range; nothing changes then.
        """
        old = getattr(self.choices, part)
        new = type(old).model_validate({**old.model_dump(), **fields})
        return self._set(self.choices.model_copy(update={part: new}))

    def change_settings(self, solver: str | None = None, /, **fields: Any) -> SolverSettings:
        """Change fields of a solver's settings, validated; a run of that solver that is going on takes them before its next step.

        Raises
        ------
        ValueError
            If a value is out of range or does not fit the others; nothing changes then.
        """
        name = solver or self.choices.setup.solver
        before = self.settings(name)
        after = type(before).model_validate({**before.model_dump(), **fields})
        plain = SOLVERS[name].default()
        differing = {k: v for k, v in after.model_dump(mode="json").items() if v != plain.model_dump(mode="json")[k]}
        self._set(self.choices.model_copy(update={"settings": {**self.choices.settings, name: differing}}))
        return after

    def settings(self, solver: str | None = None) -> SolverSettings:
        """Settings of a solver (the chosen one)."""
        name = solver or self.choices.setup.solver
        kept = self.choices.settings.get(name, {})
        try:
            return SOLVERS[name].default(**kept)
        except ValueError:  # remembered by another version
            return SOLVERS[name].default()

    def run_settings(self) -> SolverSettings:
        """Settings that a run would begin with: those of the chosen solver, reduced where a preview is wanted."""
        setup = self.choices.setup
        if not setup.preview:
            return self.settings()
        from ..reconstruction.preview import preview

        return preview(setup.solver, self.settings())

    def undo(self) -> bool:
        """Take the last change of choices back. False if there is none."""
        return self._travel(self._undo, self._redo)

    def redo(self) -> bool:
        """Make a change again that was taken back."""
        return self._travel(self._redo, self._undo)

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        """Whether there is a change to make again."""
        return bool(self._redo)

    def _travel(self, source: list[Choices], target: list[Choices]) -> bool:
        if not source:
            return False
        target.append(self.choices)
        self._install(source.pop())
        return True

    def _set(self, new: Choices) -> Choices:
        if new != self.choices:
            self._undo.append(self.choices)
            del self._undo[:-UNDO]
            self._redo.clear()
            self._install(new)
        return self.choices

    def _install(self, new: Choices) -> None:
        old, self.choices = self.choices, new
        if old.preparation != new.preparation and self.raw is not None:
            try:
                self._prepare()
            except ValueError as error:
                self.choices = old
                if self._undo and self._undo[-1] is old:
                    self._undo.pop()
                self.message.emit("error", str(error), "")
                self.choices_changed.emit(new, old)
                return
        self.choices_changed.emit(old, new)
        self._steer(old, new)

    def _steer(self, old: Choices, new: Choices) -> None:
        """A change of settings reaches the run that is going on."""
        run = self.active
        if run is not None and old.settings.get(run.solver) != new.settings.get(run.solver):
            run.steer(self.settings(run.solver))
            self.run_changed.emit(run)

    # ---- measurement -------------------------------------------------------------------------------------------
    def take(self, data: FourDSTEM, path: str, **options: Any) -> None:
        """A measurement that was opened. Preparation of another file is forgotten (undo brings it back)."""
        from ..measurement.preparation import Preparation

        if path != self.path and self.choices.preparation != Preparation():
            self._undo.append(self.choices)
            old, self.choices = self.choices, self.choices.model_copy(update={"preparation": Preparation()})
            self.choices_changed.emit(old, self.choices)
        self.raw, self.path, self.open_options = data, path, options
        try:
            self._prepare()
        except ValueError as error:  # remembered values that do not fit this file
            old, self.choices = self.choices, self.choices.model_copy(update={"preparation": Preparation()})
            self.message.emit("warning", f"the remembered calibration does not fit this file and was dropped: {error}", "")
            self.choices_changed.emit(old, self.choices)
            self._prepare()

    def _prepare(self) -> None:
        assert self.raw is not None
        self.data = self.choices.preparation.apply(self.raw)
        self.summary = self.findings = None
        self.measurement_changed.emit(self.data)

    def looked_through(self, summary: Summary, findings: list[Finding]) -> None:
        """What a pass over the data found."""
        self.summary, self.findings = summary, findings
        self.summary_changed.emit()

    # ---- runs --------------------------------------------------------------------------------------------------
    @property
    def active(self) -> RunRecord | None:
        """The run that is going on."""
        return next((r for r in self.runs if r.going_on), None)

    def new_run(self, start: Any = None) -> RunRecord:
        """A record of a run with the present choices; a runner takes it from there.

        Raises
        ------
        ValueError
            If there are no data, or another run goes on.
        """
        if self.data is None:
            raise ValueError("open 4D-STEM data first: Data dock, or File ▸ Open Sample")
        if self.active is not None:
            raise ValueError(f"{self.active.name} is still going on: stop it first")
        settings = self.run_settings()
        self._counter += 1
        return RunRecord(self._counter, self, settings, start)

    def add_run(self, run: RunRecord) -> None:
        """Make a run known."""
        self.runs.append(run)
        self.run_added.emit(run)

    def run_named(self, name: str) -> RunRecord | None:
        """A run by its name."""
        return next((r for r in self.runs if r.name == name), None)

    def remove_run(self, run: RunRecord) -> None:
        """Forget a run that is not going on, its frames included."""
        if run.going_on:
            raise ValueError(f"{run.name} is still going on: stop it first")
        self.runs.remove(run)
        run.frames.close()
        self.run_changed.emit(run)

    def note_exported(self, paths: list[Path]) -> None:
        """Remember what was exported."""
        self.exported = [*[p for p in self.exported if p not in map(str, paths)], *map(str, paths)][-20:]
        self.exported_changed.emit(paths)

    def report(self, error: BaseException, what: str) -> None:
        """An error in plain words, its traceback for copying."""
        import traceback

        text = str(error).strip() or type(error).__name__
        if isinstance(error, KeyError) and error.args:
            text = str(error.args[0])
        self.message.emit("error", f"{what}: {text}", "".join(traceback.format_exception(error)))

