"""Chain: the steps of a plan one after another, in a session. No Qt.

A script uses it as the Reconstruct dock does::

    chain = Chain(session, Runner(session), Jobs(session.report), Microscopes(session))
    chain.start(folder)
    chain.run_to_end()

Each run is one of the session's, with a record of its own that can be played again by itself.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ..base.files import require_writable
from .measured import Measured
from .plan import Asked, LookStep, RunStep, asked_in, lacking, plan_of
from .stages import Looked, Ready, Stage, State, look_at, make_ready
from .work import plain_words

if TYPE_CHECKING:
    from .jobs import Jobs, Report
    from .microscopes import Microscopes
    from .runner import Runner
    from .runs import RunRecord
    from .session import Session

PURPOSE = "automatic"


class Chain:
    """Carries a plan out: the next step begins when the run before it is done.

    It ends where a run is stopped or fails. The runs keep the measurement that the chain began
    with, whatever is opened or prepared otherwise meanwhile.

    Attributes
    ----------
    stages : tuple of Stage
        Of the steps; empty before the first start.
    state : str
        'waiting' before the first start; then 'going on', 'done', 'stopped' or 'failed'.
    reason : str
        Why it ended early.
    notes : tuple of str
        Why a step is left out, and what is supposed where nobody told it.

    Parameters
    ----------
    session : Session
    runner : Runner
    jobs : Jobs
        Whose workers estimate and prepare.
    microscopes : Microscopes
        Takes the estimate, and keeps the refined microscope.
    """

    changed = Signal()
    ended = Signal(object)  # the chain

    def __init__(
        self, session: Session, runner: Runner, jobs: Jobs, microscopes: Microscopes
    ) -> None:
        self.session, self.runner, self.jobs = session, runner, jobs
        self.microscopes = microscopes
        self.stages: tuple[Stage, ...] = ()
        self.state: State = "waiting"
        self.reason = ""
        self.notes: tuple[str, ...] = ()
        self._at = -1
        self._working = False  # a job of ours is at work
        self._run: RunRecord | None = None
        self._runs: list[RunRecord] = []
        self._asked: Asked | None = None
        self._measured: Measured | None = None
        self._folder = Path()
        runner.ended.connect(self._run_ended)
        jobs.changed.connect(self._jobs_changed)

    def close(self) -> None:
        """Let session and runner go; what goes on is not waited for."""
        self.runner.ended.disconnect(self._run_ended)
        self.jobs.changed.disconnect(self._jobs_changed)
        self.changed.disconnect()
        self.ended.disconnect()

    # ---- what it is doing -------------------------------------------------------------------
    @property
    def going_on(self) -> bool:
        """Whether a step goes on."""
        return self.state == "going on"

    @property
    def line(self) -> str:
        """Which step goes on: 'step 2 of 3: volume and microscope together'; empty if none."""
        if not self.going_on:
            return ""
        return f"step {self._at + 1} of {len(self.stages)}: {self.stages[self._at].step.title}"

    @property
    def runs(self) -> list[RunRecord]:
        """The runs that it has begun, in their order."""
        return list(self._runs)

    # ---- what a user does -------------------------------------------------------------------
    def start(self, folder: str | Path) -> None:
        """Begin with the measurement and the choices of the session.

        Parameters
        ----------
        folder : path
            Where a refined microscope is kept, as `NAME_microscope.h5`.

        Raises
        ------
        ValueError
            If there are no data, they say too little, or a run goes on.
        OSError
            If nothing can be written to the folder.
        """
        if self.going_on:
            raise ValueError("the steps are going on already: stop them first")
        self.session.require_free()
        measured = self.session.measured()
        if why := lacking(measured.data):
            raise ValueError(f"{why}: fill it in first")
        self._asked, self._measured = asked_in(self.session), measured
        plan = plan_of(measured.data, self._asked)
        self._folder = Path(folder)
        if any(step.microscope == "refined" for step in plan.runs):
            require_writable(self._folder / "microscope.h5")
        self.stages, self.notes = tuple(map(Stage, plan.steps)), plan.notes
        self._at, self._runs, self.reason, self.state = -1, [], "", "going on"
        self._next()

    def stop(self) -> None:
        """End after the present step of the run that goes on, or at once between runs."""
        if self.going_on:
            if self._run is None:
                self._end("stopped", "stopped by the user")
                self.jobs.cancel(PURPOSE)
            else:
                self.runner.stop()

    def run_to_end(self) -> bool:
        """For scripts: wait for the end, however long it takes. Returns whether all was done."""
        while self.going_on:
            self.jobs.poll()
            self.runner.poll()
            time.sleep(0.005)
        return self.state == "done"

    # ---- from step to step ------------------------------------------------------------------
    def _next(self) -> None:
        self._at, self._run = self._at + 1, None
        if self._at == len(self.stages):
            self._end("done")
            return
        step = self.stages[self._at].step
        self._note(state="going on")
        if isinstance(step, LookStep):
            self._look()
        else:
            self._prepare(step)

    def _note(self, **fields: Any) -> None:
        """Something is new of the present step."""
        stages = list(self.stages)
        stages[self._at] = replace(stages[self._at], **fields)
        self.stages = tuple(stages)
        self.changed.emit()

    def _end(self, state: State, reason: str = "") -> None:
        self.state, self.reason, self._working, self._run = state, reason, False, None
        if state != "done":
            where = f"step {self._at + 1} of {len(self.stages)}"
            self._note(state=state)
            self.session.message.emit("warning", f"the steps ended at {where}: {reason}", "")
        self.changed.emit()
        self.ended.emit(self)

    def _jobs_changed(self) -> None:
        if self._working and not self.jobs.busy(PURPOSE):  # its result was dropped
            self._end("stopped", "cancelled by the user")

    def _begin_job(self, title: str, work: Any, done: Any) -> None:
        self._working = True

        def over(found: Any) -> None:
            if self._working:
                self._working = False
                done(found)

        def failed(error: BaseException) -> None:
            if self._working:
                self._fail(error)

        self.jobs.run(PURPOSE, title, work, over, failed)

    def _fail(self, error: BaseException) -> None:
        self.session.report(error, self.stages[self._at].step.title)
        self._end("failed", plain_words(error))

    # ---- what the patterns say --------------------------------------------------------------
    def _look(self) -> None:
        assert self._measured is not None
        measured, raw = self._measured, self.session.raw

        def done(looked: Looked) -> None:
            if self.session.raw is raw and self.session.choices.preparation == before:
                self._take_over(looked)
            else:
                self._end("stopped", "another measurement or preparation was chosen meanwhile")

        before = measured.preparation
        self._begin_job("what the patterns say", lambda report: look_at(measured, report), done)

    def _take_over(self, looked: Looked) -> None:
        """Into the preparation; with that there may be other steps than before."""
        assert self._asked is not None
        if looked.found is not None:
            self.microscopes.take_estimate(looked.found)
        try:
            self.session.change("preparation", **looked.preparation.model_dump())
        except ValueError as error:
            self._fail(error)
            return
        self._measured = self.session.measured()
        plan = plan_of(self._measured.data, self._asked)
        there, self.notes = self.stages[: self._at + 1], plan.notes
        self.stages = (*there, *map(Stage, plan.steps[len(there) :]))
        for note in looked.notes:
            self.session.message.emit("info", f"by the patterns: {note}", "")
        self._note(state="done", notes=looked.notes)
        self._next()

    # ---- a run ------------------------------------------------------------------------------
    def _prepare(self, step: RunStep) -> None:
        assert self._measured is not None
        measured, runs, folder = self._measured, self.runs, self._folder

        def work(report: Report) -> Ready:
            return make_ready(step, measured, runs, self.microscopes, folder, report)

        self._begin_job(f"preparing: {step.title}", work, self._start)

    def _start(self, ready: Ready) -> None:
        assert self._measured is not None
        step, start = ready.step, ready.start
        name = self._runs[-1].name if start is not None else ""
        try:
            run = self.session.run_of(self._measured, step.setup, step.settings, start, name)
            self._runs.append(run)
            self._run = run
            self._note(cost=ready.cost, run=run.name, notes=ready.notes)
            cost = "" if ready.cost is None else f", {ready.cost}"
            self.session.message.emit("info", f"{self.line}{cost}", "")
            self.runner.take(run)
        except (ValueError, OSError) as error:
            self._fail(error)

    def _run_ended(self, run: RunRecord) -> None:
        if run is not self._run:
            return
        if run.state == "done":
            self._note(state="done")
            self._next()
        else:
            self._end("failed" if run.state == "failed" else "stopped", f"{run.name}: {run.error}")
