"""What positions say that had no part in a fit: whether what was set free explains them better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...physics.likelihood import Likelihood
from ..control import Control

FEWEST = 8  # positions held out, of which an average says anything


class Evidence:
    """Positions that only judge.

    Attributes
    ----------
    judges, used : ndarray
        Indices of the positions held out of the fit, and of all others.
    off : set of str
        What was put back to what was told.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        noise: float,
        share: float,
        rng: np.random.Generator,
        control: Control,
    ) -> None:
        self.like, self.noise, self.control = likelihood, noise, control
        count = round(share * likelihood.count)
        count = count if count >= FEWEST else 0
        self.judges: NDArray[np.int64] = np.sort(rng.permutation(likelihood.count)[:count])
        self.used: NDArray[np.int64] = np.setdiff1d(np.arange(likelihood.count), self.judges)
        self.off: set[str] = set()

    def misfit(self, volume: Tensor) -> float | None:
        """Over shot noise, of the positions that are held out."""
        if len(self.judges) == 0:
            return None
        return self.like.loss(volume, self.judges) / len(self.judges) / self.noise

    def speaks_against(
        self, name: str, verdict: str, step: int, now: float | None, other: float | None
    ) -> bool:
        """Whether what was told explains as much as what was found (`other` ≤ `now`).

        Then it is named in :attr:`off`, and the run says the verdict.
        """
        if now is None or other is None or not other <= now:
            return False
        self.off.add(name)
        self.control.notes.append(
            f"step {step}: {verdict}: what was found instead did not lower the misfit of "
            f"positions held out of the fit ({other:.4g} now, {now:.4g} with it)"
        )
        return True
