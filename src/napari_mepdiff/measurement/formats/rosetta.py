"""Microscope vendors' formats through RosettaSciIO: dm3, dm4, mib, blo, hspy, tvips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...base.extras import require
from ...base.hdf5 import guard_hdf5
from ..dataset import Calibration, FourDSTEM
from . import merlin
from .common import Options, ReadError, arrange
from .units import ANGLES, INVERSE, LENGTHS, NOTHING

_PLUGINS = {
    ".dm3": "digitalmicrograph", ".dm4": "digitalmicrograph", ".mib": "quantumdetector",
    ".hdr": "quantumdetector",
    ".blo": "blockfile", ".hspy": "hspy", ".tvips": "tvips", ".emd": "emd",
}  # fmt: skip


def read(path: Path, options: Options) -> FourDSTEM:
    """One 4D signal of a file, lazily, with the calibration that its axes carry."""
    suffix = path.suffix.lower()
    plugin = require(f"rsciio.{_PLUGINS[suffix]}", "formats", f"Reading {suffix} files")
    extra: dict[str, Any] = {}
    if suffix == ".hspy":
        guard_hdf5(path)
    if suffix == ".hdr":
        path, suffix = _frames_beside(path), ".mib"
    merlin_rows: merlin.Rows | None = None
    if suffix == ".mib" and options.scan_shape is not None:
        merlin_rows = merlin.rows(path, options.scan_shape, asked=True)
        extra["navigation_shape"] = merlin_rows.shape[::-1]
    signal = _one(plugin.file_reader(str(path), lazy=True, **extra), path)
    doubts: list[str] = []
    if suffix == ".mib" and merlin_rows is None:
        if signal["data"].ndim == 3:
            raise ReadError(
                f"{path.name} holds a list of {signal['data'].shape[0]} patterns: say how the scan "
                "was shaped (scan_shape)"
            )
        shape = (int(signal["data"].shape[0]), int(signal["data"].shape[1]))
        merlin_rows = merlin.rows(path, shape, asked=False)
        doubts += [d for d in (merlin.guessed(path, shape),) if d is not None]
        if merlin_rows.shape != shape:
            extra["navigation_shape"] = merlin_rows.shape[::-1]
            signal = _one(plugin.file_reader(str(path), lazy=True, **extra), path)
    data = signal["data"]
    if merlin_rows is not None:
        data = data[:, : merlin_rows.columns]
        doubts += merlin_rows.doubts
    axes = sorted(signal.get("axes", []), key=lambda a: a.get("index_in_array", 0) or 0)
    lazy = arrange(data, options, path.name)
    # a file cut short shows itself at its end, now rather than later
    np.asarray(lazy[-1, -1]), np.asarray(lazy[0, 0])
    energy = _energy(signal)
    calibration, unknown = _calibration(axes, energy, data.ndim)
    provenance: dict[str, Any] = {
        "axes": [{k: str(a.get(k)) for k in ("name", "size", "scale", "units")} for a in axes]
    }
    if doubts + unknown:
        provenance["doubts"] = doubts + unknown
    return FourDSTEM(lazy, calibration, provenance=provenance)


def _one(signals: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    """The signal of a file that can be 4D-STEM data."""
    fitting = [s for s in signals if getattr(s.get("data"), "ndim", 0) in (3, 4)]
    if len(fitting) != 1:
        shapes = [getattr(s.get("data"), "shape", ()) for s in signals]
        raise ReadError(
            f"{path.name} holds {len(fitting)} data sets that could be 4D-STEM data (shapes "
            f"{shapes})"
        )
    return fitting[0]


def _frames_beside(path: Path) -> Path:
    """The frames that belong to a .hdr file."""
    for suffix in (".mib", ".MIB"):
        if path.with_suffix(suffix).exists():
            return path.with_suffix(suffix)
    raise ReadError(f"{path.name} describes frames, but {path.stem}.mib is not beside it")


def _energy(signal: dict[str, Any]) -> float | None:
    """Beam energy in kV: the mapped metadata, or DigitalMicrograph's own voltage in V."""
    for tree, path, scale in (
        ("metadata", ("Acquisition_instrument", "TEM", "beam_energy"), 1.0),
        (
            "original_metadata",
            ("ImageList", "TagGroup0", "ImageTags", "Microscope Info", "Voltage"),
            1e-3,
        ),
    ):
        node: Any = signal.get(tree)
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, (int, float, np.number)) and np.isfinite(node) and node > 0:
            return float(node) * scale
    return None


def _calibration(
    axes: list[dict[str, Any]], energy: float | None, ndim: int
) -> tuple[Calibration, list[str]]:
    """Scan step and pixel size where the file states them with known units; what it did not."""
    out = Calibration(energy=energy)
    if len(axes) != ndim or ndim != 4:
        return out, []
    steps = [_scaled(a, LENGTHS) for a in axes[:2]]
    if steps[0] and steps[1]:
        out = out.model_copy(update={"scan_step": (steps[0], steps[1])})
    pixels = [_scaled(a, INVERSE) for a in axes[2:]]
    if pixels[0] and pixels[1] and abs(pixels[0] / pixels[1] - 1) < 1e-3:
        out = out.model_copy(update={"pixel_size": pixels[1]})
    angles = [_scaled(a, ANGLES) for a in axes[2:]]
    doubts = []
    if angles[0] and angles[1]:
        if energy is not None:
            out = out.with_pixel_mrad(angles[1])
        else:
            doubts.append(
                f"the file says a detector pixel of {angles[1]:g} mrad and no beam energy: set both"
            )
    for pair, what, tables in (
        (axes[:2], "scan step", (LENGTHS,)),
        (axes[2:], "detector pixel", (INVERSE, ANGLES)),
    ):
        unit, scale = str(pair[1].get("units")), pair[1].get("scale")
        if unit not in NOTHING and not any(unit in table for table in tables):
            doubts.append(f"the file says a {what} of {scale} {unit!r}, a unit that is not known")
    return out, doubts


def _scaled(axis: dict[str, Any], table: dict[str, float]) -> float | None:
    unit, scale = str(axis.get("units")), axis.get("scale")
    if (
        unit not in table
        or not isinstance(scale, (int, float, np.number))
        or not np.isfinite(scale)
        or scale == 0
    ):
        return None
    return abs(float(scale)) * table[unit]
