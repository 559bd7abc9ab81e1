"""Pictures of the report on a prior: x-predictions, samples, their statistics, depth from a depth
sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..base.files import atomic
from ..prior.condition import Condition
from ..prior.model import Prior
from ..prior.process import diffuse
from .crystallinity import Statistics
from .metrics import depth_correlation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.floating]
SHOWN = (-13.0, -10.0, -8.0, -6.0, -4.0, -2.0, 0.0, 4.0)  # λ of the figure of x-predictions


def predictions(prior: Prior, truth: Array, path: Path, seed: int = 0) -> None:
    """The paper's figure 3: noised volumes and x-predictions over λ."""
    x = torch.from_numpy(np.asarray(truth, np.float32))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    middle = x.shape[0] // 2
    known = {
        "noised": None,
        "x-prediction": None,
        "given the sum": Condition.from_sum(truth.sum(axis=0), len(truth)),
    }
    blurred = _blur(truth, 1.5)
    known["given a blurred\nvolume"] = Condition.from_volume(
        blurred, depth_correlation(truth, blurred) or 0.0
    )
    figure, axes = _figure(len(known) + 1, len(SHOWN) + 1, 1.25)
    top, total = float(np.percentile(truth, 99.8)), truth.sum(axis=0)
    for row, (label, condition) in enumerate(known.items()):
        axes[row, 0].set_ylabel(label, fontsize=8)
        for column, level in enumerate(SHOWN):
            z = diffuse(prior.scale * x, noise, level)
            if label == "noised":
                axes[row, column].imshow(
                    z[middle].numpy(),
                    cmap="gray",
                    vmin=-3,
                    vmax=3 if level < 0 else prior.scale * top,
                )
                axes[row, column].set_title(f"λ = {level:g}", fontsize=8)
            else:
                made = prior(z, level, condition).numpy() / prior.scale
                axes[row, column].imshow(made[middle], cmap="gray", vmin=0, vmax=top)
                if label == "x-prediction":
                    axes[len(known), column].imshow(
                        made.sum(axis=0), cmap="gray", vmin=0, vmax=np.percentile(total, 99.8)
                    )
    axes[len(known), 0].set_ylabel("x-prediction,\ndepth sum", fontsize=8)
    for row in range(1, len(known)):
        axes[row, -1].imshow(truth[middle], cmap="gray", vmin=0, vmax=top)
    axes[len(known), -1].imshow(total, cmap="gray", vmin=0, vmax=np.percentile(total, 99.8))
    axes[0, -1].set_title("truth", fontsize=8)
    axes[0, -1].axis("off")
    _write(figure, path)


def gallery(volumes: Array, path: Path, slices: int = 4) -> None:
    """Slices and depth sum of several volumes, a row each, in two columns of rows."""
    count = len(volumes)
    rows = -(-count // 2)
    shown = np.linspace(0, volumes.shape[1] - 1, slices).round().astype(int)
    figure, axes = _figure(rows, 2 * (slices + 1), 1.2)
    for axis in axes.ravel():
        axis.axis("off")
    for n, volume in enumerate(volumes):
        row, first = n % rows, (n // rows) * (slices + 1)
        top = max(float(np.percentile(volume, 99.8)), 1e-3)
        for column, s in enumerate(shown):
            axes[row, first + column].imshow(volume[s], cmap="gray", vmin=0, vmax=top)
            if row == 0:
                axes[row, first + column].set_title(f"slice {s + 1}", fontsize=8)
        axes[row, first + slices].imshow(volume.sum(axis=0), cmap="gray")
        if row == 0:
            axes[row, first + slices].set_title("depth sum", fontsize=8)
    _write(figure, path)


def statistics_figure(sets: dict[str, Statistics], path: Path) -> None:
    """Histogram, power spectrum, periodicity, atoms per slice, depth variation of several sets."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 2.7), layout="constrained")
    axes = figure.subplots(1, 5)
    for n, (name, s) in enumerate(sets.items()):
        style: dict[str, Any] = {"color": f"C{n}", "label": name, "lw": 1.3}
        axes[0].semilogy(s.bins, np.maximum(s.histogram, 1e-7), **style)
        axes[1].semilogy(s.frequency[1:], s.power[1:], **style)
        for axis, values, top in (
            (axes[2], s.periodicity, 1.0),
            (axes[3], s.atoms, 60.0),
            (axes[4], s.spread, 1.0),
        ):
            axis.hist(
                values.clip(0, top),
                bins=np.linspace(0, top, 21),
                density=True,
                histtype="step",
                **style,
            )
    for axis, label in zip(
        axes,
        (
            "phase (rad)",
            "lateral frequency (Å⁻¹)",
            "periodicity",
            "atoms in a slice",
            "share of variance along depth",
        ),
        strict=True,
    ):
        axis.set_xlabel(label, fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("share of voxels", fontsize=8)
    axes[1].set_ylabel("power (rad²)", fontsize=8)
    axes[0].legend(fontsize=7)
    _write(figure, path)


def depth_figure(picture: list[tuple[str, Array, Array, Array]], path: Path, most: int = 4) -> None:
    """Truth and two samples given its depth sum, all slices."""
    picture = picture[:most]
    depth = picture[0][1].shape[0]
    figure, axes = _figure(3 * len(picture), depth + 1, 1.1)
    for n, (name, truth, *drawn) in enumerate(picture):
        top = float(np.percentile(truth, 99.8))
        for row, (label, volume) in enumerate(
            zip((f"{name}\ntruth", "sample 1", "sample 2"), (truth, *drawn), strict=True)
        ):
            axes[3 * n + row, 0].set_ylabel(label, fontsize=7)
            for s in range(depth):
                axes[3 * n + row, s].imshow(volume[s], cmap="gray", vmin=0, vmax=top)
            axes[3 * n + row, depth].imshow(volume.sum(axis=0), cmap="gray")
    axes[0, depth].set_title("depth sum", fontsize=8)
    _write(figure, path)


def _figure(rows: int, columns: int, size: float) -> tuple[Figure, NDArray[np.object_]]:
    """A figure and its axes (rows, columns), `size` inches each, without ticks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size * columns, size * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def _write(figure: Figure, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _blur(volume: Array, slices: float) -> Array:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(volume, slices, axis=0, mode="reflect")
