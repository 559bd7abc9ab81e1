"""Measured: a measurement as a run takes it: how it was opened, how it was prepared, the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..measurement.preparation import Preparation
from ..reconstruction.registry import SOLVERS
from .choices import Setup
from .recipe import GEOMETRY, Attached, Opening, Recipe, Start

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..reconstruction.problem import Problem
    from ..reconstruction.settings import SolverSettings


@dataclass(frozen=True)
class Measured:
    """A measurement, whatever else is opened or prepared otherwise meanwhile.

    Attributes
    ----------
    opening : Opening
    preparation : Preparation
    data : FourDSTEM
        Prepared.
    """

    opening: Opening
    preparation: Preparation
    data: FourDSTEM

    def recipe(self, setup: Setup, settings: SolverSettings, start: Start | None = None) -> Recipe:
        """How a run on it begins.

        Raises
        ------
        FileNotFoundError
            If the refined microscope of the setup is not there.
        """
        fields = {n: getattr(setup, n) for n in GEOMETRY} | {"slices": slices_of(self.data, setup)}
        return Recipe(
            opening=self.opening,
            preparation=self.preparation,
            start=start,
            margin=settings.position_room(),
            microscope=Attached.of(setup.microscope) if setup.microscope else None,
            **fields,
        )


def slices_of(data: FourDSTEM | None, setup: Setup) -> int | None:
    """Slices that were chosen, or that the solver takes of this specimen; None: as usual."""
    if data is None:
        return setup.slices
    entry = SOLVERS[setup.solver]
    return entry.slices(data.calibration, setup.slices, setup.slice_thickness)


def outline(data: FourDSTEM, setup: Setup, settings: SolverSettings) -> Problem:
    """The problem of a run without its patterns: for its grid, and for what it costs.

    Parameters
    ----------
    data : FourDSTEM
        Prepared.

    Raises
    ------
    DataError
        If the measurement does not say enough.
    """
    from ..microscope.files import load_microscope
    from ..reconstruction.problem import Problem

    file = setup.microscope
    return Problem.from_data(
        data,
        slices=slices_of(data, setup),
        slice_thickness=setup.slice_thickness,
        together=setup.together,
        modes=setup.modes,
        microscope=load_microscope(file, data.scan_positions()) if file else None,
        margin=settings.position_room(),
        device=setup.device,
        check=False,
        load=False,
    )
