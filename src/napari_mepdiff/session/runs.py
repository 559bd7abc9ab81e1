"""RunRecord: one run with its own measurement, settings, frames and history."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..reconstruction.control import Control
from ..reconstruction.frame import Frame, RefineInfo
from ..reconstruction.history import FrameStore
from ..reconstruction.registry import SOLVERS
from ..reconstruction.settings import SolverSettings
from .choices import Setup
from .course import Course
from .fingerprints import fingerprint_of, prior_fingerprint
from .recipe import GEOMETRY, Recipe
from .record import Branch, Outcome, Record, Shown

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..measurement.preparation import Preparation
    from ..microscope.state import MicroscopeState
    from ..reconstruction.diagnosis import Diagnosis
    from ..reconstruction.problem import Problem
    from ..specimen.volume import Volume

RunState = Literal["starting", "running", "paused", "stopping", "done", "stopped", "failed"]
HOLDS = {
    "x_theta": "prediction before guidance, rad",
    "std": "standard deviation of the samples, rad",
    "agreement": "share of the samples that agree whether there is an atom",
}
_SHORT = {"dps": "DPS", "lbfgs": "L-BFGS"}


class RunRecord:
    """A run: everything that belongs to it stays with it, whatever else is opened meanwhile.

    Attributes
    ----------
    name : str
        Of the run and of its layer, e.g. 'run 2 · DPS'.
    recipe : Recipe
        How it was begun.
    data : FourDSTEM
        Its measurement, prepared.
    start : ndarray or None
        Volume (D, H, W) in rad that it began from.
    first : SolverSettings
        Its settings when it began.
    frames : FrameStore
    control : Control
    problem : Problem or None
        Once it is set up; without its patterns when the run has ended.
    state : str
        starting, running, paused, stopping, done, stopped, failed.
    ending : Outcome or None
        Once its last step is done.
    outcome : Outcome or None
        The same, once everything is written and cleaned up.
    error, details : str
        In plain words, and as a traceback, where it failed.
    diagnosis : Diagnosis or None
        What its misfit is made of, once that was asked (:mod:`.diagnosing`).
    """

    def __init__(
        self,
        number: int,
        recipe: Recipe,
        settings: SolverSettings,
        data: FourDSTEM,
        *,
        start: NDArray[np.float32] | None = None,
        control: Control | None = None,
        frames: FrameStore | None = None,
        made_by: str = "napari-mepdiff",
    ) -> None:
        self.number, self.recipe, self.first, self.data = number, recipe, settings, data
        self.start, self.made_by = start, made_by
        self.solver, self.preview = recipe.solver, recipe.preview
        short = _SHORT.get(self.solver, SOLVERS[self.solver].title)
        self.name = f"run {number} · {short}" + (" (preview)" if self.preview else "")
        self.control = control or Control()
        self.frames = frames or FrameStore()
        self.problem: Problem | None = None
        self.state: RunState = "starting"
        self.ending: Outcome | None = None
        self.outcome: Outcome | None = None
        self.error = self.details = ""
        self.diagnosis: Diagnosis | None = None
        self.stage = "setting up"
        self.resumed = False
        self.left = False  # let go in mid-step: what its worker still brings is dropped
        self._door = threading.Lock()
        self.saved: list[Path] = []
        self._course = Course()

    # ---- whose run it is -------------------------------------------------------------------
    @property
    def measurement_name(self) -> str:
        """Of the measurement it reconstructs."""
        return self.recipe.opening.name

    @property
    def path(self) -> str:
        """File of that measurement, or name of a sample."""
        return self.recipe.opening.path

    @property
    def truth(self) -> Volume | None:
        """Ground truth of that measurement, where it has one."""
        return self.data.truth

    @property
    def preparation(self) -> Preparation:
        """Preparation of that measurement."""
        return self.recipe.preparation

    @property
    def setup(self) -> Setup:
        """Solver, slices and device as the choices have them."""
        state = self.recipe.microscope
        return Setup(
            **{n: getattr(self.recipe, n) for n in GEOMETRY},
            start=self.started_from,
            microscope="" if state is None else state.path,
        )

    @property
    def started_from(self) -> str:
        """Name of the layer or file that it began from; empty: from nothing."""
        start = self.recipe.start
        return "" if start is None else start.name or str(start.file)

    @property
    def file_stem(self) -> str:
        """For names of files: measurement, number and solver, e.g. 'mos2_run_1_DPS'."""
        words = re.sub(r"[^0-9A-Za-z.]+", "_", self.name).strip("_").replace("L_BFGS", "L-BFGS")
        return f"{self.measurement_name}_{words}"

    # ---- while it goes on ------------------------------------------------------------------
    @property
    def going_on(self) -> bool:
        """Whether its worker is at work, or paused."""
        return self.state in ("starting", "running", "paused", "stopping")

    @property
    def frame(self) -> Frame | None:
        """The newest frame."""
        return self.frames.last

    @property
    def settings(self) -> SolverSettings:
        """The settings that hold now, with what the solver changed itself."""
        return self.control.settings or self.first

    def steer(self, **fields: Any) -> SolverSettings:
        """Change fields from the next step on; what the solver changed itself stays.

        Raises
        ------
        Refused
            If this solver cannot change one of them while it runs.
        """
        return self.control.change(**fields)

    def settle(self) -> None:
        """For the worker, as its first act: what takes time to find out of files and arrays."""
        start = self.recipe.start
        if start is not None and self.start is not None and not start.sha256:
            start = start.model_copy(update={"sha256": fingerprint_of(self.start)})
        update = {"start": start, "prior_fingerprint": prior_fingerprint(self.first)}
        self.recipe = self.recipe.model_copy(update=update)

    def append(self, frame: Frame) -> None:
        """For the worker: a frame has come; dropped where the run was let go."""
        with self._door:
            if not self.left:
                self._append(frame)

    def leave(self) -> None:
        """Let the run go in mid-step: it has ended as stopped, with its last whole frame."""
        with self._door:
            self.left = True
            self.error = "stopped by the user, who did not wait for its last step"
            self.ending = self.outcome = self.so_far("stopped")

    def _append(self, frame: Frame) -> None:
        self._course.add(self.control.changes)
        try:
            self.frames.append(frame)
        except ValueError:  # its store refused it
            self._course.drop()
            raise

    def finish(self) -> None:
        """For the worker, as its last act: everything is cleaned up, the outcome is published."""
        if self.problem is not None:  # the patterns are the measurement's, not each run's
            shape = self.problem.patterns.shape[1:]
            self.problem = replace(self.problem, patterns=np.zeros((0, *shape), np.float32))
        if not self.left:
            self.outcome = self.ending or self.so_far("failed")

    # ---- what it leaves --------------------------------------------------------------------
    @property
    def branches(self) -> list[Branch]:
        """The frames in the order they came, parted where the run was taken back."""
        steps = [int(r["step"]) for r in self.frames.records]
        return self._course.branches(steps, self.control.changes)

    def record(self, frame: int | None = None, *, altered: bool = False, holds: str = "") -> Record:
        """The record of the run, for the volume of its newest frame or an earlier one.

        Parameters
        ----------
        frame : int, optional
            Number of a kept frame, as :meth:`FrameStore.volume` counts them.
        altered : bool
            The values were changed after the run.
        holds : str
            What the volume is, where it is not that of the frame itself.

        Raises
        ------
        IndexError
            If there is no such frame.
        """
        newest = len(self.frames.records) - 1
        index = newest if frame is None else int(self.frames.kept[frame]["index"])
        shown = None
        if newest >= 0:
            shown = Shown(
                step=int(self.frames.records[index]["step"]),
                number=index,
                newest=index == newest,
                changes=self._course.changes[index],
                altered=altered,
                holds=holds,
            )
        without = self.control.idle or self.first.idle()
        return Record(
            made_by=self.made_by,
            run=self.name,
            measurement=self.measurement_name,
            recipe=self.recipe,
            settings=self.first.model_dump(mode="json"),
            without_effect=without,
            fixed=tuple(
                name
                for name in type(self.first).model_fields
                if name not in self.first.live and name not in without
            ),
            changes=tuple(c.as_json() for c in self.control.changes),
            branches=tuple(self.branches),
            notes=tuple(dict.fromkeys([*self.control.notes, *self.frames.notes])),
            outcome=self.ending or self.so_far(),
            shown=shown,
            resumed=self.resumed,
        )

    def so_far(self, state: Literal["running", "done", "stopped", "failed"] = "running") -> Outcome:
        """The outcome if the run ended now."""
        from ..reconstruction.verdict import verdict

        frame = self.frame
        if frame is None:
            return Outcome(state=state, reason=self.error)
        doubt = verdict(frame.loss, finished=state == "done" and not self.preview)
        return Outcome(
            state=state,
            reason=self.error,
            steps=frame.step,
            planned=frame.total,
            loss=frame.loss,
            seconds=round(frame.seconds, 2),
            verdict="" if doubt is None or state == "running" else str(doubt),
        )

    def volume(
        self, array: str = "", frame: int | None = None, data: NDArray[np.float32] | None = None
    ) -> Volume:
        """A volume of this run, with the record that says which.

        Parameters
        ----------
        array : str
            One of the arrays that belong to the newest frame ('std', 'x_theta' …); the volume
            itself if empty.
        frame : int, optional
            Number of a kept frame, as :meth:`FrameStore.volume` counts them; the newest if not
            given.
        data : ndarray, optional
            Values (D, H, W) as a layer shows them. The frame that has them is found; where none
            has, the record says that they were changed after the run.

        Raises
        ------
        ValueError
            If no frame has come yet, or it has no such array.
        IndexError
            If there is no such frame.
        """
        newest = self.frame
        if newest is None or self.problem is None:
            raise ValueError(f"{self.name} has no volume yet")
        if array:
            if array not in newest.arrays:
                raise ValueError(f"{self.name} has no {HOLDS.get(array, array)}")
            values, holds = newest.arrays[array], HOLDS.get(array, array)
        else:
            values = newest.volume if frame is None else self.frames.volume(frame)
            holds = ""
        altered = False
        if data is not None and not np.array_equal(data, values):
            found = None if array else self.frame_of(data)
            altered, values = found is None, data
            frame = found if found is not None else frame
        record = self.record(frame, altered=altered, holds=holds)
        return self.problem.volume(values, **record.as_provenance())

    def microscope(self) -> MicroscopeState | None:
        """Probe and positions as this run refined them; None where it refines nothing."""
        info = None if self.frame is None else self.frame.info
        if self.problem is None or not isinstance(info, RefineInfo):
            return None
        return self.problem.microscope(info, run=self.name, measurement=self.measurement_name)

    def frame_of(self, data: NDArray[np.float32]) -> int | None:
        """Number of the newest kept frame with these values; None where no frame has them."""
        for number in reversed(range(len(self.frames))):
            if np.array_equal(self.frames.volume(number), data):
                return number
        return None
