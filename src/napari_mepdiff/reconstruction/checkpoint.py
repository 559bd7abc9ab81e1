"""Checkpoint: the whole state of a run in a file, from which it goes on."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic
from .change import Change
from .frame import Frame, RefineInfo
from .problem import Problem
from .run import KEPT, Run, State
from .settings import SolverSettings


class Checkpoint:
    """Keeps the state of one run; a disk that cannot be written never ends the run.

    Parameters
    ----------
    path : path
    identity : callable
        Gives what the state belongs to, see :func:`identity`. It is called in a thread of its own:
        going through all patterns takes a second per GB, which the first step need not wait for.
    every : float
        Seconds between writes.
    """

    def __init__(self, path: str | Path, identity: Callable[[], str], every: float) -> None:
        self.path, self.every = Path(path), every
        self._identity: Future[str] = Future()
        threading.Thread(
            target=_fulfil, args=(self._identity, identity), name="mepdiff identity", daemon=True
        ).start()
        self._saved = self._copied = -float("inf")
        self._cost = 0.0  # s that a copy of the state takes
        self._good: State | None = None

    @property
    def identity(self) -> str:
        """What the state belongs to; waits until it is known."""
        return self._identity.result()

    def look(self, run: Run[Any], frame: Frame) -> None:
        """After a good step: write if it is time, and keep a copy to fall back on.

        Solvers go on in place, so that a step that fails halfway spoils the state. Copies take at
        most a twentieth of the time: where they are dear, a failure costs a few steps.
        """
        now = time.monotonic()
        if run.snapshot is not None and now - self._copied > 20 * self._cost:
            mark = self.identity  # the first time it may have to be waited for
            now = time.monotonic()
            state = state_of(run, frame, mark)
            earlier = {KEPT: state.pop(KEPT)} if KEPT in state else {}
            self._good = {**_copied(state), **earlier}
            self._copied = time.monotonic()
            self._cost = self._copied - now
        if now - self._saved > self.every:
            self.write(run, frame)

    def fall_back(self, run: Run[Any]) -> None:
        """After a step that failed: write the last good state, unless the file has it already."""
        if self._good is not None:
            self._write(run, self._good)

    def write(self, run: Run[Any], frame: Frame) -> None:
        """Write the present state; what fails is noted once, and the run goes on without."""
        if run.snapshot is not None:
            self._write(run, state_of(run, frame, self.identity))

    def _write(self, run: Run[Any], state: State) -> None:
        self._saved = time.monotonic()
        try:
            save_checkpoint(self.path, state)
            self._good = None
        except (OSError, RuntimeError) as error:  # torch reports failed writes as RuntimeError
            reason = " ".join(str(error).split())[:160]
            text = f"the checkpoint {self.path.name} cannot be written: {reason}"
            if not any(text in note for note in run.control.notes):
                run.control.notes.append(f"step {state['step']}: {text}; the run goes on without")


def _fulfil(future: Future[str], work: Callable[[], str]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # it is raised where the result is asked for
        future.set_exception(error)


def _copied(state: Any) -> Any:
    """A state with tensors of its own."""
    import torch

    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {k: _copied(v) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_copied(v) for v in state)
    return state


def state_of(run: Run[Any], frame: Frame, identity: str) -> State:
    """All that a checkpoint keeps of a run after a step."""
    import torch

    assert run.snapshot is not None
    return {
        **run.snapshot(),
        "identity": identity,
        "shown": torch.from_numpy(frame.volume),
        "loss": frame.loss,
        "total": frame.total,
        "changes": json.dumps([c.as_json() for c in run.control.changes]),
        "live": run.settings.model_dump_json(),
        "refined": frame.info.state() if isinstance(frame.info, RefineInfo) else None,
    }


def save_checkpoint(path: str | Path, state: State) -> None:
    """Whole state to disk; the old checkpoint stays until the new one is complete.

    Raises
    ------
    OSError, RuntimeError
        If it cannot be written.
    """
    import torch

    with atomic(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: str | Path) -> State:
    """What :func:`save_checkpoint` wrote: tensors and plain values only, no code is run.

    Raises
    ------
    ValueError
        If the file is no checkpoint or is damaged.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or "identity" not in state:
            raise ValueError("not a checkpoint")
        state["changes"] = [Change.from_json(c) for c in json.loads(state["changes"])]
    except Exception as error:  # torch raises whatever the damage makes it meet
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{Path(path).name} cannot be read as a checkpoint: {reason}") from error
    return state


def identity(problem: Problem, settings: SolverSettings, start: Any = None) -> str:
    """Fingerprint of all that a state belongs to.

    Settings, geometry, start, mask, every pattern.
    """
    digest = hashlib.blake2b(digest_size=32)
    digest.update(f"{type(settings).__name__} {settings.model_dump_json()}".encode())
    digest.update(
        repr(
            (
                problem.shape,
                problem.voxel_size,
                problem.slice_thickness,
                *((problem.together,) if problem.together > 1 else ()),
                problem.energy,
                problem.boundary,
                problem.band_limit,
                problem.propagator,
                problem.patterns.shape,
                problem.tilt,
                problem.background,
            )
        ).encode()
    )
    mask = np.zeros(0) if problem.mask is None else np.ascontiguousarray(problem.mask)
    first = np.zeros(0) if start is None else np.ascontiguousarray(start, np.float32)
    for array in (problem.positions, mask, first, problem.probe.cpu().numpy()):
        whole = np.ascontiguousarray(array)
        digest.update(f"{whole.shape} {whole.dtype}".encode())
        digest.update(whole.tobytes())
    for pattern in problem.patterns:
        digest.update(np.ascontiguousarray(pattern).data)
    return digest.hexdigest()
