"""The same likelihood over PtyRAD's own model (Lee et al. 2025): reference and alternative engine.

Only ``ptyrad.core`` is used, which imports on Python 3.11. The gradient is autograd's, batch by
batch; the memory of a batch is PtyRAD's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..conversions import tilt_to_ptyrad
from ..gaps import check_thickness, check_tilt
from ..loss import Batch, Gradients
from ..misfit import Misfit, default_background
from ..misfit import misfit as misfit_of
from ..optics import wavelength
from ..patterns import check_patterns
from ..propagation import phase_per_thickness
from ..scan import Boundary, Windows
from .ptyrad_model import make_model, near_field


class PtyRADLikelihood:
    """``loss, gradient = likelihood(volume, batch)`` with PtyRAD's multislice and autograd.

    Takes what :class:`~napari_mepdiff.physics.likelihood.Likelihood` takes, less what PtyRAD does
    not have: it uses the exact propagator, no band limit, one slice thickness.

    Parameters
    ----------
    patterns, probe, positions, shape, pixel_size, slice_thickness, energy, boundary, misfit, mask,
    background, device
        See :class:`~napari_mepdiff.physics.likelihood.Likelihood`. Pixels must be square.
    chunk : int
        Positions per autograd graph (the paper's batch: 32).
    """

    poll: Callable[[], None] | None = None
    """Asked before each graph; what it raises ends the evaluation."""

    def __init__(
        self,
        patterns: Tensor | NDArray[Any],
        probe: Tensor,
        positions: Tensor | NDArray[np.float64],
        shape: tuple[int, int, int],
        *,
        pixel_size: tuple[float, float],
        slice_thickness: float | Sequence[float],
        energy: float,
        boundary: Boundary = "periodic",
        misfit: Misfit = "intensity",
        mask: Tensor | NDArray[Any] | None = None,
        background: float | None = None,
        chunk: int = 32,
        device: torch.device | str = "cpu",
    ) -> None:
        data = torch.as_tensor(patterns)
        probe = probe if probe.ndim == 3 else probe[None]
        places = np.asarray(positions, dtype=np.float64)
        check_patterns(data.cpu().numpy(), probe, places, shape)
        thickness = {float(t) for t in np.atleast_1d(slice_thickness)}
        if len(thickness) != 1 or pixel_size[0] != pixel_size[1]:
            raise ValueError("the PtyRAD engine needs one slice thickness and square pixels")
        self._tilt = (0.0, 0.0)
        dz, dx, lam = thickness.pop(), pixel_size[0], wavelength(energy)
        self._thickness, self._pixel, self._wavelength = dz, dx, lam
        window = (data.shape[1], data.shape[2])
        self.windows = Windows(places, (shape[1], shape[2]), window, pixel_size, boundary)
        self.shape, self.count, self.chunk = shape, len(data), chunk
        self.misfit: Misfit = misfit
        self.background = default_background(probe) if background is None else float(background)
        self.device, self.real_dtype = torch.device(device), torch.float32
        self._weight = (
            None if mask is None else torch.as_tensor(mask, dtype=torch.float32, device=device)
        )
        self._counts = data.to(device=device, dtype=torch.float32)
        self.model: Any = make_model(
            self._counts.cpu().numpy(), probe, self.windows, shape[0], dz, dx, lam, self.device
        )

    @property
    def mean_pattern(self) -> NDArray[np.float64]:
        """Mean of all measured patterns, (Ky, Kx), electrons, DC at the centre."""
        return self._counts.double().mean(dim=0).cpu().numpy()

    @property
    def weight(self) -> Tensor:
        """Detector weights in use, (Ky, Kx), DC at the centre."""
        return torch.ones_like(self._counts[0]) if self._weight is None else self._weight

    @property
    def thickness(self) -> float:
        """Thickness of every slice in Å."""
        return self._thickness

    @property
    def tilt(self) -> tuple[float, float]:
        """Tilt of the beam (y, x) in mrad; see :mod:`..propagation`."""
        return self._tilt

    def set_gaps(
        self, thickness: float | Sequence[float] | None = None, tilt: Sequence[float] | None = None
    ) -> None:
        """Replace slice thickness (Å, one for all) and beam tilt (y, x) in mrad; None stays.

        Raises
        ------
        ValueError
            If thicknesses differ, since PtyRAD has one for all; else as
            :meth:`..multislice.Multislice.set_gaps`.
        """
        slices = self.shape[0]
        if thickness is not None and len(set(np.ravel(thickness).tolist())) != 1:
            raise ValueError("PtyRAD has one thickness for all slices: give one number")
        one = self._thickness if thickness is None else float(np.ravel(thickness)[0])
        angle = self._tilt if tilt is None else check_tilt(tilt, slices)
        check_thickness(one, slices)
        self._thickness, self._tilt = one, angle
        model = self.model
        with torch.no_grad():
            model.opt_slice_thickness.fill_(one)
            model.opt_obj_tilts.copy_(torch.tensor([tilt_to_ptyrad(angle)]))
        free = near_field(self.windows.window, self._pixel, one, self._wavelength)
        model.H = torch.from_numpy(free).to(model.H)
        model.tilt_obj = any(angle)
        model.init_propagator_vars()  # it keeps what it makes of thickness and tilt

    @functools.cached_property
    def _longitudinal(self) -> Tensor:
        """kz − k in rad/Å, (Ky, Kx): PtyRAD's own kz less a phase that no pattern shows.

        With it, thousands of rad in single precision would leave a few percent of error in the
        gradient by thickness.
        """
        slope = phase_per_thickness(
            self.windows.window, (self._pixel, self._pixel), self._wavelength, "exact"
        )
        return torch.from_numpy(slope).to(self.device, torch.float32)

    def __call__(self, volume: Tensor, batch: Batch = None) -> tuple[float, Tensor]:
        """Loss summed over the batch and ∂L/∂x (D, H, W) by PtyRAD's autograd."""
        found = self.gradients(volume, batch)
        assert found.volume is not None
        return found.loss, found.volume

    def gradients(self, volume: Tensor, batch: Batch = None, *, gaps: bool = False) -> Gradients:
        """Loss and gradients by PtyRAD's autograd: by the volume; by thickness and tilt if asked.

        PtyRAD has one thickness for all slices, so its gradient is a single number, (1,).
        """
        index = (
            torch.arange(self.count)
            if batch is None
            else torch.as_tensor(np.asarray(batch)).reshape(-1)
        )
        if gaps and self.shape[0] == 1:
            raise ValueError("a single slice has no gap: no gradient by thickness and tilt")
        x = volume.detach().to(self.device, torch.float32)
        leaf = self.windows.pad(x)[None].contiguous().requires_grad_(True)
        leaves = {"opt_objp": leaf}
        if gaps:
            for name in ("opt_slice_thickness", "opt_obj_tilts"):
                value: Tensor = getattr(self.model, name)
                leaves[name] = value.detach().clone().requires_grad_(True)
        before = self.model.tilt_obj, self.model.change_thickness
        loss = 0.0
        try:
            if gaps:
                self.model.tilt_obj = self.model.change_thickness = True
                self.model.Kz = self._longitudinal
            for part in index.split(self.chunk):
                if self.poll is not None:
                    self.poll()
                model = self._model(leaves, part) + self.background
                value, _ = misfit_of(
                    self.misfit, model, self._counts[part.to(self.device)], self._weight
                )
                value.backward()
                loss += float(value.detach())
        finally:
            self.model.tilt_obj, self.model.change_thickness = before
        assert leaf.grad is not None
        of_volume = self.windows.fold(leaf.grad[0])
        if not gaps:
            return Gradients(loss, of_volume, None, None)
        thickness, tilts = (leaves[name].grad for name in ("opt_slice_thickness", "opt_obj_tilts"))
        assert thickness is not None
        assert tilts is not None
        # of the object's tilt; the beam's has the other sign
        return Gradients(
            loss,
            of_volume,
            None,
            None,
            thickness.reshape(1).to("cpu", torch.float64),
            -tilts[0].to("cpu", torch.float64),
        )

    def patterns(self, volume: Tensor, batch: Batch = None) -> Tensor:
        """Modelled patterns (B, Ky, Kx), electrons, DC at the centre."""
        index = (
            torch.arange(self.count)
            if batch is None
            else torch.as_tensor(np.asarray(batch)).reshape(-1)
        )
        x = self.windows.pad(volume.to(self.device, torch.float32))[None].contiguous()
        with torch.no_grad():
            return (
                torch.cat([self._model({"opt_objp": x}, part) for part in index.split(self.chunk)])
                + self.background
            )

    def _model(self, tensors: dict[str, Tensor], part: Tensor) -> Tensor:
        out = torch.func.functional_call(self.model, tensors, (part.to(self.device),))
        return out[0] if isinstance(out, tuple) else out
