"""One pass of a refinement after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...physics.likelihood import Likelihood
from ...physics.misfit import shot_noise
from ..assumptions import DEFAULT_THICKNESS
from ..frame import Frame, RefineInfo
from ..run import Run
from .detector_block import BackgroundBlock
from .evidence import Evidence
from .expected import depth_width, penalty
from .first_probe import first_probe
from .grid_window import grid_window
from .positions_block import PositionsBlock, slope_power
from .probe_block import PixelBlock, ordered, with_modes
from .reading import Reading, read_probe
from .refine_settings import RefineSettings
from .settle import settled
from .steps import frame, keeper, pack, start_volume, unpack
from .tilt_block import TiltBlock, set_upright
from .volume_block import NATS, VolumeBlock

AT_THE_RIM = (
    "some positions want to move farther than the largest shift, or beyond the field, and are held "
    "there; a new run with a larger one makes room for them"
)
NO_START = (
    "a volume that is held has to be given: begin from an earlier run's volume, or set Volume to "
    "'free'"
)
TRIAL = 3  # passes after which what was set free is judged
FORMING = 3  # passes in which nothing but volume and optics move
_FALL, _FLOOR = 0.3, 0.05  # the last share of a run, over which all steps fall to this


class Refinement:
    """All that a refinement is made of, between its passes.

    Attributes
    ----------
    step : int
        Passes done.
    """

    def __init__(self, run: Run[RefineSettings]) -> None:
        self.run, s = run, run.settings
        problem = run.problem
        self.held = s.volume == "held"
        if self.held and run.start is None and run.state is None:
            raise ValueError(NO_START)
        self.rng = np.random.default_rng(s.seed)
        probe, self.optics = first_probe(problem, s)
        self.begun = None if self.optics is None else self.optics.light
        like = problem.likelihood(s.misfit, memory=s.memory, probe=probe)
        assert isinstance(like, Likelihood)
        like.poll = run.control.breathe
        self.like, self.noise = like, shot_noise(like, s.misfit)
        width = 0.0 if self.held else s.narrowest / problem.voxel_size[2]
        self.volume = VolumeBlock(start_volume(run, like), s.misfit, width)
        pixels = problem.probe[0].numel()
        self.counts = problem.electrons + problem.background * pixels  # of a pattern
        self.depth_width = depth_width(problem)
        self.background = BackgroundBlock(like, s.misfit) if s.background else None
        if self.background is not None and problem.background:
            self.background.value = problem.background
        self.pixels = PixelBlock(like.probe.clone(), s.misfit, grid_window(problem))
        low, high = (torch.from_numpy(b) for b in problem.position_bounds())
        self.positions = PositionsBlock(
            like.positions.clone(), (low, high), s.positions, s.misfit, self.held
        )
        tilts = self.held and s.tilt and like.model.slices > 1
        self.tilt = TiltBlock(like.tilt, problem.slice_thickness) if tilts else None
        # a volume that is held was made with the former microscope, and would speak for it
        share = 0.0 if self.held else s.held_out
        self.evidence = Evidence(like, self.noise, share, self.rng, run.control)
        # next to nothing in the modes that were not told, which pixels may make more of
        self.told_probe = with_modes(problem.probe, len(probe), share=1e-4).to(like.probe)
        self.step, self.told = 0, False
        self.held_out: float | None = None
        self.fitted_probe = self.told_probe if self.optics is None else self.pixels.probe
        # how well pixels that were put back knew the optics
        self.given_up: dict[str, float] | None = None
        if run.state is not None:
            self._load(run.state)

    # ---- a pass ------------------------------------------------------------------------------
    def advance(self) -> Frame:
        """One pass over all positions that are used."""
        s, off = self.run.settings, self.evidence.off
        self.step += 1
        rate = self._rate()
        free = s.probe == "free" and self.step > s.probe_start
        of_pixels = free and "pixels" not in off
        of_optics = self._fits_optics(free)
        moving = self._moves()
        dark = self.background if "background" not in off else None
        if dark is not None:
            dark.apply(self.like)
            self._share_electrons()
        self._place()
        self.volume.renew(self.like)
        slopes = torch.zeros_like(self.positions.home)
        size, cost = (
            self.volume.pace(s.volume_step) * rate,
            penalty(self.run.problem, s.inner_potential),
        )
        used = self.evidence.used
        order, losses = used[self.rng.permutation(len(used))], []
        for i in range(0, len(order), s.batch):
            batch = order[i : i + s.batch]
            g = self.like.gradients(
                self.volume.x,
                batch,
                volume_gradient=not self.held,
                probe=of_pixels or of_optics,
                positions=moving,
                gaps=self.tilt is not None,
                detector=dark is not None,
            )
            losses.append(g.loss / len(batch) / self.noise)
            if g.volume is not None:
                self.volume.step(g.volume, self.like, batch, size, cost, s.non_negative)
            if g.probe is not None:
                self._step_probe(g.probe, len(batch), of_optics, s.probe_step * rate)
            if self.tilt is not None:
                assert g.tilt is not None
                self.tilt.step(g.tilt, self._left(), self.like)
            if dark is not None:
                assert g.background is not None
                dark.step(g.background, len(batch))
                dark.apply(self.like)
                self._share_electrons()
            if g.positions is not None:
                slopes[torch.as_tensor(batch)] = g.positions
        if not self.held:
            self.volume.smooth_depth(s.depth_smoothing, self.depth_width)
        loss = float(np.mean(losses))
        if moving:
            mapped = "scan" not in off
            at, power, pace = torch.from_numpy(used), self._slope(), s.position_step * rate
            self.positions.step(slopes, at, power, pace, loss, mapped)
            self._place()
        upright = s.tilt and not self.held and rate == 1.0
        if upright and self.step > FORMING and self.step % 2 == 0:
            problem = self.run.problem
            pixel = (problem.voxel_size[1], problem.voxel_size[2])
            thick = problem.slice_thickness
            set_upright(self.volume, self.like, thick, pixel, s.non_negative)
        self.volume.heed(loss)
        self._weigh(of_optics, of_pixels, moving)
        self.held_out = self._judged()
        if moving and self.step == s.iterations:
            self._settle(loss)
        self.run.keep(keeper(self.step, self.run, **self._state()))
        return frame(self.run, self.step, s.iterations, self.volume.x, loss, self._info())

    def _step_probe(self, gradient: Tensor, count: int, of_optics: bool, size: float) -> None:
        if of_optics:
            assert self.optics is not None
            self.optics.step(gradient, self._left())
            self.pixels.probe = self.optics.probe().to(self.like.device)
        else:
            self.pixels.step(gradient, count, size)
        self.like.set_probe(self.pixels.probe)

    def _fits_optics(self, free: bool) -> bool:
        fixed = self.run.settings.probe == "fixed"
        return self.optics is not None and not (fixed or free or "optics" in self.evidence.off)

    def _moves(self) -> bool:
        s = self.run.settings
        return s.positions != "fixed" and self.step > s.position_start

    def _optics_passes(self) -> int:
        s = self.run.settings
        return s.probe_start if s.probe == "free" else s.iterations

    def _left(self) -> float:
        """What is left of the passes of the parameters, as their steps shrink with it."""
        return max(0.1, 1 - (self.step - 1) / max(1, self._optics_passes()))

    def _rate(self) -> float:
        done = (self.step - 1) / self.run.settings.iterations
        return max(_FLOOR, min(1.0, (1 - done) / _FALL))

    def _slope(self) -> Tensor:
        pixel = (self.run.problem.voxel_size[1], self.run.problem.voxel_size[2])
        return slope_power(self.pixels.probe, pixel)

    def _place(self) -> None:
        places = self.positions.places(self.run.settings.max_shift)
        self.like.set_positions(places)
        if self.positions.held and not self.told:
            self.told = True
            self.run.control.notes.append(f"step {self.step}: {AT_THE_RIM}")

    def _share_electrons(self) -> None:
        """Counts of the background are not of the probe: the sum of both is known."""
        pixels = self.pixels.probe[0].numel()
        power = self.counts - self.like.detector.background * pixels
        power = max(power, 0.1 * self.counts)
        self.pixels.power = power
        if self.optics is not None:
            self.optics.electrons = power
        probe = self.pixels.probe
        self.pixels.probe = probe * (power / float(probe.abs().square().sum())) ** 0.5
        self.like.set_probe(self.pixels.probe)

    # ---- evidence ----------------------------------------------------------------------------
    def _judged(self) -> float | None:
        return self.evidence.misfit(self.volume.x)

    def _weigh(self, of_optics: bool, of_pixels: bool, moving: bool) -> None:
        """What was moved for a while and does not help positions that had no say is put back."""
        s, evidence = self.run.settings, self.evidence
        last = self.step == s.iterations
        if len(evidence.judges) == 0:
            return
        if of_optics and (last or self.step == self._optics_passes()):
            self._weigh_probe("optics", "aberrations and source size are as told", self.told_probe)
            self.fitted_probe = self.pixels.probe
        if of_pixels and (last or self.step == s.probe_start + TRIAL):
            was = self.fitted_probe
            self._weigh_probe("pixels", "the probe is what its optics make it", was)
        if (
            moving
            and "scan" not in evidence.off
            and (last or self.step == s.position_start + TRIAL)
        ):
            found, now = self.positions.map, self._judged()
            self.positions.map = torch.zeros_like(found)
            self._place()
            verdict = "scale, shear and rotation of the scan are as told"
            if not evidence.speaks_against("scan", verdict, self.step, now, self._judged()):
                self.positions.map = found
                self._place()

    def _weigh_probe(self, name: str, verdict: str, other: Tensor) -> None:
        now = self._judged()
        self.like.set_probe(other)
        if self.evidence.speaks_against(name, verdict, self.step, now, self._judged()):
            if name == "pixels":
                self.given_up = self._read(ordered(self.pixels.probe).cpu()).errors
            self.pixels.probe = other.clone()
        self.like.set_probe(self.pixels.probe)

    def _settle(self, misfit: float) -> None:
        """Nothing is left to be judged: positions held out get shifts of their own."""
        judges, s = self.evidence.judges, self.run.settings
        if len(judges) == 0 or s.positions != "free":
            return
        block, at = self.positions, torch.from_numpy(judges)

        def gradient(shift: Tensor) -> Tensor:
            block.free[at] = shift
            self._place()
            g = self.like.gradients(self.volume.x, judges, volume_gradient=False, positions=True)
            assert g.positions is not None
            return g.positions

        power, spread = self._slope() * block.stiffness, block.found_spread(self.evidence.used)
        nats = NATS[s.misfit] / max(1.0, misfit)
        block.free[at] = settled(gradient, block.free[at].clone(), power, spread, nats)
        self._place()

    # ---- what is seen of it ------------------------------------------------------------------
    def _info(self) -> RefineInfo:
        probe = ordered(self.pixels.probe).cpu()
        read = self._read(probe)
        # of a probe that its optics made, only pixels beside it say how well they are known
        errors = read.errors if self.held or self.pixels.velocity.abs().any() else {}
        if self.given_up is not None:
            errors = self.given_up
        return RefineInfo(
            optics=read.optics,
            source_size=read.source_size,
            errors=errors,
            probe=probe.numpy(),
            positions=self.like.positions.numpy().copy(),
            held_out=self.held_out,
            tilt=self.like.tilt,
            background=self.like.detector.background,
            moved=float((self.like.positions - self.positions.home).square().sum(1).mean().sqrt()),
        )

    def _read(self, probe: Tensor) -> Reading:
        problem = self.run.problem
        if problem.told is None:
            return Reading()
        near = problem.told if self.optics is None else self.optics.light.optics
        alone = None
        if self.optics is not None and "optics" not in self.evidence.off:
            # the pixels of an earlier run, or those of this one, are another reading
            alone = self.begun if self.held else self.optics.light
        size, thick = problem.voxel_size, 2 * problem.plane
        read = read_probe(probe, near, (size[1], size[2])).beside(alone, thick)
        return read.at_entrance(problem.plane - DEFAULT_THICKNESS / 2)

    # ---- state -------------------------------------------------------------------------------
    def _parts(self) -> dict[str, Any]:
        parts = {"volume": self.volume, "pixels": self.pixels, "positions": self.positions}
        more = {"optics": self.optics, "background": self.background, "angle": self.tilt}
        return {**parts, **{name: part for name, part in more.items() if part is not None}}

    def _state(self) -> dict[str, Any]:
        own = {f"{p}.{k}": v for p, part in self._parts().items() for k, v in part.state().items()}
        mine: dict[str, Any] = {"tilt": self.like.tilt}
        mine |= {"told": self.told, "off": sorted(self.evidence.off), "fitted": self.fitted_probe}
        mine |= {"given_up": self.given_up, "held_out": self.held_out}
        return {**own, **mine, "x": self.volume.x, "rng": pack(self.rng)}

    def _load(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load({k.split(".")[1]: v for k, v in state.items() if k.startswith(name + ".")})
        self.step, self.told = int(state["step"]), bool(state["told"])
        self.evidence.off = set(state["off"])
        self.fitted_probe = state["fitted"].to(self.like.probe)
        self.given_up, self.held_out = state.get("given_up"), state.get("held_out")
        self.rng.bit_generator.state = unpack(state["rng"])
        self.like.set_probe(self.pixels.probe)
        self.like.set_gaps(tilt=state["tilt"])
        if self.background is not None:
            self.background.apply(self.like)
        self._place()
