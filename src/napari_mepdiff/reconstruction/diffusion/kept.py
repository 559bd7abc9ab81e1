"""Kept states: the way back to earlier steps, within a bound of memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..run import State

BUDGET = 256 * 1024**2  # bytes


class KeptStates:
    """The start of a run and its latest steps.

    Parameters
    ----------
    budget : int
        Bytes that they may take together; the start and the latest step always stay.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._states: dict[int, State] = {}
        self._blocks: dict[int, dict[int, int]] = {}  # of each step: memory address → bytes

    def __bool__(self) -> bool:
        return bool(self._states)

    def __getitem__(self, step: int) -> State:
        return self._states[step]

    @property
    def steps(self) -> list[int]:
        """Steps that can be gone back to."""
        return sorted(self._states)

    @property
    def bytes(self) -> int:
        """What they take: memory that several states share counts once."""
        blocks: dict[int, int] = {}
        for some in self._blocks.values():
            blocks.update(some)
        return sum(blocks.values())

    def add(self, step: int, state: State, most: int) -> None:
        """Keep one more; the oldest after the start go where there are more than `most`."""
        self._states[step], self._blocks[step] = state, dict(_blocks(state))
        while len(self._states) > 2 and (
            len(self._states) > max(1, most) + 1 or self.bytes > self.budget
        ):
            self._drop(self.steps[1])

    def forget_after(self, step: int) -> None:
        """Drop the states of a branch that is given up."""
        for later in [n for n in self._states if n > step]:
            self._drop(later)

    def before(self, step: int) -> int:
        """The latest kept step up to this one; the first of all where there is none."""
        return max([n for n in self._states if n <= step] or [min(self._states)])

    def near(self, step: int, reach: int) -> tuple[dict[int, State], int]:
        """What a run that is resumed after `step` needs of them for its own way back.

        Returns
        -------
        states : dict
            By step, before `step`: the start, and those of the last `reach` steps.
        left_out : int
            The latest kept step that is not among them; 0 where there is none.
        """
        earlier = [n for n in self.steps if n < step]
        wanted = {n for n in earlier if n >= step - reach or n == earlier[0]}
        left_out = max((n for n in earlier if n not in wanted), default=0)
        return {n: self._states[n] for n in sorted(wanted)}, left_out

    def _drop(self, step: int) -> None:
        del self._states[step], self._blocks[step]


def _blocks(state: Any) -> Iterator[tuple[int, int]]:
    """Address and size of every piece of memory that tensors and texts of a state take."""
    if isinstance(state, Tensor):
        storage = state.untyped_storage()
        yield storage.data_ptr(), storage.nbytes()
    elif isinstance(state, (str, bytes)):
        yield id(state), len(state)
    elif isinstance(state, dict):
        for value in state.values():
            yield from _blocks(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _blocks(value)
