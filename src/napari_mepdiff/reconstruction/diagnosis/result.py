"""What a diagnosis says: causes in words, each with how much it explains and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

WELL = 1.1  # misfit over shot noise up to which nothing is said to be wrong
MUCH = 1.3  # from here on the diagnosis is told without being asked for

Verdict = Literal["well", "explained", "unknown"]


@dataclass(frozen=True)
class Remedy:
    """A change that removes a cause.

    Attributes
    ----------
    title : str
        As a button says it.
    option : str
        The same at the command line, to be added to ``mepdiff reconstruct``.
    solver : str
        Solver of the next run; empty: as it was.
    settings : dict
        Fields of that solver's settings.
    preparation : dict
        Fields of the preparation. ``gain`` is what the present values are to be divided by, and
        ``centre`` (y, x) the shift in pixels of the present centre; what was prepared before
        is taken into account by who applies it.
    setup : dict
        Fields of the setup (slice_thickness, modes …).
    microscope : str
        Name of a run whose refined microscope is to be used.
    """

    title: str
    option: str = ""
    solver: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    preparation: dict[str, Any] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)
    microscope: str = ""


@dataclass(frozen=True)
class Cause:
    """Something that is otherwise than the model has it.

    Attributes
    ----------
    name : str
        Short and fixed, e.g. 'defocus', 'gain', 'positions'.
    words : str
        One or two sentences, with numbers and units.
    strength : float
        Share of the misfit above shot noise that it explains, 0 to 1.
    remedy : Remedy or None
        None where there is nothing that the program can change.
    like : tuple of str
        Names of other causes that these patterns cannot tell from it.
    """

    name: str
    words: str
    strength: float
    remedy: Remedy | None = None
    like: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Pictures:
    """Where the misfit is.

    Attributes
    ----------
    residual : ndarray
        (Ky, Kx): measured − modelled, in standard deviations of shot noise of one pattern, the
        mean over the positions; NaN where the detector is masked.
    chi2 : ndarray
        (Ky, Kx): mean squared residual over shot noise; 1 is what counting alone leaves.
    pixel_mrad : (y, x)
        Angle between neighbouring pixels.
    aperture : float or None
        Semi-angle, mrad, as the model has it.
    angles, radial_residual, radial_chi2 : ndarray
        (R,): scattering angle in mrad, and the means of both pictures there.
    positions : ndarray
        (n, 2), Å, of the positions that were looked at, in the frame of the scan.
    position_chi2 : ndarray
        (n,): their misfit over shot noise.
    """

    residual: NDArray[np.float64]
    chi2: NDArray[np.float64]
    pixel_mrad: tuple[float, float]
    aperture: float | None
    angles: NDArray[np.float64]
    radial_residual: NDArray[np.float64]
    radial_chi2: NDArray[np.float64]
    positions: NDArray[np.float64]
    position_chi2: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the misfit of a volume is made of.

    Attributes
    ----------
    misfit : float
        Poisson deviance over its expectation, at the positions that were looked at; 1 is shot
        noise.
    verdict : str
        'well': nothing is wrong; 'explained': the causes are named; 'unknown': none of those that
        are known explains it.
    summary : str
        One or two sentences.
    causes : tuple of Cause
        The strongest first.
    where : str
        Where on the detector and in the field the misfit lies, in words.
    pictures : Pictures or None
    looked_at : int
        Positions.
    """

    misfit: float
    verdict: Verdict
    summary: str
    causes: tuple[Cause, ...] = ()
    where: str = ""
    pictures: Pictures | None = None
    looked_at: int = 0

    def __str__(self) -> str:
        return " ".join([self.summary, *(c.words for c in self.causes), self.where]).strip()

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What can be changed, without repetitions, the most helpful first."""
        found: dict[str, Remedy] = {}
        for cause in self.causes:
            if cause.remedy is not None:
                found.setdefault(cause.remedy.title, cause.remedy)
        return tuple(found.values())

    def as_dict(self) -> dict[str, Any]:
        """Numbers and words for JSON; of the pictures the curves and the positions."""
        out: dict[str, Any] = {
            "misfit": self.misfit,
            "verdict": self.verdict,
            "summary": self.summary,
            "where": self.where,
            "looked_at": self.looked_at,
            "causes": [
                {
                    "name": c.name,
                    "words": c.words,
                    "strength": c.strength,
                    "like": list(c.like),
                    "remedy": None if c.remedy is None else dict(vars(c.remedy)),
                }
                for c in self.causes
            ],
        }
        p = self.pictures
        if p is not None:
            out["profile"] = {
                "angle_mrad": p.angles.tolist(),
                "residual": p.radial_residual.tolist(),
                "chi2": p.radial_chi2.tolist(),
            }
            out["positions"] = {"at": p.positions.tolist(), "chi2": p.position_chi2.tolist()}
        return out
