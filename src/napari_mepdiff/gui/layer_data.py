"""Layers and volumes: what ``layer.metadata`` says of a volume, and a volume made of a layer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..specimen.volume import Volume

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM

KEY = "mepdiff"  # of our entry in layer.metadata
AXES = ("z", "y", "x")
COLORMAP = "inferno"
ALTERED = "its values were changed in napari after that"
ENOUGH = 1_000_000  # voxels that tell a volume's contrast


@dataclass(frozen=True)
class Taken:
    """What an image layer holds at a moment: for workers, which must not touch layers."""

    name: str
    data: NDArray[Any]
    scale: Any
    translate: Any
    units: Any
    metadata: dict[str, Any]

    @classmethod
    def of(cls, layer: Any) -> Taken:
        """A copy of a layer's values and of what it says of itself."""
        return cls(
            layer.name,
            np.array(layer.data),
            tuple(layer.scale),
            tuple(layer.translate),
            tuple(layer.units),
            dict(layer.metadata),
        )


def describe(volume: Volume, role: str, **extra: Any) -> dict[str, Any]:
    """What `layer.metadata` says of a volume: all that :func:`volume_of` needs."""
    return {
        "role": role,
        "unit": volume.unit,
        "energy_kV": volume.energy,
        "voxel_size": volume.voxel_size,
        "origin": volume.origin,
        "slice_thickness": volume.slice_thickness,
        "provenance": volume.provenance,
        **extra,
    }


def volume_of(layer: Any, check: bool = True) -> Volume:
    """A layer as a Volume: ours with all it knows, any other image by its scale.

    Parameters
    ----------
    layer : napari layer or Taken
    check : bool
        Whether to see if the values are still those that were opened (0.1 s for 100 MB).

    Raises
    ------
    ValueError
        If it is not a volume, or not in units of length.
    """
    known = layer.metadata.get(KEY, {})
    array = np.asarray(layer.data)
    if array.ndim != 3:
        raise ValueError(
            f"the layer {layer.name!r} is not a volume of three axes (slices, y, x): its shape is "
            f"{array.shape}"
        )
    if known.get("voxel_size") is not None:
        thickness = known.get("slice_thickness")
        provenance = dict(known.get("provenance", {}))
        if check and "checksum" in known and known["checksum"] != checksum(array):
            provenance["altered"] = ALTERED
        return Volume(
            array,
            tuple(known["voxel_size"]),
            tuple(known["origin"]),
            known.get("unit", "rad"),
            known.get("energy_kV"),
            None if thickness is None else tuple(thickness),
            provenance,
        )
    size, origin, remarks = grid_of(layer)
    return Volume(array, size, origin, provenance=remarks)  # type: ignore[arg-type]


def grid_of(layer: Any) -> tuple[tuple[float, ...], tuple[float, ...], dict[str, Any]]:
    """Voxel size and origin in Å of a volume layer, ours or another's, and remarks on them."""
    known = layer.metadata.get(KEY, {})
    if known.get("voxel_size") is not None:
        return tuple(known["voxel_size"]), tuple(known["origin"]), {}
    factors = []
    for unit in layer.units:
        try:
            factors.append(float((1 * unit).to("angstrom").magnitude))
        except Exception:  # pint raises several kinds; pixels are not lengths
            factors.append(1.0)
    size = tuple(float(s) * f for s, f in zip(layer.scale, factors, strict=True))
    origin = tuple(float(t) * f for t, f in zip(layer.translate, factors, strict=True))
    remarks = {"source": f"layer {layer.name}"}
    if any(str(u) == "pixel" for u in layer.units):
        remarks["voxel_size"] = "taken from the layer's scale as Å: the layer is in pixels"
    return size, origin, remarks


def checksum(array: NDArray[Any]) -> int:
    """A number that another array would hardly have; a tenth of a second for 100 MB."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)


def corners_of(layer: Any) -> NDArray[np.float64]:
    """Corners (n, 2) in Å, as (y, x), of the last shape of a shapes layer.

    Raises
    ------
    ValueError
        If there is no shape.
    """
    if len(layer.data) == 0:
        raise ValueError(f"draw a rectangle in the layer {layer.name!r} first")
    return np.array([layer.data_to_world(p) for p in np.asarray(layer.data[-1])])[:, -2:]


def region_of(
    corners: NDArray[np.float64],
    shape: Sequence[int],
    voxel_size: Sequence[float],
    origin: Sequence[float],
) -> tuple[slice, slice]:
    """Voxels (y, x) of a volume (D, H, W) between corners.

    Raises
    ------
    ValueError
        If none lies there.
    """
    out = []
    for axis in (0, 1):
        pixel, zero, size = voxel_size[1 + axis], origin[1 + axis], shape[1 + axis]
        low = int(np.clip(np.ceil((corners[:, axis].min() - zero) / pixel - 1e-6), 0, size))
        high = int(np.clip(np.floor((corners[:, axis].max() - zero) / pixel + 1e-6) + 1, 0, size))
        if high <= low:
            raise ValueError("the drawn region lies outside the volume")
        out.append(slice(low, high))
    return out[0], out[1]


def span(array: NDArray[Any], low: float | None = 0.0) -> tuple[float, float]:
    """Contrast limits: from zero (or the smallest value, where `low` is None) to the 99.95th
    percentile of the values, or of a million of them."""
    array = np.asarray(array)
    part = array.reshape(-1)[:: max(1, array.size // ENOUGH)]
    finite = part[np.isfinite(part)]
    if finite.size == 0:
        return 0.0, 1.0
    high = float(np.percentile(finite, 99.95))
    bottom = float(finite.min()) if low is None else low
    return bottom, max(high, bottom + 1e-6 + 1e-6 * abs(bottom))


def scan_affine(data: FourDSTEM) -> NDArray[np.float64]:
    """Scan indices (row, column) to Å, as a 3 × 3 matrix; the identity without a scan step."""
    from ..measurement.dataset import DataError

    try:
        positions = data.scan_positions()
    except DataError:
        return np.eye(3)
    ny, nx = data.scan_shape
    rows, columns = np.divmod(np.arange(ny * nx), nx)
    design = np.stack([rows, columns, np.ones(ny * nx)], axis=1)
    matrix = np.eye(3)
    matrix[:2] = np.linalg.lstsq(design, positions, rcond=None)[0].T
    if (
        np.linalg.matrix_rank(design) < 3 or abs(np.linalg.det(matrix)) < 1e-12
    ):  # one row or column only
        step = data.calibration.scan_step or (1.0, 1.0)
        matrix = np.diag([step[0], step[1], 1.0])
        matrix[:2, 2] = positions[0]
    return matrix


def images(viewer: Any) -> Sequence[Any]:
    """Image layers of a viewer that are volumes."""
    return [
        layer
        for layer in viewer.layers
        if type(layer).__name__ == "Image" and layer.ndim == 3 and not layer.rgb
    ]
