"""Posterior: prior and data of one run, on one grid."""

from __future__ import annotations

import torch
from torch import Tensor

from ...physics.light import light_on_canvas
from ...physics.likelihood import Likelihood
from ...physics.misfit import Misfit
from ...prior.model import Prior
from ..run import Run
from .data_term import DataTerm, pick_stride
from .grid import Grid
from .guidance import GuidanceKind
from .network import Network
from .settings import DPSSettings

EVERY_PIXEL = (
    "every detector pixel is used: with every second one the probe would not fit into its window"
)
ILLUMINATED = 0.01  # of the brightest illumination: below it a voxel counts as not scanned


class Posterior:
    """What a run samples from: the network's prior and the misfit of the patterns.

    Parameters
    ----------
    run : Run
    kind : str
        Guidance that is meant to act.

    Attributes
    ----------
    grid : Grid
    network : Network
    term : DataTerm
        The misfit that guides, and that is shown.
    under_way : bool
        Whether there are steps that one can go back to.
    dark : Tensor or None
        (H', W'), voxels of an extended canvas that no electron reached.

    Raises
    ------
    GridError
        If the prior does not know such voxels.
    """

    def __init__(self, run: Run[DPSSettings], kind: GuidanceKind) -> None:
        s = run.settings
        self.run, self.problem, self.under_way = run, run.problem, False
        self.device = torch.device(self.problem.device)
        self.prior = Prior.load(s.prior, device=self.problem.device, precision=s.precision)
        self.network = Network(self.prior, self.poll)
        self.grid = Grid(self.problem, self.prior)
        whole = s.guidance == "paper"  # its sum is over every detector pixel
        self.stride = 1 if whole else pick_stride(self.problem, s.detector_stride)
        if not whole and self.stride != s.detector_stride:
            run.control.notes.append(EVERY_PIXEL)
        self.term = self._term(misfit_of(s, kind), whole)
        self.dark: Tensor | None = None
        if self.problem.boundary == "extended":
            light = self.grid.to_prior(light_on_canvas(self.term.likelihood)[None])[0]
            self.dark = light < ILLUMINATED * light.max()

    def poll(self) -> None:
        """Within a long step: hold while paused.

        Raises
        ------
        Interrupted
            If the run is stopped, or taken back.
        """
        self.run.control.breathe(self.under_way)

    def require_misfit(self, kind: GuidanceKind) -> None:
        """After a change of settings: the misfit that they ask for."""
        wanted = misfit_of(self.run.settings, kind)
        if wanted != self.term.misfit:
            self.term = self._term(wanted, kind == "paper")

    def poisson(self) -> Likelihood:
        """The likelihood of counts, for whole atoms."""
        if self.term.misfit == "poisson":
            return self.term.likelihood
        return self._term("poisson", False).likelihood

    def _term(self, misfit: Misfit, paper: bool) -> DataTerm:
        return DataTerm(
            self.problem,
            self.grid,
            misfit,
            self.stride,
            self.run.settings.memory,
            "normalised" if paper else "nats",
            self.poll,
        )


def misfit_of(s: DPSSettings, kind: GuidanceKind) -> Misfit:
    """The misfit that acts with a kind of guidance."""
    if kind == "paper":
        return "intensity"
    return "poisson" if kind == "atoms" else s.misfit
