"""Thin slices of a volume that the physics takes together as one of its own.

Depth is known to λ/α², some tens of Å, and a prior knows single atoms, in slices of 1.6 Å. So a
volume may have more slices than waves need: the phases of each group are added (a linear map, its
adjoint hands each slice of a group the same gradient), and act where the middle of the group is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Grouping:
    """Which slices of a volume make one of the physics.

    Attributes
    ----------
    sizes : tuple of int
        Slices in each group, from the entrance on.
    """

    sizes: tuple[int, ...]

    @classmethod
    def every(cls, slices: int, together: int) -> Grouping:
        """Groups of at most `together` slices, as even as can be.

        Raises
        ------
        ValueError
            If there are fewer slices than that, or `together` is not positive.
        """
        if not 1 <= together <= slices:
            raise ValueError(
                f"1 to {slices} slices of this volume can be taken together, not {together}"
            )
        count = -(-slices // together)
        return cls(tuple(len(part) for part in np.array_split(np.arange(slices), count)))

    @property
    def trivial(self) -> bool:
        """Whether every group is one slice."""
        return all(n == 1 for n in self.sizes)

    def thickness(self, each: Sequence[float]) -> list[float]:
        """Å from the middle of each group to that of the next, and the last group's own, from the
        thickness of every slice."""
        at = np.concatenate([[0.0], np.cumsum(each)])
        edges = at[np.concatenate([[0], np.cumsum(self.sizes)])]
        middles = (edges[1:] + edges[:-1]) / 2
        return [*np.diff(middles).tolist(), float(edges[-1] - edges[-2])]

    def sum(self, volume: Tensor) -> Tensor:
        """(D, H, W) to one slice for each group."""
        if self.trivial:
            return volume
        return torch.stack([part.sum(dim=0) for part in volume.split(list(self.sizes))])

    def adjoint(self, gradient: Tensor) -> Tensor:
        """One slice for each group to (D, H, W)."""
        if self.trivial:
            return gradient
        return gradient.repeat_interleave(self._counts(gradient.device), dim=0)

    def of_slice(self) -> list[int]:
        """The group of each slice."""
        return [g for g, n in enumerate(self.sizes) for _ in range(n)]

    def _counts(self, device: torch.device) -> Tensor:
        return torch.tensor(self.sizes, device=device)
