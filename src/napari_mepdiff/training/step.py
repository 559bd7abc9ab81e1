"""One step of training after another: volumes, weighted v-loss, AdamW, moving average of the
weights.

All randomness of a step comes from (seed, step, process), so that a run that was killed and resumed
goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..base.devices import has_bf16, require_device
from ..prior.network import UNet, on_device
from ..prior.process import diffuse, velocity
from ..specimen.structures import Structures
from .ahead import Ahead
from .batch import Batch, draw, order_at
from .evaluate import Evaluation
from .guess import first_guess, with_answer
from .rates import decay_at, optimiser_of, rate_at
from .settings import TrainSettings
from .stream import Augmentation, CrystalStream
from .weighting import BANDS, AdaptiveSchedule, band_of, running

if TYPE_CHECKING:
    from accelerate import Accelerator

BAD = 10  # batches in a row without a finite gradient, after which a run has diverged


class TrainingError(ArithmeticError):
    """A run that cannot go on, and why."""


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
    step, samples, seconds : int, int, float
        Since the very beginning, resumed parts included.
    begun : int
        Step of the prior that the run began with, 0 if with none.
    micro : int
        Volumes that fit into memory at a time; 0: all.
    workers : int
        Processes that draw crystals ahead; 0: this one draws them.
    reads : int
        Steps between looks at losses; 0: one on the CPU, ten on a GPU, which would have to wait.
    progress : float
        How much of the run is over, 0 to 1; decides the fall of the learning rate.
    notes : list of str
        What went wrong, and what was done about it.
    """

    settings: TrainSettings
    structures: Structures
    device: str = "cpu"
    accelerator: Accelerator | None = None
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    begun: int = 0
    micro: int = 0
    workers: int = 0
    reads: int = 0
    progress: float = 0.0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        s = self.settings
        require_device(self.device)
        torch.manual_seed(s.seed)
        self.network = on_device(UNet(s.network), self.device)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser: torch.optim.Optimizer = optimiser_of(self.network, s, self.device)
        self.schedule = AdaptiveSchedule(mean=s.weighting_mean, spread=s.weighting_spread)
        self.stream = CrystalStream(
            self.structures,
            Augmentation(any_direction=s.any_direction, vacancies=s.vacancies),
            experimental_weight=s.experimental_weight,
            seed=s.seed,
        )
        self.model: torch.nn.Module = self.network
        self.rank, self.processes = 0, 1
        if self.accelerator is not None:
            self.rank = self.accelerator.process_index
            self.processes = self.accelerator.num_processes
            self.model, self.optimiser = self.accelerator.prepare(self.network, self.optimiser)
        self.ahead = Ahead(
            self.stream, lambda step: order_at(s, step, self.rank, self.processes), self.workers
        )
        gpu = self.device.startswith("cuda")
        if self.reads == 0 or self.accelerator is not None:
            self.reads = 10 if gpu and self.accelerator is None else 1
        self._pending: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.evaluate = Evaluation(self.model, s, self.notes)
        self.loss = math.nan
        self.bands = dict.fromkeys((band_of(b) for b in BANDS[:-1]), math.nan)
        self._bad = 0

    def learning_rate(self) -> float:
        """That of the present step."""
        return rate_at(self.settings, self.step, self.begun, self.progress)

    def draw(self) -> Batch:
        """What the present step of this process is made of."""
        boxes = self.ahead.take(self.step)
        return draw(self.settings, boxes, self.schedule, self.step, self.rank, self.device)

    def close(self) -> None:
        """End what runs beside the training."""
        self.ahead.close()

    def advance(self) -> None:
        """One step.

        A batch that does not fit into memory is taken in pieces; one that gives NaN is left out.

        Raises
        ------
        TrainingError
            After ten batches in a row without a finite gradient.
        MemoryError
            If even a single volume does not fit.
        """
        started = time.perf_counter()
        batch = self.draw()
        rate = self.learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        losses = self._fitting(batch)
        size = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        finite = torch.isfinite(size) & torch.isfinite(losses).all()
        if self.reads > 1:
            # the optimiser leaves the step out by itself, and nothing waits for the answer
            self.optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
        if self.reads > 1 or finite:
            self.optimiser.step()
            self.follow()
        self._pending.append((batch.log_snr, batch.factor, losses, finite))
        self.step += 1
        self.samples += len(batch.x) * self.processes
        if self.step % self.reads == 0:
            self.read()
        self.seconds += time.perf_counter() - started

    def read(self) -> None:
        """Look at the losses of the steps since the last look.

        Raises
        ------
        TrainingError
            After ten batches in a row without a finite gradient.
        """
        pending, self._pending = self._pending, []
        for n, (log_snr, factor, losses, finite) in enumerate(pending):
            if finite:
                self._bad = 0
                self._account(log_snr, factor, losses)
                continue
            self._bad += 1
            step = self.step - len(pending) + n
            self.notes.append(f"step {step}: no finite gradient; this batch was left out")
            if self._bad >= BAD:
                raise TrainingError(
                    "ten batches in a row gave no finite gradient: the run diverged; resume from "
                    "its last checkpoint with a smaller learning rate"
                )

    def _fitting(self, batch: Batch) -> Tensor:
        """The gradient, in pieces as small as the device's memory asks for."""
        micro = min(self.micro or len(batch.x), len(batch.x))
        while True:
            try:
                return self.gradient(self.asked(batch, micro), micro)
            except RuntimeError as error:
                if "memory" not in str(error).lower():
                    raise
                if micro == 1:
                    raise MemoryError(
                        "not even one volume fits into memory: choose a smaller network or field"
                    ) from error
                micro = self.micro = (micro + 1) // 2
                self.notes.append(
                    f"step {self.step}: out of memory; going on with {micro} volumes at a time"
                )
                if self.device.startswith("cuda"):
                    torch.cuda.empty_cache()

    def asked(self, batch: Batch, micro: int) -> Batch:
        """The batch with what data say of the network's first guess, for a share of the volumes."""
        if not self.settings.network.answer:
            return batch
        with self._cast():
            guess = first_guess(self.network, batch, self.settings.no_answer, micro)
        seed = np.random.default_rng([self.settings.seed, self.step, self.rank, 5])
        return with_answer(batch, guess, int(seed.integers(2**62)), self.device)

    def gradient(self, batch: Batch, micro: int) -> Tensor:
        """Gradient of the mean of w(λ) / p(λ) · |v − v_θ|², `micro` volumes at a time.

        Returns
        -------
        Tensor
            v-losses (B,).
        """
        z = diffuse(batch.x, batch.noise, batch.log_snr)
        v = velocity(batch.x, batch.noise, batch.log_snr)
        self.optimiser.zero_grad(set_to_none=True)
        count, losses = len(z), []
        for low in range(0, count, micro):
            part = slice(low, min(low + micro, count))
            with self._quiet(last=part.stop == count):
                with self._cast():
                    out = self.evaluate(
                        z[part],
                        batch.log_snr[part],
                        batch.condition[part],
                        batch.flags[part],
                        None if batch.elements is None else batch.elements[part],
                        None if batch.answer is None else batch.answer[part],
                    )
                each = (out.float() - v[part]).square().mean(dim=(1, 2, 3))
                total = (each * batch.factor[part]).sum() / count
                if self.accelerator is None:
                    total.backward()
                else:
                    self.accelerator.backward(total)
            losses.append(each.detach())
        return torch.cat(losses)

    def _quiet(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients with the last piece only."""
        if last or self.accelerator is None:
            return nullcontext()
        return self.accelerator.no_sync(self.model)

    def _cast(self) -> AbstractContextManager[Any]:
        precision = self.settings.precision
        if precision == "float32" or (precision == "auto" and not has_bf16(self.device)):
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)

    def follow(self) -> None:
        """The moving average of the weights takes a step towards them."""
        decay = decay_at(self.settings, self.step, self.processes)
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def _account(self, log_snr: Tensor, factor: Tensor, losses: Tensor) -> None:
        if self.accelerator is not None:
            log_snr, losses, factor = (
                self.accelerator.gather(t.contiguous()) for t in (log_snr, losses, factor)
            )
        log_snr, losses, factor = log_snr.cpu(), losses.cpu(), factor.cpu()
        self.schedule.update(log_snr, losses)
        self.loss = running(self.loss, float((losses * factor).mean()), 0.98)
        for value, loss in zip(log_snr.tolist(), losses.tolist(), strict=True):
            self.bands[band_of(value)] = running(self.bands[band_of(value)], loss, 0.995)
