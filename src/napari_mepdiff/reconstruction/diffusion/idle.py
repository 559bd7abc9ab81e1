"""Which settings of diffusion posterior sampling have no effect beside the others, and why."""

from __future__ import annotations

from typing import Literal

from ...prior.sampler import Schedule
from .guidance import GuidanceKind, GuidanceSchedule

ConditionKind = Literal["none", "sum", "volume"]


def idle_fields(
    kind: GuidanceKind,
    condition: ConditionKind,
    schedule: GuidanceSchedule,
    noise_schedule: Schedule,
) -> dict[str, str]:
    """Fields of :class:`.settings.DPSSettings` without effect, and why.

    Parameters
    ----------
    kind : str
        The guidance that acts, not 'auto'.
    condition, schedule, noise_schedule : str
        As the settings have them.
    """
    atoms, paper, adam = kind == "atoms", kind == "paper", kind == "adam"
    idle: dict[str, str] = {}

    def no(why: str, *names: str) -> None:
        idle.update(dict.fromkeys(names, why))

    if atoms:
        no("whole atoms are moved between passes, not step by step", "schedule", "curve")
        no("whole atoms are moved by the Poisson misfit of the whole scan", "misfit")
        no("whole atoms are moved by the Poisson misfit of the whole scan", "fraction")
        no("with whole atoms the atoms themselves are the condition", "condition")
        no("whole atoms are found from the ordinary solution's depth sum", "start_log_snr")
    if paper:
        no("the paper's guidance takes the squared difference of intensities", "misfit")
        no("the paper's guidance takes every scan position in each step", "fraction")
        no("the paper's guidance takes every detector pixel", "detector_stride")
        no("the paper's network is given no ordinary solution", "condition", "evaluations")
        no("the paper goes from noise to clean once", "passes")
    if adam:
        no("Adam-guidance has a constant strength", "schedule", "curve")
    else:
        names = ("adam_strength", "adam_beta1", "adam_beta2")
        no("it belongs to Adam-guidance", *names)
    if kind != "decoupled":
        no("it belongs to decoupled guidance", "inner")
    if not atoms:
        no("it belongs to guidance by whole atoms", "odds", "elements")
        if paper or condition != "volume":
            no("it belongs to a condition of a whole volume", "trust")
        if condition == "none":
            no("no ordinary solution is made without a condition", "evaluations")
    if schedule != "curve":
        idle.setdefault("curve", "it belongs to the schedule 'curve'")
    if noise_schedule == "linear":
        no("the linear noise schedule goes from λ = −13 to 4", "sigma_max", "sigma_min", "rho")
    return idle
