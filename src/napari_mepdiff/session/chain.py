"""Chain: the steps of a plan one after another, in a session. No Qt.

A script uses it as the Reconstruct dock does::

    chain = Chain(session, Runner(session), Jobs(session.report), Microscopes(session))
    chain.start(folder)
    chain.run_to_end()

Each run is one of the session's, with a record of its own that can be played again by itself.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ..base.files import require_writable
from .measured import Measured
from .plan import ROUNDS, Asked, LookStep, RunStep, asked_in, lacking, plan_of
from .staged import Staged
from .stages import Looked, Ready, State, look_at, make_ready
from .work import plain_words

if TYPE_CHECKING:
    from .jobs import Jobs, Report
    from .microscopes import Microscopes
    from .runner import Runner
    from .runs import RunRecord
    from .session import Session

PURPOSE = "automatic"


class Chain(Staged):
    """Carries a plan out: the next step begins when the run before it is done.

    It ends where a run is stopped or fails. The runs keep the measurement that the chain began
    with, whatever is opened or prepared otherwise meanwhile.

    Parameters
    ----------
    session : Session
    runner : Runner
    jobs : Jobs
        Whose workers estimate and prepare.
    microscopes : Microscopes
        Takes the estimate, and keeps the refined microscope.
    """

    ended = Signal(object)  # the chain

    def __init__(
        self, session: Session, runner: Runner, jobs: Jobs, microscopes: Microscopes
    ) -> None:
        super().__init__()
        self.session, self.runner, self.jobs = session, runner, jobs
        self.microscopes = microscopes
        self._working = False  # a job of ours is at work
        self._run: RunRecord | None = None
        self._asked: Asked | None = None
        self._measured: Measured | None = None
        self._folder, self._path = Path(), ""
        session.measurement_changed.connect(self._measurement_changed)
        runner.ended.connect(self._run_ended)
        jobs.changed.connect(self._jobs_changed)

    def close(self) -> None:
        """Let session and runner go; what goes on is not waited for."""
        self.session.measurement_changed.disconnect(self._measurement_changed)
        self.runner.ended.disconnect(self._run_ended)
        self.jobs.changed.disconnect(self._jobs_changed)
        self.changed.disconnect()
        self.ended.disconnect()

    # ---- what a user does -------------------------------------------------------------------
    def start(self, folder: str | Path, rounds: int = ROUNDS) -> None:
        """Begin with the measurement and the choices of the session.

        Parameters
        ----------
        folder : path
            Where a refined microscope is kept, as `NAME_microscope.h5`.
        rounds : int
            How often the volume is sampled; the microscope is refined again between them.

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
        self._asked, self._measured = asked_in(self.session, rounds), measured
        plan = plan_of(measured.data, self._asked)
        self._folder, self._path = Path(folder), self.session.path
        if any(step.microscope == "refined" for step in plan.runs):
            require_writable(self._folder / "microscope.h5")
        self._anew(plan)
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
        step = self._stage.step
        self._note(state="going on")
        if isinstance(step, LookStep):
            self._look()
        else:
            self._prepare(step)

    def _end(self, state: State, reason: str = "") -> None:
        self.state, self.reason, self._working, self._run = state, reason, False, None
        self._measured = self._asked = None
        if state != "done":
            self._note(state=state)
        if state == "stopped":  # what failed is told already, with its details
            text = f"the steps ended at {self._where}: {reason}"
            self.session.message.emit("info", text, "")
        self.changed.emit()
        self.ended.emit(self)

    def _measurement_changed(self, _data: Any) -> None:
        """What is said of the steps is of another measurement now."""
        if not self.going_on and self.session.path != self._path:
            self._anew()
            self.changed.emit()

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
        self.session.report(error, self._stage.step.title)
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
        self._replan(plan_of(self._measured.data, self._asked))
        for note in looked.notes:
            self.session.message.emit("info", f"by the patterns: {note}", "")
        self._note(state="done", notes=looked.notes)
        self._next()

    # ---- a run ------------------------------------------------------------------------------
    def _prepare(self, step: RunStep) -> None:
        assert self._measured is not None
        measured, runs, folder = self._measured, list(self.runs), self._folder

        def work(report: Report) -> Ready:
            return make_ready(step, measured, runs, self.microscopes, folder, report)

        self._begin_job(f"preparing: {step.title}", work, self._start)

    def _start(self, ready: Ready) -> None:
        assert self._measured is not None
        step, start = ready.step, ready.start
        name = self.runs[-1].name if start is not None else ""
        try:
            run = self.session.run_of(self._measured, step.setup, step.settings, start, name)
            run.made_by += f", automatic, {self._where}"
            self.runner.take(run)
        except (ValueError, OSError) as error:
            self._fail(error)
            return
        self._run = run
        self.runs.append(run)
        self._note(cost=ready.cost, run=run.name, notes=ready.notes)
        cost = "" if ready.cost is None else f", {ready.cost}"
        self.session.message.emit("info", f"{self.line}{cost}", "")

    def _run_ended(self, run: RunRecord) -> None:
        if run is not self._run:
            return
        if run.outcome is not None and run.outcome.verdict:
            first, stop, _causes = run.outcome.verdict.partition(". ")
            self._note(notes=(*self._stage.notes, first + stop.strip()))
        if run.state == "done":
            self._note(state="done")
            self._next()
        else:
            self._end("failed" if run.state == "failed" else "stopped", f"{run.name}: {run.error}")
