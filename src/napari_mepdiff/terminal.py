"""What the commands share at the terminal: settings, tables, progress, Ctrl-C."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from .evaluation.metrics import Scores


def free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or add --overwrite")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``name=value`` with JSON values, or lists by commas, or plain words."""
    import json

    out: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise typer.BadParameter(f"--set wants setting=value; got {pair!r}")
        try:
            value: Any = json.loads(text)
        except ValueError:
            value = text.split(",") if "," in text else text
            if isinstance(value, list):
                with contextlib.suppress(ValueError):
                    value = [float(v) for v in value]
        if name.strip() in ("elements", "learning_rates") and not isinstance(value, (list, tuple)):
            value = [value]
        out[name.strip()] = value
    return out


def print_scores(scores: dict[str, Scores]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    heads = ["", "PSNR (dB)", "SSIM", "sum PSNR (dB)", "sum SSIM", "correlation", "depth corr.", "atoms in slice",
             "misfit / shot noise"]
    for head in heads:
        table.add_column(head, justify="left" if head == "" else "right")
    for name, s in scores.items():
        def text(value: float | None, digits: int) -> str:
            return "–" if value is None else f"{value:.{digits}f}"

        table.add_row(name, text(s.psnr, 2), text(s.ssim, 4), text(s.psnr_sum, 2), text(s.ssim_sum, 4),
                      text(s.correlation, 3), text(s.depth_correlation, 3), text(s.atoms_in_slice, 3), text(s.deviance, 4))
    Console(width=140).print(table)


class interruptible:
    """The first Ctrl-C stops the solver after its step, the second ends the program."""

    def __init__(self, control: Any) -> None:
        self.control = control

    def __enter__(self) -> None:
        import signal

        def handle(*_: Any) -> None:
            if self.control.stopped:
                raise KeyboardInterrupt
            self.control.stop()
            print("\nstopping after this step (Ctrl-C again to quit at once)")

        self._old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: Any) -> None:
        import signal

        for number, old in self._old.items():
            signal.signal(number, old)


class progress:
    """A rich progress bar with rate and time left; ``advance(done, total, text)``."""

    def __init__(self, title: str) -> None:
        self.title = title

    def __enter__(self) -> Any:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                            TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"),
                            TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        task = self.bar.add_task(self.title, total=None, rate="", note="")
        self.bar.start()

        def advance(done: int, total: int, note: str = "") -> None:
            elapsed = self.bar.tasks[0].elapsed or 0.0
            self._first = getattr(self, "_first", done - 1)
            rate = f"{(done - self._first) / elapsed:.2f}/s" if elapsed > 0.5 else ""
            self.bar.update(task, completed=done, total=total, note=note, rate=rate)

        return advance

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()
