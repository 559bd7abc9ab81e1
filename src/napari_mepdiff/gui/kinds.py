"""What kind of file one is: a volume of ours, or 4D-STEM data."""

from __future__ import annotations

from pathlib import Path

from ..base.extras import require
from ..base.hdf5 import is_hdf5, quick_kind
from ..base.hdf5_root import root_holds

AT_THE_ROOT = ("optimizable_tensors", "volume")  # of a PtyRAD result; of our own volumes
VOLUMES = (".tif", ".tiff", ".mrc", ".npy", ".zarr", ".h5", ".hdf5")


def is_volume(path: Path) -> bool:
    """Whether a file is a volume of ours or a PtyRAD result rather than 4D-STEM data.

    Looks at names only: no process is started, no HDF5 library loaded, nothing of the data read.
    """
    suffix = path.suffix.lower()
    if suffix not in VOLUMES:
        return False
    if suffix in (".tif", ".tiff", ".mrc") or path.with_name(path.name + ".json").exists():
        return True
    if suffix == ".npy":
        return False
    if suffix == ".zarr":
        try:
            zarr = require("zarr", "formats", "Opening .zarr stores")
            attributes = dict(zarr.open_group(str(path), mode="r").attrs)
        except Exception:  # an array, or damaged: the other reader will say
            return False
        return "multiscales" in attributes or "ome" in attributes
    try:
        if not is_hdf5(path):
            return False
        return quick_kind(path) == "volume" or any(root_holds(path, name) for name in AT_THE_ROOT)
    except OSError:
        return False
