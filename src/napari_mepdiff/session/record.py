"""Record: one run, written down: its recipe, what was changed on the way, what came of it.

The command line, the docks and recovery write this record, beside every volume and into it, and
each of them can play it again (:mod:`.replay`).
"""

from __future__ import annotations

import os
import platform
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..base.records import plain, versions
from ..reconstruction.change import Change
from .recipe import Part, Recipe

SCHEMA = 2  # 1: the flat records of versions up to 0.3


class NoRecord(ValueError):
    """A file that does not say how its volume was made."""


class Branch(Part):
    """Frames that came one after another, until the run was taken back.

    Attributes
    ----------
    first, last : int
        Numbers of its frames, as they came.
    first_step, last_step : int
        Their steps.
    back_to : int or None
        The step from which the next branch began; None for the newest.
    """

    first: int
    last: int
    first_step: int
    last_step: int
    back_to: int | None = None


class Outcome(Part):
    """What came of a run.

    Attributes
    ----------
    state : str
        'running' where the record was written on the way; 'done', 'stopped' by the user, 'failed'.
    reason : str
        Why it ended early, in plain words.
    loss : float or None
        Misfit relative to shot noise.
    verdict : str
        What is doubtful about the result; empty where nothing is.
    """

    state: Literal["running", "done", "stopped", "failed"] = "running"
    reason: str = ""
    steps: int = 0
    planned: int = 0
    loss: float | None = None
    seconds: float = 0.0
    verdict: str = ""

    @property
    def complete(self) -> bool:
        """Whether the run came to its own end."""
        return self.state == "done"


class Shown(Part):
    """Which volume of the run lies beside this record.

    Attributes
    ----------
    step : int
    number : int
        Of the frame, as they came.
    newest : bool
        Whether it is the last one of the run.
    changes : int
        How many of the changes had been made by then.
    altered : bool
        The values were changed after the run.
    holds : str
        What it is where it is not the volume itself.
    """

    step: int
    number: int
    newest: bool = True
    changes: int = 0
    altered: bool = False
    holds: str = ""


def machine() -> dict[str, str]:
    """What results depend on to the last bit, beside versions."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": str(os.cpu_count()),
    }


class Record(BaseModel):
    """One run; see the module.

    Attributes
    ----------
    settings : dict
        As the run began.
    without_effect : dict
        Settings that do nothing in this run, each with the reason.
    fixed : tuple of str
        Settings that hold from the first step to the last: this solver cannot change them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    made_by: str
    run: str = ""
    measurement: str = ""
    recipe: Recipe
    settings: dict[str, Any]
    without_effect: dict[str, str] = {}
    fixed: tuple[str, ...] = ()
    changes: tuple[dict[str, Any], ...] = ()
    branches: tuple[Branch, ...] = ()
    notes: tuple[str, ...] = ()
    outcome: Outcome = Outcome()
    shown: Shown | None = None
    resumed: bool = False
    versions: dict[str, str] = Field(default_factory=versions)
    machine: dict[str, str] = Field(default_factory=machine)

    @property
    def solver(self) -> str:
        """Name of the solver."""
        return self.recipe.solver

    def change_list(self) -> list[Change]:
        """The changes of the run, up to the frame that is shown."""
        kept = self.changes
        if self.shown is not None and not self.shown.newest:
            kept = kept[: self.shown.changes]
        return [Change.from_json(c) for c in kept]

    @property
    def stop_after(self) -> int | None:
        """The step at which a replay ends; None where the run came to its own end."""
        if self.shown is not None and not self.shown.newest:
            return self.shown.step
        return None if self.outcome.complete else self.outcome.steps

    def obstacles(self) -> list[str]:
        """Why this record cannot be played again exactly, each in a sentence; empty if it can."""
        found = []
        opening, start = self.recipe.opening, self.recipe.start
        if not opening.from_file:
            found.append("the measurement was made in memory: there is no file to open again")
        if opening.unknown_steps:
            found.append(
                "the measurement was changed before it came here: "
                + ", ".join(opening.unknown_steps)
            )
        if start is not None and start.file is None:
            found.append(f"the volume it began from ({start.name or 'an array'}) was not kept")
        if self.shown is not None and self.shown.altered:
            found.append("the values of this volume were changed after the run")
        return found

    def caveats(self) -> list[str]:
        """What may move the last digits of a replay on this machine, each in a sentence."""
        found = []
        if self.recipe.opening.fingerprint is None:
            found.append("it does not say which content its measurement had")
        if self.recipe.start is not None and not self.recipe.start.sha256:
            found.append("it does not say which values the volume had that it began from")
        if self.recipe.device != "cpu":
            found.append("results on a GPU are repeatable only as far as its kernels are")
        now = versions()
        moved = [
            f"{name} {old} (now {now.get(name, 'not installed')})"
            for name, old in self.versions.items()
            if name in ("napari-mepdiff", "torch", "numpy") and now.get(name) != old
        ]
        if moved:
            found.append(f"it was made with {', '.join(moved)}")
        if self.machine and self.machine != machine():
            found.append("it was made on another machine")
        return found

    def as_provenance(self) -> dict[str, Any]:
        """For a volume's provenance, as JSON has it."""
        out: dict[str, Any] = plain(self.model_dump(mode="json"))
        return out

    @classmethod
    def from_provenance(cls, history: Any, name: str = "this file") -> Record:
        """From a volume's provenance, a sidecar's, or a record of an earlier version.

        Raises
        ------
        NoRecord
            If it does not say how the volume was made.
        """
        from .older import migrated

        if not isinstance(history, dict) or "recipe" not in history:
            raise NoRecord(
                f"{name} does not say how it was made: only volumes that napari-mepdiff "
                "reconstructed can be made again"
            )
        version = history.get("schema_version", 1)
        if isinstance(version, int) and version > SCHEMA:
            raise NoRecord(f"{name} was written by a newer version of napari-mepdiff")
        try:
            found = history if version == SCHEMA else migrated(history)
            return cls.model_validate({k: v for k, v in found.items() if k in cls.model_fields})
        except (ValidationError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise NoRecord(f"the record in {name} is damaged or incomplete: {reason}") from error
