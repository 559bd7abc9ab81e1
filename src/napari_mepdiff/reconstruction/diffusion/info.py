"""What a step of diffusion posterior sampling tells besides its volume and misfit."""

from __future__ import annotations

from dataclasses import dataclass

from ..frame import StepInfo


@dataclass(frozen=True)
class DiffusionInfo(StepInfo):
    """Of one step.

    Attributes
    ----------
    guidance : str
        Which kind acts.
    sigma : float
        Noise over signal at this level, exp(−λ / 2).
    factor : float
        Guidance weight times g(λ).
    gain : float
        Step along the guidance direction that a factor of 1 takes.
    guidance_norm : float
        ‖x′ − x_θ‖ over √voxels, scaled units: how far the data moved the prediction.
    pass_number, passes : int
        From noise to clean.
    samples : int
        Answers in the batch.
    change : float or None
        Root mean square change of the volume since the last step, rad.
    misfit_per_electron : float
        Nats per electron.
    seconds_network, seconds_pullback, seconds_likelihood, seconds_step : float
        Where the time went.
    """

    guidance: str = ""
    sigma: float | None = None
    factor: float | None = None
    gain: float | None = None
    guidance_norm: float | None = None
    pass_number: int | None = None
    passes: int | None = None
    samples: int | None = None
    change: float | None = None
    misfit_per_electron: float | None = None
    seconds_network: float | None = None
    seconds_pullback: float | None = None
    seconds_likelihood: float | None = None
    seconds_step: float | None = None
