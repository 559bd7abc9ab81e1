"""What the commands share at the terminal: settings, tables, progress, Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..base.files import require_writable
from ..base.words import parse_fields

if TYPE_CHECKING:
    from ..evaluation.metrics import Scores
    from ..reconstruction.control import Control


def free(path: Path, overwrite: bool) -> None:
    """Refuse a file that is there, and a folder in which nothing can be written, before the work.

    Raises
    ------
    FileExistsError, FileNotFoundError, NotWritable
        Saying what to do.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or add --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    require_writable(path)


def parse_settings(pairs: list[str], option: str = "--set") -> dict[str, Any]:
    """``name=value`` pairs of an option, see :func:`napari_mepdiff.base.words.parse_fields`."""
    try:
        return parse_fields(pairs)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None


def print_scores(scores: dict[str, Scores]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    heads = [
        "",
        "PSNR (dB)",
        "SSIM",
        "sum PSNR (dB)",
        "sum SSIM",
        "correlation",
        "depth corr.",
        "atoms in slice",
        "misfit / shot noise",
    ]
    for head in heads:
        table.add_column(head, justify="left" if head == "" else "right")
    for name, s in scores.items():

        def text(value: float | None, digits: int) -> str:
            return "–" if value is None else f"{value:.{digits}f}"

        table.add_row(
            name,
            text(s.psnr, 2),
            text(s.ssim, 4),
            text(s.psnr_sum, 2),
            text(s.ssim_sum, 4),
            text(s.correlation, 3),
            text(s.depth_correlation, 3),
            text(s.atoms_in_slice, 3),
            text(s.deviance, 4),
        )
    Console(width=140).print(table)


class interruptible:
    """Ctrl-C and SIGTERM: the first stops after the present step, the second ends the step.

    Either way what there is will be saved; while :attr:`saving` nothing interrupts.
    """

    def __init__(self, control: Control) -> None:
        self.control, self.saving = control, False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> interruptible:
        import signal

        def handle(*_: object) -> None:
            if self.saving:
                print("\nsaving, one moment")
                return
            if self.control.stopped:
                raise KeyboardInterrupt
            self.control.stop()
            print("\nstopping after this step (again: at once; what there is will be saved)")

        self._old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        import signal

        for number, old in self._old.items():
            signal.signal(number, old)


class progress:
    """A rich progress bar with rate and time left; ``advance(done, total, text)``."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None  # rich's, made when it is shown
        self._first: int | None = None

    def __enter__(self) -> Callable[..., None]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        task = self.bar.add_task(self.title, total=None, rate="", note="")
        self.bar.start()

        def advance(done: int, total: int, note: str = "") -> None:
            elapsed = self.bar.tasks[0].elapsed or 0.0
            self._first = done - 1 if self._first is None else self._first
            rate = f"{(done - self._first) / elapsed:.2f}/s" if elapsed > 0.5 else ""
            self.bar.update(task, completed=done, total=total, note=note, rate=rate)

        return advance

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
