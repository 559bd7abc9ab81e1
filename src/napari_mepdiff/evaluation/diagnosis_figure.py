"""The pictures of a diagnosis: misfit over the detector, against the angle, over the field."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.files import atomic
from ..reconstruction.diagnosis import Diagnosis, Pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def diagnosis_figure(diagnosis: Diagnosis, path: str | Path, title: str = "") -> Path:
    """Draw the pictures of a diagnosis, with its words below.

    Parameters
    ----------
    diagnosis : Diagnosis
    path : str or Path
        PNG, PDF or SVG.
    title : str
        Such as the name of the run.

    Raises
    ------
    ValueError
        If it has no pictures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    p = diagnosis.pictures
    if p is None:
        raise ValueError("this diagnosis has no pictures: the volume could not be modelled")
    text = "\n".join(textwrap.wrap(str(diagnosis), 150))
    rows = text.count("\n") + 1
    figure = Figure(figsize=(12, 3.6 + 0.2 * rows), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1.15, 1))
    top = float(np.nanpercentile(np.abs(p.residual), 99.5)) or 1.0
    _detector(axes[0], p, p.residual, "mean of measured − model\n(σ of shot noise)", "RdBu_r",
              (-top, top))  # fmt: skip
    most = max(2.0, float(np.nanpercentile(p.chi2, 99.5)))
    _detector(axes[1], p, p.chi2, "misfit / shot noise", "inferno", (0, most))
    _profile(axes[2], p)
    _field(axes[3], p)
    if title:
        figure.suptitle(title, fontsize=10)
    bottom = (0.2 * rows + 0.15) / (3.6 + 0.2 * rows)
    figure.text(0.02, 0.02, text, fontsize=8, va="bottom")
    figure.tight_layout(rect=(0, bottom, 1, 1))
    path = Path(path)
    with atomic(path) as temporary:
        figure.savefig(temporary)
    return path


def _detector(
    axes: Axes, p: Pictures, image: Any, title: str, colours: str, limits: tuple[float, float]
) -> None:
    ky, kx = image.shape
    dy, dx = p.pixel_mrad
    extent = (
        (-(kx // 2) - 0.5) * dx, (kx - kx // 2 - 0.5) * dx,
        (ky - ky // 2 - 0.5) * dy, (-(ky // 2) - 0.5) * dy,
    )  # fmt: skip
    shown = axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent)
    axes.figure.colorbar(shown, ax=axes, fraction=0.046)
    if p.aperture is not None:
        turn = np.linspace(0, 2 * np.pi, 200)
        axes.plot(p.aperture * np.cos(turn), p.aperture * np.sin(turn), color="grey", lw=0.6)
    axes.set_title(title, fontsize=8)
    axes.set_xlabel("mrad", fontsize=8)
    axes.tick_params(labelsize=7)


def _profile(axes: Axes, p: Pictures) -> None:
    axes.semilogy(p.angles, np.maximum(p.radial_chi2, 1e-2), color="tab:orange", label="misfit")
    axes.axhline(1, color="grey", lw=0.6)
    if p.aperture is not None:
        axes.axvline(p.aperture, color="grey", lw=0.6, ls="--", label="semi-angle")
    other = axes.twinx()
    other.plot(p.angles, p.radial_residual, color="tab:blue", lw=1)
    other.set_ylabel("measured − model (σ)", fontsize=8, color="tab:blue")
    other.tick_params(labelsize=7)
    axes.set_title("against the scattering angle", fontsize=8)
    axes.set_xlabel("mrad", fontsize=8)
    axes.set_ylabel("misfit / shot noise", fontsize=8, color="tab:orange")
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)


def _field(axes: Axes, p: Pictures) -> None:
    y, x = p.positions.T
    size = 3e3 / max(len(y), 25)
    shown = axes.scatter(x, y, c=p.position_chi2, s=size, cmap="inferno", marker="s")
    axes.figure.colorbar(shown, ax=axes, fraction=0.046)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_title("over the field", fontsize=8)
    axes.set_xlabel("Å", fontsize=8)
    axes.tick_params(labelsize=7)
