"""What can be found wrong with a measurement: one sentence each, that says what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing found. Errors make a reconstruction impossible, warnings make it doubtful."""

    level: Literal["error", "warning"]
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


def error(code: str, message: str) -> Finding:
    """What makes a reconstruction impossible."""
    return Finding("error", code, message)


def warning(code: str, message: str) -> Finding:
    """What makes a reconstruction doubtful."""
    return Finding("warning", code, message)
