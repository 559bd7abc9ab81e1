"""What a refined pixel probe means: aperture, aberrations and coherence, read off its modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .aberrations import CARTESIAN, aberration_basis
from .aperture import edge_amplitude
from .illumination import PARAMETERS, Illumination
from .optics import Optics, aberration_phase, frequencies

_HIGHEST = 4  # order of the aberrations beyond, by which those fitted are judged
_ROUNDS = 8  # of the phase fit; 3 do for a good start


@dataclass(frozen=True)
class OpticsFit:
    """What :func:`fit_optics` found.

    Parameters
    ----------
    optics : Optics
        With the fitted aperture and aberrations.
    source_size, focal_spread : float
        rms, Å; as given where they were not fitted.
    uncertainties : dict
        Standard deviation of each fitted parameter in its unit, from the scatter of the fit and
        from aberrations beyond those that were fitted: what a refinement leaves wrong is as large
        in the low orders, which the fit takes for the lens, as in the high ones, where it shows.
    residual : float
        rms of the phase that the aberrations do not explain, rad, over the aperture of the
        strongest mode.
    shift : (y, x)
        Å, where the probe stands off the window's centre.
    mismatch : float
        Share of the (squared) mutual coherence that the fitted illumination does not explain, 0 to
        1.
    """

    optics: Optics
    source_size: float
    focal_spread: float
    uncertainties: dict[str, float]
    residual: float
    shift: tuple[float, float]
    mismatch: float


def fit_optics(
    probe_modes: Tensor,
    optics_start: Optics,
    pixel_size: tuple[float, float],
    names: Sequence[str],
    *,
    source_size: float = 0.0,
    focal_spread: float = 0.0,
) -> OpticsFit:
    """Aperture, aberrations and coherence of a probe given by its modes.

    The strongest mode carries the aberrations: its phase over the aperture is fitted, robustly,
    first by its differences from pixel to pixel (which do not wrap), then itself. The edge of the
    summed intensity gives the aperture. Source size and focal spread are those whose
    :class:`~napari_mepdiff.physics.illumination.Illumination` with as many modes comes closest to
    the modes' density matrix.

    Parameters
    ----------
    probe_modes : Tensor
        (M, Ky, Kx) or (Ky, Kx), complex, centred, in any unitary mixing, scale and global phase.
    optics_start : Optics
        Energy, and values to start from; what is not named stays.
    pixel_size : (dy, dx)
        Å.
    names : sequence of str
        Parameters to fit, of :data:`~napari_mepdiff.physics.illumination.PARAMETERS`.
    source_size, focal_spread : float
        Where they are known and not fitted.

    Raises
    ------
    ValueError
        If a name is unknown, or the modes hold no aperture to fit in.
    """
    unknown = sorted(set(names) - set(PARAMETERS))
    if unknown:
        raise ValueError(f"no parameter is called {', '.join(unknown)}")
    probe = probe_modes if probe_modes.ndim == 3 else probe_modes[None]
    if not probe.is_complex() or not torch.isfinite(probe.abs()).all() or not probe.abs().any():
        raise ValueError("a probe is complex, finite and not empty")
    window = (int(probe.shape[1]), int(probe.shape[2]))
    spectra = torch.fft.fft2(
        torch.fft.ifftshift(probe.detach().to("cpu", torch.complex128), dim=(-2, -1)), norm="ortho"
    )
    _, size, right = torch.linalg.svd(spectra.flatten(1), full_matrices=False)
    modes = (size[:, None] * right / size.square().sum().sqrt()).reshape(-1, *window)
    ky, kx = frequencies(window, pixel_size)
    optics, spread = _fit_edge(modes, optics_start, names, ky, kx)
    plain = [n for n in names if n in CARTESIAN]
    optics, shift, more, residual = _fit_phase(modes[0], optics, plain, ky, kx)
    uncertainties = {**spread, **more}
    ramp = torch.exp(2j * math.pi * (ky * shift[0] + kx * shift[1]))
    light = Illumination(optics, source_size, focal_spread, len(modes), window, pixel_size)
    light, more, mismatch = _fit_coherence(modes * ramp, light, names)
    return OpticsFit(
        optics,
        light.source_size,
        light.focal_spread,
        uncertainties | more,
        residual,
        shift,
        mismatch,
    )


def _fit_edge(
    modes: Tensor, optics: Optics, names: Sequence[str], ky: Tensor, kx: Tensor
) -> tuple[Optics, dict[str, float]]:
    """Semi-angle and soft edge from the amplitude of all modes together."""
    free = [n for n in ("semi_angle", "soft_edge") if n in names]
    if not free:
        return optics, {}
    from scipy.optimize import least_squares

    angle = (optics.wavelength * torch.sqrt(ky**2 + kx**2) * 1e3).flatten()
    amplitude = modes.abs().square().sum(0).sqrt().flatten()
    pixel = 1e3 * optics.wavelength * max(float(ky[1, 0]), float(kx[0, 1]))
    # half the mean amplitude where the intensity is: noise outside has no say
    inside = amplitude > 0.5 * amplitude.pow(3).sum() / amplitude.square().sum()
    start = float((inside.sum() / math.pi).sqrt()) * 1e3 * optics.wavelength
    start *= math.sqrt(float(ky[1, 0]) * float(kx[0, 1]))
    width = max(optics.soft_edge, pixel)  # a hard edge is known to a pixel
    near = angle < 1.5 * start
    angle, amplitude = angle[near], amplitude[near]
    level = float(amplitude[angle < 0.7 * start].mean())

    def model(p: NDArray[np.float64]) -> NDArray[np.float64]:
        # kept modes are weaker towards the edge: a parabola of the angle stands for that
        top = p[0] * (1 + p[1] * (angle / start) ** 2)
        soft = abs(float(p[3])) if "soft_edge" in free else width
        return np.asarray(top * edge_amplitude(angle, float(p[2]), soft, optics.edge) - amplitude)

    count = 4 if "soft_edge" in free else 3
    found = least_squares(
        model, np.array([level, 0.0, start, width])[:count], x_scale=[level, 0.3, 1, 1][:count]
    )
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * 2 * found.cost / len(angle)
    values = {"semi_angle": float(found.x[2]), "soft_edge": abs(float(found.x[-1]))}
    where = {"semi_angle": 2, "soft_edge": 3}
    optics = Optics.model_validate({**optics.model_dump(), **{n: values[n] for n in free}})
    return optics, {n: math.sqrt(covariance[where[n], where[n]]) for n in free}


def _fit_phase(
    mode: Tensor, optics: Optics, names: Sequence[str], ky: Tensor, kx: Tensor
) -> tuple[Optics, tuple[float, float], dict[str, float], float]:
    """Aberrations and shift from the phase of the strongest mode inside the aperture."""
    window = mode.shape
    angle = optics.wavelength * torch.sqrt(ky**2 + kx**2) * 1e3
    inside = torch.fft.fftshift(angle < optics.semi_angle - 0.5 * optics.soft_edge)
    if int(inside.sum()) < 3 * (len(names) + 3):
        raise ValueError("the aperture holds too few pixels to fit these aberrations in")
    basis = aberration_basis(names, optics.wavelength, ky, kx)
    # a shift s is the phase 2πk·s in χ, and a constant is the global phase
    lines = 2 * math.pi * torch.stack([ky.expand(window), kx.expand(window)])
    basis = torch.cat([basis, lines, torch.ones((1, *window), dtype=torch.float64)])
    basis = torch.fft.fftshift(basis, dim=(-2, -1))
    scale = basis[:, inside].abs().amax(1)
    basis = basis / scale[:, None, None]
    wave = torch.fft.fftshift(mode * torch.exp(1j * aberration_phase(optics, ky, kx)))
    found = torch.zeros(len(basis), dtype=torch.float64)
    for _ in range(_ROUNDS):  # differences between neighbours
        left = wave * torch.exp(1j * torch.tensordot(found, basis, dims=1))
        rows, right, weight = [], [], []
        for axis in (0, 1):
            a, b = slice(None, -1), slice(1, None)
            at, to = (
                ((a, slice(None)), (b, slice(None)))
                if axis == 0
                else ((slice(None), a), (slice(None), b))
            )
            both = inside[at] & inside[to]
            product = (left[to] * left[at].conj())[both]
            rows.append((basis[:, to[0], to[1]] - basis[:, at[0], at[1]])[:-1, both])
            right.append(-product.angle())
            weight.append(product.abs())
        step, _, _ = _robust(torch.cat(rows, 1), torch.cat(right), torch.cat(weight))
        found[:-1] += step
        if float(step.abs().max()) < 1e-3:
            break
    for _ in range(_ROUNDS):  # the phase itself, now without wraps
        left = wave * torch.exp(1j * torch.tensordot(found, basis, dims=1))
        middle = left[inside].sum().angle()
        left = left * torch.exp(-1j * middle)
        found[-1] -= middle
        step, covariance, residual = _robust(
            basis[:, inside], -left[inside].angle(), left[inside].abs().square()
        )
        found += step
        if float(step.abs().max()) < 1e-8:
            break
    beyond = _beyond(names, optics.wavelength, ky, kx)[:, inside]
    covariance = covariance + _systematic(
        basis[:, inside], beyond, -left[inside].angle(), left[inside].abs().square()
    )
    value, error = found / scale, covariance.diagonal().sqrt() / scale
    now = optics.cartesian
    fitted = optics.with_cartesian(
        {n: now[n] + float(v) for n, v in zip(names, value, strict=False)}
    )
    uncertainties = {n: float(e) for n, e in zip(names, error, strict=False)}
    return fitted, (float(value[-3]), float(value[-2])), uncertainties, residual


def _beyond(names: Sequence[str], wavelength: float, ky: Tensor, kx: Tensor) -> Tensor:
    """Aberrations up to the fourth order that were not fitted, (B, Ky, Kx), DC in the middle."""
    others = [n for n in CARTESIAN if n not in names and int(n[1]) <= _HIGHEST]
    return torch.fft.fftshift(aberration_basis(others, wavelength, ky, kx), dim=(-2, -1))


def _systematic(rows: Tensor, beyond: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """Covariance of the fit by rows if each independent shape that they can form is wrong by as
    much as those beyond them are."""
    root = (weight / weight.sum()).sqrt()
    shapes, _ = torch.linalg.qr((torch.cat([rows, beyond]) * root).T)
    # each column is one more shape than those before it, of 1 rad rms
    size = (shapes[:, len(rows) :].T @ (left * root)).square().mean()
    return torch.linalg.inv((rows * root) @ (rows * root).T) * size


def _robust(rows: Tensor, right: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, float]:
    """Huber's least squares of rowsᵀ·p = right: p, covariance, weighted rms of the residuals."""
    robust = weight.clone()
    for _ in range(4):
        normal = (rows * robust) @ rows.T
        p = torch.linalg.solve(normal, (rows * robust) @ right)
        left = right - p @ rows
        cut = 2 * 1.4826 * left.abs().median() + 1e-12
        robust = weight * (cut / left.abs().clamp(min=float(cut)))
    rms = float(((weight * left.square()).sum() / weight.sum()).sqrt())
    inverse = torch.linalg.inv((rows * weight) @ rows.T)
    # each residual counted with its weight
    scatter = (rows * (weight * left).square()) @ rows.T
    return p, inverse @ scatter @ inverse, rms


