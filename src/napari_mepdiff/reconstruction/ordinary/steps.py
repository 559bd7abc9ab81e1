"""What the ordinary solvers share: where they begin, their frames, their states."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...physics.loss import LikelihoodFunction
from ..frame import Frame, StepInfo
from ..run import Run, State


def start_volume(run: Run[Any], like: LikelihoodFunction) -> Tensor:
    """Where a run begins: its saved state, the given start, or nothing."""
    source = run.start if run.state is None else run.state["x"]
    if source is None:
        return torch.zeros(like.shape, device=like.device, dtype=like.real_dtype)
    if tuple(source.shape) != tuple(like.shape):
        raise ValueError(
            f"the start is {size(source.shape)} voxels, the volume to be found "
            f"{size(like.shape)}: begin from one of the same grid"
        )
    return source.to(device=like.device, dtype=like.real_dtype).clone()


def size(shape: Sequence[int]) -> str:
    """Voxels each way, for people: '8 × 64 × 64'."""
    return " × ".join(map(str, shape))


def frame(
    run: Run[Any], step: int, total: int, volume: Tensor, loss: float, info: StepInfo
) -> Frame:
    """A frame with its own copy of the volume."""
    array = volume.detach().to("cpu", torch.float32).numpy().copy()
    return Frame(step, total, array, float(loss), None, run.seconds, info)


def keeper(step: int, run: Run[Any], **state: Any) -> Callable[[], State]:
    """The whole state after a step, to be taken when it is wanted."""
    return lambda: {"step": step, "seconds": run.seconds, **state}


def pack(rng: np.random.Generator) -> str:
    """Where a generator of random numbers stands, as text."""
    return json.dumps(rng.bit_generator.state)


def unpack(text: str) -> Any:
    """The inverse of :func:`pack`."""
    return json.loads(text)
