"""Session: the evented state that the docks share.

No Qt: it works from Python as from the docks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from psygnal import Signal

from ..measurement.preparation import Preparation
from ..reconstruction.history import FrameStore
from ..reconstruction.registry import SOLVERS, solver_of
from ..reconstruction.settings import SolverSettings
from .choices import Choices
from .choosing import Choosing, settings_kept
from .measured import Measured, slices_of
from .recipe import GEOMETRY, Opening, Start
from .record import Record
from .runs import RunRecord
from .undo import Step

if TYPE_CHECKING:
    from ..measurement.checks import Finding
    from ..measurement.dataset import FourDSTEM
    from ..measurement.detectors import Summary
    from .choices import Setup


class Session(Choosing):
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

    Parameters
    ----------
    choices : Choices, optional
    wait : bool
        Make the pass over the patterns that a preparation needs (to repair pixels) here. Where it
        is off such a change raises :class:`~.measurement.preparation.Unseen`, which knows how to
        make the pass, and changes nothing: call again after it.
    """

    measurement_changed = Signal(object)  # FourDSTEM or None: another file, or prepared otherwise
    summary_changed = Signal()
    run_added = Signal(object)
    run_changed = Signal(object)  # state, error, changes
    settings_taken = Signal(object, object)  # run, its SolverSettings: the user's or the solver's
    frame_shown = Signal(object)  # the RunRecord whose newest frame has been put on the screen
    exported_changed = Signal(object)  # list of paths

    def __init__(self, choices: Choices | None = None, *, wait: bool = True) -> None:
        super().__init__(choices)
        self._wait = wait
        self.raw: FourDSTEM | None = None
        self.data: FourDSTEM | None = None
        self.path = ""
        self.open_options: dict[str, Any] = {}
        self.summary: Summary | None = None
        self.findings: list[Finding] | None = None
        self.runs: list[RunRecord] = []
        self.exported: list[str] = []
        self._counter = 0

    # ---- choices and the run that goes on --------------------------------------------------
    def settings_in_force(self, solver: str | None = None) -> SolverSettings:
        """Settings of the run of that solver that is going on, with what it changed itself.

        Those for the next run where there is none. This is what a dock shows.
        """
        name, run = solver or self.choices.setup.solver, self.active
        return run.settings if run is not None and run.solver == name else self.settings(name)

    def adopt(self, record: Record) -> None:
        """Take the choices of a record over: preparation, geometry, settings. One step of undo.

        Raises
        ------
        ValueError
            If the preparation does not fit the measurement; nothing changes then.
        """
        recipe = record.recipe
        with self.history.one_step():
            self.change("preparation", **recipe.preparation.model_dump())
            microscope = "" if recipe.microscope is None else recipe.microscope.path
            geometry = {n: getattr(recipe, n) for n in GEOMETRY}
            self.change("setup", start="", microscope=microscope, **geometry)
            self.change_settings(recipe.solver, **record.settings)

    def _carried_out(self, solver: str, after: SolverSettings, names: Iterable[str]) -> bool:
        run = self.active
        if run is None or run.solver != solver:
            return True
        now = run.settings
        sent = {n: getattr(after, n) for n in names if getattr(now, n) != getattr(after, n)}
        return not sent or self._steer(run, sent)

    def _followed(self, wanted: dict[str, dict[str, Any]]) -> bool:
        run = self.active
        if run is None:
            return True
        before, after = (settings_kept(run.solver, s) for s in (self.choices.settings, wanted))
        fields = {n: getattr(after, n) for n in before.changed(after)}
        return not fields or self._steer(run, fields)

    def _steer(self, run: RunRecord, fields: dict[str, Any]) -> bool:
        try:
            run.steer(**fields)
        except ValueError as refusal:
            self.message.emit("warning", f"{run.name} goes on as it was: {refusal}", "")
            self.settings_taken.emit(run, run.settings)  # what holds is to be shown again
            return False
        self.settings_taken.emit(run, run.settings)
        return True

    def _install(self, part: str, new: Any) -> None:
        """Put a part of the choices in place.

        A preparation that does not fit raises ValueError, one that needs a pass first Unseen.
        """
        data = None
        if part == "preparation" and self.raw is not None and new != self.choices.preparation:
            data = new.apply(self.raw, wait=self._wait)
        old = self._replace(part, new)
        if data is not None:
            self._prepared(data)
        self.choices_changed.emit(old, self.choices)

    # ---- measurement -----------------------------------------------------------------------
    def take(self, data: FourDSTEM, path: str, **options: Any) -> None:
        """A measurement that was opened.

        The preparation of another file is forgotten, and what was refined on its scan.

        Parameters
        ----------
        data : FourDSTEM
        path : str
            Of the file, or the name of a sample; empty if it was made in memory.
        options
            What it was opened with: scan_shape, dataset, axes, calibration.
        """
        old = self.choices
        if path != self.path:
            setup = old.setup.model_copy(update={"microscope": ""})
            self.choices = old.model_copy(update={"preparation": Preparation(), "setup": setup})
        try:
            prepared = self.choices.preparation.apply(data, wait=self._wait)
        except ValueError as error:  # remembered values that do not fit this file
            self.message.emit(
                "warning",
                f"the remembered calibration does not fit this file and was dropped: {error}",
                "",
            )
            self.choices = self.choices.model_copy(update={"preparation": Preparation()})
            prepared = data
        self.raw, self.path, self.open_options = data, path, options
        if self.choices.preparation != old.preparation:
            words = "the preparation of the file before"
            step = Step(
                "preparation",
                old.preparation,
                self.choices.preparation,
                frozenset(old.preparation.changed),
                words,
                0,
            )
            self.history.add(step)
        if self.choices != old:
            self.choices_changed.emit(old, self.choices)
        self._prepared(prepared)

    def _prepared(self, data: FourDSTEM) -> None:
        self.data = data
        self.summary = self.findings = None
        self.measurement_changed.emit(self.data)

    def looked_through(self, summary: Summary, findings: list[Finding]) -> None:
        """What a pass over the data found."""
        self.summary, self.findings = summary, findings
        self.summary_changed.emit()

    @property
    def measurement_name(self) -> str:
        """Of the measurement that is open, for file names."""
        return Path(self.path).stem or "measurement"

    # ---- runs ------------------------------------------------------------------------------
    @property
    def active(self) -> RunRecord | None:
        """The run that is going on."""
        return next((r for r in self.runs if r.going_on), None)

    def new_run(self, start: NDArray[Any] | None = None, start_name: str = "") -> RunRecord:
        """A run with the present measurement and choices; a runner takes it from there.

        Parameters
        ----------
        start : ndarray, optional
            Volume (D, H, W) in rad to begin from.
        start_name : str
            Of its layer; the chosen one if not given.

        Raises
        ------
        ValueError
            If there are no data, another run goes on, or the solver cannot do what is asked for.
        """
        self.require_free()
        measured, setup, settings = self.measured(), self.choices.setup, self.run_settings()
        return self.run_of(measured, setup, settings, start, start_name or setup.start)

    def measured(self) -> Measured:
        """The measurement that is open, as runs take it.

        Raises
        ------
        ValueError
            If there is none.
        """
        if self.data is None or self.raw is None:
            raise ValueError("open 4D-STEM data first: Data dock, or File ▸ Open Sample")
        opening = Opening.of(self.raw, self.path, **self.open_options)
        return Measured(opening, self.choices.preparation, self.data)

    def run_of(
        self,
        measured: Measured,
        setup: Setup,
        settings: SolverSettings,
        start: NDArray[Any] | None = None,
        start_name: str = "",
    ) -> RunRecord:
        """A run with another setup and other settings than those that are chosen.

        Raises
        ------
        ValueError
            If the solver cannot do what is asked for.
        """
        solver_of(settings).refuse(settings, start)
        begin = None if start is None else Start(sha256="", name=start_name)
        recipe, frames = measured.recipe(setup, settings, begin), self.new_frames()
        return RunRecord(
            self.next_number(), recipe, settings, measured.data, start=start, frames=frames
        )

    def slices(self) -> int | None:
        """Slices that were chosen, or that the solver takes of this specimen; None: as usual."""
        return slices_of(self.data, self.choices.setup)

    def restored_run(self, record: Record, start: NDArray[Any] | None) -> RunRecord:
        """A run with exactly the settings of a record, on the measurement that is open.

        Raises
        ------
        ValueError
            If a setting is no longer valid.
        """
        assert self.data is not None
        recipe = record.recipe
        if recipe.start is not None and recipe.start.file is not None:
            kept = recipe.start.model_copy(update={"file": None})  # beside the lost run only
            recipe = recipe.model_copy(update={"start": kept})
        settings = SOLVERS[recipe.solver].settings_type().model_validate(record.settings)
        number, frames = self.next_number(), self.new_frames()
        return RunRecord(number, recipe, settings, self.data, start=start, frames=frames)

    def new_frames(self) -> FrameStore:
        """A store for the frames of a run, as the choices say."""
        watching = self.choices.watching
        return FrameStore(watching.budget * 1024**2, watching.keep_every)

    def require_free(self) -> None:
        """Raises ValueError while a run is going on."""
        if self.active is not None:
            raise ValueError(f"{self.active.name} is still going on: stop it first")

    def next_number(self) -> int:
        """For a new run."""
        self._counter += 1
        return self._counter

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
        new = [str(p) for p in paths]
        self.exported = [*[p for p in self.exported if p not in new], *new][-20:]
        self.exported_changed.emit(paths)

    def report(self, error: BaseException, what: str) -> None:
        """An error in plain words, its traceback for copying."""
        import traceback

        from .work import plain_words

        details = "".join(traceback.format_exception(error))
        self.message.emit("error", f"{what}: {plain_words(error)}", details)
