"""The kinds of guidance by their names in the settings."""

from __future__ import annotations

from .adam import Adam
from .decoupled import Decoupled
from .guidance import GuidanceKind, guidance
from .guide import Guide, Unguided
from .newton import Newton
from .paper import Paper
from .settings import DPSSettings


def make_guide(kind: GuidanceKind, s: DPSSettings, samples: int) -> Guide:
    """A guide at the beginning of a run.

    Parameters
    ----------
    kind : str
        Not 'auto'.
    s : DPSSettings
    samples : int
        Latents in the batch.
    """
    if kind == "newton":
        return Newton(samples)
    if kind == "paper":
        return Paper()
    if kind == "adam":
        return Adam(s.adam_beta1, s.adam_beta2)
    return Decoupled() if kind == "decoupled" else Unguided()


def strength(kind: GuidanceKind, s: DPSSettings, log_snr: float) -> float:
    """What multiplies the guide's own step: w g(λ); of Adam-guidance w ρ."""
    if kind == "adam":
        return s.weight * s.adam_strength
    return s.weight * guidance(s.schedule, log_snr, s.curve)


def after_divergence(kind: GuidanceKind) -> tuple[float, str]:
    """What the weight is divided by, and what the message that ends a run adds about it."""
    if kind == "paper":  # the constant can be thousands of times too strong
        return 10.0, "; 1e-5 is about right for the paper's guidance"
    return 2.0, ""
