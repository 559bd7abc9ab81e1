"""What small changes of the microscope do to the patterns: one column of a least-squares fit each.

A column is the change of the patterns by one *step* of its quantity (differences of model patterns,
central where that has a meaning). The coefficient that a fit gives it is the error in such steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...physics.aberrations import aberration_basis, natural_unit
from ...physics.detector import Detector
from ...physics.optics import Optics, frequencies, probe_from_parameters
from .model import Modelled, Stack

ABERRATIONS = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b", "C30")
LOCAL = ("y", "x", "current")  # one of each for every position
SHIFT = 0.04  # Å
BLUR = 0.5  # detector pixels, rms: with less, nothing leaves a pixel
THICKER = 0.03
_RADIANS = 0.1  # at the edge of the aperture: step of an aberration
_LEAN = 0.05  # Å from the first slice to the last: step of the tilt


@dataclass(frozen=True)
class Light:
    """What is known of the illumination.

    Attributes
    ----------
    optics : Optics
        At least energy and semi-angle are right, or read off the probe.
    made : bool
        Whether the probe was made from them: its aperture can then be changed.
    """

    optics: Optics
    made: bool


@dataclass
class Changes:
    """The columns of one problem.

    Attributes
    ----------
    model : Modelled
    light : Light
    volume : Tensor or None
        A step of the volume (D, H, W) that a solver would do next, rad.
    probe : Tensor or None
        A step of the probe's pixels, as a spectrum (M, Ky, Kx).
    steps : dict
        How large one step is, by column, in its unit (Å, mrad, px).
    """

    model: Modelled
    light: Light
    volume: Tensor | None = None
    probe: Tensor | None = None
    steps: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.told = self.light.optics
        like, optics = self.model.like, self.light.optics
        window = like.model.windows.window
        size = like.pixel_size
        ky, kx = frequencies(window, size)
        dy, dx = (1e3 * optics.wavelength / (n * p) for n, p in zip(window, size, strict=True))
        self.pixel_mrad = (dy, dx)
        basis = aberration_basis(ABERRATIONS, optics.wavelength, ky, kx)
        self._turns: dict[str, Tensor] = {}
        for name, part in zip(ABERRATIONS, basis, strict=True):
            unit = natural_unit(name[:3], optics.semi_angle, optics.wavelength)
            self.steps[name] = _RADIANS * unit
            turn = torch.exp(-1j * self.steps[name] * part)
            self._turns[name] = turn.to(self.model.spectrum)
        self._edges = self._apertures() if self.light.made else {}
        self._deep = like.model.slices > 1
        total = sum(like.thickness) if self._deep else 0.0
        self._tilt = min(1e3 * _LEAN / total, 5.0) if self._deep else 0.0  # mrad
        self._detector = Detector(blur=BLUR)
        self.steps |= {"y": SHIFT, "x": SHIFT, "tilt_y": self._tilt, "tilt_x": self._tilt}
        self.steps |= {"blur": BLUR, "thickness": THICKER, "background": 1.0, "electrons": 1.0}
        self.steps |= {"centre_y": 1.0, "centre_x": 1.0, "source": SHIFT, "current": 1.0}
        self.steps["focal_spread"] = self.steps["C10"]
        self.steps |= dict.fromkeys(("yy", "yx", "xy", "xx"), SHIFT)  # Å in each Å

    def turn(self, name: str) -> Tensor:
        """Factor (Ky, Kx) of the spectrum for one step of an aberration."""
        return self._turns[name]

    def refocus(self, steps: float) -> None:
        """Go on with the model at another focus, so many steps of C10 away."""
        optics = self.light.optics
        self.model.like.spectrum = self.model.spectrum * self._turns["C10"] ** steps
        focus = optics.overfocus + steps * self.steps["C10"]
        self.light = replace(self.light, optics=optics.model_copy(update={"overfocus": focus}))
        self._edges = self._apertures() if self.light.made else {}

    def _apertures(self) -> dict[str, Tensor]:
        """Spectra of the probe with another aperture."""
        like, optics = self.model.like, self.light.optics
        pixel = max(self.pixel_mrad)
        modes = len(like.probe)
        norm = float(like.probe.abs().square().sum()) ** 0.5
        out = {}
        for name, change in (
            ("soft_edge", {"soft_edge": optics.soft_edge + pixel}),
            ("wider", {"semi_angle": optics.semi_angle + 0.5 * pixel}),
            ("narrower", {"semi_angle": optics.semi_angle - 0.5 * pixel}),
        ):
            self.steps[name] = pixel if name == "soft_edge" else 0.5 * pixel
            try:
                changed = Optics.model_validate({**optics.model_dump(), **change})
                wave = probe_from_parameters(
                    changed, like.model.windows.window, like.pixel_size, modes=modes
                )
            except ValueError:  # no such aperture on this detector
                continue
            spectrum = torch.fft.fft2((wave * norm).to(like.probe))
            out[name] = spectrum
        return out

    @property
    def wide(self) -> tuple[str, ...]:
        """Names of the columns that all positions share, in the order of :meth:`columns`."""
        names = [*ABERRATIONS, "focal_spread", "source", *self._edges]
        if self._deep:
            names += ["tilt_y", "tilt_x", "thickness"]
        names += ["background", "blur", "centre_y", "centre_x"]
        names += ["volume"] * (self.volume is not None) + ["probe"] * (self.probe is not None)
        return tuple(names)

    def columns(self, index: NDArray[np.int64], base: Stack) -> Iterator[tuple[str, Stack]]:
        """Change (B, Ky, Kx) of the patterns of some positions by a step of each quantity.

        Those of :attr:`wide`, then those of :data:`LOCAL`.
        """
        model = self.model
        for name, turn in self._turns.items():
            up = model.patterns(index, model.spectrum * turn)
            down = model.patterns(index, model.spectrum * turn.conj())
            yield name, (up - down) / 2
            if name == "C10":
                spread = (up + down) / 2 - base
        yield "focal_spread", spread
        slopes, source = [], -2 * base
        for shift in ((SHIFT, 0.0), (0.0, SHIFT)):
            up = model.patterns(index, model.shifted(shift))
            down = model.patterns(index, model.shifted((-shift[0], -shift[1])))
            slopes.append((up - down) / 2)
            source += (up + down) / 2
        yield "source", source
        for name, spectrum in self._edges.items():
            yield name, model.patterns(index, spectrum) - base
        if self._deep:
            y, x = model.like.tilt
            t = self._tilt
            for name, a, b in (
                ("tilt_y", (y + t, x), (y - t, x)),
                ("tilt_x", (y, x + t), (y, x - t)),
            ):
                yield name, (model.tilted(index, a) - model.tilted(index, b)) / 2
            thick, thin = (model.thicker(index, 1 + f) for f in (THICKER, -THICKER))
            yield "thickness", (thick - thin) / 2
        yield "background", np.ones_like(base)
        yield "blur", self._blurred(base) - base
        for name, axis in (("centre_y", 1), ("centre_x", 2)):
            yield name, (np.roll(base, 1, axis) - np.roll(base, -1, axis)) / 2
        if self.volume is not None:
            yield (
                "volume",
                model.of_other(model.volume + self.volume.to(model.volume), index) - base,
            )
        if self.probe is not None:
            yield "probe", model.patterns(index, model.spectrum + self.probe) - base
        yield from zip(LOCAL, (*slopes, base - self._dark), strict=True)

    @property
    def _dark(self) -> float:
        like = self.model.like
        return like.background + like.detector.background

    def _blurred(self, base: Stack) -> Stack:
        # the kernel is symmetric and wraps: where DC lies makes no difference
        return self._detector.spread(torch.from_numpy(base)).numpy()


def illumination_of(
    optics: Optics | None,
    told: Optics | None,
    probe: Tensor,
    energy: float,
    size: tuple[float, float],
) -> Light:
    """What is known of a probe, read off its spectrum where nothing was told."""
    if optics is not None:
        return Light(optics, True)
    if told is not None:
        return Light(told, False)
    power = torch.fft.fft2(probe).abs().square().sum(dim=0)
    ky, kx = frequencies((probe.shape[-2], probe.shape[-1]), size)
    square = (ky * ky + kx * kx).to(power)
    # of an evenly lit aperture the mean square is half that of its edge
    edge = math.sqrt(2 * float((power * square).sum() / power.sum()))
    plain = Optics(energy=energy)
    return Light(Optics(energy=energy, semi_angle=1e3 * plain.wavelength * edge), False)
