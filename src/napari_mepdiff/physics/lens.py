"""The condenser: its aperture and its aberrations.

Units: kV, mrad, Å, Å⁻¹. The aperture phase is exp(−iχ) with χ to fifth order, see
:mod:`~napari_mepdiff.physics.aberrations`. **Positive C10 is overfocus** here: the beam
crosses over above the specimen, as in abTEM's ``C10``; PtyRAD's positive ``defocus`` is the
opposite.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .aberrations import CARTESIAN, aberration_basis, to_cartesian, to_polar
from .aperture import Edge, edge_amplitude, edge_derivatives
from .electrons import wavelength


class Optics(BaseModel):
    """Electron-optical settings of the illumination. All lengths in Å, angles of aberrations in
    rad."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy: float = Field(300.0, gt=0, le=3000, title="Beam energy", description="kV")
    semi_angle: float = Field(
        21.4, gt=0, le=200, title="Convergence semi-angle", description="mrad"
    )
    overfocus: float = Field(200.0, title="Overfocus C10", description="Å; positive is overfocus")
    C12: float = Field(0.0, title="Twofold astigmatism", description="Å")
    phi12: float = Field(0.0, title="Angle of C12", description="rad")
    C21: float = Field(0.0, title="Coma", description="Å")
    phi21: float = Field(0.0, title="Angle of C21", description="rad")
    C23: float = Field(0.0, title="Threefold astigmatism", description="Å")
    phi23: float = Field(0.0, title="Angle of C23", description="rad")
    C30: float = Field(5000.0, title="Spherical aberration", description="Å (500 nm = 5000 Å)")
    C32: float = Field(0.0, title="Third-order twofold astigmatism (star)", description="Å")
    phi32: float = Field(0.0, title="Angle of C32", description="rad")
    C34: float = Field(0.0, title="Fourfold astigmatism", description="Å")
    phi34: float = Field(0.0, title="Angle of C34", description="rad")
    C41: float = Field(0.0, title="Fourth-order coma", description="Å")
    phi41: float = Field(0.0, title="Angle of C41", description="rad")
    C43: float = Field(0.0, title="Three-lobe aberration", description="Å")
    phi43: float = Field(0.0, title="Angle of C43", description="rad")
    C45: float = Field(0.0, title="Fivefold astigmatism", description="Å")
    phi45: float = Field(0.0, title="Angle of C45", description="rad")
    C50: float = Field(0.0, title="Fifth-order spherical aberration", description="Å")
    C52: float = Field(0.0, title="Fifth-order twofold astigmatism", description="Å")
    phi52: float = Field(0.0, title="Angle of C52", description="rad")
    C54: float = Field(0.0, title="Four-lobe aberration", description="Å")
    phi54: float = Field(0.0, title="Angle of C54", description="rad")
    C56: float = Field(0.0, title="Sixfold astigmatism", description="Å")
    phi56: float = Field(0.0, title="Angle of C56", description="rad")
    soft_edge: float = Field(
        0.0,
        ge=0,
        title="Soft aperture edge",
        description="width over which the aperture falls off, mrad",
    )
    edge: Edge = Field(
        "cosine", title="Shape of the soft edge", description="raised cosine, or linear as in abTEM"
    )

    @property
    def wavelength(self) -> float:
        """Electron wavelength, Å."""
        return wavelength(self.energy)

    @property
    def k_max(self) -> float:
        """Aperture radius in Å⁻¹."""
        return self.semi_angle * 1e-3 / self.wavelength

    @property
    def cartesian(self) -> dict[str, float]:
        """All Cartesian aberration coefficients, Å: C10, C12a, C12b, …"""
        return to_cartesian({**self.model_dump(), "C10": self.overfocus})

    def with_cartesian(self, changes: Mapping[str, float]) -> Optics:
        """With Cartesian coefficients replaced (Å); the others stay.

        Raises
        ------
        ValueError
            If a name is not a Cartesian coefficient.
        """
        for name in changes:
            if name not in CARTESIAN:
                raise ValueError(f"no aberration is called {name!r}: take C10, C12a, C12b, …")
        polar = to_polar({**self.cartesian, **changes})
        polar["overfocus"] = polar.pop("C10")
        return Optics.model_validate({**self.model_dump(), **polar})


def frequencies(
    shape: tuple[int, int], pixel_size: tuple[float, float], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Spatial frequencies (ky, kx) in Å⁻¹, DC in the corner, float64, shapes (Ky, 1) and (1,
    Kx)."""
    ky = torch.fft.fftfreq(shape[0], pixel_size[0], dtype=torch.float64, device=device)[:, None]
    kx = torch.fft.fftfreq(shape[1], pixel_size[1], dtype=torch.float64, device=device)[None, :]
    return ky, kx


def aberration_phase(optics: Optics, ky: Tensor, kx: Tensor) -> Tensor:
    """χ in rad at the frequencies (ky, kx), Å⁻¹; the aperture function carries exp(−iχ).

    The azimuth φ is measured from +x towards +y.
    """
    held = {name: value for name, value in optics.cartesian.items() if value}
    names = list(held)
    basis = aberration_basis(names, optics.wavelength, ky, kx)
    coefficients = torch.tensor([held[n] for n in names], dtype=basis.dtype, device=basis.device)
    return torch.tensordot(coefficients, basis, dims=1)


def aperture(optics: Optics, ky: Tensor, kx: Tensor) -> Tensor:
    """Amplitude of the condenser aperture, 1 inside and 0 outside; its edge is `soft_edge` mrad
    wide.

    abTEM's ``soft=True`` on a square window is ``edge="linear"`` with a soft edge of one pixel of
    the detector, ``1e3 * wavelength / window`` mrad.
    """
    angle = optics.wavelength * torch.sqrt(ky**2 + kx**2) * 1e3  # mrad
    return edge_amplitude(angle, optics.semi_angle, optics.soft_edge, optics.edge)


def aperture_derivatives(optics: Optics, ky: Tensor, kx: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of :func:`aperture` by `semi_angle` and by `soft_edge`, per mrad.

    Raises
    ------
    ValueError
        If the edge is hard.
    """
    angle = optics.wavelength * torch.sqrt(ky**2 + kx**2) * 1e3
    return edge_derivatives(angle, optics.semi_angle, optics.soft_edge, optics.edge)
