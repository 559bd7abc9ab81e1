"""Prior: (z, λ) to x-prediction, on any field and any number of slices from 4.

prior = Prior.load("compact")
x = prior(z, log_snr)                       # scaled volumes; divide by prior.scale for rad
x, pull = prior.vjp(z, log_snr)             # pull(g) = (∂x / ∂z)ᵀ g, for guidance
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..base.devices import has_bf16, require_device
from . import files
from .condition import Condition, given
from .files import Card, PriorError, bundled
from .network import CONDITION, ELEMENTS, FLAGS, UNet, on_device
from .process import SCALE, x_from_v
from .tiling import Windows, in_windows

__all__ = ["Precision", "Prior", "PriorError", "Tiling", "bundled"]

LARGEST = (16, 128, 128)  # voxels at which the network as a whole was as good as in windows
Precision = Literal["auto", "bf16", "float32"]
Tiling = Literal["auto", "whole", "windows"]


@dataclass
class Prior:
    """A trained network and what it was trained for.

    Nothing changes when it is evaluated: the same arguments give the same x.

    Attributes
    ----------
    network : UNet
    info : dict
        Model card in short: data, licence, steps, losses.
    voxel_size : (dz, dy, dx)
        Å, of the volumes that it was trained on.
    energy : float
        kV; those volumes are phases at this energy.
    scale : float
        c: the network's volumes are c times the phase in rad.
    device : str
    precision : 'auto', 'bf16' or 'float32'
        'auto': bf16 where the processor or GPU has it.
    tiling : 'auto', 'whole' or 'windows'
        'auto': the whole volume at once as far as that was measured to be as good (16 slices of
        128 × 128 voxels, ``benchmarks/fields.py``), else overlapping windows, blended smoothly;
        where they begin is drawn from the seed of the call.
    periodic : bool
        Whether the field goes on at its far side (in windows).
    batch : int
        Windows that are evaluated at a time.
    """

    network: UNet
    info: dict[str, Any] = field(default_factory=dict)
    voxel_size: tuple[float, float, float] = (1.6, 0.2, 0.2)
    energy: float = 300.0
    scale: float = SCALE
    device: str = "cpu"
    precision: Precision = "auto"
    tiling: Tiling = "auto"
    periodic: bool = False
    batch: int = 8

    def __post_init__(self) -> None:
        require_device(self.device)
        self.network = on_device(self.network, self.device).eval().requires_grad_(False)
        if self.precision == "auto":
            self.precision = "bf16" if has_bf16(self.device) else "float32"

    # ---- evaluation -----------------------------------------------------------------------------
    def __call__(
        self,
        z: Tensor,
        log_snr: Tensor | float,
        condition: Condition | None = None,
        seed: int = 0,
        answer: Tensor | None = None,
    ) -> Tensor:
        """x-prediction of a noisy volume.

        Parameters
        ----------
        z : Tensor
            (D, H, W) or (B, D, H, W), scaled (c · rad).
        log_snr : float or Tensor
            λ, one or (B,).
        condition : Condition, optional
            What is known of the volume beforehand (the same for the whole batch).
        seed : int
            Of the random offset of the windows; without effect on a field that is taken whole.
        answer : Tensor, optional
            (4, D, H, W) or (B, 4, D, H, W), what the data say of a first guess, see
            :mod:`~.prior.answer`. Only for priors that were trained with it.

        Returns
        -------
        Tensor
            Like z.

        Raises
        ------
        ValueError
            If the shape is not one that the prior can take.
        """
        with torch.no_grad():
            return self._predict(z, log_snr, condition, seed, answer)

    def vjp(
        self,
        z: Tensor,
        log_snr: Tensor | float,
        condition: Condition | None = None,
        seed: int = 0,
        answer: Tensor | None = None,
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """x-prediction and its pullback g ↦ (∂x / ∂z)ᵀ g, which may be called once; the answer is
        held fixed."""
        leaf = z.detach().requires_grad_(True)
        with torch.enable_grad():
            x = self._predict(leaf, log_snr, condition, seed, answer)

        def pull(gradient: Tensor) -> Tensor:
            return torch.autograd.grad(x, leaf, gradient.to(x))[0]

        return x.detach(), pull

    def _predict(
        self,
        z: Tensor,
        log_snr: Tensor | float,
        condition: Condition | None,
        seed: int,
        answer: Tensor | None,
    ) -> Tensor:
        if z.ndim not in (3, 4):
            raise ValueError(f"a volume is (D, H, W) or (B, D, H, W), got shape {tuple(z.shape)}")
        volumes = (z[None] if z.ndim == 3 else z).to(self.device, torch.float32)
        count, depth, height, width = volumes.shape
        if depth < 4 or min(height, width) < 16:
            raise ValueError(
                "the prior needs at least 4 slices of 16 × 16 voxels, "
                f"got {depth} of {height} × {width}"
            )
        field_ = (depth, height, width)
        level = torch.as_tensor(log_snr, dtype=torch.float32, device=self.device).expand(count)
        channels, flags, elements = given(condition, answer, field_, count, self.scale, self.device)
        evaluate = partial(self._network, elements=elements)
        if self._whole(field_):
            known = channels.expand(count, *channels.shape[-4:])
            v = evaluate(volumes, level, known, flags.expand(count, FLAGS))
        else:
            windows = Windows.over(field_, np.random.default_rng(seed), self.periodic, self.device)
            trend = condition is not None and condition.depth_correlation is not None
            v = in_windows(evaluate, windows, volumes, level, channels, flags, trend, self.batch)
        x = x_from_v(volumes, v, level)
        return (x[0] if z.ndim == 3 else x).to(z.device)

    def _whole(self, field_: tuple[int, int, int]) -> bool:
        fits = all(n <= most for n, most in zip(field_, LARGEST, strict=True))
        return self.tiling == "whole" or (self.tiling == "auto" and fits)

    def _network(
        self,
        z: Tensor,
        level: Tensor,
        channels: Tensor,
        flags: Tensor,
        elements: Tensor | None = None,
    ) -> Tensor:
        """v (B, D, H, W), an answer being further channels; a field that is no multiple of the
        network's stride is continued by its outermost voxels.
        """
        shape, stride = z.shape[1:], self.network.config.stride
        pad = [(-n) % s for n, s in zip(shape, stride, strict=True)]
        if any(pad):
            spec = (0, pad[2], 0, pad[1], 0, pad[0])
            z = torch.nn.functional.pad(z[:, None], spec, mode="replicate")[:, 0]
            channels = torch.nn.functional.pad(channels, spec, mode="replicate")
        more: dict[str, Tensor] = {}
        if elements is not None:
            more["elements"] = elements.expand(len(z), ELEMENTS + 1)
        if channels.shape[1] > CONDITION:
            more["answer"] = channels[:, CONDITION:]
        with torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16"
        ):
            v = self.network(z, level, channels[:, :CONDITION], flags, **more)
        return v[:, : shape[0], : shape[1], : shape[2]].float()

    # ---- files ----------------------------------------------------------------------------------
    @property
    def card(self) -> Card:
        """What stands in a file beside the weights."""
        return Card(self.network.config, self.info, self.voxel_size, self.energy, self.scale)

    def save(self, path: str | Path, dtype: torch.dtype = torch.bfloat16) -> str:
        """Weights and their description to a safetensors file; returns its SHA-256."""
        return files.write(Path(path), self.network, self.card, dtype)

    @classmethod
    def load(
        cls,
        path_or_name: str | Path = "compact",
        *,
        device: str = "cpu",
        precision: Precision = "auto",
        tiling: Tiling = "auto",
        periodic: bool = False,
    ) -> Prior:
        """A prior from a file, or one that travels with the package by its name; no network access.

        Takes safetensors files that :meth:`save` wrote, and the folder or ``checkpoint.pt`` of a
        training run (its averaged weights).

        Raises
        ------
        FileNotFoundError
            If there is no such file or name.
        PriorError
            If the file is not a prior, is damaged, is a pickle, or does not match its hash (those
            of the package).
        """
        network, card = files.read(path_or_name)
        return cls(
            network,
            card.info,
            card.voxel_size,
            card.energy,
            card.scale,
            device,
            precision,
            tiling,
            periodic,
        )
