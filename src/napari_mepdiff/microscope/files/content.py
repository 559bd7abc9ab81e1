"""What is in a file, asked so that a foreign or damaged file is a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...base.hdf5 import NoAnswer, guard_hdf5

if TYPE_CHECKING:
    import h5py


@contextmanager
def use(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to be read; what goes wrong is a ValueError that names it.

    Raises
    ------
    NoAnswer
        If the file does not answer in time.
    ValueError
        If it is damaged, or what is read from it is missing or wrong.
    """
    import h5py

    try:
        guard_hdf5(path)
        with h5py.File(path, "r") as file:
            yield file
    except NoAnswer:
        raise
    except (OSError, KeyError, IndexError, TypeError, RuntimeError, ValueError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path.name} cannot be used as a microscope state: {said}") from error


def word(value: Any) -> str:
    """A string as HDF5 may give it; empty where it is none."""
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str) else ""


def numbers(group: h5py.Group, path: str) -> NDArray[np.float64] | None:
    """A dataset as float64; None where there is none, or a word that stands for None.

    Raises
    ------
    ValueError
        If values are not finite.
    """
    import h5py

    item = group.get(path)
    if not isinstance(item, h5py.Dataset):
        return None
    value = item[()]
    if isinstance(value, (bytes, str)):  # "__NONE__", "_None"
        return None
    out = np.asarray(value, dtype=np.float64)
    if not np.isfinite(out).all():
        raise ValueError(f"'{path}' contains NaN or infinite values")
    return out


def number(group: h5py.Group, path: str) -> float | None:
    """The first value of :func:`numbers`."""
    found = numbers(group, path)
    return None if found is None or not found.size else float(found.flat[0])


def required(value: Any, what: str) -> Any:
    """A value that a state cannot do without.

    Raises
    ------
    ValueError
        If it is None.
    """
    if value is None:
        raise ValueError(f"it does not say {what}")
    return value


def pairs(group: h5py.Group, path: str, what: str) -> NDArray[np.float64]:
    """(N, 2) numbers.

    Raises
    ------
    ValueError
        If they are missing or have another shape.
    """
    found: NDArray[np.float64] = required(numbers(group, path), what)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found):
        raise ValueError(f"{what} are (N, 2) as (y, x); '{path}' has shape {found.shape}")
    return found
