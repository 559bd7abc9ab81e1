"""One step of training after another: stream of volumes, weighted v-loss, AdamW, moving average of the weights.

All randomness of a step comes from (seed, step, process), so that a run that was killed and resumed goes on as if it had not been.
"""

from __future__ import annotations

import itertools
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..devices import has_bf16, require_device
from ..files import atomic
from .condition import Dropout, corrupt
from .crystals import Augmentation, CrystalStream
from .noise import SCALE, AdaptiveSchedule, diffuse, velocity
from .structures import Structures
from .unet import PRESETS, UNet, UNetConfig

BANDS = (-20.0, -13.0, -10.0, -7.0, -4.0, -1.0, 3.0, 20.0)  # λ bands in which losses are reported
Shape = tuple[int, int, int]


class TrainSettings(BaseModel):
    """Everything that decides how a training run goes on; kept in its checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: UNetConfig = Field(default_factory=lambda: PRESETS["compact"], title="Network")
    batch: int = Field(8, ge=1, title="Batch", description="volumes per step and process")
    learning_rate: float = Field(2e-3, gt=0, title="Learning rate")
    weight_decay: float = Field(0.01, ge=0, title="Weight decay")
    warm_up: int = Field(200, ge=0, title="Warm-up", description="steps to the full learning rate")
    half_life: int = Field(0, ge=0, title="Half-life", description="steps after which the learning rate has halved; 0: constant")
    average: float = Field(0.999, ge=0, lt=1, title="EMA decay", description="of the moving average of the weights")
    clip: float = Field(1.0, gt=0, title="Gradient clip", description="largest norm of a gradient")
    no_condition: float = Field(0.35, ge=0, le=1, title="No condition", description="share of volumes that see none")
    only_sum: float = Field(0.25, ge=0, le=1, title="Depth sum only", description="share that sees only the depth sum")
    other_shapes: float = Field(0.15, ge=0, le=1, title="Other shapes", description="share of steps on another number of voxels")
    lateral: int = Field(64, ge=16, title="Lateral size", description="voxels a side of the usual volume")
    slices: int = Field(8, ge=4, title="Slices", description="of the usual volume")
    experimental_weight: float = Field(4.0, gt=0, title="Experimental", description="how much oftener such structures are drawn")
    any_direction: float = Field(0.1, ge=0, le=1, title="Any direction", description="share seen along a random direction")
    vacancies: float = Field(0.01, ge=0, lt=1, title="Vacancies", description="fraction of atoms left out")
    precision: Literal["auto", "bf16", "float32"] = Field(
        "auto", title="Precision", description="auto: bf16 where the processor or GPU has it"
    )
    weighting_mean: float = Field(-7.0, title="Weighting mean", description="λ")
    weighting_spread: float = Field(3.0, gt=0, title="Weighting spread", description="λ")
    seed: int = Field(0, ge=0, title="Seed")


class TrainingError(ArithmeticError):
    """A run that cannot go on, and why."""


def band_of(log_snr: float) -> str:
    """Name of the λ band."""
    for low, high in itertools.pairwise(BANDS):
        if log_snr < high:
            return f"{low:g}..{high:g}"
    return f"{BANDS[-2]:g}..{BANDS[-1]:g}"


@dataclass
class Trainer:
    """Network, optimiser and all other state of a run.

    Attributes
    ----------
    settings : TrainSettings
    structures : Structures
        Those to train on.
    device : str
    accelerator : accelerate.Accelerator or None
        For several processes.
    """

    settings: TrainSettings
    structures: Structures
    device: str = "cpu"
    accelerator: Any = None
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    begun: int = 0
    micro: int = 0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        s = self.settings
        require_device(self.device)
        torch.manual_seed(s.seed)
        self.network = UNet(s.network).to(self.device).to(memory_format=torch.channels_last_3d)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        decay = [p for p in self.network.parameters() if p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decay, "weight_decay": s.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=s.learning_rate, betas=(0.9, 0.99), fused=self.device == "cpu" or self.device.startswith("cuda"),
        )
        self.schedule = AdaptiveSchedule(mean=s.weighting_mean, spread=s.weighting_spread)
        self.stream = CrystalStream(
            self.structures, Augmentation(any_direction=s.any_direction, vacancies=s.vacancies),
            experimental_weight=s.experimental_weight, seed=s.seed,
        )
        self.model: torch.nn.Module = self.network
        self.rank, self.processes = 0, 1
        if self.accelerator is not None:
            self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
            self.model, self.optimiser = self.accelerator.prepare(self.network, self.optimiser)
        self.loss, self.bands = math.nan, dict.fromkeys((band_of(b) for b in BANDS[:-1]), math.nan)
        self._bad = 0

    def learning_rate(self) -> float:
        """That of the present step."""
        s = self.settings
        rate = s.learning_rate * min(1.0, (self.step - self.begun + 1) / max(1, s.warm_up))
        return rate * (0.5 ** (self.step / s.half_life) if s.half_life else 1.0)

    def shape(self) -> tuple[Shape, int]:
        """Voxels and number of volumes of the present step: mostly the usual shape, else fewer slices or another field."""
        s = self.settings
        rng = np.random.default_rng([s.seed, self.step, 2])
        usual = (s.slices, s.lateral, s.lateral)
        if rng.random() >= s.other_shapes:
            return usual, s.batch
        unit = s.network.stride[1]
        kind = rng.integers(3)
        if kind == 0 and s.slices > 4:
            multiple = s.network.stride[0]
            return (int(rng.integers(4 // multiple, s.slices // multiple)) * multiple, s.lateral, s.lateral), s.batch
        if kind == 1:
            side = max(unit, s.lateral // 2 // unit * unit)
            return (s.slices, side, side), 2 * s.batch
        side = s.lateral * 3 // 2 // unit * unit
        return (s.slices, side, side), max(1, s.batch // 2)

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Volumes, noise, λ, factors, conditions and flags of the present step and process."""
        s = self.settings
        shape, count = self.shape()
        x = SCALE * self.stream.batch(self.step * self.processes + self.rank, count, shape, self.device)
        rng = torch.Generator().manual_seed(int(np.random.default_rng([s.seed, self.step, self.rank, 3]).integers(2**62)))
        noise = torch.randn(x.shape, generator=rng).to(self.device)
        log_snr, factor = self.schedule.draw(count, rng)
        order = torch.randperm(count, generator=rng)  # λ is stratified; keep it from going with the order of volumes
        condition, flags = corrupt(x, rng, Dropout(s.no_condition, s.only_sum))
        return x, noise, log_snr[order].to(self.device), factor[order].to(self.device), condition, flags

    def advance(self) -> None:
        """One step. A batch that does not fit into memory is taken in pieces; one that gives NaN is left out.

        Raises
        ------
        TrainingError
            After ten batches in a row without a finite gradient.
        MemoryError
            If even a single volume does not fit.
        """
        started = time.perf_counter()
        x, noise, log_snr, factor, condition, flags = self.draw()
        z, v = diffuse(x, noise, log_snr), velocity(x, noise, log_snr)
        rate = self.learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        count = len(x)
        micro = min(self.micro or count, count)
        while True:
            try:
                losses = self._gradient(z, v, log_snr, factor, condition, flags, micro)
                break
            except RuntimeError as error:
                if "memory" not in str(error).lower():
                    raise
                if micro == 1:
                    raise MemoryError("not even one volume fits into memory: choose a smaller network or field") from error
                micro = self.micro = (micro + 1) // 2
                self.notes.append(f"step {self.step}: out of memory; going on with {micro} volumes at a time")
                if self.device.startswith("cuda"):
                    torch.cuda.empty_cache()
        size = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        if torch.isfinite(size) and torch.isfinite(losses).all():
            self.optimiser.step()
            self._bad = 0
            self._average()
            self._account(log_snr, losses, factor)
        else:
            self._bad += 1
            self.notes.append(f"step {self.step}: no finite gradient; this batch was left out")
            if self._bad >= 10:
                raise TrainingError("ten batches in a row gave no finite gradient: the run diverged; resume from its last "
                                    "checkpoint with a smaller learning rate")
        self.step += 1
        self.samples += count * self.processes
        self.seconds += time.perf_counter() - started

    def _gradient(self, z: Tensor, v: Tensor, log_snr: Tensor, factor: Tensor, condition: Tensor, flags: Tensor,
                  micro: int) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        count, losses = len(z), []
        for low in range(0, count, micro):
            part = slice(low, min(low + micro, count))
            last = part.stop == count
            quiet = nullcontext() if last or self.accelerator is None else self.accelerator.no_sync(self.model)
            with quiet:
                with self._cast():
                    out = self.model(z[part], log_snr[part], condition[part], flags[part])
                each = (out.float() - v[part]).square().mean(dim=(1, 2, 3))
                total = (each * factor[part]).sum() / count
                if self.accelerator is None:
                    total.backward()
                else:
                    self.accelerator.backward(total)
            losses.append(each.detach())
        return torch.cat(losses)

    def _cast(self) -> Any:
        precision = self.settings.precision
        if precision == "float32" or (precision == "auto" and not has_bf16(self.device)):
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)

    def _average(self) -> None:
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def _account(self, log_snr: Tensor, losses: Tensor, factor: Tensor) -> None:
        if self.accelerator is not None:
            log_snr, losses, factor = (self.accelerator.gather(t.contiguous()) for t in (log_snr, losses, factor))
        log_snr, losses, factor = log_snr.cpu(), losses.cpu(), factor.cpu()
        self.schedule.update(log_snr, losses)

        def running(old: float, new: float, keep: float) -> float:
            return new if math.isnan(old) else keep * old + (1 - keep) * new

        self.loss = running(self.loss, float((losses * factor).mean()), 0.98)
        for value, loss in zip(log_snr.tolist(), losses.tolist(), strict=True):
            self.bands[band_of(value)] = running(self.bands[band_of(value)], loss, 0.995)

    def start_from(self, state: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Weights of an earlier prior, with a fresh optimiser; its samples, steps and hours go on counting.

        Raises
        ------
        ValueError
            If they are another network's.
        """
        own = self.network.state_dict()
        if own.keys() != state.keys() or any(own[k].shape != state[k].shape for k in own):
            raise ValueError("the prior to start from is another network: choose its preset, or start from nothing")
        self.network.load_state_dict(state)
        for name, value in state.items():
            self.average[name].copy_(value)
        self.step = self.begun = int(info.get("steps", 0))
        self.samples, self.seconds = int(info.get("samples", 0)), 3600 * float(info.get("hours", 0.0))

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on exactly."""
        return {
            "format": "mepdiff-training", "version": 1, "settings": self.settings.model_dump_json(),
            "network": self.network.state_dict(), "average": self.average, "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(), "step": self.step, "samples": self.samples, "seconds": self.seconds,
            "loss": self.loss, "bands": self.bands, "begun": self.begun,
            "source": self.structures.source, "processes": self.processes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; the settings stay those of this trainer."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        # the learnt losses hold whatever the weighting is; the weighting is this run's
        self.schedule.load_state_dict({**state["schedule"], "mean": self.settings.weighting_mean,
                                       "spread": self.settings.weighting_spread})
        self.step, self.samples, self.seconds = int(state["step"]), int(state["samples"]), float(state["seconds"])
        self.loss, self.bands, self.begun = float(state["loss"]), dict(state["bands"]), int(state["begun"])


def save_checkpoint(path: Path, trainer: Trainer) -> None:
    """Whole state to disk; the old file stays until the new one is complete."""
    with atomic(path) as temporary:
        torch.save(trainer.state_dict(), temporary)


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
        raise ValueError(f"{path.name} cannot be read as a training checkpoint: {' '.join(str(error).split())[:200]}"
                         ) from error
    if state["version"] > 1:
        raise ValueError(f"{path.name} was written by a newer version of napari-mepdiff")
    return state
