"""What a real instrument does to a measurement, and what its logbook does not say.

Every error is *told − true*. The default instrument is perfect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..physics.optics import Optics
from ..physics.scan import Raster

Pair = tuple[float, float]


class Instrument(BaseModel):
    """Errors of an instrument; all are zero, and all patterns sharp, unless given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # ---- illumination
    overfocus_error: float = Field(
        0.0, ge=-5000, le=5000, title="Overfocus error", description="Å, told − true"
    )
    overfocus_rounding: float = Field(
        0.0, ge=0, le=1000, title="Overfocus rounding", description="Å; told in multiples of this"
    )
    C12: float = Field(0.0, ge=0, le=1e4, title="Twofold astigmatism", description="Å, not told")
    phi12: float = Field(0.0, ge=-7, le=7, title="Angle of C12", description="rad")
    C21: float = Field(0.0, ge=0, le=1e6, title="Coma", description="Å, not told")
    phi21: float = Field(0.0, ge=-7, le=7, title="Angle of C21", description="rad")
    C23: float = Field(0.0, ge=0, le=1e6, title="Threefold astigmatism", description="Å, not told")
    phi23: float = Field(0.0, ge=-7, le=7, title="Angle of C23", description="rad")
    soft_aperture: bool = Field(
        False, title="Soft aperture", description="edge of one angular pixel, abTEM's; not told"
    )
    semi_angle_error: float = Field(
        0.0, ge=-20, le=20, title="Semi-angle error", description="mrad, told − true"
    )
    source_size: float = Field(
        0.0, ge=0, le=5, title="Source size", description="Å, rms along each axis"
    )
    focal_spread: float = Field(0.0, ge=0, le=500, title="Focal spread", description="Å, rms")
    # ---- scan
    jitter: float = Field(
        0.0, ge=0, le=10, title="Scan jitter", description="Å, rms along each axis, per position"
    )
    drift: Pair = Field((0.0, 0.0), title="Drift", description="Å over the scan, (y, x)")
    scale: float = Field(
        0.0, gt=-0.5, lt=0.5, title="Scan scale", description="fraction, true step / told − 1"
    )
    shear: float = Field(
        0.0, ge=-0.5, le=0.5, title="Scan shear", description="Å in y for each Å in x"
    )
    rotation: float = Field(
        0.0, ge=-180, le=180, title="Scan rotation", description="degrees, not told"
    )
    # ---- specimen
    tilt: Pair = Field(
        (0.0, 0.0), title="Tilt", description="mrad, (y, x), of the beam in the propagator"
    )
    thickness_error: float = Field(
        0.0, ge=-1000, le=1000, title="Thickness error", description="Å, told − true"
    )
    fine_slice: float | None = Field(
        None,
        gt=0,
        le=2,
        title="Fine slices",
        description="Å, at most; none for the reconstruction's own slices",
    )
    finite: bool = Field(
        False, title="Finite projection", description="atoms reach over several slices"
    )
    vibration: float = Field(
        0.0, ge=0, le=1, title="Vibration", description="Å, rms along each axis; frozen phonons"
    )
    vibrations: dict[str, float] = Field(
        default_factory=dict, title="Vibration by element", description="Å, overrides vibration"
    )
    configurations: int = Field(
        8,
        ge=1,
        le=1000,
        title="Configurations",
        description="averaged over phonons, source and focus",
    )
    # ---- detector
    blur: float = Field(0.0, ge=0, le=20, title="Detector blur", description="pixels, rms")
    background: float = Field(
        0.0, ge=0, le=1e6, title="Background", description="electrons per pixel"
    )
    gain: float = Field(
        1.0, gt=0, le=1e6, title="Gain", description="number in the file for each electron"
    )
    dead_pixels: int = Field(0, ge=0, le=10000, title="Dead pixels", description="count nothing")
    hot_pixels: int = Field(
        0, ge=0, le=10000, title="Hot pixels", description="ten times the brightest"
    )
    masked: bool = Field(
        False, title="Bad pixels are marked", description="dead and hot ones are in the mask"
    )

    @classmethod
    def drawn(
        cls,
        seed: int,
        *,
        configurations: int = 8,
        vibration: float = 0.0,
        fine_slice: float | None = None,
    ) -> Instrument:
        """An instrument with every error drawn at random, within what honest microscopy has.

        Overfocus ±30 Å, C12 0 to 20 Å, C21 0 to 400 Å, soft aperture, source 0.1 to 0.4 Å, jitter 0
        to 0.2 Å, shear and scale up to 2 %, rotation up to 1°, tilt 0 to 8 mrad, background 0 to
        0.5 electrons a pixel; a gain other than 1 in every second instrument.
        """
        rng = np.random.default_rng([seed, 7])
        pi = float(np.pi)

        def within(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        amount, direction = within(0, 8), within(-pi, pi)
        return cls(
            overfocus_error=within(-30, 30),
            overfocus_rounding=10.0,
            C12=within(0, 20),
            phi12=within(-pi / 2, pi / 2),
            C21=within(0, 400),
            phi21=within(-pi, pi),
            soft_aperture=True,
            source_size=within(0.1, 0.4),
            jitter=within(0, 0.2),
            shear=within(-0.02, 0.02),
            scale=within(-0.02, 0.02),
            rotation=within(-1, 1),
            tilt=(amount * float(np.sin(direction)), amount * float(np.cos(direction))),
            background=within(0, 0.5),
            gain=within(0.5, 40) if rng.random() < 0.5 else 1.0,
            configurations=configurations,
            vibration=vibration,
            fine_slice=fine_slice,
        )

    @property
    def members(self) -> int:
        """Configurations to average; one where nothing moves."""
        moves = self.vibration or any(self.vibrations.values())
        return self.configurations if moves or self.source_size or self.focal_spread else 1

    @property
    def own_potential(self) -> bool:
        """Whether the specimen is made by abTEM for these patterns, not taken from the truth."""
        moves = bool(self.vibration or any(self.vibrations.values()))
        return moves or self.finite or self.fine_slice is not None

    def true_optics(self, optics: Optics) -> Optics:
        """The illumination with what is not told."""
        names = ("C12", "phi12", "C21", "phi21", "C23", "phi23")
        own = {n: getattr(self, n) for n in names}
        pairs = (("C12", "phi12"), ("C21", "phi21"), ("C23", "phi23"))
        kept = {n: own[n] for size, angle in pairs if own[size] for n in (size, angle)}
        return optics.model_copy(update=kept)

    def told_optics(self, optics: Optics) -> Optics:
        """The illumination as the logbook has it."""
        overfocus = optics.overfocus + self.overfocus_error
        if self.overfocus_rounding:
            overfocus = round(overfocus / self.overfocus_rounding) * self.overfocus_rounding
        return optics.model_copy(
            update={
                "overfocus": float(overfocus),
                "semi_angle": round(optics.semi_angle + self.semi_angle_error, 6),
            }
        )

    def true_positions(self, raster: Raster, rng: np.random.Generator) -> NDArray[np.float64]:
        """Where the probe was, (N, 2) in Å, in the frame of the raster's own positions."""
        told = raster.positions()
        centre = told.mean(axis=0)
        c, s = np.cos(np.radians(self.rotation)), np.sin(np.radians(self.rotation))
        turn = np.array([[c, s], [-s, c]])  # acts on columns (y, x): from +x towards +y
        grid = np.array([[1 + self.scale, self.shear], [0.0, 1 + self.scale]])
        time = np.linspace(-0.5, 0.5, len(told))[:, None] if len(told) > 1 else np.zeros((1, 1))
        true = (told - centre) @ (turn @ grid).T + centre + time * np.array(self.drift)
        if self.jitter:
            true = true + rng.normal(0, self.jitter, told.shape)
        return np.asarray(true)

    def vibration_of(self, symbols: list[str]) -> NDArray[np.float64]:
        """Rms displacement (n, 1) in Å of each atom."""
        return np.array([[self.vibrations.get(s, self.vibration)] for s in symbols])
