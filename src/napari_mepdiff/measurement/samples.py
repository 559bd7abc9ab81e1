"""The sample files that travel with the package."""

from __future__ import annotations

from pathlib import Path

from .dataset import FourDSTEM

NAMES = ("srtio3", "mos2", "litao3", "cuwo4", "cuwo4_low_dose", "cuwo4_extended")


def sample_path(name: str) -> Path:
    """Path of a sample file, in an installed package or in a checkout.

    Raises
    ------
    KeyError
        If there is no sample of that name.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_sample_data", package.parents[1] / "sample_data"):
        path = folder / f"{name}.h5"
        if path.exists():
            return path
    raise KeyError(f"no sample {name!r}; there are {', '.join(NAMES)}")


def open_sample(name: str) -> FourDSTEM:
    """A sample as a dataset with ground truth."""
    from .formats import open_4dstem

    return open_4dstem(sample_path(name))
