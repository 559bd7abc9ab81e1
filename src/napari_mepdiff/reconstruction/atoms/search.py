"""Columns of atoms found in the sum over depth.

The data fix the depth sum of the phase far better than anything else. With the elements of the
specimen known, every atom's projected image is known too, and the sum is

    s(y, x) = Σ_j Σ_e n_je K_e(y − y_j, x − x_j) + constant,   n_je = 0, 1, 2, …

Columns are found by matching pursuit, their places by Gauss–Newton steps, the numbers of atoms by
exact minimisation column by column. Everything is compared within the band that multislice data can
know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns, images_of

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
NEAR = 0.3  # Å: two columns closer than this are one
EDGE = 0.9  # Å beyond the field where a column may stand and still reach in
# gain in log-likelihood, at the noise of the image, at which a column is believed to hold one more
# element
MIXED = 200.0


def find_columns(
    image: NDArray[np.floating[Any]],
    elements: Sequence[str | int],
    pixel_size: tuple[float, float],
    energy: float,
    *,
    slices: int = 8,
    band_limit: float | None = 2 / 3,
    rounds: int = 10,
    poll: Callable[[], None] | None = None,
) -> Columns:
    """Columns that explain a depth sum.

    Parameters
    ----------
    image : ndarray
        (H, W), sum of the phase over depth, rad; a constant offset does not matter.
    elements : sequence of str or int
        Symbols or atomic numbers. Hydrogen is left out: it is too faint to be counted.
    pixel_size : (dy, dx)
        Å.
    energy : float
        kV.
    slices : int
        At most so many atoms stand in a column.
    band_limit : float, optional
        Fraction of the largest frequency that is compared; None for all.
    poll : callable, optional
        Asked between the pieces of the search; what it raises ends it.

    Raises
    ------
    ValueError
        If the image is not finite and 2D, no element is given, or nothing in the image looks like
        an atom.
    """
    from ase.data import atomic_numbers

    target: Floats = np.asarray(image, dtype=np.float64)
    if target.ndim != 2 or not np.isfinite(target).all():
        raise ValueError(f"a depth sum is a finite image (H, W), got shape {target.shape}")
    numbers = sorted({atomic_numbers[e] if isinstance(e, str) else int(e) for e in elements} - {1})
    if not numbers:
        raise ValueError(
            "columns of atoms can only be counted when the elements are known: give their symbols"
        )
    work = _Search(target, tuple(numbers), pixel_size, energy, band_limit, slices, poll)
    places = work.pursue(rounds)
    if not len(places):
        raise ValueError(
            "nothing in the depth sum looks like an atom of these elements: check elements, energy "
            "and calibration"
        )
    counts = None
    for _ in range(4):
        counts = work.count(places, counts)
        kept = counts.sum(axis=1) > 0
        places, counts = places[kept], counts[kept]
        places = work.move(places, counts)
    assert counts is not None
    residual = work.residual(places, counts)
    explained = 1 - float(residual.var() / max(work.target.var(), 1e-30))
    return Columns(places, tuple(numbers), counts, residual, explained)


class _Search:
    """The depth sum and the images of atoms, through the same window of frequencies."""

    def __init__(
        self,
        image: Floats,
        numbers: tuple[int, ...],
        pixel: tuple[float, float],
        energy: float,
        limit: float | None,
        slices: int,
        poll: Callable[[], None] | None = None,
    ) -> None:
        from ...physics.propagation import band_mask

        self.shape, self.numbers, self.pixel, self.energy = image.shape, numbers, pixel, energy
        self.poll = poll or (lambda: None)
        k = np.hypot(
            np.fft.fftfreq(image.shape[0], pixel[0])[:, None],
            np.fft.fftfreq(image.shape[1], pixel[1]),
        )
        # the slowest waves of the phase are known badly: a defocused probe hardly sees them
        self.window = k**2 / (k**2 + 0.15**2)
        if limit is not None:
            self.window = self.window * band_mask(image.shape, pixel, limit)  # type: ignore[arg-type]
        self.target, self.noise = self.filtered(image), float("inf")
        middle = [(np.array(image.shape) // 2 * pixel)]
        self.peaks = np.array([self.basis(np.array(middle), z).max() for z in numbers])
        order = np.argsort(self.peaks)
        self.light, self.typical = self.peaks[order[0]], numbers[order[len(order) // 2]]
        most = min(slices, 16)
        self.choices = np.array(
            [c for c in product(range(most + 1), repeat=len(numbers)) if sum(c) <= most]
            if len(numbers) <= 4
            else _sparse_choices(len(numbers), most)
        )

    def filtered(self, image: Floats) -> Floats:
        """The part of an image that is compared."""
        self.poll()
        return np.fft.ifft2(np.fft.fft2(image) * self.window).real

    def basis(self, places: Floats, number: int) -> Floats:
        """(n, H · W) images of one atom at each place."""
        return self.filtered(
            images_of(places, (number,), self.shape, self.pixel, self.energy)[:, 0].numpy()
        ).reshape(len(places), -1)

    def all_images(self, places: Floats) -> Floats:
        """(n, E, H · W)."""
        images = images_of(places, self.numbers, self.shape, self.pixel, self.energy).numpy()
        return self.filtered(images).reshape(len(places), len(self.numbers), -1)

    # ---- places ----------------------------------------------------------------------------------
    def pursue(self, rounds: int) -> Floats:
        from scipy.ndimage import maximum_filter

        places, residual = np.zeros((0, 2)), self.target
        typical = self.peaks[self.numbers.index(self.typical)]
        floor = 0.45 * self.light
        for n in range(rounds):
            bar = max(floor, 0.35 * residual.max() if n < 3 else 0)
            found = (residual == maximum_filter(residual, size=5, mode="nearest")) & (
                residual > bar
            )
            fresh = np.argwhere(found) * np.array(self.pixel)
            if len(places):
                fresh = np.array(
                    [p for p in fresh if np.hypot(*(places - p).T).min() > NEAR]
                ).reshape(-1, 2)
            if not len(fresh):
                if n >= 3:
                    break
                continue
            places, amplitude, residual = self._fit(np.concatenate([places, fresh]))
            kept = amplitude * typical > 0.5 * floor
            if not kept.all():
                places, _, residual = self._fit(places[kept], 1)
            places = _merged(places)
        return places

    def _fit(self, places: Floats, steps: int = 3) -> tuple[Floats, Floats, Floats]:
        """Places, amplitudes ≥ 0 in atoms of the typical element, and the rest."""
        from scipy.optimize import nnls

        target = self.target.ravel()
        for step in range(steps + 1):
            self.poll()
            images = self.basis(places, self.typical)
            gram = images @ images.T  # the normal equations: as many unknowns as columns
            lower = np.linalg.cholesky(gram + 1e-9 * np.trace(gram) / len(gram) * np.eye(len(gram)))
            amplitude, _ = nnls(
                lower.T, np.linalg.solve(lower, images @ target), maxiter=50 * len(gram)
            )
            rest = target - amplitude @ images
            if step < steps:
                dy, dx = (
                    d * amplitude[:, None]
                    for d in self._slopes(places, lambda p: self.basis(p, self.typical))
                )
                places = self._moved(places, dy, dx, rest, 0.08)
        return places, amplitude, rest.reshape(self.shape)

    @staticmethod
    def _slopes(places: Floats, images: Callable[[Floats], Floats]) -> tuple[Floats, Floats]:
        h = 0.02  # Å
        dy, dx = (
            (images(places + step) - images(places - step)) / (2 * h)
            for step in (np.array([h, 0]), np.array([0, h]))
        )
        return dy, dx

    def _moved(self, places: Floats, dy: Floats, dx: Floats, rest: Floats, most: float) -> Floats:
        slopes = np.concatenate([dy, dx])
        gram = slopes @ slopes.T
        step = np.linalg.solve(
            gram + (1e-3 * np.median(np.diag(gram)) + 1e-12) * np.eye(len(gram)), slopes @ rest
        )
        moved = places + step.reshape(2, -1).T.clip(-most, most)
        return moved.clip(-EDGE, np.array(self.shape) * self.pixel + EDGE)

    def move(self, places: Floats, counts: Counts) -> Floats:
        for _ in range(2):

            def render(at: Floats) -> Floats:
                return np.einsum("je,jep->jp", counts, self.all_images(at))

            rest = self.target.ravel() - render(places).sum(axis=0)
            places = self._moved(places, *self._slopes(places, render), rest, 0.05)
        return places

    # ---- numbers of atoms ------------------------------------------------------------------------
    def count(self, places: Floats, counts: Counts | None) -> Counts:
        """Whole numbers of atoms, column by column until nothing changes.

        One more element in a column must pay for itself.
        """
        from scipy.optimize import nnls

        images, target = self.all_images(places), self.target.ravel()
        if counts is None:
            flat = images.reshape(-1, images.shape[-1])
            gram = flat @ flat.T
            lower = np.linalg.cholesky(gram + 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram)))
            start, _ = nnls(lower.T, np.linalg.solve(lower, flat @ target), maxiter=50 * len(gram))
            current = start.reshape(len(places), -1)
        else:
            current = counts.astype(float)
        grams = np.einsum("jep,jfp->jef", images, images)
        inner = np.einsum("ce,jef,cf->jc", self.choices, grams, self.choices) / 2
        rest = target - np.einsum("je,jep->p", current, images)
        # wrong numbers make a large rest, which must not make them cheap: the least noise seen so
        # far counts
        noise = self.noise = min(self.noise, float(np.median(np.abs(rest)) / 0.6745) ** 2)
        kinds = (self.choices > 0).sum(axis=1)
        price = MIXED * noise * np.maximum(kinds - 1, 0)
        for _ in range(8):
            before = current.copy()
            for j in range(len(places)):
                self.poll()
                own = rest + current[j] @ images[j]
                cost = inner[j] - self.choices @ (images[j] @ own) + price
                best = self.choices[int(np.argmin(cost))]
                rest = own - best @ images[j]
                current[j] = best
            if (before == current).all():
                break
        return current.astype(np.int64)

    def residual(self, places: Floats, counts: Counts) -> Floats:
        rest = self.target.ravel() - np.einsum("je,jep->p", counts, self.all_images(places))
        return rest.reshape(self.shape)


def _sparse_choices(elements: int, most: int) -> list[tuple[int, ...]]:
    """Numbers of atoms with at most two elements in a column, where there are too many elements for
    all of them.
    """
    out = {(0,) * elements}
    for a in range(elements):
        for b in range(elements):
            for n, m in product(range(most + 1), repeat=2):
                if n + m <= most:
                    row = [0] * elements
                    row[a] = n
                    row[b] = m if a != b else n
                    out.add(tuple(row))
    return sorted(out)


def _merged(places: Floats) -> Floats:
    """Places that came closer than NEAR are one."""
    kept: list[Floats] = []
    for p in places:
        if all(np.hypot(*(p - q)) > NEAR for q in kept):
            kept.append(p)
    return np.array(kept).reshape(-1, 2)
