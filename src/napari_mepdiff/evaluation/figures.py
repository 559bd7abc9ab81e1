"""Figures of volumes: slices and depth sum, truth beside reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..base.files import atomic
from ..measurement.dataset import DataError, FourDSTEM
from ..measurement.detectors import annular_dark_field, bright_field, summary
from ..measurement.reading import Summary
from ..specimen.volume import Volume
from .metrics import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compare_figure(
    volumes: Mapping[str, Volume],
    path: str | Path,
    scores: Mapping[str, Scores] | None = None,
    title: str = "",
) -> Path:
    """One row a volume: every slice (up to eight, evenly chosen) and the depth sum.

    Parameters
    ----------
    volumes : mapping
        Name to volume, all of one shape; the first (usually the truth) sets the grey scale of the
        slices.
    path : str or Path
        PNG, PDF or SVG.
    scores : mapping, optional
        Name to scores, written at the left.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(volumes)
    first = volumes[names[0]]
    depth = first.shape[0]
    shown = np.unique(np.linspace(0, depth - 1, min(8, depth)).round().astype(int))
    columns, rows = len(shown) + 1, len(names)
    figure = Figure(figsize=(1.35 * columns + 1.7, 1.42 * rows + 0.75), dpi=130)
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        rows, columns, squeeze=False, gridspec_kw={"width_ratios": [1] * len(shown) + [1.0]}
    )
    height, width = first.extent[1:]
    dz = first.voxel_size[0]
    for r, name in enumerate(names):
        volume = volumes[name]
        top = np.percentile(volume.array, 99.9) or 1.0
        for c, s in enumerate(shown):
            _image(grid[r, c], volume.array[s], (0, max(float(top), 1e-6)), (height, width))
            if r == 0:
                grid[r, c].set_title(f"{s * dz:.1f}–{(s + 1) * dz:.1f} Å", fontsize=8)
        total = volume.depth_sum()
        _image(
            grid[r, -1],
            total,
            (min(0.0, float(total.min())), float(np.percentile(total, 99.9))),
            (height, width),
        )
        if r == 0:
            grid[r, -1].set_title("depth sum", fontsize=8)
        label = name
        if scores and name in scores:
            s = scores[name]
            label += f"\nSSIM {s.ssim:.3f}\nPSNR {s.psnr:.1f} dB\nsum SSIM {s.ssim_sum:.3f}"
            if s.depth_correlation is not None:
                label += f"\ndepth corr. {s.depth_correlation:.2f}"
        grid[r, 0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center", labelpad=6)
    bar = 5.0 if width > 8 else 2.0
    last = grid[-1, 0]
    last.plot(
        [0.05 * width, 0.05 * width + bar],
        [0.94 * height] * 2,
        color="white",
        lw=2.5,
        solid_capstyle="butt",
    )
    last.text(0.05 * width, 0.89 * height, f"{bar:g} Å", color="white", fontsize=7, va="bottom")
    if title:
        figure.suptitle(title, fontsize=10)
    figure.subplots_adjust(
        left=1.5 / (1.35 * columns + 1.7),
        right=0.995,
        top=1 - 0.5 / (1.42 * rows + 0.75),
        bottom=0.01,
        wspace=0.04,
        hspace=0.05,
    )
    path = Path(path)
    with atomic(path) as temporary:
        figure.savefig(temporary)
    return path


def _image(
    axes: Axes,
    array: NDArray[np.floating],
    limits: tuple[float, float],
    extent: tuple[float, float],
) -> None:
    axes.imshow(
        array,
        cmap="inferno",
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, extent[1], extent[0], 0),
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])


def data_figure(data: FourDSTEM, path: str | Path, seen: Summary | None = None) -> Path:
    """PACBED, bright field and annular dark field of a measurement, with scales and units.

    Parameters
    ----------
    path : str or Path
        PNG, PDF or SVG.
    seen : Summary, optional
        Of the data, where it has been made already.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seen = seen or summary(data)
    figure = Figure(figsize=(10, 3.4), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    ky, kx = data.detector_shape
    pixel = data.calibration.pixel_mrad
    scale, unit = (pixel, "mrad") if pixel else (1.0, "px")
    extent = [
        (-(kx // 2) - 0.5) * scale,
        (kx - kx // 2 - 0.5) * scale,
        (ky - ky // 2 - 0.5) * scale,
        (-(ky // 2) - 0.5) * scale,
    ]
    axes[0].imshow(np.sqrt(np.maximum(seen.pacbed, 0)), cmap="inferno", extent=extent)
    axes[0].set(title="PACBED (square root)", xlabel=unit, ylabel=unit)
    step = data.calibration.scan_step or (1.0, 1.0)
    ny, nx = data.scan_shape
    span = [0, nx * step[1], ny * step[0], 0]
    for axis, name, function in (
        (axes[1], "bright field", bright_field),
        (axes[2], "annular dark field", annular_dark_field),
    ):
        try:
            image = axis.imshow(function(data), cmap="gray", extent=span)
            figure.colorbar(image, ax=axis, label="electrons", fraction=0.046)
        except DataError as error:
            axis.text(
                0.5,
                0.5,
                str(error),
                ha="center",
                va="center",
                wrap=True,
                fontsize=7,
                transform=axis.transAxes,
            )
        axis.set(title=name, xlabel="Å" if data.calibration.scan_step else "positions")
    figure.tight_layout()
    path = Path(path)
    with atomic(path) as temporary:
        figure.savefig(temporary)
    return path
