"""One pass of a refinement after another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...physics.illumination import Illumination
from ...physics.likelihood import Likelihood
from ...physics.misfit import shot_noise
from ...physics.optics import interaction_parameter, wavelength
from ..assumptions import DEFAULT_THICKNESS
from ..frame import Frame, RefineInfo
from ..run import Run
from .detector_block import BackgroundBlock
from .lean import lean_of, upright
from .positions_block import PositionsBlock, slope_power
from .probe_block import OpticsBlock, PixelBlock, ordered, with_modes
from .reading import Reading, read_probe
from .refine_settings import RefineSettings
from .steps import frame, keeper, pack, start_volume, unpack
from .volume_block import VolumeBlock

SOURCE = 0.2  # Å, rms: what a source is taken for before anything is known
SOFT_EDGE = 0.6  # mrad: likewise, of an aperture as it is sampled
AT_THE_RIM = (
    "some positions want to move farther than the largest shift, or beyond the field, and are held "
    "there; a new run with a larger one makes room for them"
)
FEWEST = 8  # positions held out, of which an average says anything
TRIAL = 3  # passes after which what was set free is judged
FORMING = 3  # passes in which nothing but volume and optics move
THIN = 20.0  # Å: a lean of so little cannot be seen
_LEAST_LEAN = 0.1  # mrad
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
        self.rng = np.random.default_rng(s.seed)
        probe, self.optics = self._probe(problem.electrons)
        like = problem.likelihood(s.misfit, memory=s.memory, probe=probe)
        assert isinstance(like, Likelihood)
        like.poll = run.control.breathe
        self.like, self.noise = like, shot_noise(like, s.misfit)
        width = s.narrowest / problem.voxel_size[2]
        self.volume = VolumeBlock(start_volume(run, like), s.misfit, width)
        pixels = problem.probe[0].numel()
        self.counts = problem.electrons + problem.background * pixels  # of a pattern
        self.depth_width = self._depth_width()
        self.background = BackgroundBlock(like, s.misfit) if s.background else None
        if self.background is not None and problem.background:
            self.background.value = problem.background
        self.pixels = PixelBlock(like.probe.clone(), s.misfit)
        low, high = (torch.from_numpy(b) for b in problem.position_bounds())
        freedom = s.positions
        self.positions = PositionsBlock(like.positions.clone(), (low, high), freedom, s.misfit)
        count = round(s.held_out * like.count)
        count = count if count >= FEWEST else 0
        self.judges = np.sort(self.rng.permutation(like.count)[:count])
        self.used = np.setdiff1d(np.arange(like.count), self.judges)
        self.told_probe = with_modes(problem.probe, len(probe), share=0.0).to(like.probe)
        self.step, self.told = 0, False
        self.off: set[str] = set()
        self.fitted_probe = self.told_probe if self.optics is None else self.pixels.probe
        # how well pixels that were put back knew the optics
        self.given_up: dict[str, float] | None = None
        if run.state is not None:
            self._load(run.state)

    def _probe(self, electrons: float) -> tuple[Tensor, OpticsBlock | None]:
        """The probe to begin with, and its parameters where it is made of such."""
        problem, s = self.run.problem, self.run.settings
        if problem.optics is None or s.probe == "fixed":
            wanted = len(problem.probe) if s.probe == "fixed" else s.modes
            return with_modes(problem.probe, wanted), None
        optics = problem.optics
        if not optics.soft_edge:
            optics = optics.model_copy(update={"soft_edge": SOFT_EDGE})
        window = (problem.probe.shape[1], problem.probe.shape[2])
        size = (problem.voxel_size[1], problem.voxel_size[2])
        source = SOURCE if s.modes > 1 else 0.0
        light = Illumination(optics, source, 0.0, s.modes, window, size)
        block = OpticsBlock(light, electrons)
        return block.probe(), block

    def _depth_width(self) -> float:
        """A tenth of the depth resolution λ/α² in slices: finer than data can tell."""
        problem = self.run.problem
        _, dy, dx = problem.voxel_size
        spread = slope_power(problem.probe, (dy, dx)).sum() / (4 * math.pi**2 * problem.electrons)
        k_max = math.sqrt(2 * float(spread))  # of an evenly lit aperture
        resolution = 1 / (wavelength(problem.energy) * k_max**2)
        return max(0.3, 0.1 * resolution / problem.voxel_size[0])

    def _penalty(self) -> float:
        """Nats per rad: phases are spread exponentially about what the mean inner potential makes.

        Maximum entropy for what is not negative and has that mean; atoms stand out against it.
        """
        potential, problem = self.run.settings.inner_potential, self.run.problem
        if potential == 0:
            return 0.0
        phase = interaction_parameter(problem.energy) * potential * problem.voxel_size[0]
        return 1 / phase

    # ---- a pass ------------------------------------------------------------------------------
    def advance(self) -> Frame:
        """One pass over all positions that are used."""
        s = self.run.settings
        self.step += 1
        rate = self._rate()
        free = s.probe == "free" and self.step > s.probe_start
        of_pixels = free and "pixels" not in self.off
        of_optics = self._fits_optics(free)
        moving = self._moves()
        dark = self.background if "background" not in self.off else None
        if dark is not None:
            dark.apply(self.like)
            self._share_electrons()
        self._place()
        self.volume.renew(self.like)
        slopes = torch.zeros_like(self.positions.home)
        size, penalty = s.volume_step * rate, self._penalty()
        order, losses = self.used[self.rng.permutation(len(self.used))], []
        for i in range(0, len(order), s.batch):
            batch = order[i : i + s.batch]
            g = self.like.gradients(
                self.volume.x,
                batch,
                probe=of_pixels or of_optics,
                positions=moving,
                detector=dark is not None,
            )
            assert g.volume is not None
            losses.append(g.loss / len(batch) / self.noise)
            self.volume.step(g.volume, self.like, batch, size, penalty, s.non_negative)
            if of_optics:
                assert self.optics is not None
                assert g.probe is not None
                left = 1 - (self.step - 1) / max(1, self._optics_passes())
                self.optics.step(g.probe, max(0.1, left))
                self.pixels.probe = self.optics.probe().to(self.like.device)
            elif of_pixels:
                assert g.probe is not None
                self.pixels.step(g.probe, len(batch), s.probe_step * rate)
            if of_optics or of_pixels:
                self.like.set_probe(self.pixels.probe)
            if dark is not None:
                assert g.background is not None
                dark.step(g.background, len(batch))
                dark.apply(self.like)
                self._share_electrons()
            if g.positions is not None:
                slopes[torch.as_tensor(batch)] = g.positions
        self.volume.smooth_depth(s.depth_smoothing, self.depth_width)
        loss = float(np.mean(losses))
        if moving:
            used = torch.from_numpy(self.used)
            pixel = (self.run.problem.voxel_size[1], self.run.problem.voxel_size[2])
            power = slope_power(self.pixels.probe, pixel)
            affine = "scan" not in self.off
            self.positions.step(slopes, used, power, s.position_step * rate, loss, affine)
            self._place()
        if s.tilt and self.step > FORMING and self.step % 2 == 0 and rate == 1.0:
            self._set_upright()
        self._weigh(of_optics, of_pixels, moving)
        self.run.keep(keeper(self.step, self.run, **self._state()))
        return frame(self.run, self.step, s.iterations, self.volume.x, loss, self._info())

    def _fits_optics(self, free: bool) -> bool:
        fixed = self.run.settings.probe == "fixed"
        return self.optics is not None and not (fixed or free or "optics" in self.off)

    def _moves(self) -> bool:
        s = self.run.settings
        return s.positions != "fixed" and self.step > s.position_start

    def _optics_passes(self) -> int:
        s = self.run.settings
        return s.probe_start if s.probe == "free" else s.iterations

    def _rate(self) -> float:
        done = (self.step - 1) / self.run.settings.iterations
        return max(_FLOOR, min(1.0, (1 - done) / _FALL))

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

    def _set_upright(self) -> None:
        """What leans in the volume is the beam's tilt."""
        thickness = self.run.problem.slice_thickness
        if sum(thickness[:-1]) < THIN:
            return
        depth = torch.tensor([0.0, *thickness[:-1]]).cumsum(0)
        _, dy, dx = self.run.problem.voxel_size
        lit = self.volume.light > 0.1 * self.volume.light.max()
        lean = lean_of(self.volume.x * lit, depth, (dy, dx))
        if max(map(abs, lean)) < _LEAST_LEAN:
            return
        tilt = self.like.tilt
        self.like.set_gaps(tilt=(tilt[0] - lean[0], tilt[1] - lean[1]))
        sources = upright(self.volume.sources, depth, (dy, dx), lean)
        self.volume.put(sources, self.run.settings.non_negative)
        self.volume.velocity = upright(self.volume.velocity, depth, (dy, dx), lean)

    # ---- evidence ----------------------------------------------------------------------------
    def _weigh(self, of_optics: bool, of_pixels: bool, moving: bool) -> None:
        """What was moved for a while and does not help positions that had no say is put back."""
        s = self.run.settings
        last = self.step == s.iterations
        if len(self.judges) == 0:
            return
        if of_optics and (last or self.step == self._optics_passes()):
            self._weigh_probe("optics", "aberrations and source size are as told", self.told_probe)
            self.fitted_probe = self.pixels.probe
        if of_pixels and (last or self.step == s.probe_start + TRIAL):
            was = self.fitted_probe
            self._weigh_probe("pixels", "the probe is what its optics make it", was)
        if moving and "scan" not in self.off and (last or self.step == s.position_start + TRIAL):
            found, now = self.positions.affine, self.judged()
            self.positions.affine = torch.zeros_like(found)
            self._place()
            if self._better(self.judged(), now):
                self.off.add("scan")
                self._say("scale, shear and rotation of the scan are as told", now)
            else:
                self.positions.affine = found
                self._place()

    def _weigh_probe(self, name: str, verdict: str, other: Tensor) -> None:
        now = self.judged()
        self.like.set_probe(other)
        if self._better(self.judged(), now):
            self.off.add(name)
            self._say(verdict, now)
            if name == "pixels":
                self.given_up = self._read(ordered(self.pixels.probe).cpu()).errors
            self.pixels.probe = other.clone()
        self.like.set_probe(self.pixels.probe)

    @staticmethod
    def _better(other: float | None, now: float | None) -> bool:
        return other is not None and now is not None and other <= now

    def _say(self, verdict: str, now: float | None) -> None:
        self.run.control.notes.append(
            f"step {self.step}: {verdict}: what was found instead did not lower the misfit of "
            f"positions held out of the fit ({self.judged():.4g} now, {now:.4g} with it)"
        )

    def judged(self) -> float | None:
        """Misfit over shot noise of the positions that are held out."""
        if len(self.judges) == 0:
            return None
        return self.like.loss(self.volume.x, self.judges) / len(self.judges) / self.noise

    def _info(self) -> RefineInfo:
        probe = ordered(self.pixels.probe).cpu()
        read = self._read(probe)
        # of a probe that its optics made, only pixels beside it say how well they are known
        errors = read.errors if self.pixels.velocity.abs().any() else {}
        if self.given_up is not None:
            errors = self.given_up
        return RefineInfo(
            optics=read.optics,
            source_size=read.source_size,
            errors=errors,
            probe=probe.numpy(),
            positions=self.like.positions.numpy().copy(),
            held_out=self.judged(),
            tilt=self.like.tilt,
            background=self.like.detector.background,
            moved=float((self.like.positions - self.positions.home).square().sum(1).mean().sqrt()),
        )

    def _read(self, probe: Tensor) -> Reading:
        problem = self.run.problem
        if problem.told is None:
            return Reading()
        near = problem.told if self.optics is None else self.optics.light.optics
        alone = None if self.optics is None or "optics" in self.off else self.optics.light
        size, thick = problem.voxel_size, 2 * problem.plane
        read = read_probe(probe, near, (size[1], size[2])).beside(alone, thick)
        return read.at_entrance(problem.plane - DEFAULT_THICKNESS / 2)

    # ---- state -------------------------------------------------------------------------------
    def _parts(self) -> dict[str, Any]:
        parts = {"volume": self.volume, "pixels": self.pixels, "positions": self.positions}
        more = {"optics": self.optics, "background": self.background}
        return {**parts, **{name: part for name, part in more.items() if part is not None}}

    def _state(self) -> dict[str, Any]:
        own = {f"{p}.{k}": v for p, part in self._parts().items() for k, v in part.state().items()}
        mine: dict[str, Any] = {"tilt": self.like.tilt}
        mine |= {"told": self.told, "off": sorted(self.off), "fitted": self.fitted_probe}
        mine["given_up"] = self.given_up
        return {**own, **mine, "x": self.volume.x, "rng": pack(self.rng)}

    def _load(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load({k.split(".")[1]: v for k, v in state.items() if k.startswith(name + ".")})
        self.step, self.told = int(state["step"]), bool(state["told"])
        self.off, self.fitted_probe = set(state["off"]), state["fitted"].to(self.like.probe)
        self.given_up = state.get("given_up")
        self.rng.bit_generator.state = unpack(state["rng"])
        self.like.set_probe(self.pixels.probe)
        self.like.set_gaps(tilt=state["tilt"])
        if self.background is not None:
            self.background.apply(self.like)
        self._place()
