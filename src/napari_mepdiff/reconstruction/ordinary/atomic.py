"""Atomic sources: a volume made of atom-shaped blobs, the strongest ordinary solver here.

    x = Σ_e K_e ∗ s_e,   s_e = u_e² ≥ 0

K_e is the projected phase of one atom of element e (Lobato, lateral only: an atom belongs to one
slice), so s_e counts atoms per voxel. The sources live on a canvas a little larger than the volume,
whose cropped image is x: atoms beyond the edge reach in. Misfit Poisson by default; a concave
penalty μ Σ log(1 + s/ε) gathers what the misfit leaves spread (Candès, Wakin and Boyd 2008), and
keeps the volume from decaying when the run goes on. Free voxels can fit the data with a wrong
volume; sources cannot put negative or sub-atomic structure between the atoms.

Where the elements are known, s counts atoms, and more than one of them in one place (3 × 3 pixels
of a slice) costs κ (n − 1)²: without it the concave penalty heaps the atoms of a column into its
middle slice.

Stopping: a random part of the positions is held out of the fit. The run ends when their misfit no
longer falls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from ...physics.misfit import Misfit
from ..frame import DescentInfo, Frame
from ..optimisers import LBFGS
from ..problem import Problem
from ..run import Run
from ..settings import SolverSettings
from .objective import Objective
from .steps import frame, keeper

GENERIC = ("Zn",)  # Z = 30: a shape between those of light and heavy atoms


class AtomicSettings(SolverSettings):
    """Settings of the atomic-sources solver."""

    live: ClassVar[frozenset[str]] = frozenset(
        {"iterations", "patience", "penalty", "epsilon", "exclusion"}
    )

    uncertain: ClassVar[bool] = True  # it ends when the held-out misfit no longer falls
    solver: Literal["atomic"] = "atomic"
    elements: tuple[str, ...] = Field(
        (),
        title="Elements",
        description="chemical symbols in the specimen, e.g. Sr, Ti, O; none: one generic atom",
    )
    misfit: Misfit = Field("poisson", title="Misfit")
    penalty: float = Field(
        0.005, ge=0, title="Sparsity μ", description="weight of the penalty on many faint atoms"
    )
    epsilon: float = Field(
        0.05,
        gt=0,
        title="Sparsity ε",
        description="atoms per voxel below which a source counts as empty",
    )
    exclusion: float = Field(
        3.0,
        ge=0,
        title="Exclusion κ",
        description="weight against more than one atom in one place; acts when elements are given",
    )
    iterations: int = Field(45, ge=1, title="Iterations", description="L-BFGS steps at most")
    held_out: float = Field(
        0.1,
        ge=0,
        lt=0.5,
        title="Held out",
        description="fraction of positions left out of the fit: they say when to stop",
    )
    patience: int = Field(
        8, ge=1, title="Patience", description="steps without better held-out misfit before the end"
    )
    margin: float = Field(
        1.6, ge=0, title="Margin", description="Å around the volume that may hold atoms"
    )
    history: int = Field(
        20, ge=1, title="History", description="earlier steps that L-BFGS remembers"
    )

    @field_validator("elements")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return known_elements(value)

    def preview(self) -> Self:
        """Every second detector pixel."""
        return self.with_fields(detector_stride=2)

    def gradients(self, positions: int) -> float:
        """An iteration takes one or two trials; most do with one."""
        return 1.3 * self.iterations * positions

    def idle(self) -> dict[str, str]:
        """Exclusion counts atoms, which needs their elements."""
        return {} if self.elements else {"exclusion": "it acts where the elements are given"}


def known_elements(symbols: tuple[str, ...]) -> tuple[str, ...]:
    """The symbols, each once; a ValueError names those that no element has."""
    from ase.data import atomic_numbers

    unknown = [e for e in symbols if atomic_numbers.get(e, 0) < 1]
    if unknown:
        raise ValueError(f"unknown elements: {', '.join(unknown)}")
    return tuple(dict.fromkeys(symbols))


class Sources:
    """The linear map from sources to the volume and its adjoint.

    Parameters
    ----------
    problem : Problem
    elements : sequence of str
    margin : float
        Å.
    """

    def __init__(self, problem: Problem, elements: tuple[str, ...], margin: float) -> None:
        dy, dx = problem.voxel_size[1:]
        depth, height, width = problem.shape
        self.pad = (round(margin / dy), round(margin / dx))
        self.shape = (len(elements), depth, height + 2 * self.pad[0], width + 2 * self.pad[1])
        self.kernel = atom_kernels(elements, self.shape[2:], (dy, dx), problem.energy).to(
            problem.device
        )

    def volume(self, sources: Tensor) -> Tensor:
        """(E, D, h, w) atoms per voxel to phase (D, H, W), rad."""
        spectrum = (torch.fft.rfft2(sources) * self.kernel[:, None]).sum(dim=0)
        wide = torch.fft.irfft2(spectrum, s=self.shape[2:])
        py, px = self.pad
        return wide[:, py : self.shape[2] - py, px : self.shape[3] - px].contiguous()

    def adjoint(self, gradient: Tensor) -> Tensor:
        """∂L/∂x (D, H, W) to ∂L/∂s (E, D, h, w).

        The kernels are even, so the convolution is its own adjoint.
        """
        py, px = self.pad
        wide = torch.nn.functional.pad(gradient, (px, px, py, py))
        spectrum = torch.fft.rfft2(wide)[None] * self.kernel[:, None]
        return torch.fft.irfft2(spectrum, s=self.shape[2:])


def atom_kernels(
    elements: tuple[str, ...],
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    energy: float,
) -> Tensor:
    """Half spectra (E, h, w // 2 + 1) of one atom's phase, see
    :func:`~napari_mepdiff.specimen.kernels.atom_kernel`.
    """
    from ase.data import atomic_numbers

    from ...specimen.kernels import atom_kernel

    return torch.stack(
        [atom_kernel(atomic_numbers[e], shape, pixel_size, energy) for e in elements]
    )


def _neighbourhood(density: Tensor) -> Tensor:
    """Atoms within 3 × 3 pixels of a slice, (D, h, w); its own adjoint."""
    return (
        9
        * torch.nn.functional.avg_pool2d(
            density[:, None], 3, stride=1, padding=1, count_include_pad=True
        )[:, 0]
    )


def atomic(run: Run[AtomicSettings]) -> Iterator[Frame]:
    """One frame per L-BFGS step; the last is the one with the best held-out misfit."""
    problem, s = run.problem, run.settings
    objective = Objective(problem, s, run.control.breathe)
    device = objective.likelihood.device
    elements = s.elements or GENERIC
    sources = Sources(problem, elements, s.margin)
    rng = np.random.default_rng(s.seed)
    count = objective.count
    held = np.sort(rng.choice(count, int(s.held_out * count), replace=False))
    fitted = np.setdiff1d(np.arange(count), held)
    # an even start whose phase is about 0.02 rad everywhere: the square needs something to grow
    # from
    level = 0.02 / (sources.kernel[:, 0, 0] * len(elements))
    u = level.sqrt().view(-1, 1, 1, 1).expand(sources.shape).contiguous()
    first, best_loss, stale = 0, float("inf"), 0
    best = torch.zeros(problem.shape)
    optimizer = LBFGS(
        [u],
        lr=1,
        max_iter=1,
        max_eval=4,
        history_size=s.history,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    if run.state is not None:
        first, stale = int(run.state["step"]), int(run.state["stale"])
        best_loss, best = float(run.state["best_loss"]), run.state["best"]
        u.copy_(run.state["u"])
        optimizer.load_state_dict(run.state["optimizer"])
    scale = 1.0 / (problem.shape[0] * problem.shape[1] * problem.shape[2] / 32768)

    def closure() -> float:
        s = run.settings
        density = u * u
        loss, gradient = objective.misfit(sources.volume(density), fitted)
        slope = sources.adjoint(gradient)
        if s.penalty:
            weight = s.penalty * scale / 1000
            loss += weight * float(torch.log1p(density / s.epsilon).sum())
            slope = slope + weight / (s.epsilon + density)
        if s.exclusion and s.elements:
            weight = s.exclusion * scale / 1000
            crowd = (_neighbourhood(density.sum(dim=0)) - 1).clamp(min=0)
            loss += weight * float(crowd.square().sum())
            slope = slope + 2 * weight * _neighbourhood(crowd)
        u.grad = 2 * u * slope
        return loss

    evaluations = 0 if run.state is None else int(run.state["evaluations"])
    step = first
    while step < run.settings.iterations and stale < run.settings.patience:
        if not run.go_on(step):
            return
        if step >= run.settings.iterations or stale >= run.settings.patience:
            return  # fewer were asked for meanwhile
        step += 1
        before, previous = optimizer.state[u].get("func_evals", 0), u.clone()
        optimizer.step(closure)  # type: ignore[arg-type]
        evaluations += optimizer.state[u]["func_evals"] - before
        if torch.equal(u, previous):
            # every trial of the line search overshot; it would try the very same again: begin anew
            # with smaller ones
            optimizer.state.clear()
            optimizer.param_groups[0]["lr"] *= 0.1
        else:
            optimizer.param_groups[0]["lr"] = 1.0
        volume = sources.volume(u * u)
        test = objective.misfit(volume, held if len(held) else None)[0]
        if test < best_loss * (1 - 1e-4):
            best_loss, best, stale = test, volume.cpu().clone(), 0
        else:
            stale += 1
        run.keep(
            keeper(
                step,
                run,
                u=u,
                optimizer=optimizer.state_dict(),
                best=best,
                best_loss=best_loss,
                stale=stale,
                evaluations=evaluations,
            )
        )
        ended = stale >= run.settings.patience or step == run.settings.iterations
        yield frame(
            run,
            step,
            run.settings.iterations,
            best.to(device) if ended else volume,
            best_loss if ended else test,
            DescentInfo(evaluations=evaluations, held_out=test),
        )
