"""Solvers by name, and the one call that runs any of them.

    for frame in solve(problem, AdamSettings(), control):
        ...

A new solver is one file and one line here.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import atomic
from .problem import Problem
from .stream import Control, Frame, Run, SolverError, SolverSettings

__all__ = ["DEFAULT", "SOLVERS", "Solver", "SolverError", "load_checkpoint", "save_checkpoint", "solve", "solver_of"]


@dataclass(frozen=True)
class Solver:
    """Where a solver lives. Modules load when the solver is first used."""

    title: str
    module: str
    function: str
    settings: str
    presets: tuple[tuple[str, Any], ...] = ()

    def settings_type(self) -> type[SolverSettings]:
        """The settings model of this solver."""
        return getattr(importlib.import_module(f".{self.module}", __package__), self.settings)

    def default(self, **fields: Any) -> SolverSettings:
        """Settings with this solver's defaults and the given fields."""
        return self.settings_type()(**{**dict(self.presets), **fields})


SOLVERS: dict[str, Solver] = {
    "dps": Solver("Diffusion posterior sampling", "dps", "dps", "DPSSettings"),
    "adam": Solver("Adam", "gradient", "adam", "AdamSettings"),
    "lbfgs": Solver("L-BFGS", "gradient", "lbfgs", "LBFGSSettings"),
    "ptyrad-adam": Solver("PtyRAD [Adam]", "gradient", "adam", "AdamSettings", (("engine", "ptyrad"),)),
    "ptyrad-lbfgs": Solver("PtyRAD [L-BFGS]", "gradient", "lbfgs", "LBFGSSettings", (("engine", "ptyrad"),)),
    "atomic": Solver("Atomic sources", "atomic", "atomic", "AtomicSettings"),
    "refine": Solver("Volume, probe and positions", "refine", "refine", "RefineSettings"),
}


DEFAULT = "dps"


def solver_of(settings: SolverSettings) -> Solver:
    """The registry's entry that takes these settings."""
    for name in (getattr(settings, "solver", ""), *SOLVERS):
        if name in SOLVERS and isinstance(settings, SOLVERS[name].settings_type()):
            return SOLVERS[name]
    raise KeyError(f"no solver takes {type(settings).__name__}")


def solve(
    problem: Problem,
    settings: SolverSettings,
    control: Control | None = None,
    *,
    start: NDArray[np.float32] | None = None,
    checkpoint: str | Path | None = None,
    every: float = 30.0,
) -> Iterator[Frame]:
    """Run a solver, frame by frame.

    Parameters
    ----------
    problem : Problem
    settings : SolverSettings
        Says which solver.
    control : Control, optional
        To pause, stop or change settings from elsewhere.
    start : ndarray, optional
        Volume (D, H, W) in rad to begin from.
    checkpoint : path, optional
        Where to keep the state; if there is one of the same problem and settings already, the run goes on from it.
        It stays after the run; a run that had ended yields its last frame again.
    every : float
        Seconds between checkpoints (the first and the last frame are always kept).

    Raises
    ------
    ValueError
        If the checkpoint belongs to another problem or other settings.
    SolverError
        If the run produces NaN: the message says what to change. The last good state stays in the checkpoint.
    """
    control = control or Control()
    entry = solver_of(settings)
    state: dict[str, Any] | None = None
    identity = _identity(problem, settings)
    if checkpoint is not None and Path(checkpoint).exists():
        state = load_checkpoint(checkpoint)
        if state["identity"] != identity:
            raise ValueError(f"{Path(checkpoint).name} belongs to another run (other data, geometry or settings): "
                             "remove it, or name another checkpoint")
        control.changes.extend((int(n), dict(c)) for n, c in json.loads(state["changes"]))
        if state["live"] is not None:
            settings = type(settings).model_validate_json(state["live"])
    elif start is not None:
        import torch

        state = None
        first = torch.as_tensor(np.array(start, dtype=np.float32))
    run = Run(problem, settings, control, state)
    if state is None and start is not None:
        run.start_from(first)
    function = getattr(importlib.import_module(f".{entry.module}", __package__), entry.function)
    saved, good = -float("inf"), None
    last: Frame | None = None
    try:
        for frame in function(run):
            if (not np.isfinite(frame.loss) and not np.isfinite(frame.info.get("best_loss", np.inf))) or not np.isfinite(
                frame.volume
            ).all():
                raise SolverError(f"step {frame.step} gave a loss of {frame.loss}: the run diverged; use a smaller "
                                  "learning rate, or check the probe and the calibration")
            last = frame
            if checkpoint is not None and run.snapshot is not None:
                good = _copied(run.snapshot())  # the solver goes on in place; a step that fails must not spoil this
                if time.monotonic() - saved > every:
                    _try_to_save(checkpoint, run, good, identity, frame)
                    saved = time.monotonic()
            yield frame
    finally:
        if checkpoint is not None and good is not None and last is not None:
            _try_to_save(checkpoint, run, good, identity, last)
    if last is None and state is not None and "shown" in state:
        yield Frame(int(state["step"]), int(state["total"]), state["shown"].numpy(), float(state["loss"]), None,
                    float(state["seconds"]), {})


def _try_to_save(path: str | Path, run: Run, state: dict[str, Any], identity: str, frame: Frame) -> None:
    """A full disk must not end a run: it is noted once, and the run goes on without."""
    try:
        save_checkpoint(path, run, state, identity, frame)
    except (OSError, RuntimeError) as error:  # torch reports failed writes as RuntimeError
        text = f"the checkpoint {Path(path).name} cannot be written: {' '.join(str(error).split())[:160]}"
        if not any(text in note for note in run.control.notes):
            run.control.notes.append(f"step {frame.step}: {text}; the run goes on without")


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


def save_checkpoint(path: str | Path, run: Run, state: dict[str, Any], identity: str, frame: Frame) -> None:
    """Whole state to disk; the old checkpoint stays until the new one is complete."""
    import torch

    with atomic(path) as temporary:
        torch.save({**state, "identity": identity, "shown": torch.from_numpy(frame.volume),
                    "loss": frame.loss, "total": frame.total, "changes": json.dumps(run.control.changes),
                    "live": run.settings.model_dump_json()}, temporary)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
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
    except Exception as error:  # torch raises whatever the damage makes it meet
        raise ValueError(f"{Path(path).name} cannot be read as a checkpoint: {' '.join(str(error).split())[:200]}"
                         ) from error
    return state


def _identity(problem: Problem, settings: SolverSettings) -> str:
    """Fingerprint of what a state belongs to."""
    import hashlib

    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(repr((problem.shape, problem.voxel_size, problem.slice_thickness, problem.energy, problem.boundary,
                        problem.band_limit, problem.propagator)).encode())
    digest.update(np.ascontiguousarray(problem.positions).tobytes())
    digest.update(np.ascontiguousarray(problem.patterns[:: max(1, len(problem.patterns) // 64)]).tobytes())
    digest.update(problem.probe.cpu().numpy().tobytes())
    return digest.hexdigest()
