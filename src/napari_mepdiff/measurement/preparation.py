"""Preparation: what is done to a measurement between file and reconstruction, as one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pydantic import BaseModel, ConfigDict, Field

from ..physics.optics import wavelength
from .dataset import Calibration, FourDSTEM
from .orientation import Rotation
from .reading import Progress
from .values import faulty_in

ORIENTED = ("rotation", "transpose", "flip_y", "flip_x", "centre_y", "centre_x")
"""What turning the detector against the scan changes."""
_ABERRATIONS = ("overfocus", "C30", "C12", "phi12", "C21", "phi21", "C23", "phi23")


class Unseen(Exception):
    """A preparation needs a pass over all patterns first.

    Attributes
    ----------
    look : callable
        Makes that pass; called with a function that is told the fraction done.
    """

    def __init__(self, look: Callable[[Progress | None], None]) -> None:
        super().__init__("the patterns have to be looked through before they are prepared so")
        self.look = look


class Preparation(BaseModel):
    """Calibration, orientation and size of a measurement; None (or False) leaves what it has.

    Calibration holds for the detector as it was recorded; then pixels are repaired, values divided
    by the gain and clipped, the patterns transposed, mirrored, centred, cropped and binned, in this
    order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy: float | None = Field(
        None,
        gt=0,
        le=3000,
        title="Beam energy",
        json_schema_extra={"unit": "kV"},
        description="sets the wavelength",
    )
    semi_angle: float | None = Field(
        None,
        gt=0,
        le=200,
        title="Semi-angle",
        json_schema_extra={"unit": "mrad"},
        description="convergence semi-angle: the radius of the bright disk",
    )
    pixel_mrad: float | None = Field(
        None,
        gt=0,
        le=100,
        title="Detector pixel",
        json_schema_extra={"unit": "mrad"},
        description="angle between neighbouring detector pixels",
    )
    scan_step_y: float | None = Field(
        None,
        gt=0,
        le=1e4,
        title="Scan step y",
        json_schema_extra={"unit": "Å"},
        description="between rows of the scan",
    )
    scan_step_x: float | None = Field(
        None,
        gt=0,
        le=1e4,
        title="Scan step x",
        json_schema_extra={"unit": "Å"},
        description="between positions of a row",
    )
    rotation: float | None = Field(
        None,
        ge=-360,
        le=360,
        title="Scan rotation",
        json_schema_extra={"unit": "°"},
        description="of the scan against the detector",
    )
    overfocus: float | None = Field(
        None,
        ge=-1e6,
        le=1e6,
        title="Overfocus C10",
        json_schema_extra={"unit": "Å"},
        description="positive: the beam crosses over above the specimen",
    )
    C30: float | None = Field(
        None,
        ge=-1e9,
        le=1e9,
        title="Spherical aberration C30",
        json_schema_extra={"unit": "Å"},
        description="500 nm = 5000 Å",
    )
    C12: float | None = Field(
        None, ge=-1e6, le=1e6, title="Twofold astigmatism C12", json_schema_extra={"unit": "Å"}
    )
    phi12: float | None = Field(
        None, ge=-7, le=7, title="Angle of C12", json_schema_extra={"unit": "rad"}
    )
    C21: float | None = Field(
        None, ge=-1e7, le=1e7, title="Coma C21", json_schema_extra={"unit": "Å"}
    )
    phi21: float | None = Field(
        None, ge=-7, le=7, title="Angle of C21", json_schema_extra={"unit": "rad"}
    )
    C23: float | None = Field(
        None, ge=-1e7, le=1e7, title="Threefold astigmatism C23", json_schema_extra={"unit": "Å"}
    )
    phi23: float | None = Field(
        None, ge=-7, le=7, title="Angle of C23", json_schema_extra={"unit": "rad"}
    )
    repair_pixels: bool = Field(
        False,
        title="Repair pixels",
        description="hot, dead, saturated and undefined detector pixels: filled from their "
        "neighbours, and masked (looks through the data)",
    )
    gain: float | None = Field(
        None,
        gt=0,
        title="Gain",
        json_schema_extra={"unit": "per electron"},
        description="what the detector gives for an electron: values are divided by it",
    )
    clip_negative: bool = Field(
        False, title="Clip negative values", description="values below 0 become 0"
    )
    transpose: bool = Field(False, title="Transpose", description="swap the detector's axes")
    flip_y: bool = Field(
        False,
        title="Flip y",
        description="mirror the patterns top to bottom, about the central pixel",
    )
    flip_x: bool = Field(
        False,
        title="Flip x",
        description="mirror the patterns left to right, about the central pixel",
    )
    centre_y: float | None = Field(
        None,
        ge=0,
        title="Centre y",
        json_schema_extra={"unit": "px"},
        description="detector row that shall become the middle",
    )
    centre_x: float | None = Field(
        None,
        ge=0,
        title="Centre x",
        json_schema_extra={"unit": "px"},
        description="detector column that shall become the middle",
    )
    crop: int | None = Field(
        None,
        ge=8,
        title="Crop detector",
        json_schema_extra={"unit": "px"},
        description="keep the middle; coarser voxels, the same window",
    )
    bin: int = Field(
        1,
        ge=1,
        le=16,
        title="Bin detector",
        description="sum of so many pixels each way; a smaller window",
    )

    def look(self, data: FourDSTEM, progress: Progress | None = None) -> None:
        """Make the pass over all patterns that :meth:`apply` needs, if it does; it is kept.

        Parameters
        ----------
        data : FourDSTEM
            As the file has it.
        progress : callable, optional
            Told the fraction done; may raise to end the work.
        """
        if self.repair_pixels:
            faulty_in(data.reading, progress)

    def apply(self, data: FourDSTEM, *, wait: bool = True) -> FourDSTEM:
        """The prepared measurement, still lazy.

        Parameters
        ----------
        data : FourDSTEM
            As the file has it.
        wait : bool
            Look through the patterns here where that is needed (to repair pixels) and was not done.

        Raises
        ------
        DataError
            If a value cannot hold for these data.
        Unseen
            If the patterns have to be looked through first, and `wait` is off.
        """
        if self.repair_pixels and data.reading.faulty is None and not wait:
            raise Unseen(partial(self.look, data))
        c, fields = data.calibration, {}
        for name in ("energy", "semi_angle", "rotation"):
            value = getattr(self, name)
            if value is not None and value != getattr(c, name):
                fields[name] = value
        energy = self.energy or c.energy
        if self.pixel_mrad is not None:
            size = (
                c.with_pixel_mrad(self.pixel_mrad)
                if energy is None
                else Calibration(pixel_size=self.pixel_mrad * 1e-3 / wavelength(energy))
            ).pixel_size
            if size is not None and (c.pixel_size is None or abs(size / c.pixel_size - 1) > 1e-9):
                fields["pixel_size"] = size
        step = c.scan_step or (None, None)
        wanted = (
            self.scan_step_y or step[0] or self.scan_step_x,
            self.scan_step_x or step[1] or self.scan_step_y,
        )
        if None not in wanted and wanted != c.scan_step:
            fields["scan_step"] = wanted
        if fields:
            data = data.calibrated(**fields)
        aberrations = {n: getattr(self, n) for n in _ABERRATIONS if getattr(self, n) is not None}
        if aberrations:
            data = replace(data, optics=data.illumination().model_copy(update=aberrations))
        if aberrations or {"energy", "semi_angle", "pixel_size"} & fields.keys():
            data = replace(data, probe=None)  # the file's probe was for other optics
        if self.repair_pixels:
            data = data.repair_hot_pixels(faulty_in(data.reading).any)
        if self.gain is not None and self.gain != 1:
            data = data.to_electrons(self.gain)
        if self.clip_negative:
            data = data.subtract_background(0.0)
        if self.transpose:
            data = data.transpose_detector()
        if self.flip_y or self.flip_x:
            data = data.flip_detector(self.flip_y, self.flip_x)
        if self.centre_y is not None and self.centre_x is not None:
            data = data.centred((self.centre_y, self.centre_x))
        if self.crop is not None and self.crop != min(data.detector_shape):
            data = data.crop_detector(self.crop)
        if self.bin > 1:
            data = data.bin_detector(self.bin)
        return data

    def centre_off(
        self, offset: tuple[float, float], raw_shape: tuple[int, int]
    ) -> tuple[float, float]:
        """`centre_y` and `centre_x` for patterns whose middle was found off that of the prepared.

        Parameters
        ----------
        offset : (y, x)
            Prepared pixels.
        raw_shape : (Ky, Kx)
            Of the detector in the file.
        """
        middle = raw_shape[self.transpose] // 2, raw_shape[not self.transpose] // 2
        y, x = (
            (self.centre_y, self.centre_x)
            if self.centre_y is not None and self.centre_x is not None
            else middle
        )
        return y + offset[0] * self.bin, x + offset[1] * self.bin

    def oriented(self, found: Rotation) -> Preparation:
        """With a rotation (and transposition) that was estimated on the prepared measurement."""
        return self.turned(found.angle, found.transpose)

    def turned(self, angle: float, transpose: bool = False) -> Preparation:
        """With a rotation of the scan in degrees, and the detector's axes swapped once more.

        The swap of axes comes before the mirrors, so these and the centre change their axes too.
        """
        fields: dict[str, object] = {"rotation": angle}
        if transpose:
            fields |= {
                "transpose": not self.transpose,
                "flip_y": self.flip_x,
                "flip_x": self.flip_y,
                "centre_y": self.centre_x,
                "centre_x": self.centre_y,
            }
        return self.model_copy(update=fields)

    @property
    def changed(self) -> dict[str, object]:
        """What differs from the file, by name."""
        return self.model_dump(exclude_defaults=True)
