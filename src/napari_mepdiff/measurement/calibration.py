"""What the microscope's numbers mean: pixel, energy, angle, step, rotation, dose, thickness."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..physics.optics import wavelength


class DataError(ValueError):
    """The data cannot be what they claim to be; the message names the fault and what to do."""


class Calibration(BaseModel):
    """What the microscope's numbers mean. None: not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_size: float | None = Field(None, gt=0, title="Detector pixel", description="Å⁻¹")
    energy: float | None = Field(None, gt=0, title="Beam energy", description="kV")
    semi_angle: float | None = Field(None, gt=0, title="Convergence semi-angle", description="mrad")
    scan_step: tuple[float, float] | None = Field(None, title="Scan step", description="Å, (y, x)")
    rotation: float = Field(
        0.0, title="Scan rotation", description="degrees, scan against detector, from +x towards +y"
    )
    dose: float | None = Field(None, gt=0, title="Dose", description="e/Å²")
    thickness: float | None = Field(
        None, gt=0, title="Specimen thickness", description="Å, as far as it is known"
    )

    @property
    def pixel_mrad(self) -> float | None:
        """Detector pixel in mrad, if pixel size and energy are known."""
        if self.pixel_size is None or self.energy is None:
            return None
        return self.pixel_size * wavelength(self.energy) * 1e3

    def with_pixel_mrad(self, mrad: float) -> Calibration:
        """The calibration with the detector pixel given in mrad.

        Raises
        ------
        DataError
            If the energy is not known.
        """
        if self.energy is None:
            raise DataError("a pixel size in mrad needs the beam energy (kV) as well")
        return self.model_copy(update={"pixel_size": mrad * 1e-3 / wavelength(self.energy)})

    @property
    def disk_radius(self) -> float | None:
        """Radius of the bright-field disk in detector pixels."""
        if self.pixel_mrad is None or self.semi_angle is None:
            return None
        return self.semi_angle / self.pixel_mrad

    @property
    def electrons(self) -> float | None:
        """Electrons that a position receives, dose × scan step²."""
        if self.dose is None or self.scan_step is None:
            return None
        return self.dose * self.scan_step[0] * self.scan_step[1]
