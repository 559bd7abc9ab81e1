"""Diffusion posterior sampling: the prior's sampler, steered by the data at each noise level
(paper, sections 2 and 3).

    z ~ N(0, 1)
    for λ from noise to clean:
        x = x_θ(z, λ)                       the network's prediction
        x′ = guide(x, ∇L)                   moved by the data
        z ← SDE-DPM-Solver++(2M)(z, x′)     to the next level

:func:`dps` is that loop, and what runs. Around it stand: :mod:`.begin` (what happens before the
first step), :mod:`.posterior` (prior and data on one grid), :mod:`.guides` (the kinds of guidance),
:mod:`.levels` (noise levels), :mod:`.sampling` (the state between steps, recovery, the way back),
:mod:`.atoms` (whole atoms, which move between passes), :mod:`.frames` (what is seen).

Steps can be watched, changed, taken back and branched from; see :class:`~..control.Control`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..control import Interrupted
from ..frame import Frame
from ..run import Run
from .begin import begin
from .guides import strength
from .outcome import StepClock, frame_of_step
from .sampling import Diverged, Sampling
from .settings import DPSSettings as DPSSettings


def dps(run: Run[DPSSettings]) -> Iterator[Frame]:
    """One frame per step, and some of step 0 while the ordinary solution of the condition is made.

    Besides the volume, frames carry (``info``) λ, σ, g, the misfit of x_θ over shot noise and per
    electron, how far guidance moved it, the change since the last step and the seconds spent in
    network, pullback and likelihood; and (``arrays``, rad) ``x_theta``, the mean x-prediction
    before guidance, with several samples also their ``std`` and ``agreement``.
    """
    work = yield from begin(run)
    while work is not None and work.step < run.settings.steps and run.go_on(work.step):
        earlier = run.back(work.step, work.kept.steps)
        if earlier is not None:
            yield work.go_back(earlier)
            continue
        if work.step >= run.settings.steps:  # fewer were asked for meanwhile
            return
        try:
            frame = one_step(work)
        except Diverged as trouble:
            work.recover(trouble)
        except Interrupted:  # stopped or taken back in mid-step: the last whole one counts
            work.take_up(work.step)
        else:
            yield frame


def one_step(work: Sampling) -> Frame:
    """From the level λ to the next.

    Raises
    ------
    Diverged
        If the result is no volume.
    Interrupted
        If the run is stopped or taken back meanwhile.
    """
    s, z, λ, clock = work.renewed(), work.now.z, work.now.log_snr, StepClock(work.posterior)
    likelihood, g = work.likelihood(), strength(work.kind, s, λ)

    x, pull = work.predict(z, λ)  # x_θ(z, λ)
    guided = work.guide(likelihood, x, pull, λ, g, s.inner)  # x′ = x_θ − g(λ) ∇_z L
    x_guided = work.admissible(guided)

    frame = frame_of_step(work, x, x_guided, guided, g, clock)
    if frame.step < s.steps:
        work.advance(x_guided, guided.shift)  # z ← SDE-DPM-Solver++(2M)(z, x′), or a new pass
    work.keep(frame.step)
    return replace(frame, info=clock.into(frame.info))
