"""The refined microscope of other packages: read from their result files, written for them.

``load_microscope(path)`` takes the file of an earlier run here, a PtyRAD result (today's layout and
the coming one) or a ptychography of py4DSTEM; the content tells which. ``save_microscope(state,
path, format)`` writes any of the three.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...base.hdf5 import MEASUREMENT, VOLUME, is_hdf5
from ..state import FORMAT, MicroscopeState

Format = Literal["own", "ptyrad", "py4dstem"]
FORMATS: tuple[Format, ...] = get_args(Format)
TITLES: dict[Format, str] = {
    "own": "napari-mepdiff microscope",
    "ptyrad": "PtyRAD result",
    "py4dstem": "py4DSTEM ptychography",
}

_OTHERS = {MEASUREMENT: "a measurement", VOLUME: "a volume"}


def format_of(path: str | Path) -> Format:
    """Which of the formats a file has, by its content.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is damaged, or it holds no refined microscope; the message says
        which.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not is_hdf5(path):
        raise ValueError(
            f"{path.name} cannot be used as a microscope state: it is no HDF5 file; such states "
            "are NAME_microscope.h5 of an earlier run, results of PtyRAD (model_iterNNNN.hdf5) and "
            "of py4DSTEM's ptychography"
        )
    from .content import use, word
    from .ptyrad import layout
    from .py4dstem import reconstructions

    with use(path) as file:
        mark = word(file.attrs.get("format"))
        if mark == FORMAT:
            return "own"
        if layout(file):
            return "ptyrad"
        if reconstructions(file):
            return "py4dstem"
        if mark in _OTHERS:
            raise ValueError(f"it is {_OTHERS[mark]}, and holds no refined probe and positions")
        raise ValueError(
            "it holds no refined probe and positions, neither of an earlier run nor as PtyRAD or "
            "py4DSTEM write them"
        )


def load_microscope(path: str | Path, scan: NDArray[np.float64] | None = None) -> MicroscopeState:
    """Probe, positions and what else a reconstruction found of the microscope.

    Parameters
    ----------
    path : path
    scan : ndarray, optional
        (N, 2), Å, (y, x): the positions as told. Other packages count positions from a corner of
        their canvas; they are moved so that their mean is that of the scan. Without it the smallest
        y and x are 0.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`format_of`, or if values are missing or cannot be right.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "own":
        return MicroscopeState.load(path)
    from . import ptyrad, py4dstem
    from .content import use

    reader = ptyrad.read if kind == "ptyrad" else py4dstem.read
    with use(path) as file:
        return reader(file).state(path.name, scan)


def save_microscope(state: MicroscopeState, path: str | Path, format: Format = "own") -> None:
    """Write a state for another package, or as :meth:`MicroscopeState.save` does.

    The file appears whole or not at all. What the other package has no place for (origin of the
    positions, background, errors) stands in a dataset of its own, which only
    :func:`load_microscope` reads.

    Raises
    ------
    ValueError
        If the format is unknown, or cannot hold such a probe (PtyRAD: square pixels and windows).
    OSError
        If it cannot be written (no such folder, disk full).
    """
    if format not in FORMATS:
        raise ValueError(f"a microscope is written as {', '.join(FORMATS)}; got {format!r}")
    if format == "own":
        state.save(path)
        return
    from . import ptyrad_writing, py4dstem_writing

    writer = ptyrad_writing.write if format == "ptyrad" else py4dstem_writing.write
    writer(state, path)
