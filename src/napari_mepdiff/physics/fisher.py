"""How strongly the data hold a few chosen changes of the volume: the Fisher matrix of the Poisson
likelihood.

For changes a_{s,c} of basis image K_c in slice s, with the modelled intensity I of every detector
pixel of every position,

    F = Σ (1/I) (∂I/∂a) (∂I/∂a)ᵀ,   ∂I/∂a_{s,c} = 2 Re ψ* δψ_{s,c},

where δψ_{s,c} is the wave at the detector of t_s (1 + i K_c) less that of t_s. Its inverse bounds
what any method can know of the a (Cramér and Rao); it is also the Gauss–Newton matrix of the
misfit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .likelihood import Likelihood
from .loss import Batch


def fisher(
    likelihood: Likelihood,
    volume: Tensor,
    basis: Tensor,
    batch: Batch = None,
    alive: Callable[[], bool] | None = None,
) -> Tensor:
    """Fisher matrix of basis images in every slice.

    Parameters
    ----------
    likelihood : Likelihood
        Its geometry, probe and mask; whatever its misfit is, the information is that of Poisson
        counts.
    volume : Tensor
        (D, H, W) rad, where the model is linearised.
    basis : Tensor
        (C, H, W) rad.
    batch : sequence of int, optional
        Positions to sum over; all by default.
    alive : callable, optional
        Asked before each position; False ends early.

    Returns
    -------
    Tensor
        (D · C, D · C) float32, index s · C + c, for unit changes a.

    Raises
    ------
    ValueError
        If the basis does not fit the volume.
    """
    model, windows = likelihood.model, likelihood.model.windows
    if basis.ndim != 3 or tuple(basis.shape[1:]) != tuple(likelihood.shape[1:]):
        raise ValueError(
            f"the basis is {tuple(basis.shape)}, expected "
            f"(C, {likelihood.shape[1]}, {likelihood.shape[2]})"
        )
    volume = volume.to(likelihood.device, likelihood.real_dtype)
    basis = basis.to(volume)
    depth, count = model.slices, len(basis)
    free, canvas = model.transmission(likelihood.grouping.sum(volume))
    change = [
        windows.pad(model.limit(1j * free[s][None] * basis)).reshape(count, -1)
        for s in range(depth)
    ]
    flat, window = canvas.view(depth, -1), windows.window
    used = None  # flat indices of the detector pixels that count
    if likelihood.data.weight is not None:
        used = (likelihood.data.weight > 0).reshape(-1)
    total = torch.zeros(
        depth * count, depth * count, device=likelihood.device, dtype=likelihood.real_dtype
    )
    for position in likelihood.index(batch):
        if alive is not None and not alive():
            break
        at = np.array([position])
        indices = model.indices(windows.corner[at])
        index = indices.reshape(-1)
        wave = model.incident(likelihood.spectrum, windows.fraction[at])
        before, psi = model.forward(canvas, indices, wave)
        slopes: Tensor | float = 0.0
        for mode in range(psi.shape[1]):
            waves = torch.zeros(0, *window, dtype=psi.dtype, device=psi.device)  # (s · C, Ky, Kx)
            for s in range(depth):
                fresh = before[s][0, mode] * change[s][:, index].reshape(count, *window)
                waves = torch.cat([waves * flat[s][index].reshape(window), fresh])
                if s < depth - 1:
                    waves = torch.fft.ifft2(torch.fft.fft2(waves).mul_(model.propagators[s]))
            slopes = slopes + 2 * (
                psi[0, mode].conj() * torch.fft.fft2(waves, norm="ortho")
            ).real.reshape(depth * count, -1)
        assert isinstance(slopes, Tensor)
        ideal = psi[0].abs().square().sum(dim=0) + likelihood.background
        intensity = likelihood.detector.detect(ideal[None])[0].reshape(-1)
        slopes = likelihood.detector.spread(slopes.view(-1, *window)).view(depth * count, -1)
        if used is not None:
            slopes, intensity = slopes[:, used], intensity[used]
        slopes = slopes * intensity.rsqrt()
        total.addmm_(slopes, slopes.T)
    # slices of one group change the waves alike
    group = torch.tensor(likelihood.grouping.of_slice(), device=total.device)
    index = (group[:, None] * count + torch.arange(count, device=total.device)).reshape(-1)
    return total[index][:, index] if depth < likelihood.shape[0] else total
