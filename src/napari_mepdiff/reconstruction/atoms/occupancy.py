"""Which slices hold the atoms of each column.

The posterior over whole atoms, from the data and from the prior's samples.

The depth sum says where columns stand and how many atoms of which element each holds
(:mod:`.columns`). What is left of the depth question is discrete: o_{s,c} = 0 or 1 atom of species
c in slice s, with Σ_s o = n_c. The volume is

    x_s = Σ_c o_{s,c} K_c + r / D

with K_c the image of one atom and r ≥ 0 what the columns do not explain, the same in all slices
(:mod:`.rest`). Around the present mean of o the negative log-likelihood is a quadratic form with
the Fisher matrix (:mod:`~napari_mepdiff.physics.fisher`), under which whole atoms are moved by
Gibbs sampling (:mod:`.gibbs`) at falling temperatures. A quadratic form that is expanded far from
the answer is wrong by hundreds of nats, and so are the images of a column whose atoms were
miscounted: the temperature that it ends at stands for that error, not for the noise.

The prior's samples enter as log-odds of an atom in each place. Chains that end in worse answers
than others are given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...physics.fisher import fisher
from ...physics.likelihood import Likelihood
from .columns import Species
from .gibbs import random_states, sample_slices
from .rest import Rest
from .search import find_columns

LARGEST = 2400  # places (D · C) that a Fisher matrix is made for
HOT = (
    (1000.0, 90.0),
    (60.0, 10.0),
)  # temperatures (from, to) of the first sampling and of the last
RUNGS = 6
BURN, SWEEPS = 30, 60
CHORDS = 3  # gradients for one Fisher matrix
WORK = 2600  # positions × species per Fisher matrix


class TooManyAtoms(ValueError):
    """A field with more atoms than places can be sampled for."""


def temperatures(part: float) -> NDArray[np.float64]:
    """Falling temperatures of one sampling, for a run that has come so far (0 to 1)."""
    top, bottom = (a * (b / a) ** part for a, b in zip(*HOT, strict=True))
    return np.geomspace(top, bottom, RUNGS)


class Occupancy:
    """Chains of occupancies and what they are drawn from.

    Parameters
    ----------
    likelihood : Likelihood
        Poisson.
    species : Species
    pixel_size : (dy, dx)
        Å.
    energy : float
        kV.
    chains : int
    seed : int

    Attributes
    ----------
    excess : float
        Misfit over shot noise that free voxels left: what is above 1 is not of the specimen.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        species: Species,
        pixel_size: tuple[float, float],
        energy: float,
        *,
        chains: int = 8,
        seed: int = 0,
    ) -> None:
        self.likelihood, self.species, self.seed = likelihood, species, seed
        self.pixel_size, self.energy = pixel_size, energy
        self.device = likelihood.device
        self.depth = likelihood.shape[0]
        self.images = species.images.to(self.device, torch.float32)
        self.count = np.minimum(species.count, self.depth)
        size = self.depth * len(self.count)
        if size > LARGEST:
            raise TooManyAtoms(
                f"{len(self.count)} kinds of atoms in columns × {self.depth} slices are {size} "
                "places, more than "
                f"the {LARGEST} that can be sampled: crop the field, or choose another guidance"
            )
        self.rest = Rest(likelihood.shape[1:], pixel_size, energy, self.device)
        self.mean = np.repeat(self.count[None] / self.depth, self.depth, axis=0)  # (D, C)
        self.states = random_states(self.count, species.column, self.depth, chains, seed)
        self.means = (
            self.states.copy()
        )  # (chains, D, C): averages over the last sweeps of each chain
        self.odds: NDArray[np.float64] | None = None  # (chains, D, C)
        self.draws, self.excess = 0, 1.0
        flat = self.images.reshape(len(self.count), -1)
        gram = (flat @ flat.T).double()
        self._gram = gram + 1e-2 * gram.diagonal().median() * torch.eye(
            len(gram), device=self.device, dtype=torch.float64
        )

    @classmethod
    def from_sum(
        cls,
        likelihood: Likelihood,
        image: NDArray[np.floating],
        elements: Sequence[str | int],
        pixel_size: tuple[float, float],
        energy: float,
        *,
        band_limit: float | None,
        chains: int = 8,
        seed: int = 0,
        poll: Callable[[], None] | None = None,
    ) -> Occupancy:
        """From a depth sum (H, W) in rad; raises what :func:`~.search.find_columns` raises."""
        slices, shape = likelihood.shape[0], tuple(likelihood.shape[1:])
        peaks = _peaks(np.asarray(image))  # the search takes minutes where there are hundreds
        if peaks * slices > LARGEST:
            raise TooManyAtoms(
                f"about {peaks} columns × {slices} slices are more than the {LARGEST} places that "
                "can be sampled: crop the field, or choose another guidance"
            )
        found = find_columns(
            image, elements, pixel_size, energy, slices=slices, band_limit=band_limit, poll=poll
        )
        species = found.species(shape, pixel_size, energy)  # type: ignore[arg-type]
        return cls(likelihood, species, pixel_size, energy, chains=chains, seed=seed)

    # ---- volumes ---------------------------------------------------------------------------------
    def atoms(self, occupancy: NDArray[np.floating]) -> Tensor:
        """(..., D, C) to the phase of the atoms alone (..., D, H, W), rad."""
        o = torch.as_tensor(np.asarray(occupancy), dtype=torch.float32, device=self.device)
        return torch.einsum("...sc,cyx->...syx", o, self.images)

    def volume(self, occupancy: NDArray[np.floating]) -> Tensor:
        """Atoms and the even rest, rad."""
        return self.atoms(occupancy) + self.rest.image / self.depth

    def amplitudes(self, phase: Tensor) -> NDArray[np.float64]:
        """How much of an atom a volume (..., D, H, W) in rad has in each place (..., D, C), by
        least squares; 0 to 1.
        """
        x = phase.to(self.device, torch.float32)
        flat = self.images.reshape(len(self.count), -1)
        right = (x.reshape(-1, flat.shape[1]) @ flat.T).double()
        found = torch.linalg.solve(self._gram, right.T).T.reshape(*x.shape[:-2], -1)
        return found.clamp(0, 1).cpu().numpy()

    # ---- steps -----------------------------------------------------------------------------------
    def fit_rest(self, evaluations: int = 10) -> None:
        """Fit r to the data around the present mean, by L-BFGS on all positions."""
        self.rest.fit(self.likelihood, self.atoms(self.mean), evaluations)

    def settle(
        self,
        part: float,
        weight: float = 1.0,
        poll: Callable[[], None] | None = None,
        say: Callable[[str], None] = lambda text: None,
        expected: float = 0.0,
    ) -> None:
        """Move atoms under the misfit, expanded anew around each mean.

        The Fisher matrix, which changes slowly, is made once. A model of the microscope that is
        wrong counts as noise of that size: temperatures are multiplied by the misfit over shot
        noise that free voxels left, or by that of the atoms where these explain the data better.

        Parameters
        ----------
        part : float
            How far the whole run has come, 0 to 1: the temperatures fall with it.
        weight : float
            Of the data; temperatures are divided by it.
        poll : callable, optional
            Asked at least every second or so; what it raises ends the sampling half done.
        say : callable, optional
            Told what is being done.
        expected : float
            Misfit of all positions by shot noise alone, nats; 0 where it is not known.
        """
        ladder = temperatures(part) / weight
        say("moving atoms between slices: what the data say of each")
        matrix = self._fisher(poll)
        for chord in range(CHORDS):
            loss, gradient = self.likelihood(self.volume(self.mean))
            wide = max(1.0, min(self.excess, loss / expected)) if expected else 1.0
            slope = torch.einsum("syx,cyx->sc", gradient, self.images).double().cpu().numpy()
            expanded = self.mean
            for rung, temperature in enumerate(ladder, chord * len(ladder) + 1):
                say(f"moving atoms between slices: {rung} of {CHORDS * len(ladder)}")
                self.means, self.states = sample_slices(
                    matrix,
                    slope,
                    expanded,
                    self.states,
                    self.species.column,
                    float(temperature) * wide,
                    odds=self.odds,
                    burn=BURN,
                    sweeps=SWEEPS,
                    seed=self.seed * 1000 + self.draws,
                    poll=poll,
                )
                self.draws += 1
            self.mean = self.means.mean(axis=0)
        say("moving atoms between slices: comparing what was found")
        if self.odds is not None:
            self.select()
        self.fit_rest()
        say("")

    def _fisher(self, poll: Callable[[], None] | None) -> NDArray[np.float64]:
        """Around the present mean, summed over some of the positions.

        Evenly spread ones, others each time.
        """
        total = self.likelihood.count
        used = int(np.clip(WORK // len(self.count), 30, 170))
        every = max(1, total // used)
        batch = np.arange(self.draws % every, total, every)

        def alive() -> bool:
            if poll is not None:
                poll()
            return True

        matrix = fisher(self.likelihood, self.volume(self.mean), self.images, batch, alive)  # type: ignore[arg-type]
        return (matrix * (total / len(batch))).double().cpu().numpy()

    def believe(self, phase: Tensor, weight: float) -> None:
        """Log-odds of an atom in each place, w (2a − 1) with its amplitude a, from samples (K, D,
        H, W) in rad.

        Each chain believes one sample, so that chains go on being different answers.
        """
        found = self.amplitudes(phase)
        self.odds = weight * (2 * found[np.arange(len(self.states)) % len(found)] - 1)

    def select(self) -> None:
        """The half of the chains that explain the data better, twice."""
        batch = np.arange(self.draws % 3, self.likelihood.count, 3)
        losses = [self.likelihood.loss(self.volume(state), batch) for state in self.states]  # type: ignore[arg-type]
        better = np.argsort(losses, kind="stable")[: max(1, len(losses) // 2)]
        chosen = np.resize(better, len(losses))
        self.states, self.means = self.states[chosen].copy(), self.means[chosen].copy()
        self.mean = self.means.mean(axis=0)

    # ---- checkpoints -----------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Tensors and numbers to go on from."""
        s = self.species
        return {
            "column": torch.from_numpy(s.column),
            "number": torch.from_numpy(s.number),
            "count": torch.from_numpy(s.count),
            "images": s.images.cpu(),
            "sources": self.rest.sources.cpu(),
            "mean": torch.from_numpy(self.mean.copy()),
            "means": torch.from_numpy(self.means.copy()),
            "states": torch.from_numpy(self.states.copy()),
            "draws": self.draws,
            "odds": None if self.odds is None else torch.from_numpy(self.odds.copy()),
            "seed": self.seed,
            "excess": self.excess,
        }

    @classmethod
    def from_state(
        cls,
        likelihood: Likelihood,
        state: dict[str, Any],
        pixel_size: tuple[float, float],
        energy: float,
    ) -> Occupancy:
        """The inverse of :meth:`state`."""
        species = Species(
            state["column"].numpy(),
            state["number"].numpy(),
            state["count"].numpy(),
            state["images"],
        )
        out = cls(
            likelihood,
            species,
            pixel_size,
            energy,
            chains=len(state["states"]),
            seed=int(state["seed"]),
        )
        out.rest.sources = state["sources"].to(out.device)
        out.mean, out.means, out.states = (
            state[k].numpy().copy() for k in ("mean", "means", "states")
        )
        out.odds = None if state["odds"] is None else state["odds"].numpy().copy()
        out.draws, out.excess = int(state["draws"]), float(state.get("excess", 1.0))
        return out


def _peaks(image: NDArray[np.floating]) -> int:
    """How many columns a depth sum shows at a first glance: maxima above a fifth of the highest."""
    from scipy.ndimage import gaussian_filter, maximum_filter

    smooth = gaussian_filter(np.nan_to_num(image.astype(np.float64)), 1.0)
    bar = smooth.min() + 0.2 * (smooth.max() - smooth.min())
    return int(((smooth == maximum_filter(smooth, 5)) & (smooth > bar)).sum())
