"""Prior: (z, λ) to x-prediction, on any field and any number of slices from 4; loading and saving without pickles.

    prior = Prior.load("compact")
    x = prior(z, log_snr)                       # scaled volumes; divide by prior.scale for rad
    x, pull = prior.vjp(z, log_snr)             # pull(g) = (∂x / ∂z)ᵀ g, for guidance
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..devices import has_bf16, require_device
from ..files import atomic
from .condition import Condition
from .noise import SCALE, x_from_v
from .unet import CONDITION, FLAGS, UNet, UNetConfig

FORMAT = "mepdiff-prior"
WINDOW = (8, 64, 64)  # voxels that the network was trained on
OVERLAP = (4, 24, 24)
LARGEST = (16, 128, 128)  # voxels at which the network as a whole was as good as in windows
Precision = Literal["auto", "bf16", "float32"]
Tiling = Literal["auto", "whole", "windows"]


class PriorError(ValueError):
    """A file that is not a prior, or does not fit."""


@dataclass
class Prior:
    """A trained network and what it was trained for.

    Attributes
    ----------
    network : UNet
    info : dict
        Model card in short: data, licence, steps, losses.
    voxel_size : (dz, dy, dx)
        Å, of the volumes it knows.
    energy : float
        kV; its volumes are phases at this energy.
    scale : float
        c: the network's volumes are c times the phase in rad.
    device : str
    precision : 'auto', 'bf16' or 'float32'
        'auto': bf16 where the processor or GPU has it.
    tiling : 'auto', 'whole' or 'windows'
        'auto': the whole volume at once as far as that was measured to be as good (16 slices of 128 × 128 voxels,
        ``benchmarks/fields.py``), else overlapping windows, blended smoothly, at another random offset in each call.
    periodic : bool
        Whether the field goes on at its far side (in windows).
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
        self.network = self.network.to(self.device).to(memory_format=torch.channels_last_3d).eval().requires_grad_(False)
        self._rng = np.random.default_rng(0)
        if self.precision == "auto":
            self.precision = "bf16" if has_bf16(self.device) else "float32"

    # ---- evaluation --------------------------------------------------------------------------------------------
    def __call__(self, z: Tensor, log_snr: Tensor | float, condition: Condition | None = None) -> Tensor:
        """x-prediction of a noisy volume.

        Parameters
        ----------
        z : Tensor
            (D, H, W) or (B, D, H, W), scaled (c · rad).
        log_snr : float or Tensor
            λ, one or (B,).
        condition : Condition, optional
            What is known of the volume beforehand (the same for the whole batch).

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
            return self._predict(z, log_snr, condition)

    def vjp(
        self, z: Tensor, log_snr: Tensor | float, condition: Condition | None = None
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """x-prediction and its pullback g ↦ (∂x / ∂z)ᵀ g, which may be called once."""
        leaf = z.detach().requires_grad_(True)
        with torch.enable_grad():
            x = self._predict(leaf, log_snr, condition)

        def pull(gradient: Tensor) -> Tensor:
            return torch.autograd.grad(x, leaf, gradient.to(x))[0]

        return x.detach(), pull

    def reseed(self, seed: int) -> None:
        """Begin the random offsets of windows anew."""
        self._rng = np.random.default_rng(seed)

    def _predict(self, z: Tensor, log_snr: Tensor | float, condition: Condition | None) -> Tensor:
        if z.ndim not in (3, 4):
            raise ValueError(f"a volume is (D, H, W) or (B, D, H, W), got shape {tuple(z.shape)}")
        volumes = z[None] if z.ndim == 3 else z
        batch, shape = volumes.shape[0], tuple(volumes.shape[1:])
        if shape[0] < 4 or min(shape[1:]) < 16:
            raise ValueError(f"the prior needs at least 4 slices of 16 × 16 voxels, got {shape}")
        level = torch.as_tensor(log_snr, dtype=torch.float32, device=self.device).expand(batch)
        volumes = volumes.to(self.device, torch.float32)
        if condition is None:
            channels = torch.zeros(CONDITION, *shape, device=self.device)
            flags = torch.zeros(FLAGS, device=self.device)
        else:
            if tuple(condition.volume.shape) != shape:
                raise ValueError(f"the condition is {tuple(condition.volume.shape)} voxels, the volume {shape}")
            channels, flags = (t.to(self.device) for t in condition.channels(self.scale))
        fits = all(n <= most for n, most in zip(shape, LARGEST, strict=True))
        whole = self.tiling == "whole" or (self.tiling == "auto" and fits)
        if whole:
            v = self._network(volumes, level, channels.expand(batch, *channels.shape), flags.expand(batch, FLAGS))
        else:
            v = self._windows(volumes, level, channels, flags)
        x = x_from_v(volumes, v, level)
        return (x[0] if z.ndim == 3 else x).to(z.device)

    def _network(self, z: Tensor, level: Tensor, channels: Tensor, flags: Tensor) -> Tensor:
        """v of whole volumes; what is not a multiple of the network's stride is padded by mirror images and cropped again."""
        shape, stride = z.shape[1:], self.network.config.stride
        pad = [(-n) % s for n, s in zip(shape, stride, strict=True)]
        if any(pad):
            spec = (0, pad[2], 0, pad[1], 0, pad[0])
            z = torch.nn.functional.pad(z[:, None], spec, mode="replicate")[:, 0]
            channels = torch.nn.functional.pad(channels, spec, mode="replicate")
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16"):
            v = self.network(z, level, channels, flags)
        return v[:, : shape[0], : shape[1], : shape[2]].float()

    def _windows(self, z: Tensor, level: Tensor, channels: Tensor, flags: Tensor) -> Tensor:
        """v from overlapping windows; neighbours fade into each other."""
        batch, shape = z.shape[0], z.shape[1:]
        window = [min(w, n) for w, n in zip(WINDOW, shape, strict=True)]
        starts = [
            _starts(n, w, o, self._rng, axis > 0 and self.periodic)
            for axis, (n, w, o) in enumerate(zip(shape, window, OVERLAP, strict=True))
        ]
        places = [(a, b, c) for a in starts[0] for b in starts[1] for c in starts[2]]
        profile = [_fade(w, o, self.device) if len(s) > 1 else torch.ones(w, device=self.device)
                   for w, o, s in zip(window, OVERLAP, starts, strict=True)]
        weight = profile[0][:, None, None] * profile[1][:, None] * profile[2]
        total, norm = torch.zeros_like(z), torch.zeros(shape, device=self.device)
        for low in range(0, len(places), self.batch):
            chosen = places[low : low + self.batch]
            index = [[(torch.arange(w, device=self.device) + p[axis]) % n for axis, (w, n) in enumerate(
                zip(window, shape, strict=True))] for p in chosen]
            mesh: list[Any] = [tuple(torch.meshgrid(*i, indexing="ij")) for i in index]
            parts = torch.stack([z[(slice(None), *m)] for m in mesh])  # (windows, B, d, h, w)
            known = torch.stack([channels[(slice(None), *m)] for m in mesh])
            if flags[1] > 0:  # the mean and the trend are those of the window's own slices
                total_known = known.sum(dim=1)
                mean = total_known.mean(dim=1, keepdim=True).expand_as(total_known)
                known = torch.stack([mean, total_known - mean], dim=1)
            many = len(chosen) * batch
            v = self._network(
                parts.reshape(many, *window), level.repeat(len(chosen)), known.repeat_interleave(batch, 0),
                flags.expand(many, FLAGS),
            ).reshape(len(chosen), batch, *window)
            for part, m in zip(v, mesh, strict=True):
                total = total.index_put((torch.arange(batch, device=self.device)[:, None, None, None], *m), part * weight,
                                        accumulate=True)
                norm.index_put_(m, weight, accumulate=True)
        return total / norm

    # ---- files -------------------------------------------------------------------------------------------------
    def save(self, path: str | Path, dtype: torch.dtype = torch.bfloat16) -> str:
        """Weights and their description to a safetensors file; returns its SHA-256."""
        from safetensors.torch import save_file

        path = Path(path)
        state = {k: v.detach().to(dtype).contiguous().cpu() for k, v in self.network.state_dict().items()}
        header = {
            "format": FORMAT, "version": "1", "network": self.network.config.model_dump_json(),
            "voxel_size": json.dumps(self.voxel_size), "energy": str(self.energy), "scale": str(self.scale),
            "info": json.dumps(self.info),
        }
        with atomic(path) as temporary:
            save_file(state, temporary, metadata=header)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    @classmethod
    def load(cls, path_or_name: str | Path = "compact", *, device: str = "cpu", precision: Precision = "auto",
             tiling: Tiling = "auto", periodic: bool = False) -> Prior:
        """A prior from a file, or one that travels with the package by its name; no network access.

        Takes safetensors files that :meth:`save` wrote and ``checkpoint.pt`` of a training run (its averaged weights).

        Raises
        ------
        FileNotFoundError
            If there is no such file or name.
        PriorError
            If the file is not a prior, is damaged, is a pickle, or does not match its hash (those of the package).
        """
        path = Path(path_or_name)
        expected = None
        if not path.suffix and not path.exists():
            path, expected = _bundled(str(path_or_name))
        if path.is_dir():
            path = path / "checkpoint.pt"
        if not path.exists():
            raise FileNotFoundError(f"no such prior: {path}; the package has {', '.join(sorted(bundled()))}")
        if expected is not None and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise PriorError(f"the weights {path.name} are not those that were shipped (their hash differs): install "
                             "napari-mepdiff again")
        if path.suffix == ".safetensors":
            network, fields = _from_safetensors(path)
        elif path.name.endswith(".pt"):
            network, fields = _from_training(path)
        else:
            raise PriorError(f"{path.name} is not a prior: give a .safetensors file (pickled models are refused, since loading "
                             "one can run any code), or the checkpoint.pt of a training run")
        return cls(network, device=device, precision=precision, tiling=tiling, periodic=periodic, **fields)


