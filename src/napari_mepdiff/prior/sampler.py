"""The sampler of the paper as a pure function over a denoiser: SDE-DPM-Solver++(2M) in log-SNR
(section 3, table 4).

In half log-SNR l = λ / 2 = log(α / σ), with h = l_next − l (Lu et al. 2022, DPM-Solver++, section
5):

    z_next = (σ_next / σ) e^(−ηh) z + α_next (1 − e^(−(1+η)h)) D + σ_next √(1 − e^(−2ηh)) ε
    D = x + (x − x_before) / 2r,   r = h_before / h

η = 1 is the SDE of the paper, η = 0 the ODE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from .process import alpha_sigma

if TYPE_CHECKING:
    from .condition import Condition
    from .model import Prior

Denoiser = Callable[[Tensor, float], Tensor]
Schedule = Literal["poly-exponential", "linear", "karras"]


@dataclass(frozen=True)
class Step:
    """One step of a sampler: the level λ, the latent z before it and the x-prediction there, both
    scaled.
    """

    step: int
    total: int
    log_snr: float
    z: Tensor
    x: Tensor


@dataclass(frozen=True)
class State:
    """Where a sampler stands: all that its next step needs.

    Attributes
    ----------
    z : Tensor
        Latent.
    log_snr : float
        λ of z.
    before : Tensor or None
        x-prediction of the last step.
    h_before : float
        Half the rise of λ in the last step.
    """

    z: Tensor
    log_snr: float
    before: Tensor | None = None
    h_before: float = 0.0


LINEAR = (-13.0, 4.0)  # λ at both ends of the linear schedule (paper, section 3)


def level_at(
    part: float,
    sigma_max: float = 800.0,
    sigma_min: float = 0.1,
    schedule: Schedule = "poly-exponential",
    rho: float | None = None,
) -> float:
    """λ of a schedule at a part of its way, 0 (noise) to 1 (clean); see :func:`levels`."""
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"a schedule needs σ_max > σ_min > 0, got {sigma_max} and {sigma_min}")
    if rho is not None and not rho > 0:
        raise ValueError(f"ρ must be positive, got {rho}")
    high, low = math.log(sigma_max), math.log(sigma_min)
    if schedule == "poly-exponential":
        return -2 * (low + (high - low) * (1 - part) ** (rho or 1.0))
    if schedule == "linear":
        return LINEAR[0] + (LINEAR[1] - LINEAR[0]) * part
    if schedule == "karras":
        p = 1 / (rho or 7.0)
        return -2 * math.log((sigma_max**p + part * (sigma_min**p - sigma_max**p)) ** (1 / p))
    raise ValueError(f"schedule is poly-exponential, linear or karras, got {schedule!r}")


def levels(
    steps: int,
    sigma_max: float = 800.0,
    sigma_min: float = 0.1,
    schedule: Schedule = "poly-exponential",
    rho: float | None = None,
) -> list[float]:
    """λ of each step, rising.

    Parameters
    ----------
    steps : int
        Evaluations of the network.
    sigma_max, sigma_min : float
        Largest and smallest noise σ / α (paper, table 4: 800 and 0.1).
    schedule : {'poly-exponential', 'linear', 'karras'}
        'poly-exponential': log σ falls as a power ρ of a straight line (paper: ρ = 1, linear in λ).
        'linear': linear in λ over [−13, 4], whatever the σ. 'karras': σ^(1/ρ) falls linearly
        (Karras et al. 2022).
    rho : float, optional
        1 for poly-exponential, 7 for karras.

    Raises
    ------
    ValueError
        If there are fewer than two steps, the σ are not in order, ρ is not positive, or the
        schedule is unknown.
    """
    if steps < 2:
        raise ValueError(f"a schedule needs two steps or more, got {steps}")
    return [level_at(n / (steps - 1), sigma_max, sigma_min, schedule, rho) for n in range(steps)]


def advance(
    state: State, x: Tensor, following: float, noise: Tensor | None, eta: float = 1.0
) -> State:
    """One step of SDE-DPM-Solver++(2M) to the level `following`, given the x-prediction at the
    present one.

    Parameters
    ----------
    noise : Tensor or None
        ε of unit variance; not used (may be None) when η = 0.

    Raises
    ------
    ValueError
        If the level does not rise, or noise is missing.
    """
    h = (following - state.log_snr) / 2
    if not h > 0:
        raise ValueError(f"λ rises from step to step, got {state.log_snr:g} and then {following:g}")
    (_, sigma), (alpha_next, sigma_next) = (
        (float(a), float(b))
        for a, b in (
            alpha_sigma(torch.tensor(v, dtype=torch.float64)) for v in (state.log_snr, following)
        )
    )
    # e^(−2h) of the SDE; without noise (η = 0) the exponent is h alone
    gained = -math.expm1(-h * (1 + eta))
    direction = x if state.before is None else x + (x - state.before) * (h / (2 * state.h_before))
    z = sigma_next / sigma * math.exp(-eta * h) * state.z + alpha_next * gained * direction
    if eta:
        if noise is None:
            raise ValueError("a step with η > 0 needs noise")
        z = z + sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * noise
    return State(z, following, x, h)


def dpmpp_2m_sde(
    denoise: Denoiser, z: Tensor, log_snr: list[float], rng: torch.Generator, eta: float = 1.0
) -> Iterator[Step]:
    """The sampler over any x-prediction; the last step's x is the sample.

    Parameters
    ----------
    denoise : callable
        (z, λ) -> x.
    z : Tensor
        Latent at the first level; noise of unit variance where that is noisy enough.
    log_snr : list of float
        Levels λ, rising.
    rng : torch.Generator
        On the CPU, of the noise that is added.
    eta : float
        1: the SDE of the paper; 0: the ODE (DPM-Solver++(2M)).
    """
    state = State(z, log_snr[0])
    for n, level in enumerate(log_snr):
        x = denoise(state.z, level)
        yield Step(n + 1, len(log_snr), level, state.z, x)
        if n + 1 == len(log_snr):
            return
        noise = torch.randn(z.shape, generator=rng, dtype=z.dtype).to(z.device) if eta else None
        state = advance(state, x, log_snr[n + 1], noise, eta)


def sample(
    prior: Prior,
    shape: tuple[int, int, int] = (8, 64, 64),
    *,
    count: int = 1,
    steps: int = 100,
    condition: Condition | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Volumes (count, D, H, W) in rad drawn from the prior, or from the prior given a condition.

    Parameters
    ----------
    prior : Prior
    shape : (D, H, W)
        Voxels; those of the condition if there is one.
    count : int
        Volumes.
    steps : int
        Evaluations of the network.
    condition : Condition, optional
        What is known of the volumes beforehand.
    seed : int
        Of the noise, and of where the windows of a wide field begin.
    progress : callable, optional
        Called with the step and the number of steps.
    """
    if condition is not None and condition.volume is not None:
        depth, height, width = condition.volume.shape
        shape = (depth, height, width)
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, *shape, generator=rng).to(prior.device)
    schedule = levels(steps)
    windows = {level: window_seed(seed, n) for n, level in enumerate(schedule)}

    def denoise(latent: Tensor, level: float) -> Tensor:
        return prior(latent, level, condition, windows[level])

    x = z
    for state in dpmpp_2m_sde(denoise, z, schedule, rng):
        x = state.x
        if progress:
            progress(state.step, state.total)
    return x / prior.scale


def window_seed(seed: int, step: int) -> int:
    """Seed of the prior's windows in a step of a run: other ones in each step, the same ones when
    it is played again.
    """
    return seed * 100_003 + step
