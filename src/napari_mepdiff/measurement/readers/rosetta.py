"""Microscope vendors' formats through RosettaSciIO: dm3, dm4, mib, blo, hspy, tvips."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ...files import guard_hdf5
from ..dataset import Calibration, FourDSTEM
from .common import Options, ReadError, arrange

_PLUGINS = {
    ".dm3": "digitalmicrograph", ".dm4": "digitalmicrograph", ".mib": "quantumdetector", ".hdr": "quantumdetector",
    ".blo": "blockfile", ".hspy": "hspy", ".tvips": "tvips", ".emd": "emd",
}  # fmt: skip
_LENGTHS = {"Å": 1.0, "A": 1.0, "angstrom": 1.0, "nm": 10.0, "pm": 0.01, "µm": 1e4, "um": 1e4, "μm": 1e4}
_INVERSE = {"1/Å": 1.0, "1/A": 1.0, "Å^-1": 1.0, "A^-1": 1.0, "1/nm": 0.1, "nm^-1": 0.1, "nm$^{-1}$": 0.1}


def read(path: Path, options: Options) -> FourDSTEM:
    """One 4D signal of a file, lazily, with the calibration that its axes carry."""
    suffix = path.suffix.lower()
    plugin = importlib.import_module(f"rsciio.{_PLUGINS[suffix]}")
    extra: dict[str, Any] = {}
    if suffix == ".hspy":
        guard_hdf5(path)
    if suffix in (".mib", ".hdr") and options.scan_shape is not None:
        extra["navigation_shape"] = options.scan_shape[::-1]
    signals = plugin.file_reader(str(path), lazy=True, **extra)
    fitting = [s for s in signals if getattr(s.get("data"), "ndim", 0) in (3, 4)]
    if len(fitting) != 1:
        shapes = [getattr(s.get("data"), "shape", ()) for s in signals]
        raise ReadError(f"{path.name} holds {len(fitting)} data sets that could be 4D-STEM data (shapes {shapes})")
    signal = fitting[0]
    data = signal["data"]
    axes = sorted(signal.get("axes", []), key=lambda a: a.get("index_in_array", 0) or 0)
    if suffix in (".mib", ".hdr") and data.ndim == 3 and options.scan_shape is None:
        raise ReadError(f"{path.name} holds a list of {data.shape[0]} patterns: say how the scan was shaped (scan_shape)")
    lazy = arrange(data, options, path.name)
    np.asarray(lazy[-1, -1]), np.asarray(lazy[0, 0])  # a file cut short shows itself at its end, now rather than later
    energy = _energy(signal)
    return FourDSTEM(lazy, _calibration(axes, energy, data.ndim),
                     provenance={"axes": [{k: str(a.get(k)) for k in ("name", "size", "scale", "units")} for a in axes]})


def _energy(signal: dict[str, Any]) -> float | None:
    """Beam energy in kV: the mapped metadata, or DigitalMicrograph's own voltage in V."""
    for tree, path, scale in (
        ("metadata", ("Acquisition_instrument", "TEM", "beam_energy"), 1.0),
        ("original_metadata", ("ImageList", "TagGroup0", "ImageTags", "Microscope Info", "Voltage"), 1e-3),
    ):
        node: Any = signal.get(tree)
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, (int, float, np.number)) and np.isfinite(node) and node > 0:
            return float(node) * scale
    return None


def _calibration(axes: list[dict[str, Any]], energy: float | None, ndim: int) -> Calibration:
    """Scan step and pixel size where the file states them with units that we know."""
    out = Calibration(energy=energy)
    if len(axes) != ndim or ndim != 4:
        return out
    steps = [_scaled(a, _LENGTHS) for a in axes[:2]]
    if steps[0] and steps[1]:
        out = out.model_copy(update={"scan_step": (steps[0], steps[1])})
    pixels = [_scaled(a, _INVERSE) for a in axes[2:]]
    if pixels[0] and pixels[1] and abs(pixels[0] / pixels[1] - 1) < 1e-3:
        out = out.model_copy(update={"pixel_size": pixels[1]})
    angles = [_scaled(a, {"mrad": 1.0, "rad": 1e3}) for a in axes[2:]]
    if angles[0] and angles[1] and energy is not None:
        out = out.with_pixel_mrad(angles[1])
    return out


def _scaled(axis: dict[str, Any], table: dict[str, float]) -> float | None:
    unit, scale = str(axis.get("units")), axis.get("scale")
    if unit not in table or not isinstance(scale, (int, float, np.number)) or not np.isfinite(scale) or scale == 0:
        return None
    return abs(float(scale)) * table[unit]

