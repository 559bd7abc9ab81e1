"""Diffusion posterior sampling once more, in a few lines that share nothing with the package but
the network's weights: a multislice model in plain torch, gradients by autograd, and the sampler as
Hugging Face's diffusers has it (``sde-dpmsolver++``, second order, midpoint).
"""

from __future__ import annotations

import numpy as np
import torch

ENERGY_WAVELENGTH = 0.0196875  # Å, 300 kV


def patterns(phase, problem):
    """Intensities (N, K, K), DC centred, of a phase (D, K, K) in rad as large as the window."""
    size, pixel = phase.shape[-1], problem.voxel_size[1]
    k = torch.fft.fftfreq(size, pixel, dtype=torch.float64)
    k2 = k[:, None] ** 2 + k[None] ** 2
    thickness = problem.slice_thickness[0]
    propagator = torch.exp(-1j * torch.pi * ENERGY_WAVELENGTH * thickness * k2)
    centred = torch.fft.ifftshift(problem.probe[0].to(torch.complex128))
    spectrum = torch.fft.fft2(centred)
    out = []
    for y, x in torch.as_tensor(problem.positions, dtype=torch.float64):
        wave = torch.fft.ifft2(
            spectrum * torch.exp(-2j * torch.pi * (k[:, None] * y + k[None] * x))
        )
        for n, part in enumerate(phase):
            wave = wave * torch.exp(1j * part)
            if n < len(phase) - 1:
                wave = torch.fft.ifft2(torch.fft.fft2(wave) * propagator)
        out.append(torch.fft.fftshift(torch.fft.fft2(wave, norm="ortho").abs() ** 2))
    return torch.stack(out)


def squared_misfit(x, problem):
    """‖f(x) − y‖² of a scaled volume, with patterns scaled so that their mean's largest is 1."""
    y = torch.as_tensor(problem.patterns, dtype=torch.float64)
    scale = y.mean(dim=0).max()
    return ((patterns(x.double() / 25.0, problem) / scale - y / scale) ** 2).sum()


def denoise(prior, z, log_snr):
    """x_θ(z, λ) of the v-predicting network, with its graph."""
    alpha, sigma = (torch.sigmoid(torch.tensor(s * log_snr)).sqrt() for s in (1, -1))
    nothing = torch.zeros(1, 2, *z.shape)
    v = prior.network(z[None], torch.tensor([log_snr]), nothing, torch.zeros(1, 3))[0]
    return alpha * z - sigma * v


def log_snrs(steps, sigma_max=800.0, sigma_min=0.1):
    """λ = −2 log σ with σ falling geometrically (poly-exponential with ρ = 1)."""
    return (-2 * torch.linspace(np.log(sigma_max), np.log(sigma_min), steps)).double().tolist()


def sde_dpm_solver_pp_2m(predict, z, levels, rng, shift=None):
    """The sampler after ``DPMSolverMultistepScheduler``: first order, then second (midpoint)."""
    outputs = []
    for n, level in enumerate(levels):
        outputs.append(predict(z, level))
        if n == len(levels) - 1:
            return outputs[-1]
        lam = [v / 2 for v in (levels[n - 1] if n else level, level, levels[n + 1])]
        alpha_t, sigma_t = (
            float(torch.sigmoid(torch.tensor(s * 2 * lam[2])) ** 0.5) for s in (1, -1)
        )
        sigma_s = float(torch.sigmoid(torch.tensor(-2 * lam[1])) ** 0.5)
        h = lam[2] - lam[1]
        noise = torch.randn(1, *z.shape, generator=rng)[0]
        d0, decay = outputs[-1], 1 - np.exp(-2 * h)
        new = (
            sigma_t / sigma_s * np.exp(-h) * z
            + alpha_t * decay * d0
            + sigma_t * np.sqrt(decay) * noise
        )
        if n:
            r0 = (lam[1] - lam[0]) / h
            d1 = (outputs[-1] - outputs[-2]) / r0
            new = new + 0.5 * alpha_t * decay * d1
        if shift is not None:
            alpha_s = float(torch.sigmoid(torch.tensor(2 * lam[1])) ** 0.5)
            new = new + shift() / (alpha_s / alpha_t)
        z = new
    return z
