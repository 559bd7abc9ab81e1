"""The log of a training run, a row for every tenth step, and its picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..base.files import atomic

if TYPE_CHECKING:
    from .run import Report


COLUMNS = ("step", "samples", "seconds", "samples_per_s", "learning_rate", "loss")


def append(log: Path, report: Report) -> None:
    """One more row; the names of the columns before the first."""
    new = not log.exists() or log.stat().st_size == 0
    numbers = [
        str(report.step),
        str(report.samples),
        f"{report.seconds:.1f}",
        f"{report.rate:.2f}",
        f"{report.learning_rate:.3g}",
        f"{report.loss:.5f}",
    ]
    with open(log, "a", newline="") as handle:
        writer = csv.writer(handle)
        if new:
            writer.writerow([*COLUMNS, *report.bands])
        writer.writerow([*numbers, *(f"{v:.5f}" for v in report.bands.values())])


def trim(log: Path, step: int) -> None:
    """Drop rows after a step, which will be made again, and a last row that was cut short."""
    if not log.exists():
        return
    lines = log.read_text().splitlines(keepends=True)
    kept = lines[:1] + [
        r
        for r in lines[1:]
        if r.endswith("\n") and r.split(",")[0].isdigit() and int(r.split(",")[0]) <= step
    ]
    with atomic(log) as temporary:
        temporary.write_text("".join(kept))


def plot(log: Path, picture: Path) -> None:
    """The loss and its λ bands over the volumes trained on, from the CSV log."""
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
    left.set(xlabel="volumes", ylabel="weighted loss", yscale="log", title="all λ")
    names = [n for n in rows[0] if ".." in n]
    for n, name in enumerate(names):
        values = np.array([float(r[name]) for r in rows])
        if np.isfinite(values).any():
            right.plot(
                samples, values, lw=1, color=f"C{n}", label=f"λ {name.replace('..', ' to ')}"
            )
    right.set(xlabel="volumes", ylabel="v-loss", yscale="log", title="by band of λ")
    right.legend(fontsize=7)
    with atomic(picture) as temporary:
        figure.savefig(temporary, dpi=110)