def bundled() -> dict[str, str]:
    """Names of the priors that travel with the package, and the SHA-256 of their files."""
    listing = files(__package__) / "weights" / "weights.json"
    return json.loads(listing.read_text()) if listing.is_file() else {}


def _bundled(name: str) -> tuple[Path, str]:
    known = bundled()
    if name not in known:
        raise FileNotFoundError(f"no prior {name!r}; the package has {', '.join(sorted(known)) or 'none'}, or give a file")
    return Path(str(files(__package__) / "weights" / f"{name}.safetensors")), known[name]


def _from_safetensors(path: Path) -> tuple[UNet, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise PriorError(f"{path.name} cannot be read: {error}; it is damaged or no safetensors file") from error
    if header.get("format") != FORMAT:
        raise PriorError(f"{path.name} is a safetensors file, but not a prior of napari-mepdiff (no '{FORMAT}' mark in it)")
    if header.get("version") != "1":
        raise PriorError(f"{path.name} was written by a newer version of napari-mepdiff")
    try:
        config = UNetConfig.model_validate_json(header["network"])
        fields = {"info": json.loads(header["info"]), "voxel_size": tuple(json.loads(header["voxel_size"])),
                  "energy": float(header["energy"]), "scale": float(header["scale"])}
    except (KeyError, ValueError) as error:
        raise PriorError(f"{path.name} does not say what network it holds: {error}") from error
    return _filled(config, state, path.name), fields


def _from_training(path: Path) -> tuple[UNet, dict[str, Any]]:
    from .trainer import TrainSettings, load_checkpoint

    try:
        state = load_checkpoint(path)
    except ValueError as error:
        raise PriorError(f"{error} (pickled models are refused, since loading one can run any code)") from error
    settings = TrainSettings.model_validate_json(state["settings"])
    info = {"samples": state["samples"], "steps": state["step"], "hours": round(state["seconds"] / 3600, 3),
            "settings": settings.model_dump(mode="json"), "structures": state["source"]}
    return _filled(settings.network, state["average"], path.name), {"info": info}


def _filled(config: UNetConfig, state: dict[str, Tensor], name: str) -> UNet:
    network = UNet(config)
    wanted = network.state_dict()
    wrong = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape] + [k for k in state if k not in wanted]
    if wrong:
        raise PriorError(f"the weights in {name} do not fit the network that it describes: {', '.join(wrong[:3])} "
                         f"({len(wrong)} in all)")
    if not all(torch.isfinite(v).all() for v in state.values()):
        raise PriorError(f"the weights in {name} contain NaN or infinite values")
    network.load_state_dict({k: v.float() for k, v in state.items()})
    return network


def _starts(length: int, window: int, overlap: int, rng: np.random.Generator, periodic: bool) -> list[int]:
    """Where windows begin, at a random offset; every voxel is covered."""
    if length <= window:
        return [0]
    step = window - min(overlap, window // 2)
    if periodic:
        count = -(-length // step)
        first = int(rng.integers(length))
        return [(first + round(i * length / count)) % length for i in range(count)]
    room = length - window
    count = -(-room // step) + 1
    slack = (count - 1) * step - room
    begin = int(rng.integers(slack + 1)) if slack else 0
    return sorted({min(max(i * step - begin, 0), room) for i in range(count)} | {0, room})


def _fade(window: int, overlap: int, device: str) -> Tensor:
    """Weights that rise from the rims over the overlap, never quite zero."""
    ramp = (torch.arange(window, device=device) + 0.5) / max(1, min(overlap, window // 2))
    ramp = torch.minimum(ramp, ramp.flip(0)).clamp_max(1.0)
    return torch.sin(ramp * torch.pi / 2).square().clamp_min(1e-4)
