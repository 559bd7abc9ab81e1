"""The course of a run: what had been done to it when each frame came, and how its frames part."""

from __future__ import annotations

from collections.abc import Sequence

from ..reconstruction.change import Change
from .record import Branch


class Course:
    """What had been done to a run by the time that each of its frames came.

    Attributes
    ----------
    changes : list of int
        By frame: how many changes had been made.
    """

    def __init__(self) -> None:
        self.changes: list[int] = []
        self._backs: list[int] = []  # how many of them were ways back

    def add(self, changes: Sequence[Change]) -> None:
        """The next frame comes, after these changes."""
        self.changes.append(len(changes))
        self._backs.append(sum(c.back is not None for c in changes))

    def drop(self) -> None:
        """The last frame was not taken."""
        self.changes.pop()
        self._backs.pop()

    def branches(self, steps: Sequence[int], changes: Sequence[Change]) -> list[Branch]:
        """The frames in the order they came, parted where the run was taken back.

        Parameters
        ----------
        steps : sequence of int
            Of the frames, as they came.
        changes : sequence of Change
            Of the run, so far.
        """
        marks = self._backs[: len(steps)]
        backs = [c.back for c in changes if c.back is not None]
        out = []
        first = 0
        for n in range(len(marks)):
            if n + 1 == len(marks) or marks[n + 1] != marks[n]:
                ended = n + 1 < len(marks)
                out.append(
                    Branch(
                        first=first,
                        last=n,
                        first_step=steps[first],
                        last_step=steps[n],
                        back_to=backs[marks[n + 1] - 1] if ended else None,
                    )
                )
                first = n + 1
        return out
