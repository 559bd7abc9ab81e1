"""Frame and Control: what every solver yields, and what it obeys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class SolverSettings(BaseModel):
    """What all solvers share. Frozen: a live change swaps one snapshot for another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, title="Seed", description="of random batches and starts; same seed, same result")
    memory: int = Field(2 * 1024**3, ge=1 << 20, title="Memory", description="bytes for waves in one evaluation")
    detector_stride: int = Field(
        1, ge=1, le=2, title="Detector stride", description="2: every second pixel, a preview at a quarter of the work"
    )


@dataclass(frozen=True)
class Frame:
    """A solver's state after a step; immutable.

    Attributes
    ----------
    step, total : int
        Steps done, and steps planned.
    volume : ndarray
        Phase in rad, (D, H, W).
    loss : float
        Misfit relative to its shot-noise expectation: about 1 when the model explains the data.
    log_snr : float or None
        λ of a diffusion solver.
    seconds : float
        Since the start of the run (pauses included), with those of the run that it resumed.
    info : dict
        More numbers of the particular solver.
    """

    step: int
    total: int
    volume: NDArray[np.float32]
    loss: float
    log_snr: float | None = None
    seconds: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)


class Control:
    """Pause, resume, stop and change settings of a running solver, from any thread."""

    def __init__(self) -> None:
        self._go = threading.Event()
        self._go.set()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pending: SolverSettings | None = None
        self.changes: list[tuple[int, dict[str, Any]]] = []

    def pause(self) -> None:
        """Hold before the next step."""
        self._go.clear()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def stop(self) -> None:
        """End after the present step; the last frame keeps the volume."""
        self._stop.set()
        self._go.set()

    @property
    def paused(self) -> bool:
        """Whether the solver holds, or will before its next step."""
        return not self._go.is_set()

    @property
    def stopped(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    def update(self, settings: SolverSettings) -> None:
        """Swap the settings; the solver takes them before its next step and records what changed."""
        with self._lock:
            self._pending = settings

    def take(self, step: int, current: Any) -> Any:
        """For solvers, between steps: wait while paused, then give the settings that hold from here on."""
        while not self._go.wait(0.1):
            pass
        with self._lock:
            new, self._pending = self._pending, None
        if new is None or new == current:
            return current
        if type(new) is not type(current):
            raise TypeError(f"a run with {type(current).__name__} cannot take {type(new).__name__}")
        before, after = current.model_dump(mode="json"), new.model_dump(mode="json")
        self.changes.append((step, {k: v for k, v in after.items() if before[k] != v}))
        return new


class Run:
    """One run as its solver sees it: problem, settings, control, and the state to begin from or to keep."""

    def __init__(self, problem: Any, settings: Any, control: Control, state: dict[str, Any] | None) -> None:
        self.problem, self.control, self.state = problem, control, state
        self._settings = settings
        self.start: Any = None  # tensor to begin from, where there is no state
        self.snapshot: Callable[[], dict[str, Any]] | None = None
        self._before = float(state["seconds"]) if state else 0.0
        self._start = time.perf_counter()

    def start_from(self, volume: Any) -> None:
        """Begin from a volume (tensor, (D, H, W)) instead of from nothing."""
        self.start = volume

    @property
    def settings(self) -> Any:
        """The settings that hold now."""
        return self._settings

    @property
    def seconds(self) -> float:
        """Time spent, with that of the run this one resumes."""
        return self._before + time.perf_counter() - self._start

    def go_on(self, step: int) -> bool:
        """Between steps: obey the control. False when the run shall end."""
        self._settings = self.control.take(step, self._settings)
        return not self.control.stopped

    def keep(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        """Say how to take the whole state (tensors, numbers, strings) after the step just done."""
        self.snapshot = snapshot
