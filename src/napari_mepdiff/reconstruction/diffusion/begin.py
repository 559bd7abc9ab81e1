"""The beginning of a run: which guidance acts, what the network is given, where sampling starts."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from ...prior.condition import Condition
from ...prior.process import alpha_sigma
from ...prior.sampler import State
from ..atoms.occupancy import Occupancy, TooManyAtoms
from ..control import Interrupted
from ..frame import Frame
from ..ordinary.steps import size
from ..problem import Problem
from ..run import Run
from .atoms import FIRST_FIT, WIDE, find_atoms, move_atoms
from .condition import condition_on, ordinary_solution
from .frames import make_frame
from .guidance import FREE_VOXELS, GuidanceKind
from .info import DiffusionInfo
from .levels import Levels, level, part_of, samples
from .posterior import Posterior
from .sampling import Sampling
from .settings import DPSSettings

Beginning = Generator[Frame, None, Sampling | None]


def expected_kind(s: DPSSettings, problem: Problem) -> GuidanceKind:
    """The guidance that is meant to act: what ``auto`` takes if atoms can be counted."""
    if s.guidance != "auto":
        return s.guidance
    wide = problem.shape[1] * problem.shape[2] > WIDE
    return "atoms" if s.elements and not wide else FREE_VOXELS


def begin(run: Run[DPSSettings]) -> Beginning:
    """Bring a run to where its first step can be taken.

    Frames of step 0 while an ordinary solution is made and atoms are found. Returns None where the
    run was stopped meanwhile.
    """
    if run.state is not None:
        return _resumed(run)
    try:
        return (yield from _fresh(run))
    except Interrupted:
        return None


def _fresh(run: Run[DPSSettings]) -> Beginning:
    s, control = run.settings, run.control
    kind = expected_kind(s, run.problem)
    if s.guidance == "auto" and s.elements and kind != "atoms":
        control.notes.append(
            f"guidance {FREE_VOXELS}, not by atoms: the field is so large that whole atoms would "
            "take many minutes; ask for guidance=atoms if that is all right"
        )
    posterior = Posterior(run, kind)
    known: Tensor | None = None
    excess = 1.0
    conditioned = s.condition != "none" and kind != "paper"
    if run.start is not None:
        known = run.start.to(posterior.device, torch.float32)
        if tuple(known.shape) != tuple(run.problem.shape):
            raise ValueError(
                f"the start is {size(known.shape)} voxels, the volume to be found "
                f"{size(run.problem.shape)}: begin from one of the same grid"
            )
    elif conditioned or kind == "atoms":
        control.say("ordinary solution")
        for frame in ordinary_solution(run, posterior.stride):
            known = torch.from_numpy(frame.volume).to(posterior.device)
            excess = frame.loss
            yield frame
        if control.stopped:
            return None
    occupancy: Occupancy | None = None
    if kind == "atoms":
        assert known is not None
        try:
            occupancy = find_atoms(posterior, known)
            occupancy.excess = max(1.0, excess)
        except (TooManyAtoms, ValueError) as error:
            if s.guidance == "atoms":
                raise
            kind = FREE_VOXELS
            control.notes.append(f"guidance {kind}, not by atoms: {error}")
    _declare(run, kind)
    posterior.require_misfit(kind)
    condition: Condition | None = None
    if occupancy is not None:
        control.say("fitting what the columns do not explain")
        occupancy.fit_rest(FIRST_FIT)
        move_atoms(posterior, occupancy, 0.0)
        first = occupancy.volume(occupancy.mean)
        condition = condition_on(posterior, first, s.trust, "volume")
        misfit = posterior.term.value(posterior.grid.to_prior(first))[1]
        info = DiffusionInfo(stage="first atoms")
        yield make_frame(posterior, 0, first[None], misfit, info)[0]
    elif known is not None and conditioned:
        assert s.condition != "none"
        condition = condition_on(posterior, known, s.trust, s.condition)
    control.say("")
    return _started(posterior, kind, known, condition, occupancy)


def _started(
    posterior: Posterior,
    kind: GuidanceKind,
    known: Tensor | None,
    condition: Condition | None,
    occupancy: Occupancy | None,
) -> Sampling:
    """From noise; from a given volume, noised to the level of a warm start."""
    run, grid = posterior.run, posterior.grid
    s = run.settings
    rng = torch.Generator().manual_seed(s.seed)
    z = torch.randn(samples(s, kind), *grid.shape, generator=rng).to(posterior.device)
    levels, log_snr = Levels(s.steps), level(0.0, s)
    if run.start is not None and occupancy is None:
        assert known is not None
        log_snr = max(log_snr, s.start_log_snr)
        levels.part = part_of(log_snr, s)
        alpha, sigma = (float(v) for v in alpha_sigma(torch.tensor(log_snr)))
        z = alpha * grid.to_prior(known)[None] + sigma * z
    levels.begin_pass(s, kind, 0)
    shown = torch.zeros(grid.shape) if known is None else grid.to_prior(known).cpu()
    work = Sampling(
        posterior,
        kind,
        State(z, log_snr),
        levels,
        shown,
        rng=rng,
        condition=condition,
        occupancy=occupancy,
        misfit=posterior.term.value(shown)[1],
    )
    work.keep(0)
    posterior.under_way = True
    return work


def _resumed(run: Run[DPSSettings]) -> Sampling:
    """From a checkpoint."""
    state = run.state
    assert state is not None
    kind = state["kind"]
    _declare(run, kind)
    now = State(state["z"], float(state["log_snr"]))
    levels = Levels(**state["levels"])
    work = Sampling(Posterior(run, kind), kind, now, levels, state["latest"])
    work.resume(state)
    work.posterior.under_way = True
    return work


def _declare(run: Run[DPSSettings], kind: GuidanceKind) -> None:
    """Say what has no effect in this run, now that the kind of guidance is known."""
    run.control.without_effect(lambda s: s.idle_with(kind))
