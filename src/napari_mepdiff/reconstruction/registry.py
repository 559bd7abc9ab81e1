"""Solvers by name, and the one call that runs any of them.

    for frame in solve(problem, AdamSettings(), control):
        ...

A new solver is one file and one line in :data:`SOLVERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .checkpoint import Checkpoint, identity, load_checkpoint
from .control import Control, Interrupted
from .frame import DescentInfo, Frame, RefineInfo, StepInfo
from .problem import Problem
from .run import Run, SolverError, State
from .settings import SolverSettings

if TYPE_CHECKING:
    from ..measurement.dataset import Calibration

__all__ = ["DEFAULT", "SOLVERS", "Solver", "SolverError", "solve", "solver_of"]


@dataclass(frozen=True)
class Solver:
    """Where a solver lives, and what it can do. Modules load when the solver is first used.

    Attributes
    ----------
    can_go_back : bool
        Whether it keeps earlier states and can go on from one of them.
    takes_start : bool
        Whether it can begin from a given volume.
    every_pixel : str
        Why it cannot evaluate every second detector pixel only; empty where it can.
    usual_slice : float or None
        Å of a slice of a specimen whose thickness is told; None: that of the shipped prior.
    """

    title: str
    module: str
    function: str
    settings: str
    presets: tuple[tuple[str, Any], ...] = ()
    can_go_back: bool = False
    takes_start: bool = True
    every_pixel: str = ""
    usual_slice: float | None = None

    def slices(
        self, calibration: Calibration, slices: int | None, slice_thickness: Any
    ) -> int | None:
        """How many slices there are where neither number nor thickness was asked for.

        None where :func:`~.assumptions.slicing` says it for all solvers.
        """
        known = calibration.thickness
        if slices is not None or slice_thickness is not None or self.usual_slice is None:
            return slices
        return round(known / self.usual_slice) if known and known > 2 * self.usual_slice else None

    def settings_type(self) -> type[SolverSettings]:
        """The settings model of this solver."""
        found: type[SolverSettings] = getattr(self._load(), self.settings)
        return found

    def default(self, **fields: Any) -> SolverSettings:
        """Settings with this solver's defaults and the given fields."""
        return self.settings_type()(**{**dict(self.presets), **fields})

    @property
    def live(self) -> frozenset[str]:
        """Fields that a running solver obeys."""
        return self.settings_type().live

    def run(self) -> Callable[[Run[Any]], Iterator[Frame]]:
        """The generator function."""
        found: Callable[[Run[Any]], Iterator[Frame]] = getattr(self._load(), self.function)
        return found

    def refuse(self, settings: SolverSettings, start: Any) -> None:
        """What this solver cannot do is refused before it begins.

        Raises
        ------
        ValueError
            Saying what cannot be done, and what to do instead.
        """
        if start is not None and not self.takes_start:
            raise ValueError(
                f"{self.title} cannot begin from a given volume: it begins from an even start of "
                "its own; leave the start away, or choose another solver"
            )
        if settings.detector_stride != 1 and self.every_pixel:
            raise ValueError(
                f"{self.title} cannot leave out every second detector pixel: {self.every_pixel}; "
                "set the detector stride to 1, or choose another solver for a quick look"
            )

    def _load(self) -> Any:
        return importlib.import_module(f".{self.module}", __package__)


