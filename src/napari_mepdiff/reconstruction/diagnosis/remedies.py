"""What can be done: the solver that finds the microscope with the volume, and what it frees."""

from __future__ import annotations

from .result import Remedy


def refining(title: str, **settings: object) -> Remedy:
    """The solver that finds the microscope with the volume."""
    options = " ".join(f"--set {k}={str(v).lower()}" for k, v in settings.items())
    return Remedy(title, f"--solver refine {options}".strip(), "refine", dict(settings))


PROBE = refining("Refine the microscope", probe="free")
MODES = refining("Refine the modes of the probe", probe="free", modes=6)
FREE = refining("Free the positions", positions="free")
AFFINE = refining("Fit the scan", positions="affine")
TILT = refining("Refine the tilt", tilt=True)
DARK = refining("Fit a background", background=True)
