"""Priors on disk: a description, and weights that are tensors only. No pickle is ever run.

The description is a table of texts: ``format``, ``version``, ``network`` (the shape of the network,
JSON), ``voxel_size`` (Å, JSON), ``energy`` (kV), ``scale`` (c) and ``info`` (model card in short,
JSON). A safetensors file holds it as its metadata; a checkpoint of a training run holds it under
``prior``, with the averaged weights under ``average``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..base.files import atomic
from .network import UNet, UNetConfig
from .process import SCALE

FORMAT, VERSION = "mepdiff-prior", "1"
CHECKPOINT = "checkpoint.pt"  # in the folder of a training run


class PriorError(ValueError):
    """A file that is not a prior, or does not fit."""


@dataclass(frozen=True)
class Card:
    """What a prior is, beside its weights.

    Attributes
    ----------
    network : UNetConfig
    info : dict
        Model card in short: data, licence, steps, losses.
    voxel_size : (dz, dy, dx)
        Å, of the volumes that it was trained on.
    energy : float
        kV; those volumes are phases at this energy.
    scale : float
        c: the network's volumes are c times the phase in rad.
    """

    network: UNetConfig
    info: dict[str, Any] = field(default_factory=dict)
    voxel_size: tuple[float, float, float] = (1.6, 0.2, 0.2)
    energy: float = 300.0
    scale: float = SCALE

    def texts(self) -> dict[str, str]:
        """As it stands in a file."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "network": self.network.model_dump_json(),
            "voxel_size": json.dumps(self.voxel_size),
            "energy": str(self.energy),
            "scale": str(self.scale),
            "info": json.dumps(self.info),
        }

    @classmethod
    def read(cls, texts: Mapping[str, str], name: str) -> Card:
        """The inverse of :meth:`texts`.

        Raises
        ------
        PriorError
            If it is of a newer version, or incomplete.
        """
        if texts.get("version") != VERSION:
            raise PriorError(f"{name} was written by a newer version of napari-mepdiff")
        try:
            dz, dy, dx = json.loads(texts["voxel_size"])
            return cls(
                UNetConfig.model_validate_json(texts["network"]),
                json.loads(texts["info"]),
                (float(dz), float(dy), float(dx)),
                float(texts["energy"]),
                float(texts["scale"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PriorError(f"{name} does not say what network it holds: {error}") from error


def write(path: Path, network: UNet, card: Card, dtype: torch.dtype = torch.bfloat16) -> str:
    """Weights and their description to a safetensors file; returns its SHA-256."""
    from safetensors.torch import save_file

    state = {k: v.detach().to(dtype).contiguous().cpu() for k, v in network.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary, metadata=card.texts())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path_or_name: str | Path) -> tuple[UNet, Card]:
    """A network and what it is, from a file, from the folder of a training run, or bundled with the
    package by its name.

    Raises
    ------
    FileNotFoundError
        If there is no such file or name.
    PriorError
        If the file is not a prior, is damaged, is a pickle, or does not match its hash (those of
        the package).
    """
    path, expected = Path(path_or_name), None
    if not path.suffix and not path.exists():
        path, expected = of_package(str(path_or_name))
    if path.is_dir():
        path = path / CHECKPOINT
    if not path.exists():
        raise FileNotFoundError(
            f"no such prior: {path}; the package has {', '.join(sorted(bundled()))}"
        )
    if expected is not None and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise PriorError(
            f"the weights {path.name} are not those that were shipped (their hash differs): "
            "install napari-mepdiff again"
        )
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    if path.suffix == ".pt":
        return _from_checkpoint(path)
    raise PriorError(
        f"{path.name} is not a prior: give a .safetensors file (pickled models are refused, since "
        f"loading one can run any code), or the {CHECKPOINT} of a training run"
    )


def bundled() -> dict[str, str]:
    """Names of the priors that travel with the package, and the SHA-256 of their files."""
    listing = files(__package__) / "weights" / "weights.json"
    return json.loads(listing.read_text()) if listing.is_file() else {}


def of_package(name: str) -> tuple[Path, str]:
    """File and SHA-256 of a prior that travels with the package.

    Raises
    ------
    FileNotFoundError
        If there is none of this name.
    """
    known = bundled()
    if name not in known:
        raise FileNotFoundError(
            f"no prior {name!r}; the package has {', '.join(sorted(known)) or 'none'}, or give a "
            "file"
        )
    return Path(str(files(__package__) / "weights" / f"{name}.safetensors")), known[name]


def _from_safetensors(path: Path) -> tuple[UNet, Card]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise PriorError(
            f"{path.name} cannot be read: {error}; it is damaged or no safetensors file"
        ) from error
    if texts.get("format") != FORMAT:
        raise PriorError(
            f"{path.name} is a safetensors file, but not a prior of napari-mepdiff "
            f"(no '{FORMAT}' mark in it)"
        )
    card = Card.read(texts, path.name)
    return fill(card.network, state, path.name), card


def _from_checkpoint(path: Path) -> tuple[UNet, Card]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or "average" not in state:
            raise ValueError("it has no averaged weights")
    except Exception as error:  # torch raises whatever the damage makes it meet
        raise PriorError(
            f"{path.name} cannot be read as a training checkpoint: "
            f"{' '.join(str(error).split())[:200]} (pickled models are refused, since loading one "
            "can run any code)"
        ) from error
    if "prior" not in state:
        raise PriorError(
            f"{path.name} is of an earlier version and does not say what network it holds: resume "
            "its run for a step (mepdiff train --resume), which writes it anew"
        )
    card = Card.read(state["prior"], path.name)
    return fill(card.network, state["average"], path.name), card


def fill(config: UNetConfig, state: Mapping[str, Tensor], name: str) -> UNet:
    """A network of these weights.

    Raises
    ------
    PriorError
        If they are another network's, or not finite.
    """
    network = UNet(config)
    wanted = network.state_dict()
    wrong = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape] + [
        k for k in state if k not in wanted
    ]
    if wrong:
        raise PriorError(
            f"the weights in {name} do not fit the network that it describes: "
            f"{', '.join(wrong[:3])} ({len(wrong)} in all)"
        )
    if not all(torch.isfinite(v).all() for v in state.values()):
        raise PriorError(f"the weights in {name} contain NaN or infinite values")
    network.load_state_dict({k: v.float() for k, v in state.items()})
    return network
