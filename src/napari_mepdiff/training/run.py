"""A training run: until a time, a step or a stop; checkpoints, log and curves; exact resume.

for report in train(TrainSettings(), structures, folder, minutes=120):
    print(report.step, report.loss)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..base.devices import require_device
from ..prior.files import CHECKPOINT
from ..prior.model import Prior
from ..prior.self_test import prove
from ..specimen.structures import Structures
from .checkpoint import load_checkpoint, save_checkpoint
from .curves import append, plot, trim
from .settings import TrainSettings
from .state import restore, start_from
from .step import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Report:
    """Where a run stands.

    Attributes
    ----------
    step, samples : int
        Steps and volumes since the very beginning, resumed parts included.
    loss : float
        Running mean of w(λ) / p(λ) · |v − v_θ|².
    bands : dict
        Running mean of the plain v-loss per λ band.
    rate : float
        Volumes per second, of late.
    seconds : float
        Of training since the very beginning.
    left : float or None
        Seconds to the planned end.
    notes : tuple of str
        What went wrong, and what was done about it.
    """

    step: int
    samples: int
    loss: float
    bands: dict[str, float]
    rate: float
    seconds: float
    left: float | None
    learning_rate: float
    notes: tuple[str, ...] = ()


def train(
    settings: TrainSettings | None,
    structures: Structures,
    folder: str | Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start: str | Path | None = None,
    device: str = "cpu",
    every: float = 120.0,
    workers: int = 0,
    accelerator: Accelerator | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Report]:
    """Train, and yield a report after each step.

    Writes ``checkpoint.pt``, ``log.csv`` and ``loss.png`` into the folder.

    Parameters
    ----------
    settings : TrainSettings or None
        None: those of the run that is resumed, or the defaults.
    structures : Structures
        To train on; use ``structures.part("train")``.
    minutes, steps : float, int, optional
        Ends after so many minutes of this call, or when the run has made so many steps (resumed
        parts included, those of the prior that it started from not); neither: goes on until
        stopped.
    resume : bool
        Go on with the run in the folder.
    start : str or path, optional
        A prior (see :meth:`~napari_mepdiff.prior.model.Prior.load`) whose weights a new run begins
        with.
    every : float
        Seconds between checkpoints.
    workers : int
        Processes that draw crystals ahead of the steps; 0: the run draws them itself. Nothing else
        changes. A script that asks for them needs ``if __name__ == "__main__":``.
    stop : callable, optional
        Asked after each step.

    Yields
    ------
    Report
        After each step.

    Raises
    ------
    FileExistsError
        If the folder holds a run already and it is not to be resumed.
    FileNotFoundError, ValueError
        If there is nothing to resume, it has another network, or the device cannot be used or does
        not compute what the CPU computes (tested once a process).
    TrainingError, MemoryError, OSError
        See :meth:`Trainer.advance`; a full disk. The last whole checkpoint stays.
    """
    place = device if accelerator is None else str(accelerator.device)
    prove(require_device(place))  # the self-test trains nothing: a doubtful kind stays refused
    folder = Path(folder)
    path, log, picture = folder / CHECKPOINT, folder / "log.csv", folder / "loss.png"
    main = accelerator is None or accelerator.is_main_process
    trainer = _trainer(settings, structures, path, resume, start, device, accelerator)
    if trainer.settings.fall and minutes is None and steps is None:
        raise ValueError(
            "the learning rate can fall towards the end of a run only if that is known: give "
            "minutes or steps, or set fall=0"
        )
    trainer.ahead.workers = workers
    folder.mkdir(parents=True, exist_ok=True)
    if main:
        trim(log, trainer.step)
    begun = saved = time.monotonic()
    pace, whole = _Pace(trainer), True
    try:
        while steps is None or trainer.step - trainer.begun < steps:
            whole = False
            trainer.progress = max(
                0.0 if steps is None else (trainer.step - trainer.begun) / steps,
                0.0 if minutes is None else (time.monotonic() - begun) / (60 * minutes),
            )
            trainer.advance()
            whole = True
            now = time.monotonic()
            rate, per_step = pace.after(trainer)
            left = None if steps is None else (steps - trainer.step + trainer.begun) * per_step
            if minutes is not None:
                left = max(0.0, 60 * minutes - (now - begun))
            report = _report(trainer, rate, left)
            trainer.notes.clear()
            if main and (trainer.step % 10 == 0 or trainer.step == 1):
                append(log, report)
            over = minutes is not None and now - begun >= 60 * minutes
            ended = _agreed(accelerator, over or (stop is not None and stop()))
            if main and now - saved >= every and not ended:
                trainer.read()
                save_checkpoint(path, trainer)
                plot(log, picture)
                saved = time.monotonic()
            yield report
            if ended:
                break
    finally:
        # a step that broke off in the middle may have spoiled the weights: the last checkpoint
        # stands
        trainer.close()
        if main and whole and trainer.step > 0:
            trainer.read()
            save_checkpoint(path, trainer)
            plot(log, picture)


def _trainer(
    settings: TrainSettings | None,
    structures: Structures,
    path: Path,
    resume: bool,
    start: str | Path | None,
    device: str,
    accelerator: Accelerator | None,
) -> Trainer:
    """A trainer that begins, goes on, or begins with the weights of an earlier prior."""
    if not resume:
        if path.exists():
            raise FileExistsError(
                f"{path.parent} holds a training run already: resume it, or name another folder"
            )
        trainer = Trainer(settings or TrainSettings(), structures, device, accelerator)
        if start is not None:
            earlier = Prior.load(start)
            start_from(trainer, earlier.network.state_dict(), earlier.info)
        return trainer
    state = load_checkpoint(path)
    kept = TrainSettings.model_validate_json(state["settings"])
    settings = settings or kept
    if settings.network != kept.network:
        raise ValueError(
            f"the run in {path.parent} has another network: resume it with its own settings"
        )
    trainer = Trainer(settings, structures, device, accelerator)
    restore(trainer, state)
    return trainer


def _report(trainer: Trainer, rate: float, left: float | None) -> Report:
    return Report(
        trainer.step,
        trainer.samples,
        trainer.loss,
        dict(trainer.bands),
        rate,
        trainer.seconds,
        left,
        trainer.learning_rate(),
        tuple(trainer.notes),
    )


def _agreed(accelerator: Accelerator | None, ended: bool) -> bool:
    """Whether any process ends: all must agree, or one waits for the others' gradients for ever."""
    if accelerator is None:
        return ended
    mine = torch.tensor(float(ended), device=accelerator.device)
    return float(accelerator.reduce(mine, "sum")) > 0


class _Pace:
    """Volumes per second and seconds per step over the last 50 steps."""

    def __init__(self, trainer: Trainer) -> None:
        self._seen = [(time.monotonic(), trainer.samples, trainer.step)]

    def after(self, trainer: Trainer) -> tuple[float, float]:
        self._seen = [*self._seen, (time.monotonic(), trainer.samples, trainer.step)][-51:]
        (t0, n0, s0), (t1, n1, s1) = self._seen[0], self._seen[-1]
        spent = max(t1 - t0, 1e-9)
        return (n1 - n0) / spent, spent / (s1 - s0)
