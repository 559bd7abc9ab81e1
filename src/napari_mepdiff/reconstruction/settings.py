"""SolverSettings: what all solvers are asked, and which of it a running solver obeys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field


class SolverSettings(BaseModel):
    """What all solvers share. Frozen: a change during a run swaps one snapshot for another.

    Each solver names in ``live`` the fields that it obeys while it runs; every other field holds
    for the whole run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    live: ClassVar[frozenset[str]] = frozenset()
    uncertain: ClassVar[bool] = False  # whether the work depends on what the data turn out to hold

    seed: int = Field(
        0, ge=0, title="Seed", description="of random batches and starts; same seed, same result"
    )
    memory: int = Field(
        2 * 1024**3, ge=1 << 20, title="Memory", description="bytes for waves in one evaluation"
    )
    detector_stride: int = Field(
        1,
        ge=1,
        le=2,
        title="Detector stride",
        description="2: every second pixel, a preview at a quarter of the work",
    )

    def idle(self) -> dict[str, str]:
        """Fields without effect beside the others' present values, and why."""
        return {}

    def position_room(self) -> float:
        """How far positions may wander in such a run, Å: the canvas needs that much more."""
        return 0.0

    def preview(self) -> Self:
        """The same with less work, for a first look; its result is not for publication."""
        return self

    def gradients(self, positions: int) -> float:
        """About how many gradients of one position a run takes, of a scan with so many positions.

        Raises
        ------
        NotImplementedError
            If this solver's work is not counted in gradients alone.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it costs")

    def held_volumes(self) -> float:
        """Volumes of the size of the answer that a run holds in memory beside it."""
        return 0.0

    def with_fields(self, **fields: Any) -> Self:
        """These settings with other values of some fields, validated."""
        return type(self).model_validate({**self.model_dump(), **fields})

    def changeable(self) -> frozenset[str]:
        """Fields whose change a running solver carries out."""
        return self.live - self.idle().keys()

    def refusals(
        self, after: SolverSettings, idle: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Why a running solver cannot take other settings: each field that is in the way.

        Parameters
        ----------
        after : SolverSettings
            What is wanted instead of these.
        idle : mapping, optional
            Fields without effect and why, where the run knows better than its settings.

        Raises
        ------
        TypeError
            If they are another solver's.
        """
        if type(after) is not type(self):
            raise TypeError(f"a run with {type(self).__name__} cannot take {type(after).__name__}")
        without = after.idle() if idle is None else idle
        return {
            name: without.get(name, "it holds for the whole run; begin a new one for that")
            for name in self.changed(after)
            if name not in self.live or name in without
        }

    def changed(self, after: SolverSettings) -> list[str]:
        """Names of the fields in which the other settings differ."""
        return [n for n in type(self).model_fields if getattr(self, n) != getattr(after, n)]
