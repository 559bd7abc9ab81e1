"""What a reconstruction of a simulated measurement is worth: the truth judges, after the fact."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_mepdiff.microscope.state import MicroscopeState


def judged(path: Path, volume: Any, origin: Any, places: Any, thickness: float) -> dict[str, Any]:
    """Depth sum, dopant and positions against the truth of the file.

    Parameters
    ----------
    volume : ndarray
        (D, H, W), rad.
    origin : (y, x)
        Å, of its first voxel in the frame of the scan.
    places : ndarray
        (N, 2), Å, likewise.
    thickness : float
        Of a slice, Å.
    """
    import numpy as np
    from scipy.ndimage import shift as moved

    from napari_mepdiff.evaluation.registration import beyond_affine, laid, register
    from napari_mepdiff.evaluation.rings import ring_resolution
    from napari_mepdiff.measurement.formats import open_4dstem

    data = open_4dstem(path)
    assert data.truth is not None
    assert data.truth_instrument is not None
    truth, pixel = data.truth.array, data.truth.voxel_size[1]
    total = truth.sum(axis=0)
    true = np.asarray(data.truth_instrument["positions"])
    low, high = (true / pixel).min(axis=0).astype(int), (true / pixel).max(axis=0).astype(int) + 1
    # onto the truth's canvas: as large, and beginning at the same place
    off = (np.asarray(origin) - np.asarray(data.truth.origin[1:])) / pixel
    side = max(*total.shape, *volume.shape[1:]) + 2 * (int(np.abs(off).max()) + 1)
    wide = np.zeros((len(volume), side, side))
    wide[:, : volume.shape[1], : volume.shape[2]] = volume
    slices = [moved(s, off, order=1)[: total.shape[0], : total.shape[1]] for s in wide]
    field = (slice(low[0], high[0]), slice(low[1], high[1]))
    found = register(np.sum(slices, axis=0), total, field)
    seen = np.array([laid(s, found, field, total.shape) for s in slices])
    known = truth[:, field[0], field[1]]
    n = min(seen.shape[1:])
    square = (slice(0, n), slice(0, n))
    resolution = ring_resolution(seen.sum(axis=0)[square], known.sum(axis=0)[square], pixel)
    out = {
        "sum_correlation": round(found.correlation, 3),
        "ring_resolution": None if resolution is None else round(resolution, 2),
        "position_rms": round(beyond_affine(places, true), 4),
    }
    return out | dopant_depth(known, seen, data.truth.voxel_size[0], thickness)


def dopant_depth(known: Any, seen: Any, known_slice: float, slice_thickness: float) -> Any:
    """Depth (Å) of the one atom that is heavier than those of the columns alike: the centre of what
    its column has more than they, in the truth and as seen; nothing where no column differs."""
    import numpy as np

    total = known.sum(axis=0)
    spots = [
        (y, x)
        for y in range(3, total.shape[0] - 3)
        for x in range(3, total.shape[1] - 3)
        if total[y, x] == total[y - 3 : y + 4, x - 3 : x + 4].max()
        and total[y, x] > 0.7 * total.max()
    ]
    if len(spots) < 4:
        return {}

    def profiles(volume: Any) -> NDArray[Any]:
        return np.array(
            [volume[:, y - 1 : y + 2, x - 1 : x + 2].mean(axis=(1, 2)) for y, x in spots]
        )

    true, here = profiles(known), profiles(seen)
    excess = true - np.median(true, axis=0)
    odd = int(excess.sum(axis=1).argmax())
    if excess[odd].max() < 0.2 * np.median(true) or excess[odd].sum() < 5 * np.median(
        np.abs(excess.sum(axis=1))
    ):
        return {}
    more = np.clip(here[odd] - np.median(here, axis=0), 0, None)
    at = [
        (np.arange(len(p)) + 0.5) @ p / max(p.sum(), 1e-9) * t
        for p, t in ((np.clip(excess[odd], 0, None), known_slice), (more, slice_thickness))
    ]
    return {"dopant_depth": [round(float(v), 1) for v in at[::-1]]}


def instrument_errors(path: Path, state: MicroscopeState) -> dict[str, Any]:
    """Found less true, with the stated uncertainty where there is one."""
    from napari_mepdiff.measurement.formats import open_4dstem

    truth = open_4dstem(path).truth_instrument
    assert truth is not None
    real, was = truth["instrument"], truth["optics"]
    out: dict[str, Any] = {
        "tilt_error": [round(a - b, 2) for a, b in zip(state.tilt, real["tilt"], strict=True)],
        "background": [round(state.background, 3), round(real["background"], 3)],
    }
    if state.optics is None:
        return out
    error = state.errors
    out["defocus_error"] = round(state.optics.overfocus - was["overfocus"], 2)
    out["defocus_uncertainty"] = _rounded(error.get("C10"))
    for name in ("C12", "C21"):
        there, here = (_vector(v, name, int(name[2])) for v in (was, state.optics.model_dump()))
        out[f"{name}_error"] = round(
            math.hypot(*(a - b for a, b in zip(here, there, strict=True))), 2
        )
        out[f"{name}_uncertainty"] = _rounded(error.get(f"{name}a"))
    if state.source_size is not None:
        out["source_size"] = [round(state.source_size, 3), round(real["source_size"], 3)]
        out["source_uncertainty"] = _rounded(error.get("source_size"))
    return out


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _vector(optics: dict[str, float], name: str, fold: int) -> tuple[float, float]:
    size, angle = optics[name], fold * optics[f"phi{name[1:]}"]
    return size * math.cos(angle), size * math.sin(angle)