SOLVERS: dict[str, Solver] = {
    "dps": Solver(
        "Diffusion posterior sampling", "diffusion.dps", "dps", "DPSSettings", can_go_back=True
    ),
    "adam": Solver("Adam", "ordinary.adam", "adam", "AdamSettings"),
    "lbfgs": Solver("L-BFGS", "ordinary.lbfgs", "lbfgs", "LBFGSSettings"),
    "ptyrad-adam": Solver(
        "PtyRAD [Adam]",
        "ordinary.adam",
        "adam",
        "AdamSettings",
        (("engine", "ptyrad"),),
        every_pixel="PtyRAD's engine compares all of them",
    ),
    "ptyrad-lbfgs": Solver(
        "PtyRAD [L-BFGS]",
        "ordinary.lbfgs",
        "lbfgs",
        "LBFGSSettings",
        (("engine", "ptyrad"),),
        every_pixel="PtyRAD's engine compares all of them",
    ),
    "atomic": Solver(
        "Atomic sources", "ordinary.atomic", "atomic", "AtomicSettings", takes_start=False
    ),
    "refine": Solver(
        "Volume, probe and positions",
        "ordinary.refine",
        "refine",
        "RefineSettings",
        every_pixel="the probe is refined in its whole window, of which they would show one half",
        usual_slice=10.0,  # free voxels tell no thinner ones apart, and each costs as much
    ),
}

DEFAULT = "dps"


def solver_of(settings: SolverSettings) -> Solver:
    """The registry's entry that takes these settings, with their physics engine."""
    engine = getattr(settings, "engine", "own")
    for entry in SOLVERS.values():
        if (
            type(settings) is entry.settings_type()
            and dict(entry.presets).get("engine", "own") == engine
        ):
            return entry
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
        Where to keep the state; if there is one of the same problem, settings and start already,
        the run goes on from it. It stays after the run; a run that had ended yields its last frame
        again.
    every : float
        Seconds between checkpoints (the first and the last frame are always kept).

    Raises
    ------
    ValueError
        If the checkpoint belongs to another problem or other settings, the solver cannot do what
        is asked for, or the device does not compute what the CPU computes (tested once a process).
    SolverError
        If the run produces NaN: the message says what to change. The last good state stays in the
        checkpoint.
    """
    control = control or Control()
    entry = solver_of(settings)
    entry.refuse(settings, start)
    if not problem.device.startswith("cpu"):
        from ..prior.self_test import prove

        prove(problem.device)
    state: State | None = None
    keeper: Checkpoint | None = None
    if checkpoint is not None:
        asked = settings
        keeper = Checkpoint(checkpoint, lambda: identity(problem, asked, start), every)
        if keeper.path.exists():
            state = load_checkpoint(keeper.path)
            if state["identity"] != keeper.identity:
                raise ValueError(
                    f"{keeper.path.name} belongs to another run (other data, mask, geometry, start "
                    "or settings): remove it, or name another checkpoint"
                )
            control.changes.extend(state["changes"])
            settings = type(settings).model_validate_json(state["live"])
    first = None
    if state is None and start is not None:
        import torch

        first = torch.as_tensor(np.array(start, dtype=np.float32))
    control.bind(settings, entry.can_go_back)
    run: Run[Any] = Run(problem, settings, control, state, first)
    last: Frame | None = None
    sound = True  # whether the solver's state is that of the last frame
    try:
        steps = entry.run()(run)
        while True:
            sound = False
            try:
                frame = next(steps, None)
            except Interrupted:  # stopped in mid-step: the last whole step counts
                break
            if frame is None:
                sound = True
                break
            _require_finite(frame)
            sound, last = True, frame
            if keeper is not None:
                keeper.look(run, frame)
            yield frame
    finally:
        if keeper is not None and last is not None:
            if sound:
                keeper.write(run, last)
            else:
                keeper.fall_back(run)
    if last is None and state is not None:
        refined = state.get("refined")
        yield Frame(
            int(state["step"]),
            int(state["total"]),
            state["shown"].numpy(),
            float(state["loss"]),
            None,
            float(state["seconds"]),
            StepInfo() if refined is None else RefineInfo.from_state(refined),
        )


def _require_finite(frame: Frame) -> None:
    best = frame.info.best_loss if isinstance(frame.info, DescentInfo) else None
    kept = best is not None and np.isfinite(best)
    if (np.isfinite(frame.loss) or kept) and np.isfinite(frame.volume).all():
        return
    raise SolverError(
        f"step {frame.step} gave a misfit of {frame.loss}: the run diverged; use a smaller "
        "learning rate, or check the probe and the calibration"
    )
