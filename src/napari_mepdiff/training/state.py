"""The state of a training run: what it begins with, and all that it needs to go on exactly."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..prior.files import Card
from .step import Trainer


def start_from(trainer: Trainer, state: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Weights of an earlier prior, with a fresh optimiser.

    Its samples, steps and hours go on counting. What the network takes beyond the earlier one
    (elements, an answer of the data) begins without effect.

    Raises
    ------
    ValueError
        If they are another network's.
    """
    own = trainer.network.state_dict()
    fresh = {k: v for k, v in own.items() if k.startswith(("told.", "answered."))}
    state = {**fresh, **state}
    if own.keys() != state.keys() or any(own[k].shape != state[k].shape for k in own):
        raise ValueError(
            "the prior to start from is another network: choose its preset, or start from nothing"
        )
    trainer.network.load_state_dict(state)
    for name, value in state.items():
        trainer.average[name].copy_(value)
    trainer.step = trainer.begun = int(info.get("steps", 0))
    trainer.samples = int(info.get("samples", 0))
    trainer.seconds = 3600 * float(info.get("hours", 0.0))


def card_of(trainer: Trainer) -> Card:
    """What the averaged weights are as a prior."""
    return Card(
        trainer.settings.network,
        {
            "samples": trainer.samples,
            "steps": trainer.step,
            "hours": round(trainer.seconds / 3600, 3),
            "settings": trainer.settings.model_dump(mode="json"),
            "structures": trainer.structures.source,
        },
    )


def state_of(trainer: Trainer) -> dict[str, Any]:
    """All that :func:`restore` needs to go on exactly."""
    return {
        "format": "mepdiff-training",
        "version": 1,
        "prior": card_of(trainer).texts(),
        "settings": trainer.settings.model_dump_json(),
        "network": trainer.network.state_dict(),
        "average": trainer.average,
        "optimiser": trainer.optimiser.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "step": trainer.step,
        "samples": trainer.samples,
        "seconds": trainer.seconds,
        "loss": trainer.loss,
        "bands": trainer.bands,
        "begun": trainer.begun,
        "source": trainer.structures.source,
        "processes": trainer.processes,
    }


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """The inverse of :func:`state_of`; the settings stay those of this trainer."""
    trainer.network.load_state_dict(state["network"])
    trainer.optimiser.load_state_dict(state["optimiser"])
    for name, value in state["average"].items():
        trainer.average[name].copy_(value)
    # the learnt losses hold whatever the weighting is; the weighting is this run's
    weighting = {
        "mean": trainer.settings.weighting_mean,
        "spread": trainer.settings.weighting_spread,
    }
    trainer.schedule.load_state_dict({**state["schedule"], **weighting})
    trainer.step, trainer.begun = int(state["step"]), int(state["begun"])
    trainer.samples, trainer.seconds = int(state["samples"]), float(state["seconds"])
    trainer.loss, trainer.bands = float(state["loss"]), dict(state["bands"])
