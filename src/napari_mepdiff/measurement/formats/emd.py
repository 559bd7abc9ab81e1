"""py4DSTEM and other EMD files: data cubes, and what their calibration says.

What is clear is taken over; what is not (the sense of a rotation, a mirror, an origin) is said, and
stays in the provenance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from ...base.records import plain
from ..dataset import Calibration, FourDSTEM
from .common import Options, arrange, consistent
from .units import ANGLES, INVERSE, LENGTHS, NOTHING


def data_cubes(file: h5py.File) -> dict[str, h5py.Group]:
    """Data cubes by path: groups marked by emdfile's class or by the older EMD types."""
    found: dict[str, h5py.Group] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Group) or not isinstance(item.get("data"), h5py.Dataset):
            return
        marks = {
            str(item.attrs.get(k, "")).strip("b'").lower()
            for k in ("python_class", "emd_group_type")
        }
        if marks & {"datacube", "array", "1"} and item["data"].ndim == 4:
            found[name] = item

    file.visititems(visit)
    return found


def read(file: h5py.File, group: h5py.Group, options: Options, name: str) -> FourDSTEM:
    """One data cube of an open file, lazily, with its calibration."""
    numbers: dict[str, Any] = {}
    maps: dict[str, Any] = {}

    def visit(path: str, item: Any) -> None:
        if "calibration" not in path or not isinstance(item, h5py.Dataset):
            return
        key = path.rsplit("/", 1)[-1]
        if item.shape == ():
            value = item[()]
            numbers[key] = value.decode(errors="replace") if isinstance(value, bytes) else value
        elif item.ndim == 2 and item.dtype.kind == "f":
            maps[key] = item[...]

    file.visititems(visit)
    for key, value in group.attrs.items():  # emdfile keeps calibrations as attributes as well
        if key in ("QR_flip", "QR_rotation", "QR_rotation_degrees"):
            numbers.setdefault(key, value)
    calibration, doubts = _calibration(numbers)
    lazy = arrange(consistent(group["data"], name), options, name)
    doubts += [
        *_orientation(numbers),
        *_origin(numbers, maps, (int(lazy.shape[2]), int(lazy.shape[3]))),
    ]
    provenance: dict[str, Any] = {"py4DSTEM": {k: plain(v) for k, v in numbers.items()}}
    if doubts:
        provenance["doubts"] = doubts
    return FourDSTEM(lazy, calibration, provenance=provenance)


def _calibration(numbers: dict[str, Any]) -> tuple[Calibration, list[str]]:
    """Energy, pixel, angle and step as far as their units are known, and what was not."""
    doubts: list[str] = []
    q, unit = _positive(numbers.get("Q_pixel_size")), _unit(numbers.get("Q_pixel_units"))
    r, r_unit = _positive(numbers.get("R_pixel_size")), _unit(numbers.get("R_pixel_units"))
    fields: dict[str, Any] = {"energy": None}
    if (volts := _positive(numbers.get("accelerating_voltage"))) is not None:
        fields["energy"] = volts / 1e3
    if (angle := _positive(numbers.get("convergence_semiangle_mrad"))) is not None:
        fields["semi_angle"] = angle
    if q is not None and unit in INVERSE:
        fields["pixel_size"] = q * INVERSE[unit]
    if r is not None and r_unit in LENGTHS:
        fields["scan_step"] = (r * LENGTHS[r_unit],) * 2
    elif r is not None and r_unit not in NOTHING:
        doubts.append(f"the file says a scan step of {r:g} {r_unit!r}, a unit that is not known")
    c = Calibration.model_validate(fields)
    if q is not None and unit in ANGLES:
        if c.energy is None:
            doubts.append(
                f"the file says a detector pixel of {q * ANGLES[unit]:g} mrad and no beam energy: "
                "set both"
            )
        else:
            c = c.with_pixel_mrad(q * ANGLES[unit])
    elif q is not None and unit not in INVERSE and unit not in NOTHING:
        doubts.append(f"the file says a detector pixel of {q:g} {unit!r}, a unit that is not known")
    if (radius := _positive(numbers.get("probe_semiangle"))) is not None and c.semi_angle is None:
        if c.pixel_mrad is not None:
            c = c.model_copy(update={"semi_angle": radius * c.pixel_mrad})
        else:
            doubts.append(
                f"the file says that the bright disk has a radius of {radius:g} px: set detector "
                "pixel and semi-angle accordingly"
            )
    return c, doubts


def _orientation(numbers: dict[str, Any]) -> Iterator[str]:
    """What py4DSTEM found about scan against detector."""
    degrees = _number(numbers.get("QR_rotation_degrees"))
    if degrees is None and (radians := _number(numbers.get("QR_rotation"))) is not None:
        degrees = float(np.degrees(radians))
    mirrored = bool(_number(numbers.get("QR_flip")) or 0)
    if mirrored or abs(degrees or 0) > 0.05:
        turned = f"turned by {degrees:.1f}°" if degrees is not None else "turned"
        yield (
            f"the file (py4DSTEM) says that scan and detector are {turned}"
            f"{' and mirrored (QR_flip)' if mirrored else ''}; its sense of rotation differs, so "
            "this was not taken over: estimate the rotation, which tells a swap of axes as well"
        )


def _origin(
    numbers: dict[str, Any], maps: dict[str, Any], detector: tuple[int, int]
) -> Iterator[str]:
    """Where the file says the patterns are centred, and whether that moves."""
    places = []
    for axis, key in enumerate(("qx0", "qy0")):  # py4DSTEM's x is the first axis
        centre = _number(numbers.get(f"{key}_mean", numbers.get(key)))
        if centre is None and key in maps:
            centre = float(np.nanmean(maps[key]))
        places.append(centre if centre is not None else detector[axis] // 2)
    y, x = places
    if max(abs(y - detector[0] // 2), abs(x - detector[1] // 2)) > 0.75:
        yield (
            f"the file says that the patterns are centred on ({y:.1f}, {x:.1f}), not on the middle "
            f"({detector[0] // 2}, {detector[1] // 2}): centre them (centre_y, centre_x)"
        )
    spread = [float(np.nanmax(m) - np.nanmin(m)) for k, m in maps.items() if k in ("qx0", "qy0")]
    if spread and max(spread) > 1.5:
        yield (
            f"the file says that the patterns move by {max(spread):.1f} px during the scan "
            "(descan): this is not corrected"
        )


def _unit(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None
