"""The whole state of a training run on disk; also a prior that :meth:`Prior.load` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..base.files import atomic
from .state import state_of
from .step import Trainer


def save_checkpoint(path: Path, trainer: Trainer) -> None:
    """Whole state to disk; the old file stays until the new one is complete."""
    with atomic(path) as temporary:
        torch.save(state_of(trainer), temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What :func:`save_checkpoint` wrote: tensors and plain values only, no code is run.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If the file is no checkpoint of a training run, or is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no training run to resume: {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("format") != "mepdiff-training":
            raise ValueError("not a checkpoint of a training run")
    except Exception as error:  # torch raises whatever the damage makes it meet
        raise ValueError(
            f"{path.name} cannot be read as a training checkpoint: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    if state["version"] > 1:
        raise ValueError(f"{path.name} was written by a newer version of napari-mepdiff")
    return state
