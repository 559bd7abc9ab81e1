"""The same likelihood over PtyRAD's own model (Lee et al. 2025): reference and alternative engine.

Only ``ptyrad.core`` is used, which imports on Python 3.11. The gradient is autograd's, batch by batch; the memory
of a batch is PtyRAD's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .likelihood import Batch, Misfit, _check, _misfit, default_background
from .optics import wavelength
from .scan import Boundary, Windows


class PtyRADLikelihood:
    """``loss, gradient = likelihood(volume, batch)`` with PtyRAD's multislice and autograd.

    Takes what :class:`~napari_mepdiff.physics.likelihood.Likelihood` takes, less what PtyRAD does not have: it uses
    the exact propagator, no band limit, one slice thickness.

    Parameters
    ----------
    patterns, probe, positions, shape, pixel_size, slice_thickness, energy, boundary, misfit, mask, background, device
        See :class:`~napari_mepdiff.physics.likelihood.Likelihood`. Pixels must be square.
    chunk : int
        Positions per autograd graph (the paper's batch: 32).
    """

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
        from ptyrad.core import PtychoModel
        from ptyrad.optics.propagator import near_field_evolution

        data = torch.as_tensor(patterns)
        probe = probe if probe.ndim == 3 else probe[None]
        positions = torch.as_tensor(positions, dtype=torch.float64)
        _check(data, probe, positions, shape)
        thickness = {float(t) for t in np.atleast_1d(slice_thickness)}
        if len(thickness) != 1 or pixel_size[0] != pixel_size[1]:
            raise ValueError("the PtyRAD engine needs one slice thickness and square pixels")
        dz, dx, lam = thickness.pop(), pixel_size[0], wavelength(energy)
        window = (data.shape[1], data.shape[2])
        self.windows = Windows(positions, (shape[1], shape[2]), window, pixel_size, boundary)
        self.shape, self.count, self.chunk = shape, len(data), chunk
        self.misfit: Misfit = misfit
        self.background = default_background(probe) if background is None else float(background)
        self.device, self.real_dtype = torch.device(device), torch.float32
        self._weight = None if mask is None else torch.as_tensor(mask, dtype=torch.float32, device=device)
        self._counts = data.to(device=device, dtype=torch.float32)
        rate = {name: {"start_iter": 1, "end_iter": None, "lr": 0.0} for name in
                ("obja", "obj_tilts", "slice_thickness", "probe", "probe_pos_shifts")}
        rate["objp"] = {"start_iter": 1, "end_iter": None, "lr": 1.0}
        padded = (1, shape[0], *self.windows.padded)
        self.model = PtychoModel(
            {
                "measurements": self._counts.cpu().numpy(),
                "obj": np.ones(padded, np.complex64),
                "obj_tilts": np.zeros((1, 2), np.float32),
                "slice_thickness": dz,
                "probe": probe.cpu().numpy().astype(np.complex64),
                "probe_pos_shifts": self.windows.fraction.numpy().astype(np.float32),
                "omode_occu": np.ones(1, np.float32),
                "H": near_field_evolution(window, dx, dz, lam),
                "N_scan_slow": 1,
                "N_scan_fast": len(data),
                "crop_pos": self.windows.corner.numpy().astype(np.int32),
                "dx": dx,
                "dk": 1 / (window[0] * dx),
                "lambd": lam,
                "random_seed": 0,
                "length_unit": "Ang",
                "scan_affine": None,
                "meas_Npix": window[0],
                "simu_Npix": window[0],
                "simu_match_mode": None,
                "recon_provenance": None,
            },
            {
                "detector_blur_std": None,
                "optimizer_params": {"name": "Adam", "configs": {}},
                "update_params": rate,
            },
            device=str(self.device),
        )

    def __call__(self, volume: Tensor, batch: Batch = None) -> tuple[float, Tensor]:
        """Loss summed over the batch and ∂L/∂x (D, H, W) by PtyRAD's autograd."""
        index = torch.arange(self.count) if batch is None else torch.as_tensor(np.asarray(batch)).reshape(-1)
        x = volume.detach().to(self.device, torch.float32)
        leaf = self.windows.pad(x)[None].contiguous().requires_grad_(True)
        loss = 0.0
        for part in index.split(self.chunk):
            model = self._model(leaf, part) + self.background
            value, _ = _misfit(self.misfit, model, self._counts[part.to(self.device)], self._weight)
            value.backward()
            loss += float(value.detach())
        assert leaf.grad is not None
        return loss, self.windows.fold(leaf.grad[0])

    def patterns(self, volume: Tensor, batch: Batch = None) -> Tensor:
        """Modelled patterns (B, Ky, Kx), electrons, DC at the centre."""
        index = torch.arange(self.count) if batch is None else torch.as_tensor(np.asarray(batch)).reshape(-1)
        x = self.windows.pad(volume.to(self.device, torch.float32))[None].contiguous()
        with torch.no_grad():
            return torch.cat([self._model(x, part) for part in index.split(self.chunk)]) + self.background

    def _model(self, phase: Tensor, part: Tensor) -> Tensor:
        out = torch.func.functional_call(self.model, {"opt_objp": phase}, (part.to(self.device),))
        return out[0] if isinstance(out, tuple) else out
