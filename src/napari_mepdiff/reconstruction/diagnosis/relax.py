"""The volume let go on for a while, alone and together with the microscope.

A volume that was found with a wrong microscope has adapted to it, so that small changes of the
microscope alone hardly help. The difference between the two goes says what the microscope is to
blame for; and at the volume that formed beside a free microscope, the old one shows its errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...physics.aberrations import aberration_basis
from ...physics.light import light_on_canvas
from ...physics.likelihood import Likelihood
from ...physics.optics import Optics, frequencies
from .changes import ABERRATIONS, Changes

Report = Callable[[float], None]
ROUNDS = 12
_DAMPING = 0.1
_SHIFT = 0.03  # Å: what a position's error is like, beside what its pattern says


@dataclass(frozen=True, eq=False)
class Gone:
    """Where a volume went.

    Attributes
    ----------
    start, alone, together : float
        Misfit (Poisson, summed) at the start, with the volume let go on alone, and with the
        microscope.
    volume : Tensor
        (D, H, W), rad, as it formed beside a free microscope.
    spectrum, places, tilt
        That microscope: of the probe, (M, Ky, Kx); (N, 2) in Å; (y, x) in mrad.
    """

    start: float
    alone: float
    together: float
    volume: Tensor
    spectrum: Tensor
    places: Tensor
    tilt: tuple[float, float]

    @property
    def microscope(self) -> float:
        """By how much the misfit falls farther with a free microscope, less what chance brings."""
        chance = 0.5 * (2 * len(self.places) + len(ABERRATIONS) + 2)
        return self.alone - self.together - 2 * chance


def go_on(like: Likelihood, volume: Tensor, changes: Changes, report: Report) -> Gone:
    """Let a volume go on for a few rounds, alone and with the microscope.

    Parameters
    ----------
    like : Likelihood
        Of neighbouring positions; its microscope is put back at the end.
    volume : Tensor
        (D, H, W), rad.
    changes : Changes
        For the optics and the steps of the aberrations.
    report : callable
        Told the fraction done; may raise.
    """
    alone = _Descent(like, volume, None)
    start, end, _ = alone.run(lambda f: report(0.5 * f))
    together = _Descent(like, volume, changes)
    try:
        _, least, found = together.run(lambda f: report(0.5 + 0.5 * f))
        microscope = (like.spectrum.clone(), like.positions.clone(), like.tilt)
    finally:
        together.put_back()
    return Gone(start, end, least, found, *microscope)


class _Descent:
    """L-BFGS over phases, and over aberrations, positions and tilt where they are free.

    All of them are counted in units in which the misfit has a curvature of about 1.
    """

    def __init__(self, like: Likelihood, volume: Tensor, changes: Changes | None) -> None:
        self.like, self.changes, self.start = like, changes, volume.double().cpu()
        light = light_on_canvas(like)
        curvature = 2 * len(volume) * (light + _DAMPING * light.max())
        self.unit = (1 / curvature.sqrt()).cpu().double().expand(volume.shape)
        self.spectrum, self.places = like.spectrum.clone(), like.positions.clone()
        self.tilt = like.tilt
        self.parts = [volume.numel()]
        if changes is None:
            return
        optics: Optics = changes.light.optics
        ky, kx = frequencies(like.model.windows.window, like.pixel_size)
        basis = aberration_basis(ABERRATIONS, optics.wavelength, ky, kx)
        steps = torch.tensor([changes.steps[n] for n in ABERRATIONS], dtype=torch.float64)
        self.phases = (basis * steps[:, None, None]).to(like.device)
        power = self.spectrum.abs().square().sum(dim=0).double() / self.spectrum[0].numel()
        # of Σ(√I − √n)², per electron, about its mean over the aperture
        turn = (self.phases.square() * power).sum(dim=(1, 2)).cpu()
        mean = (self.phases * power).sum(dim=(1, 2)).cpu()
        turn = turn - mean.square() / float(power.sum())
        self.step = 1 / (2 * like.count * turn).clamp_min(1e-12).sqrt()
        fy, fx = (2 * np.pi * f.to(power) for f in (ky, kx))
        slope = torch.stack([(power * f.square()).sum() for f in (fy, fx)]).cpu()
        self.shift = 1 / (2 * slope + 1 / _SHIFT**2).sqrt()
        self.parts += [len(ABERRATIONS), 2 * like.count]
        self.lean = 0.0
        if like.model.slices > 1:
            total = sum(like.thickness)
            self.lean = float(1e3 / (2 * like.count * float(slope.mean()) * total**2) ** 0.5)
            self.parts.append(2)

    def run(self, report: Report) -> tuple[float, float, Tensor]:
        """Misfit before and after, and the volume."""
        from scipy.optimize import minimize

        done = 0

        def evaluate(z: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            nonlocal done
            done += 1
            report(min(1.0, done / (1.3 * ROUNDS)))
            return self._evaluate(z)

        z = np.zeros(sum(self.parts))
        before, _ = self._evaluate(z)
        found = minimize(
            evaluate,
            z,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ROUNDS, "maxfun": round(1.5 * ROUNDS), "maxcor": 8},
        )
        least, _ = self._evaluate(found.x)  # and leave the microscope there
        return before, least, self._volume(found.x).float()

    def _volume(self, z: NDArray[np.float64]) -> Tensor:
        part = torch.from_numpy(z[: self.parts[0]]).reshape(self.start.shape)
        return self.start + part * self.unit

    def _evaluate(self, z: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        like, x = self.like, self._volume(z)
        if self.changes is None:
            g = like.gradients(x.to(like.device))
            assert g.volume is not None
            return g.loss, (g.volume.cpu().double() * self.unit).flatten().numpy()
        pieces = np.split(z, np.cumsum(self.parts)[:-1])
        turned = torch.from_numpy(pieces[1]) * self.step
        phase = torch.tensordot(turned.to(like.device), self.phases, dims=1)
        like.spectrum = self.spectrum * torch.exp(-1j * phase).to(self.spectrum)
        moved = torch.from_numpy(pieces[2]).reshape(-1, 2) * self.shift
        # positions at the rim of a canvas have no room: the probe is moved there by none
        like.set_positions(self._inside(self.places + moved))
        if self.lean:
            y, x_ = (t + float(d) * self.lean for t, d in zip(self.tilt, pieces[3], strict=True))
            like.set_gaps(tilt=(y, x_))
        g = like.gradients(x.to(like.device), probe=True, positions=True, gaps=bool(self.lean))
        assert g.volume is not None
        assert g.probe is not None
        assert g.positions is not None
        spectrum = torch.fft.fft2(g.probe.to(like.spectrum))
        pull = (spectrum.conj() * (-1j * like.spectrum)).real.sum(dim=0).double()
        of_turn = (self.phases * pull).sum(dim=(1, 2)).cpu() / spectrum[0].numel() * self.step
        out = [
            (g.volume.cpu().double() * self.unit).flatten(),
            of_turn,
            (g.positions * self.shift).flatten(),
        ]
        if self.lean:
            assert g.tilt is not None
            out.append(g.tilt * self.lean)
        return g.loss, torch.cat(out).numpy()

    def _inside(self, places: Tensor) -> Tensor:
        """Not off the canvas."""
        if self.like.model.windows.boundary == "periodic":
            return places
        pixel = torch.tensor(self.like.pixel_size, dtype=torch.float64)
        window = torch.tensor(self.like.model.windows.window)
        canvas = torch.tensor(self.like.model.windows.canvas)
        low = (window // 2 - 0.49) * pixel
        high = (canvas - window + window // 2 + 0.49) * pixel
        return torch.minimum(torch.maximum(places, low), high)

    def put_back(self) -> None:
        """The microscope as it was."""
        self.like.spectrum = self.spectrum
        self.like.set_positions(self.places)
        if self.lean:
            self.like.set_gaps(tilt=self.tilt)
