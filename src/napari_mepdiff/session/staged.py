"""Staged: what steps that are carried out one after another tell of themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from .stages import Stage, State

if TYPE_CHECKING:
    from .plan import Plan
    from .runs import RunRecord


class Staged:
    """The stages of a plan, which of them goes on, and how it ended.

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
    runs : list of RunRecord
        That it has begun, in their order.
    """

    changed = Signal()

    def __init__(self) -> None:
        self.stages: tuple[Stage, ...] = ()
        self.state: State = "waiting"
        self.reason = ""
        self.notes: tuple[str, ...] = ()
        self.runs: list[RunRecord] = []
        self._at = -1

    @property
    def going_on(self) -> bool:
        """Whether a step goes on."""
        return self.state == "going on"

    @property
    def line(self) -> str:
        """Which step goes on: 'step 2 of 3: volume and microscope together'; empty if none."""
        return f"{self._where}: {self._stage.step.title}" if self.going_on else ""

    @property
    def _where(self) -> str:
        return f"step {self._at + 1} of {len(self.stages)}"

    @property
    def _stage(self) -> Stage:
        """The present one."""
        return self.stages[self._at]

    def _anew(self, plan: Plan | None = None) -> None:
        """Before the first step of a plan; without one nothing is told any more."""
        steps, self.notes = ((), ()) if plan is None else (plan.steps, plan.notes)
        self.stages, self._at = tuple(map(Stage, steps)), -1
        self.runs, self.reason = [], ""
        self.state = "waiting" if plan is None else "going on"

    def _replan(self, plan: Plan) -> None:
        """Other steps after the present one."""
        there, self.notes = self.stages[: self._at + 1], plan.notes
        self.stages = (*there, *map(Stage, plan.steps[len(there) :]))

    def _note(self, **fields: Any) -> None:
        """Something is new of the present stage."""
        stages = list(self.stages)
        stages[self._at] = replace(stages[self._at], **fields)
        self.stages = tuple(stages)
        self.changed.emit()