def _fit_coherence(
    modes: Tensor, light: Illumination, names: Sequence[str]
) -> tuple[Illumination, dict[str, float], float]:
    """Source size and focal spread whose density matrix is the closest to that of the modes."""
    free = [n for n in ("source_size", "focal_spread") if n in names]
    flat = modes.flatten(1)
    own = float((flat.conj() @ flat.T).abs().square().sum())

    def mismatch(values: NDArray[np.float64]) -> float:
        at = light.updated({n: abs(float(v)) for n, v in zip(free, values, strict=True)})
        spectrum = torch.fft.fft2(torch.fft.ifftshift(at.probe(), dim=(-2, -1)), norm="ortho")
        other = spectrum.flatten(1)
        theirs = float(other.abs().square().sum(1).square().sum())
        cross = float((flat.conj() @ other.T).abs().square().sum())
        # ‖ρ − ρ'‖² over ‖ρ‖², of density matrices with trace 1
        return (own + theirs - 2 * cross) / own

    if not free:
        return light, {}, mismatch(np.array([]))
    from scipy.optimize import minimize

    # natural sizes: the source of a wave's width at the edge, the focus of 1 rad there
    unit = {
        "source_size": 1 / (2 * math.pi * light.optics.k_max),
        "focal_spread": 1 / (math.pi * light.optics.wavelength * light.optics.k_max**2),
    }
    scale = np.array([unit[n] for n in free])
    start = np.array([getattr(light, n) or unit[n] for n in free])
    simplex = np.vstack([start, start + np.diag(scale * 0.5)])
    found = minimize(
        mismatch,
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-3 * scale.min(), "fatol": 1e-9},
    )
    best = {n: abs(float(v)) for n, v in zip(free, found.x, strict=True)}
    uncertainties: dict[str, float] = {}
    for i, name in enumerate(free):
        h = np.zeros(len(free))
        h[i] = 0.05 * scale[i]
        bend = mismatch(found.x + h) + mismatch(found.x - h) - 2 * float(found.fun)
        # where the mismatch doubles: what is left unexplained may all lie here
        uncertainties[name] = (
            float(h[i] * math.sqrt(2 * max(float(found.fun), 0.0) / bend)) if bend > 0 else math.inf
        )
    return light.updated(best), uncertainties, max(float(found.fun), 0.0)
