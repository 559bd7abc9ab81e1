"""Script: recorded changes, played again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from .change import Change
from .control import NO_WAY_BACK, Control, Refused, refuse
from .settings import SolverSettings

S = TypeVar("S", bound=SolverSettings)


class Script(Control):
    """A control that plays recorded changes again, each at its step and in their order.

    Parameters
    ----------
    changes : sequence of Change
        As :attr:`Control.changes` has them. What a solver changed itself is left out: it will do
        so again.
    stop_after : int, optional
        Stop once all is played and this step is reached, as the recorded run was stopped there.
    """

    def __init__(self, changes: Iterable[Change], stop_after: int | None = None) -> None:
        super().__init__()
        self._script = [c for c in changes if c.by != "solver"]
        self._end = stop_after

    @property
    def unplayed(self) -> int:
        """Changes that have not had their turn."""
        return len(self._script)

    def bind(self, settings: SolverSettings, can_go_back: bool) -> None:
        """As :meth:`Control.bind`; a script that this solver cannot play is refused at once.

        Raises
        ------
        Refused
            Naming the step and what cannot be changed.
        ValueError
            If a value is out of range.
        """
        super().bind(settings, can_go_back)
        state = settings
        for change in self._script:
            if change.back is not None and not can_go_back:
                raise Refused(f"step {change.step}: {NO_WAY_BACK}")
            after = _with(state, change)
            try:
                refuse(state.refusals(after))
            except Refused as refusal:
                raise Refused(f"step {change.step}: {refusal}") from None
            state = after

    def take(self, step: int, current: S) -> S:
        """The next recorded changes that belong to this step."""
        while self._script and self._script[0].step == step and self._back is None:
            change = self._script.pop(0)
            if change.back is not None:
                self.back(change.back)
            else:
                self.update(_with(current, change))
                current = super().take(step, current)
        if self._end is not None and step >= self._end and not self._script and self._back is None:
            self.stop()
        return super().take(step, current)


def _with(settings: S, change: Change) -> S:
    """Settings after a recorded change."""
    return type(settings).model_validate({**settings.model_dump(mode="json"), **change.settings})
