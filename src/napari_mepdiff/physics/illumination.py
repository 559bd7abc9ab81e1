"""The partially coherent probe from a few parameters, and the chain rule to them.

A Gaussian source of rms size σ (Å per axis) and Gaussian foci of rms spread Δ (Å) leave of the
aperture function ψ(k) = A exp(−iχ) the density matrix

    ρ(k, k') = ψ(k) ψ*(k') · exp(−2π²σ²|k − k'|²) · exp(−½ (πλΔ)² (k² − k'²)²)

(Kirkland 2010, ch. 3; Thibault and Menzel 2013 for the modes). Each Gaussian factor is
exp(−½(s − s')²) with s = 2πσk_y, 2πσk_x or πλΔ(k² − c), and

    exp(−½(s − s')²) = Σ_n g_n(s) g_n(s'),   g_n(s) = exp(−s²/2) sⁿ/√n!

so that ρ is a sum over *members* ψ·g_a·g_b·g_c. The weights g² are Poisson distributions: a few
members hold all but a hundred-thousandth, without any quadrature, and their derivatives by σ and Δ
are closed formulae. The strongest eigenvectors of the members' small Gram matrix are the modes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .aberrations import CARTESIAN, aberration_basis
from .members import coherent_members
from .optics import Optics, aberration_phase, aperture, aperture_derivatives, frequencies

PARAMETERS = (*CARTESIAN, "semi_angle", "soft_edge", "source_size", "focal_spread")
"""What a probe can be fitted by: Å, but the angles in mrad."""


@dataclass(frozen=True, eq=False)
class Illumination:
    """A partially coherent probe.

    Parameters
    ----------
    optics : Optics
        Energy, aperture, aberrations.
    source_size : float
        Gaussian source in the specimen plane, rms per axis, Å.
    focal_spread : float
        Gaussian spread of C10, rms, Å.
    modes : int
        How many orthogonal modes are kept.
    window : (Ky, Kx)
        Pixels.
    pixel_size : (dy, dx)
        Å.
    amplitude : Tensor, optional
        (Ky, Kx), measured amplitude of the aperture (square root of a vacuum pattern), DC at
        (Ky // 2, Kx // 2). It replaces semi-angle and soft edge.

    Raises
    ------
    ValueError
        If a parameter cannot be what it is said to be, or the aperture does not fit.
    """

    optics: Optics
    source_size: float = 0.0
    focal_spread: float = 0.0
    modes: int = 1
    window: tuple[int, int] = (128, 128)
    pixel_size: tuple[float, float] = (0.2, 0.2)
    amplitude: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("source_size", "focal_spread"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is an rms in Å, 0 or more; got {value}")
        if self.modes < 1:
            raise ValueError(f"a probe has at least one mode, got {self.modes}")
        if self.amplitude is None:
            limit = 0.5 / max(self.pixel_size)
            if self.optics.k_max >= limit:
                raise ValueError(
                    f"an aperture of {self.optics.semi_angle:g} mrad does not fit in a detector "
                    f"that ends at {limit:.3f} Å⁻¹: check semi-angle, energy and pixel size"
                )
            return
        a = self.amplitude
        if tuple(a.shape) != tuple(self.window):
            raise ValueError(
                f"the measured aperture is {tuple(a.shape)} pixels, the window {self.window}"
            )
        if not torch.isfinite(a).all() or (a < 0).any() or a.sum() <= 0:
            raise ValueError("a measured aperture has finite amplitudes ≥ 0 and a positive sum")

    def probe(self) -> Tensor:
        """The modes: (M, Ky, Kx) complex128, centred, orthogonal, strongest first, total intensity
        1.

        Fewer than `modes` where there are no more (a coherent probe has one).
        """
        m = self._modes
        spectrum = torch.zeros(
            (len(m.waves), self.window[0] * self.window[1]), dtype=torch.complex128
        )
        spectrum[:, m.where] = m.waves
        spectrum = spectrum.reshape(-1, *self.window)
        return torch.fft.fftshift(torch.fft.ifft2(spectrum, norm="ortho"), dim=(-2, -1))

    @property
    def kept(self) -> float:
        """Share of the power that the kept modes hold, before it is normalised to 1."""
        return self._modes.kept

    def value(self, name: str) -> float:
        """Present value of one of :data:`PARAMETERS`."""
        if name in ("source_size", "focal_spread"):
            return float(getattr(self, name))
        if name in ("semi_angle", "soft_edge"):
            return float(getattr(self.optics, name))
        if name in CARTESIAN:
            return self.optics.cartesian[name]
        raise ValueError(f"no parameter is called {name!r}; there are {', '.join(PARAMETERS)}")

    def updated(self, values: Mapping[str, float]) -> Illumination:
        """With parameters (:data:`PARAMETERS`) replaced.

        Raises
        ------
        ValueError
            If a name is unknown or a value impossible.
        """
        for name in values:
            self.value(name)
        optics = self.optics.with_cartesian({k: v for k, v in values.items() if k in CARTESIAN})
        own = {k: float(v) for k, v in values.items() if k in ("semi_angle", "soft_edge")}
        if own:
            optics = Optics.model_validate({**optics.model_dump(), **own})
        return replace(
            self,
            optics=optics,
            source_size=float(values.get("source_size", self.source_size)),
            focal_spread=float(values.get("focal_spread", self.focal_spread)),
        )

    def pull(self, parameters: Sequence[str], probe_gradient: Tensor) -> Tensor:
        """Chain rule from the modes to the parameters.

        The modes' mixing of the members is held fixed at the present point. The intensity depends
        on the modes only up to a unitary mixing, so this is exact to first order where all power
        is kept; else the error is of the order of what is left out.

        Parameters
        ----------
        parameters : sequence of str
            Of :data:`PARAMETERS`.
        probe_gradient : Tensor
            ∂L/∂Re + i ∂L/∂Im by :meth:`probe`, (M, Ky, Kx), centred, as a likelihood's gradients.
            A likelihood whose probe is s·probe() has s times this gradient.

        Returns
        -------
        Tensor
            float64 (P,), loss per Å or per mrad.

        Raises
        ------
        ValueError
            If a parameter is unknown or has no derivative, or the shape is not that of the probe.
        """
        m = self._modes
        shape = (len(m.waves), *self.window)
        if tuple(probe_gradient.shape) != shape:
            raise ValueError(f"the gradient is {tuple(probe_gradient.shape)}, the probe {shape}")
        spectrum = torch.fft.fft2(
            torch.fft.ifftshift(probe_gradient.to("cpu", torch.complex128), dim=(-2, -1)),
            norm="ortho",
        )
        g = spectrum.reshape(shape[0], -1)[:, m.where]
        # the probe is divided by its norm: what only changes its power has no effect
        g = g - m.waves * (g.conj() * m.waves).sum().real
        turned = (g * m.carrier.conj()).real  # Re⟨g, carrier·r⟩ of a real r
        out = torch.zeros(len(parameters), dtype=torch.float64)
        plain = [(i, name) for i, name in enumerate(parameters) if name in CARTESIAN]
        if plain:
            basis = aberration_basis(
                [name for _, name in plain], self.optics.wavelength, *self._grid()
            ).flatten(1)[:, m.where]
            # ∂ mode = −i basis · mode, and Re⟨g, −i b mode⟩ = b Im(g* mode)
            pulled = basis @ (g.conj() * m.waves).imag.sum(0)
            for (i, _), value in zip(plain, pulled, strict=True):
                out[i] = value
        for i, name in enumerate(parameters):
            if name in CARTESIAN:
                continue
            if name in ("semi_angle", "soft_edge"):
                if self.amplitude is not None:
                    raise ValueError(f"a measured aperture has no {name} to be fitted")
                pair = aperture_derivatives(self.optics, *self._grid())
                slope = pair[name == "soft_edge"].flatten()[m.where]
                out[i] = (turned * m.coherence * slope).sum()
            elif name in ("source_size", "focal_spread"):
                out[i] = (turned * m.amplitude * self._spread(name)).sum()
            else:
                self.value(name)
        return out

    def _grid(self) -> tuple[Tensor, Tensor]:
        return frequencies(self.window, self.pixel_size)

    def _spread(self, name: str) -> Tensor:
        """Derivative of the mixed members by source size or focal spread, (M, P)."""
        m = self._modes
        scale = self.value(name)
        if scale == 0:  # ρ depends on the square: no slope at zero
            return torch.zeros_like(m.coherence)
        if name == "source_size":
            count, square = m.orders[:, 0] + m.orders[:, 1], m.s[0] ** 2 + m.s[1] ** 2
        else:
            count, square = m.orders[:, 2], m.s[2] ** 2
        # g_n' = g_n (n − s²)/scale, for s grows with the scale
        return ((m.mixing * count) @ m.members - m.coherence * square) / scale

    @cached_property
    def _modes(self) -> _Modes:
        ky, kx = self._grid()
        if self.amplitude is None:
            whole = aperture(self.optics, ky, kx)
        else:
            whole = torch.fft.ifftshift(self.amplitude.detach().to("cpu", torch.float64))
        where = whole.flatten().nonzero()[:, 0]
        amplitude = whole.flatten()[where]
        amplitude_power = amplitude.square()
        y, x = (k.expand(self.window).flatten()[where] for k in (ky, kx))
        square = y * y + x * x
        # phases common to all foci are free: the mean square frequency keeps the arguments small
        middle = float((square * amplitude_power).sum() / amplitude_power.sum())
        s = torch.stack(
            [
                2 * math.pi * self.source_size * y,
                2 * math.pi * self.source_size * x,
                math.pi * self.optics.wavelength * self.focal_spread * (square - middle),
            ]
        )
        orders, members = coherent_members(s, amplitude_power)
        weighted = members * amplitude
        value, vector = torch.linalg.eigh(weighted @ weighted.T)
        top = torch.arange(len(value) - 1, -1, -1)[: self.modes]
        top = top[value[top] > 1e-12 * value[-1]]
        power = float(value[top].sum())
        mixing = vector[:, top].T / math.sqrt(power)
        chi = aberration_phase(self.optics, ky, kx).flatten()[where]
        carrier = torch.polar(torch.ones_like(chi), -chi)
        coherence = mixing @ members
        return _Modes(
            where=where,
            amplitude=amplitude,
            carrier=carrier,
            s=s,
            orders=orders,
            members=members,
            mixing=mixing,
            coherence=coherence,
            waves=coherence * amplitude * carrier,
            kept=power / float(amplitude_power.sum()),
        )


@dataclass(frozen=True, eq=False)
class _Modes:
    """What :class:`Illumination` works out once. P pixels lie in the aperture."""

    where: Tensor  # (P,) flat index of those pixels, DC in the corner
    amplitude: Tensor  # (P,) of the aperture
    carrier: Tensor  # (P,) exp(−iχ)
    s: Tensor  # (3, P) arguments of the Gaussians
    orders: Tensor  # (J, 3) powers of s
    members: Tensor  # (J, P) without amplitude and carrier
    mixing: Tensor  # (M, J), over the norm of the probe
    coherence: Tensor  # (M, P) mixing @ members
    waves: Tensor  # (M, P) spectra of the modes
    kept: float
