"""PtyRAD's own model (``ptyrad.core.PtychoModel``), with the phase of the object to be refined.

Only ``ptyrad.core`` is used, which imports on Python 3.11.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...base.extras import require
from ...base.llvm import triton_would_crash
from ..scan import Windows


def make_model(
    counts: NDArray[np.float32],
    probe: Tensor,
    windows: Windows,
    slices: int,
    thickness: float,
    pixel_size: float,
    wavelength: float,
    device: torch.device,
) -> Any:
    """A ``PtychoModel`` of measured counts (N, Ky, Kx) and a probe (M, Ky, Kx).

    Parameters
    ----------
    thickness, pixel_size, wavelength : float
        Å.

    Raises
    ------
    RuntimeError
        If PtyRAD cannot be loaded beside the OpenGL driver in use.
    """
    if triton_would_crash():
        raise RuntimeError(
            "PtyRAD loads Triton, which ends the process beside this OpenGL driver (Mesa): "
            "run it at the terminal, with mepdiff reconstruct"
        )
    core = require("ptyrad.core", "ptyrad", "PtyRAD's engine")
    rate = {
        name: {"start_iter": 1, "end_iter": None, "lr": 0.0}
        for name in ("obja", "obj_tilts", "slice_thickness", "probe", "probe_pos_shifts")
    }
    rate["objp"] = {"start_iter": 1, "end_iter": None, "lr": 1.0}
    window = windows.window
    model: Any = core.PtychoModel(
        {
            "measurements": counts,
            "obj": np.ones((1, slices, *windows.padded), np.complex64),
            "obj_tilts": np.zeros((1, 2), np.float32),
            "slice_thickness": thickness,
            "probe": probe.cpu().numpy().astype(np.complex64),
            "probe_pos_shifts": windows.fraction.astype(np.float32),
            "omode_occu": np.ones(1, np.float32),
            "H": near_field(window, pixel_size, thickness, wavelength),
            "N_scan_slow": 1,
            "N_scan_fast": len(counts),
            "crop_pos": windows.corner.astype(np.int32),
            "dx": pixel_size,
            "dk": 1 / (window[0] * pixel_size),
            "lambd": wavelength,
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
        device=str(device),
    )

    def patches(self: Any, part: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitude and phase (N, 1, D, Ky, Kx) that each position sees, PtyRAD's own layout."""
        corners = [(int(y), int(x)) for y, x in windows.corner[part.cpu().numpy()]]
        return (
            _Patches.apply(self.opt_obja, corners, window),
            _Patches.apply(self.opt_objp, corners, window),
        )

    # PtyRAD's own indexing adds what overlaps in an order that its threads happen to have
    model.get_obj_patches = types.MethodType(patches, model)
    return model


def near_field(
    window: tuple[int, int], pixel_size: float, thickness: float, wavelength: float
) -> NDArray[np.complex128]:
    """PtyRAD's propagator (Ky, Kx), DC in the corner; exact, with the phase of the whole wave."""
    module = require("ptyrad.optics.propagator", "ptyrad", "PtyRAD's engine")
    out: NDArray[np.complex128] = module.near_field_evolution(
        window, pixel_size, thickness, wavelength
    )
    return out


class _Patches(torch.autograd.Function):
    """Windows of an object, (1, D, H, W) to (N, 1, D, Ky, Kx); the adjoint adds them in order.

    Autograd's adjoint of indexing adds the overlapping windows from several threads at once, and
    the last digits of a gradient, and with them a replayed run, would differ from call to call.
    """

    @staticmethod
    def forward(
        ctx: Any, canvas: Tensor, corners: list[tuple[int, int]], size: tuple[int, int]
    ) -> Tensor:
        ctx.corners, ctx.size, ctx.shape = corners, size, canvas.shape
        return torch.stack([canvas[..., y : y + size[0], x : x + size[1]] for y, x in corners])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        out = slopes[0].new_zeros(ctx.shape)
        for (y, x), slope in zip(ctx.corners, slopes[0], strict=True):
            out[..., y : y + ctx.size[0], x : x + ctx.size[1]] += slope
        return out, None, None
