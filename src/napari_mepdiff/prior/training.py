"""A training run: until a time, a step or a stop; checkpoints, log and curves; exact resume.

    for report in train(TrainSettings(), structures, folder, minutes=120):
        print(report.step, report.loss)
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import atomic
from .structures import Structures
from .trainer import Trainer, TrainSettings, load_checkpoint, save_checkpoint


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
    accelerator: Any = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Report]:
    """Train, and yield a report after each step. Writes ``checkpoint.pt``, ``log.csv`` and ``loss.png`` into the folder.

    Parameters
    ----------
    settings : TrainSettings or None
        None: those of the run that is resumed, or the defaults.
    structures : Structures
        To train on; use ``structures.part("train")``.
    minutes, steps : float, int, optional
        Ends after so many minutes of this call, or when the run has made so many steps (resumed parts included, those of the prior
        that it started from not); neither: goes on until stopped.
    resume : bool
        Go on with the run in the folder.
    start : str or path, optional
        A prior (see :meth:`~napari_mepdiff.prior.model.Prior.load`) whose weights a new run begins with.
    every : float
        Seconds between checkpoints.
    stop : callable, optional
        Asked after each step.

    Raises
    ------
    FileExistsError
        If the folder holds a run already and it is not to be resumed.
    FileNotFoundError, ValueError
        If there is nothing to resume, or it has another network.
    TrainingError, MemoryError, OSError
        See :meth:`Trainer.advance`; a full disk. The last whole checkpoint stays.
    """
    folder = Path(folder)
    path = folder / "checkpoint.pt"
    main = accelerator is None or accelerator.is_main_process
    state = load_checkpoint(path) if resume else None
    if state is None and path.exists():
        raise FileExistsError(f"{folder} holds a training run already: resume it, or name another folder")
    if state is not None:
        kept = TrainSettings.model_validate_json(state["settings"])
        settings = settings or kept
        if settings.network != kept.network:
            raise ValueError(f"the run in {folder} has another network: resume it with its own settings")
    trainer = Trainer(settings or TrainSettings(), structures, device, accelerator)
    if state is not None:
        trainer.load_state_dict(state)
    elif start is not None:
        from .model import Prior

        earlier = Prior.load(start)
        trainer.start_from(earlier.network.state_dict(), earlier.info)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.csv"
    if main:
        _trim(log, trainer.step)
    begun = saved = time.monotonic()
    pace, whole = _Pace(trainer), True
    try:
        while steps is None or trainer.step - trainer.begun < steps:
            whole = False
            trainer.advance()
            whole = True
            now = time.monotonic()
            rate, per_step = pace.after(trainer)
            left = None if steps is None else (steps - trainer.step + trainer.begun) * per_step
            if minutes is not None:
                left = max(0.0, 60 * minutes - (now - begun))
            report = Report(trainer.step, trainer.samples, trainer.loss, dict(trainer.bands), rate, trainer.seconds, left,
                            trainer.learning_rate(), tuple(trainer.notes))
            trainer.notes.clear()
            if main and (trainer.step % 10 == 0 or trainer.step == 1):
                _append(log, report)
            ended = (minutes is not None and now - begun >= 60 * minutes) or (stop is not None and stop())
            if accelerator is not None:  # all processes must agree, or one waits for the others' gradients for ever
                ended = float(accelerator.reduce(torch.tensor(float(ended), device=accelerator.device), "sum")) > 0
            if main and now - saved >= every and not ended:
                save_checkpoint(path, trainer)
                plot(log, folder / "loss.png")
                saved = time.monotonic()
            yield report
            if ended:
                break
    finally:
        # a step that broke off in the middle may have spoiled the weights: then the last checkpoint stands
        if main and whole and trainer.step > 0:
            save_checkpoint(path, trainer)
            plot(log, folder / "loss.png")


class _Pace:
    """Volumes per second and seconds per step over the last 50 steps."""

    def __init__(self, trainer: Trainer) -> None:
        self._seen = [(time.monotonic(), trainer.samples, trainer.step)]

    def after(self, trainer: Trainer) -> tuple[float, float]:
        self._seen = [*self._seen, (time.monotonic(), trainer.samples, trainer.step)][-51:]
        (t0, n0, s0), (t1, n1, s1) = self._seen[0], self._seen[-1]
        spent = max(t1 - t0, 1e-9)
        return (n1 - n0) / spent, spent / (s1 - s0)


def _append(log: Path, report: Report) -> None:
    new = not log.exists() or log.stat().st_size == 0
    with open(log, "a", newline="") as handle:
        writer = csv.writer(handle)
        if new:
            writer.writerow(["step", "samples", "seconds", "samples_per_s", "learning_rate", "loss", *report.bands])
        writer.writerow([report.step, report.samples, f"{report.seconds:.1f}", f"{report.rate:.2f}", f"{report.learning_rate:.3g}",
                         f"{report.loss:.5f}", *(f"{v:.5f}" for v in report.bands.values())])


def _trim(log: Path, step: int) -> None:
    """Rows after the checkpoint belong to steps that will be made again; a last row cut short goes as well."""
    if not log.exists():
        return
    lines = log.read_text().splitlines(keepends=True)
    kept = lines[:1] + [r for r in lines[1:] if r.endswith("\n") and r.split(",")[0].isdigit() and int(r.split(",")[0]) <= step]
    with atomic(log) as temporary:
        temporary.write_text("".join(kept))


def plot(log: Path, picture: Path) -> None:
    """The loss and its λ bands over the samples seen, from the CSV log."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    if not log.exists():
        return
    with open(log, newline="") as handle:
        rows = list(csv.DictReader(handle))
    if len(rows) < 2:
        return
    samples = np.array([float(r["samples"]) for r in rows])
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(samples, [float(r["loss"]) for r in rows], color="black", lw=1)
    left.set(xlabel="volumes seen", ylabel="weighted loss", yscale="log", title="all λ")
    names = [n for n in rows[0] if ".." in n]
    for n, name in enumerate(names):
        values = np.array([float(r[name]) for r in rows])
        if np.isfinite(values).any():
            right.plot(samples, values, lw=1, color=f"C{n}", label=f"λ {name.replace('..', ' to ')}")
    right.set(xlabel="volumes seen", ylabel="v-loss", yscale="log", title="by band of λ")
    right.legend(fontsize=7)
    with atomic(picture) as temporary:
        figure.savefig(temporary, dpi=110)
