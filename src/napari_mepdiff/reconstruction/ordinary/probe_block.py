"""The probe's part of a refinement: first its few parameters, then every pixel of its modes.

What is told of a microscope is nearly right. Aberrations and source size are few, so they are found
while the volume is still forming; they are moved by Adam in units in which each turns the wave at
the edge of the aperture by one radian. What no aberration describes comes after: every pixel of
every mode, along the gradient over its curvature (of Σ(√I − √n)² that is one per pattern and
pixel, for the specimen only turns the wave).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...physics.aberrations import natural_unit
from ...physics.illumination import Illumination
from ...physics.misfit import Misfit
from .moments import Moments
from .volume_block import CURVATURE, MOMENTUM

ABERRATIONS = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b")
PARAMETERS = (*ABERRATIONS, "source_size")
RATE = 0.02  # of the natural unit, at the first step
_SMALLEST = 0.02  # of λ/α: a source has no slope by its size at zero
_UNITS = {"source_size": 0.3}  # of λ/α, which is about 1 Å of a probe that resolves atoms


class OpticsBlock:
    """Aberrations and source size.

    Attributes
    ----------
    light : Illumination
    electrons : float
        Per pattern.
    """

    def __init__(
        self, light: Illumination, electrons: float, names: Sequence[str] = PARAMETERS
    ) -> None:
        self.light, self.electrons, self.names = light, electrons, tuple(names)
        o = light.optics
        self.scale = 1e3 * o.wavelength / o.semi_angle
        self.units = torch.tensor(
            [
                _UNITS[n] * self.scale
                if n in _UNITS
                else natural_unit(n[:3], o.semi_angle, o.wavelength)
                for n in self.names
            ],
            dtype=torch.float64,
        )
        self.values = torch.tensor([light.value(n) for n in self.names], dtype=torch.float64)
        self.moments = Moments(self.values)

    def probe(self) -> Tensor:
        """(M, Ky, Kx) complex64, centred, √electrons."""
        return (self.light.probe() * math.sqrt(self.electrons)).to(torch.complex64)

    def step(self, probe_gradient: Tensor, rate: float) -> None:
        """One step of Adam against the gradient by the probe of a batch."""
        pull = self.light.pull(self.names, probe_gradient.cpu() * math.sqrt(self.electrons))
        pull *= self.units
        self.values -= rate * RATE * self.units * self.moments.direction(pull)
        for name in _UNITS:
            if name in self.names:
                self.values[self.names.index(name)].clamp_(min=_SMALLEST * self.scale)
        self._set(self.values)

    def _set(self, values: Tensor) -> None:
        self.light = self.light.updated(dict(zip(self.names, values.tolist(), strict=True)))

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"values": self.values, **self.moments.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take up an earlier :meth:`state`."""
        self.values.copy_(state["values"])
        self.moments.load(state)
        if self.moments.steps:
            self._set(self.values)


class PixelBlock:
    """Every pixel of the modes.

    Parameters
    ----------
    refinable : callable, optional
        Of a gradient's spectrum (M, Ky, Kx), DC in the corner, what moves the probe.

    Attributes
    ----------
    probe : Tensor
        (M, Ky, Kx) complex, centred, √electrons.
    """

    def __init__(
        self, probe: Tensor, misfit: Misfit, refinable: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.probe, self.misfit, self.refinable = probe, misfit, refinable
        self.velocity = torch.zeros_like(probe)
        self.power = float(probe.abs().square().sum())
        self.aperture = opening(probe)

    def step(self, gradient: Tensor, count: int, size: float) -> None:
        """Against the gradient by the probe of `count` positions; its electrons are known."""
        spectrum = torch.fft.fft2(gradient)
        if self.refinable is not None:
            spectrum = self.refinable(spectrum)
        inside = torch.fft.ifft2(spectrum * self.aperture)
        self.velocity.lerp_(inside / (CURVATURE[self.misfit] * count), 1 - MOMENTUM)
        probe = self.probe - size * self.velocity
        self.probe = probe * (self.power / float(probe.abs().square().sum())) ** 0.5

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"probe": self.probe, "velocity": self.velocity}

    def load(self, state: dict[str, Any]) -> None:
        """Take up an earlier :meth:`state`."""
        self.probe = state["probe"].to(self.probe).clone()
        self.velocity = state["velocity"].to(self.velocity).clone()


def opening(probe: Tensor) -> Tensor:
    """Where in reciprocal space a probe may have light, (Ky, Kx) of 0 and 1, DC in the corner.

    Where it has some, and a tenth of that width around it: aperture and source pass no electrons
    elsewhere. A probe free to do so would explain the detector's background.
    """
    power = torch.fft.fft2(probe).abs().square().sum(dim=0)
    lit = torch.fft.fftshift(power > 1e-3 * power.max()).float()
    across = math.sqrt(float(lit.sum()) * 4 / math.pi)
    reach = 2 * max(1, round(0.05 * across)) + 1
    wide = torch.nn.functional.max_pool2d(lit[None, None], reach, 1, reach // 2)[0, 0]
    return torch.fft.ifftshift(wide)


def with_modes(probe: Tensor, count: int, share: float = 0.02) -> Tensor:
    """At least `count` modes: what is missing is made of slopes of the strongest one.

    A source that is not a point, or a specimen that trembles, adds the slopes of the probe to it
    (Thibault and Menzel, Nature 494, 68 (2013)), each with `share` of the electrons of the one
    before.

    Parameters
    ----------
    probe : Tensor
        (M, Ky, Kx) complex, centred.
    """
    if len(probe) >= count:
        return probe
    spectrum = torch.fft.fft2(probe[0].to(torch.complex128))
    ky = torch.fft.fftfreq(probe.shape[1], dtype=torch.float64, device=probe.device)[:, None]
    kx = torch.fft.fftfreq(probe.shape[2], dtype=torch.float64, device=probe.device)
    powers = [(n - m, m) for n in range(1, 12) for m in range(n + 1)]
    found = list(probe.to(torch.complex128))
    for a, b in powers[: count - len(probe)]:
        new = torch.fft.ifft2(spectrum * ky**a * kx**b * 1j ** (a + b))
        for other in found:
            new = new - other * (other.conj() * new).sum() / other.abs().square().sum()
        size = found[0].abs().square().sum() * share / (a + b)
        found.append(new * (size / new.abs().square().sum()).sqrt())
    whole = torch.stack(found)
    total = probe.abs().square().sum() / whole.abs().square().sum()
    return (whole * total.sqrt()).to(probe.dtype)


def ordered(probe: Tensor) -> Tensor:
    """The same illumination in orthogonal modes, the strongest first."""
    flat = probe.reshape(len(probe), -1).to(torch.complex128)
    _, vector = torch.linalg.eigh(flat @ flat.conj().T)
    modes = vector.flip(1).conj().T @ flat
    return modes.reshape(probe.shape).to(probe.dtype)
