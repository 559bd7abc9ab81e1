"""Control: how a running solver is paused, stopped, changed and taken back, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .change import Change
from .settings import SolverSettings

S = TypeVar("S", bound=SolverSettings)
Idle = Callable[[Any], Mapping[str, str]]  # settings → fields without effect beside them, and why


class Refused(ValueError):
    """A change that the running solver cannot carry out.

    Nothing has changed, nothing is recorded.
    """


class Interrupted(Exception):
    """A long step that was left: the run is stopped, or taken back. Its solver ends it quietly."""


@dataclass
class _Single:
    """Steps that are asked for singly, of a paused solver and of one that works for it."""

    asked: int = 0
    granted: bool = False  # whether the present step is one of them

    def grant(self) -> bool:
        """Take one up, if there is one; whether there was."""
        if self.asked:
            self.asked -= 1
            self.granted = True
            return True
        return False


class Control:
    """Pause, resume, stop, go back and change settings of a running solver, from any thread.

    Attributes
    ----------
    changes : list of Change
        What was changed, in order: by the user, once the solver had taken it, and by the solver
        itself. :class:`Script` plays them again.
    doing : str
        What a solver does within a long step, for people; empty in ordinary steps.
    notes : list of str
        What could not be done as asked, and what the solver did by itself, in plain words.
    """

    def __init__(self) -> None:
        self._go = threading.Event()
        self._go.set()
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._current: SolverSettings | None = None
        self._can_go_back = True
        self._idle: Idle | None = None
        self._pending: SolverSettings | None = None
        self._back: int | None = None
        self._single = _Single()
        self.doing = ""
        self.changes: list[Change] = []
        self.notes: list[str] = []

    # ---- what a user does ------------------------------------------------------------------
    def pause(self) -> None:
        """Hold before the next step."""
        self._go.clear()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def single(self) -> None:
        """Take one step and hold again."""
        self.pause()
        with self._lock:
            self._single.asked += 1

    def stop(self) -> None:
        """End after the present step; the last frame keeps the volume."""
        self._stop.set()
        self._go.set()

    @property
    def paused(self) -> bool:
        """Whether the solver holds, or will before its next step."""
        return not self._go.is_set()

    @property
    def stopped(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    @property
    def settings(self) -> SolverSettings | None:
        """What holds, or will from the next step on; None before the run has begun.

        Where a solver changes its settings itself (a smaller weight after divergence), they are
        here.
        """
        with self._lock:
            return self._pending or self._current

    def change(self, **fields: Any) -> SolverSettings:
        """Change some fields from the next step on; all others stay as the run has them now.

        Returns
        -------
        SolverSettings
            What will hold.

        Raises
        ------
        Refused
            If the run has not begun, or this solver cannot change one of them while it runs.
        ValueError
            If a value is out of range.
        """
        with self._lock:
            now = self.settings
            if now is None:
                raise Refused("the run has not begun: change its settings before the start")
            after = type(now).model_validate({**now.model_dump(), **fields})
            self.update(after)
            return after

    def update(self, settings: SolverSettings) -> None:
        """Swap the settings; the solver takes them before its next step and records what changed.

        Raises
        ------
        Refused
            If the solver cannot change one of them while it runs: nothing is changed then.
        """
        with self._lock:
            if self._current is not None:
                idle = None if self._idle is None else self._idle(settings)
                refuse((self._pending or self._current).refusals(settings, idle))
            self._pending = settings

    def back(self, step: int) -> None:
        """Go back to the state after an earlier step, and on from there.

        A paused solver shows it and stays paused.

        Raises
        ------
        Refused
            If this solver keeps no states to go back to.
        """
        with self._lock:
            if not self._can_go_back:
                raise Refused(NO_WAY_BACK)
            self._back = int(step)

    # ---- what the run does -----------------------------------------------------------------
    def bind(self, settings: SolverSettings, can_go_back: bool) -> None:
        """For :func:`~.registry.solve`: a run begins, and from now on it is known what it can do.

        What was asked for earlier and cannot be done is noted and forgotten.
        """
        with self._lock:
            self._current, self._can_go_back = settings, can_go_back
            early, self._pending = self._pending, None
            try:
                if early is not None:
                    self.update(early)
            except Refused as refusal:
                self.notes.append(f"step 0: {refusal}")
            if self._back is not None and not can_go_back:
                self._back = None
                self.notes.append(f"step 0: {NO_WAY_BACK}")

    def without_effect(self, idle: Idle) -> None:
        """For solvers: which fields turn out to have no effect in this run, and why.

        Parameters
        ----------
        idle : callable
            From settings to the fields without effect beside them; these are refused.
        """
        with self._lock:
            self._idle = idle

    @property
    def idle(self) -> dict[str, str]:
        """Fields that have no effect in this run, and why."""
        with self._lock:
            now = self._pending or self._current
            if now is None:
                return {}
            return dict(now.idle() if self._idle is None else self._idle(now))

    def say(self, doing: str) -> None:
        """For solvers: what is being done within a long step."""
        self.doing = doing

    def breathe(self, back: bool = True) -> None:
        """For solvers, about once a second within a long step, from any thread: hold while paused.

        Parameters
        ----------
        back : bool
            Whether a way back that was asked for ends the step.

        Raises
        ------
        Interrupted
            If the step is to be left as it is.
        """
        while not self._go.wait(0.05):
            if self._single.granted or (back and self._back is not None):
                break
            with self._lock:
                self._single.grant()  # the step that is under way is the one asked for
        if self._stop.is_set() or (back and self._back is not None):
            raise Interrupted

    def take(self, step: int, current: S) -> S:
        """For solvers, between steps: wait while paused; then the settings that hold from here."""
        self._single.granted = False
        while not self._go.wait(0.05):
            if self._back is not None:
                return current
            with self._lock:
                if self._single.grant():
                    break
        with self._lock:
            new, self._pending = self._pending, None
            if new is None:
                return current
            assert isinstance(new, type(current))  # update has seen to it
            names = current.changed(new)
            if names:
                values = new.model_dump(mode="json")
                self.changes.append(Change(step, {n: values[n] for n in names}))
            self._current = new
            return new

    def take_back(self, step: int, kept: Sequence[int]) -> int | None:
        """For solvers, after `take`: the kept step to go back to, or None.

        The nearest kept one before what was asked for.
        """
        with self._lock:
            wanted, self._back = self._back, None
        if wanted is None:
            return None
        earlier = [n for n in kept if n <= wanted]
        if not earlier:
            self.notes.append(f"step {step}: no state of step {wanted} or before is kept")
            return None
        self.changes.append(Change(step, back=max(earlier)))
        return max(earlier)

    def own(self, step: int, reason: str, settings: SolverSettings, *names: str) -> None:
        """For solvers: a change that the solver makes itself, with its reason."""
        with self._lock:
            values = settings.model_dump(mode="json")
            fields = {n: values[n] for n in names}
            self._current = settings
            if self._pending is not None:  # asked for meanwhile, about other fields: both hold
                self._pending = self._pending.model_copy(
                    update={n: getattr(settings, n) for n in names}
                )
            self.changes.append(Change(step, fields, by="solver", reason=reason))
            self.notes.append(f"step {step}: {reason}")


NO_WAY_BACK = (
    "this solver keeps no earlier states: stop, and start from the layer of an earlier frame"
)


def refuse(reasons: Mapping[str, str]) -> None:
    """Raise Refused where there are reasons: fields, and why they cannot change."""
    if reasons:
        raise Refused("; ".join(f"{n} cannot change now: {why}" for n, why in reasons.items()))


class Companion(Control):
    """Control of a solver that works for another: it pauses, steps and stops with it.

    A single step of the other is one of this solver's as long as it works.
    """

    def __init__(self, main: Control) -> None:
        super().__init__()
        self._go, self._stop, self._lock = main._go, main._stop, main._lock
        self._single = main._single
