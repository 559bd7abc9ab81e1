"""RunRecord: one run with its settings, frames and history. No Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..reconstruction.history import FrameStore
from ..reconstruction.registry import SOLVERS
from ..reconstruction.stream import Control, Frame, SolverSettings

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..reconstruction.problem import Problem
    from ..specimen.volume import Volume
    from .session import Session

RunState = Literal["starting", "running", "paused", "stopping", "done", "stopped", "failed"]
HOLDS = {"x_theta": "prediction before guidance", "std": "spread of the samples", "agreement": "agreement of the samples"}


class RunRecord:
    """A run.

    Attributes
    ----------
    name : str
        Of the run and of its layer, e.g. 'run 2 · DPS'.
    frames : FrameStore
    control : Control
    problem : Problem or None
        Once it is set up.
    state : str
        starting, running, paused, stopping, done, stopped, failed.
    error : str
        In plain words, where it failed.
    """

    def __init__(self, number: int, session: Session, settings: SolverSettings, start: Any = None) -> None:
        choices = session.choices
        self.number, self.solver, self.preview = number, choices.setup.solver, choices.setup.preview
        short = {"dps": "DPS", "lbfgs": "L-BFGS"}.get(self.solver, SOLVERS[self.solver].title)
        self.name = f"run {number} · {short}" + (" (preview)" if self.preview else "")
        self.first, self.start = settings, start
        self.started_from = choices.setup.start if start is not None else ""
        self.setup, self.preparation = choices.setup, choices.preparation
        self.data: FourDSTEM = session.data  # type: ignore[assignment]
        self.path, self.open_options = session.path, dict(session.open_options)
        self.frames = FrameStore(choices.watching.budget * 1024**2, choices.watching.keep_every)
        self.control = Control()
        self.problem: Problem | None = None
        self.state: RunState = "starting"
        self.error = ""
        self.details = ""
        self.stage = "setting up"

    @property
    def going_on(self) -> bool:
        """Whether its worker is at work, or paused."""
        return self.state in ("starting", "running", "paused", "stopping")

    @property
    def frame(self) -> Frame | None:
        """The newest frame."""
        return self.frames.last

    def steer(self, settings: SolverSettings) -> None:
        """New settings from the next step on. A preview stays one."""
        if self.preview:
            from ..reconstruction.preview import preview

            reduced = preview(self.solver, settings)
            live = {"weight", "schedule", "curve", "misfit", "inner", "odds"} & set(type(settings).model_fields)
            settings = reduced.model_copy(update={k: getattr(settings, k) for k in live})
        self.control.update(settings)

    def recipe(self) -> dict[str, Any]:
        """How to make the run again from the file (``mepdiff replay``)."""
        options = {k: v for k, v in self.open_options.items() if k in ("scan_shape", "dataset") and v is not None}
        return {
            "file": self.path, "solver": self.solver, "slices": self.setup.slices, "slice_thickness": self.setup.slice_thickness,
            "modes": self.setup.modes, "device": self.setup.device, "preparation": self.preparation.changed,
            "preview": self.preview, **({"scan": options["scan_shape"]} if "scan_shape" in options else {}),
            **({"dataset": options["dataset"]} if "dataset" in options else {}),
        }

    def history(self) -> dict[str, Any]:
        """Provenance of the newest volume."""
        from ..files import versions

        frame = self.frame
        return {
            "made_by": "napari-mepdiff", "run": self.name, "recipe": self.recipe(), "solver": self.solver,
            "settings": self.first.model_dump(mode="json"), "changes": list(self.control.changes),
            "notes": list(self.control.notes),
            "steps": 0 if frame is None else frame.step, "planned": 0 if frame is None else frame.total,
            "loss": None if frame is None else frame.loss, "seconds": None if frame is None else round(frame.seconds, 2),
            "device": self.setup.device, "preview": self.preview, "state": self.state,
            "started_from": self.started_from,
            "complete": self.state == "done", "versions": versions(),
        }

    def volume(self, array: str = "") -> Volume:
        """The newest volume, or one of the arrays that belong to the newest frame.

        Raises
        ------
        ValueError
            If no frame has come yet, or it has no such array.
        """
        frame = self.frame
        if frame is None or self.problem is None:
            raise ValueError(f"{self.name} has no volume yet")
        history = self.history()
        if array:
            if array not in frame.arrays:
                raise ValueError(f"{self.name} has no {HOLDS.get(array, array)}")
            return self.problem.volume(frame.arrays[array], **{**history, "holds": HOLDS.get(array, array)})
        return self.problem.volume(frame.volume, **history)
