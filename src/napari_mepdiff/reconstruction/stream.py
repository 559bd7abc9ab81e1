"""Frame and Control: what every solver yields, and what it obeys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class SolverSettings(BaseModel):
    """What all solvers share. Frozen: a live change swaps one snapshot for another."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fixed: ClassVar[frozenset[str]] = frozenset()  # fields that a running solver cannot change

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
    arrays : dict
        More volumes (D, H, W) of it, e.g. the x-prediction before guidance, or the spread of several samples.
    """

    step: int
    total: int
    volume: NDArray[np.float32]
    loss: float
    log_snr: float | None = None
    seconds: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class SolverError(ArithmeticError):
    """A run that cannot go on, and why."""


class Control:
    """Pause, resume, stop, go back and change settings of a running solver, from any thread.

    Attributes
    ----------
    changes : list of (step, dict)
        What was changed, in order: the settings taken after `step` steps, or ``{"back": n}``, or what a solver changed itself.
        :class:`Script` plays them again.
    notes : list of str
        What could not be done as asked, in plain words.
    """

    def __init__(self) -> None:
        self._go = threading.Event()
        self._go.set()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pending: SolverSettings | None = None
        self._back: int | None = None
        self._single = 0
        self.changes: list[tuple[int, dict[str, Any]]] = []
        self.notes: list[str] = []

    def pause(self) -> None:
        """Hold before the next step."""
        self._go.clear()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def single(self) -> None:
        """Take one step and hold again."""
        self.pause()
        with self._lock:
            self._single += 1

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

    def back(self, step: int) -> None:
        """Go back to the state after an earlier step, and on from there (solvers that keep their states). A paused solver
        shows it and stays paused."""
        with self._lock:
            self._back = int(step)

    def take(self, step: int, current: Any) -> Any:
        """For solvers, between steps: wait while paused, then give the settings that hold from here on."""
        while not self._go.wait(0.05):
            if self._back is not None:
                return current
            with self._lock:
                if self._single:
                    self._single -= 1
                    break
        with self._lock:
            new, self._pending = self._pending, None
        if new is None or new == current:
            return current
        if type(new) is not type(current):
            raise TypeError(f"a run with {type(current).__name__} cannot take {type(new).__name__}")
        stuck = [name for name in sorted(new.fixed) if getattr(new, name) != getattr(current, name)]
        if stuck:
            self.notes.append(f"step {step}: {', '.join(stuck)} cannot change during a run; begin a new one for that")
            new = new.model_copy(update={name: getattr(current, name) for name in stuck})
        before, after = current.model_dump(mode="json"), new.model_dump(mode="json")
        changed = {k: v for k, v in after.items() if before[k] != v}
        if changed:
            self.changes.append((step, changed))
        return new

    def take_back(self, step: int, kept: Sequence[int]) -> int | None:
        """For solvers, after `take`: the kept step to go back to, or None. The nearest kept one before what was asked for."""
        with self._lock:
            wanted, self._back = self._back, None
        if wanted is None:
            return None
        earlier = [n for n in kept if n <= wanted]
        if not earlier:
            self.notes.append(f"step {step}: no state of step {wanted} or before is kept")
            return None
        self.changes.append((step, {"back": max(earlier)}))
        return max(earlier)


class Script(Control):
    """A control that plays recorded changes again, each at its step and in their order.

    Parameters
    ----------
    changes : sequence of (step, dict)
        As :attr:`Control.changes` has them. What a solver changed itself (``"by": "solver"``) is left out: it will do so again.
    stop_after : int, optional
        Stop once all is played and this step is reached, as the recorded run was stopped there.
    """

    def __init__(self, changes: Sequence[tuple[int, dict[str, Any]]], stop_after: int | None = None) -> None:
        super().__init__()
        self._script = [(int(n), dict(c)) for n, c in changes if c.get("by") != "solver"]
        self._end = stop_after

    @property
    def unplayed(self) -> int:
        """Changes that have not had their turn."""
        return len(self._script)

    def take(self, step: int, current: Any) -> Any:
        """The next recorded changes that belong to this step."""
        while self._script and self._script[0][0] == step and self._back is None:
            change = self._script.pop(0)[1]
            if "back" in change:
                self.back(change["back"])
            else:
                after = current.model_dump(mode="json") | change
                self.update(type(current).model_validate(after))
                current = super().take(step, current)
        if self._end is not None and step >= self._end and not self._script and self._back is None:
            self.stop()
        return super().take(step, current)


class Companion(Control):
    """Control of a solver that works for another: it pauses and stops with it, and takes no changes."""

    def __init__(self, main: Control) -> None:
        super().__init__()
        self._go, self._stop = main._go, main._stop


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

    def back(self, step: int, kept: Sequence[int]) -> int | None:
        """After :meth:`go_on`: the kept step that the user wants to go back to, or None."""
        return self.control.take_back(step, kept)

    def change(self, step: int, reason: str, **fields: Any) -> None:
        """The solver's own change of settings, recorded with its reason."""
        self._settings = self._settings.model_copy(update=fields)
        self.control.changes.append((step, {**fields, "by": "solver", "reason": reason}))
        self.control.notes.append(f"step {step}: {reason}")

    def keep(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        """Say how to take the whole state (tensors, numbers, strings) after the step just done."""
        self.snapshot = snapshot
