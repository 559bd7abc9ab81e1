"""Run: one run as its solver sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .control import Control
from .settings import SolverSettings

if TYPE_CHECKING:
    from torch import Tensor

    from .problem import Problem

S = TypeVar("S", bound=SolverSettings)
State = dict[str, Any]  # tensors, numbers and strings, by the solver's own names
KEPT = "kept"  # in a state: earlier states by their steps, which nothing changes any more


class SolverError(ArithmeticError):
    """A run that cannot go on, and why."""


class Run(Generic[S]):
    """Problem, settings and control of a run, and the state to begin from or to keep.

    Attributes
    ----------
    start : Tensor or None
        Volume (D, H, W) in rad to begin from, where there is no state.
    state : dict or None
        Of an interrupted run that goes on.
    snapshot : callable or None
        Gives the whole state after the step just done.
    """

    def __init__(
        self,
        problem: Problem,
        settings: S,
        control: Control,
        state: State | None = None,
        start: Tensor | None = None,
    ) -> None:
        self.problem, self.control, self.state, self.start = problem, control, state, start
        self._settings = settings
        self.snapshot: Callable[[], State] | None = None
        self._before = float(state["seconds"]) if state else 0.0
        self._begin = time.perf_counter()

    @property
    def settings(self) -> S:
        """The settings that hold now."""
        return self._settings

    @property
    def seconds(self) -> float:
        """Time spent, with that of the run this one resumes."""
        return self._before + time.perf_counter() - self._begin

    def go_on(self, step: int) -> bool:
        """Between steps: obey the control. False when the run shall end."""
        self._settings = self.control.take(step, self._settings)
        return not self.control.stopped

    def back(self, step: int, kept: Sequence[int]) -> int | None:
        """After :meth:`go_on`: the kept step that the user wants to go back to, or None."""
        return self.control.take_back(step, kept)

    def change(self, step: int, reason: str, **fields: Any) -> None:
        """The solver's own change of settings, recorded with its reason."""
        self._settings = self._settings.model_copy(update=fields)
        self.control.own(step, reason, self._settings, *fields)

    def keep(self, snapshot: Callable[[], State]) -> None:
        """Say how to take the whole state after the step just done."""
        self.snapshot = snapshot
