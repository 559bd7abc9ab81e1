"""How atoms scatter electrons: the parametrisation of Lobato and Van Dyck (2014), for every element
up to Lr."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

_KAPPA = 0.0208865737082965  # 2 ε₀ / (a₀ e) in 1/(V Å²): from scattering factors in Å to potentials


def projected_factor(number: int, k2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fourier transform of an atom's projected potential, V·Å³ (f(k) / κ, isolated neutral atom).

    Parameters
    ----------
    number : int
        Atomic number, 1 to 103.
    k2 : ndarray
        Squared spatial frequency, 1/Å².

    Raises
    ------
    ValueError
        If there are no parameters for the element.
    """
    a, b = _parameters().get(number, (None, None))
    if a is None or b is None:
        raise ValueError(
            f"there are no scattering factors for atomic number {number}: "
            "1 (H) to 103 (Lr) have some"
        )
    # Single precision, and the same order of sums, as in abTEM: its volumes are the ground truth of
    # the
    # simulated data, and so the two agree to the last bit.
    strength = (np.pi**2 * a / b**1.5 / _KAPPA).astype(np.float32)
    decay = (2 * np.pi / np.sqrt(b)).astype(np.float32)
    q2 = 4 * float(np.float32(np.pi**2)) * k2
    terms = [
        s / d / (q2 + d * d) + s * d / (q2 + d * d) ** 2
        for s, d in zip(strength, decay, strict=True)
    ]
    total = np.asarray(sum(terms[1:], start=terms[0]), np.float64)
    return 8 * float(np.float32(np.pi)) * total


@lru_cache(maxsize=1)
def _parameters() -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Five a (Å) and five b (Å²) by atomic number: f(k) = Σ a (2 + b k²) / (1 + b k²)²."""
    with files(__package__).joinpath("lobato.csv").open() as handle:
        table = np.loadtxt(handle, delimiter=",")
    return {int(row[0]): (row[1:6], row[6:11]) for row in table}
