"""Refinement of the microscope together with one volume: what a measurement begins with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..frame import Frame, RefineInfo
from ..problem import Problem
from ..run import Run
from .refine_settings import RefineSettings
from .refinement import Refinement

if TYPE_CHECKING:
    from ...microscope.state import MicroscopeState

__all__ = ["RefineSettings", "refine", "refined"]


def refined(frame: Frame, problem: Problem, **provenance: Any) -> MicroscopeState | None:
    """Probe and positions of a run's frame, for a file and for the next run; None of other runs."""
    info = frame.info
    if not isinstance(info, RefineInfo):
        return None
    return problem.microscope(info, **provenance)


def refine(run: Run[RefineSettings]) -> Iterator[Frame]:
    """One frame per pass; ``info`` carries the probe (M, Ky, Kx) and the positions (N, 2) in Å."""
    work = Refinement(run)
    while work.step < run.settings.iterations and run.go_on(work.step):
        if work.step >= run.settings.iterations:  # fewer were asked for meanwhile
            return
        yield work.advance()
