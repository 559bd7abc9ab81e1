"""The outcome of a step: its frame, and where the time went."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from torch import Tensor

from ..frame import Frame, StepInfo
from .atoms import atoms_and_samples
from .frames import make_frame
from .guide import Guided
from .info import DiffusionInfo
from .levels import passes
from .posterior import Posterior
from .sampling import Sampling


class StepClock:
    """Seconds of one step by what they were spent on.

    Attributes
    ----------
    atoms : float
        Of moving whole atoms.
    """

    def __init__(self, posterior: Posterior) -> None:
        self.posterior, self.atoms = posterior, 0.0
        self._begin, self._before = time.perf_counter(), self._spent()

    def _spent(self) -> tuple[float, float, float]:
        network = self.posterior.network
        return network.seconds, network.seconds_pullback, self.posterior.term.seconds

    def into(self, info: StepInfo) -> DiffusionInfo:
        """The information of a step with its seconds."""
        assert isinstance(info, DiffusionInfo)
        network, pullback, likelihood = (
            after - before for after, before in zip(self._spent(), self._before, strict=True)
        )
        return replace(
            info,
            seconds_network=network,
            seconds_pullback=pullback,
            seconds_likelihood=likelihood + self.atoms,
            seconds_step=time.perf_counter() - self._begin,
        )


def frame_of_step(
    work: Sampling, x: Tensor, x_guided: Tensor, guided: Guided, g: float, clock: StepClock
) -> Frame:
    """What is seen of a step; at the end of a pass, whole atoms move first.

    Parameters
    ----------
    x, x_guided : Tensor
        x_θ and x′, (K, D, H, W), scaled.
    g : float
        Weight times schedule.
    """
    posterior, s, λ = work.posterior, work.run.settings, work.now.log_snr
    ends, final, atoms = work.levels.ends, work.step + 1 >= s.steps, work.occupancy
    info = DiffusionInfo(
        guidance=work.kind,
        sigma=math.exp(-λ / 2),
        factor=g,
        gain=guided.gain,
        guidance_norm=guided.norm,
        pass_number=work.levels.number + 1,
        passes=passes(s, work.kind),
        samples=len(x),
    )
    misfit, shown, x_rad = guided.misfit, x_guided, posterior.grid.to_problem(x)
    answers = posterior.grid.to_problem(x_guided)
    if atoms is not None and ends:
        begin = time.perf_counter()
        work.move_atoms(x_rad)
        clock.atoms += time.perf_counter() - begin
    if atoms is not None and (ends or final):
        # the chains' mean is the answer; they and the network's samples say how sure it is
        answers = atoms_and_samples(posterior, atoms, x)
        shown = posterior.grid.to_prior(atoms.volume(atoms.mean))[None]
        misfit = posterior.term.value(shown[0])[1]
    elif final:
        shown = work.clean(x_guided, guided.shift)
        misfit = posterior.term.value(shown.mean(dim=0))[1]
        answers = posterior.grid.to_problem(shown)
    volumes, work.misfit = posterior.grid.to_problem(shown), misfit
    frame, work.shown = make_frame(
        posterior,
        work.step + 1,
        volumes,
        misfit,
        info,
        last=work.shown,
        before=x_rad,
        log_snr=λ,
        answers=answers,
    )
    return frame
