"""Report on a prior: losses on held-out crystals, samples and their statistics, depth from a known
depth sum.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..base.files import atomic
from ..prior.condition import Condition
from ..prior.model import Prior
from ..prior.sampler import sample
from ..specimen.structures import Part, Structures
from ..training.stream import CrystalStream
from ..training.validation import GRID, losses
from .crystallinity import Statistics, statistics
from .metrics import atoms_in_slice, depth_correlation, psnr, ssim
from .neighbours import nearest
from .prior_figures import depth_figure, gallery, predictions, statistics_figure
from .prior_tables import (
    DepthRow,
    Values,
    about,
    depth_table,
    loss_table,
    mean_scores,
    neighbour_table,
    statistics_table,
)

Array = NDArray[np.floating]
Progress = Callable[[int, int, str], None]
PREDICTIONS = [
    "",
    "## x-predictions",
    "",
    "A held-out crystal (slice 5 of 8, and its depth sum) with noise added at falling levels, and "
    "what the network makes of it with nothing known, given its depth sum, and given a "
    "depth-blurred volume. Compare figure 3 of the paper.",
    "",
    "![x-predictions](predictions.png)",
]


@dataclass(frozen=True)
class Plan:
    """What a report contains.

    Attributes
    ----------
    part : 'validation' or 'test'
    crystals : int or None
        Volumes for the losses; all if None.
    samples, depth : int
        Unconditional samples; volumes of the depth test. 0: left out.
    draws : int
        Samples per volume in the depth test, whose mean is judged too.
    neighbours : int
        Samples that are compared with training crystals.
    steps : int
        Of the sampler.
    """

    part: Part = "validation"
    crystals: int | None = None
    samples: int = 12
    depth: int = 12
    draws: int = 4
    neighbours: int = 4
    steps: int = 100
    seed: int = 0


def evaluate_prior(
    prior: Prior,
    structures: Structures,
    folder: str | Path,
    plan: Plan | None = None,
    name: str = "prior",
    progress: Progress | None = None,
) -> Path:
    """Write ``report.md``, its figures and ``report.json`` into the folder; returns the path of the
    first.

    Parameters
    ----------
    structures : Structures
        With the held-out crystals of the committed split, and the training ones for the search of
        neighbours.

    Raises
    ------
    ValueError
        If the structures hold none of the held-out crystals.
    """
    plan, folder = plan or Plan(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stages = 2 + (4 if plan.samples else 0) + plan.depth

    def tell(done: int, note: str) -> None:
        if progress:
            progress(done, stages, note)

    volumes, atoms, names = CrystalStream(structures.part(plan.part)).fixed(limit=plan.crystals)
    tell(0, "losses")
    found: dict[str, Any] = {
        "prior": name,
        "info": prior.info,
        "part": plan.part,
        "volumes": len(volumes),
        "log_snr": list(GRID),
        "losses": losses(
            prior.network, volumes, device=prior.device, precision=prior.precision, seed=plan.seed
        ),
    }
    text = [
        f"# The prior `{name}` on the {plan.part} crystals",
        "",
        about(prior),
        "",
        *loss_table(found["losses"], len(volumes)),
    ]
    tell(1, "x-predictions")
    predictions(prior, volumes[len(volumes) // 2].numpy(), folder / "predictions.png", plan.seed)
    text += PREDICTIONS
    if plan.samples:
        numbers, lines = _samples(prior, structures, volumes.numpy(), folder, plan, tell)
        found.update(numbers)
        text += lines
    if plan.depth:
        first = stages - plan.depth
        rows, picture = depth_test(
            prior, volumes, atoms, names, plan, lambda n, note: tell(first + n, note)
        )
        found["depth"] = [row.as_dict() for row in rows]
        depth_figure(picture, folder / "depth.png")
        text += ["", *depth_table(rows, plan.draws, plan.steps), "", "![depth test](depth.png)"]
    tell(stages, "done")
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    report = folder / "report.md"
    with atomic(report) as temporary:
        temporary.write_text("\n".join(text) + "\n")
    return report


def _samples(
    prior: Prior,
    structures: Structures,
    volumes: Array,
    folder: Path,
    plan: Plan,
    tell: Callable[[int, str], None],
) -> tuple[dict[str, Any], list[str]]:
    """Unconditional samples, their statistics and nearest training crystals: numbers and text."""
    tell(2, "samples")
    drawn = sample(
        prior,
        count=plan.samples,
        steps=plan.steps,
        seed=plan.seed,
        progress=lambda done, total: tell(2, f"samples, step {done} of {total}"),
    )
    made = drawn.cpu().numpy()
    np.save(folder / "samples.npy", made.astype(np.float16))
    gallery(made, folder / "samples.png")
    tell(4, "statistics")
    of_crystals, of_samples = statistics(volumes), statistics(made)
    statistics_figure(
        {f"{plan.part} crystals": of_crystals, "samples": of_samples}, folder / "statistics.png"
    )
    table = {"crystals": _summary(of_crystals), "samples": _summary(of_samples)}
    tell(5, "neighbours")
    count = min(plan.neighbours, plan.samples)
    training = structures.part("train")
    near = nearest(made[:count], training, seed=plan.seed)
    some = volumes[:: max(1, len(volumes) // count)][:count]
    known = nearest(some, training, seed=plan.seed)
    text = [
        "",
        "## Unconditional samples",
        "",
        f"{plan.samples} samples, {plan.steps} steps of SDE-DPM-Solver++(2M), seed {plan.seed}; "
        "four slices and the depth sum of each.",
        "",
        "![samples](samples.png)",
        "",
        *statistics_table(table),
        "",
        "![statistics](statistics.png)",
        "",
        *neighbour_table(near, known),
    ]
    neighbours = {"samples": [asdict(n) for n in near], "crystals": [asdict(n) for n in known]}
    return {"statistics": table, "neighbours": neighbours}, text


def depth_test(
    prior: Prior,
    volumes: torch.Tensor,
    atoms: Sequence[tuple[NDArray[np.integer], NDArray[np.float64]]],
    names: Sequence[str],
    plan: Plan,
    tell: Callable[[int, str], None] = lambda done, note: None,
) -> tuple[list[DepthRow], list[tuple[str, Array, Array, Array]]]:
    """Samples given the true depth sum of held-out crystals and pure noise, beside two baselines.

    Parameters
    ----------
    volumes : Tensor
        (N, D, H, W), rad.
    atoms : sequence of (numbers, positions)
        Of each volume; positions (n, 3) as (z, y, x) in Å.
    tell : callable
        Called with the number of volumes done and what comes next.

    Returns
    -------
    rows : list of DepthRow
    pictures : list of (name, truth, sample, another sample)
    """
    rows, pictures = [], []
    chosen = np.linspace(0, len(volumes) - 1, plan.depth).round().astype(int)
    for n, index in enumerate(chosen):
        tell(n, f"depth of {names[index]}")
        truth = volumes[index].numpy()
        condition = Condition.from_sum(truth.sum(axis=0), truth.shape[0])
        drawn = sample(
            prior, count=plan.draws, steps=plan.steps, condition=condition, seed=plan.seed + n
        )
        made = drawn.cpu().numpy()
        places = atoms[index][1]
        width = truth.shape[1] * prior.voxel_size[1]
        places = places[((places[:, 1:] >= 0) & (places[:, 1:] < width)).all(axis=1)]
        judged = partial(_judged, truth=truth, places=places, voxel_size=prior.voxel_size)
        # reversing the slices leaves the sum as it is: it alone cannot tell which of the two is
        # right
        either = [
            max(judged(d), judged(d[::-1]), key=lambda s: s["depth_correlation"] or 0.0)
            for d in made
        ]
        scores = {
            "sample": mean_scores([judged(d) for d in made]),
            "sample or its mirror image": mean_scores(either),
            f"mean of {plan.draws}": judged(made.mean(axis=0)),
            "even spread": judged(np.broadcast_to(truth.mean(axis=0), truth.shape)),
        }
        rows.append(DepthRow(names[index], scores))
        pictures.append((names[index], truth, made[0], made[1 % len(made)]))
    return rows, pictures


def _judged(
    test: Array, truth: Array, places: Array, voxel_size: tuple[float, float, float]
) -> Values:
    return {
        "psnr": psnr(truth, test),
        "ssim": ssim(truth, test),
        "ssim_sum": ssim(truth.sum(axis=0), test.sum(axis=0)),
        "depth_correlation": depth_correlation(truth, test),
        "atoms_in_slice": atoms_in_slice(test, {"positions": places}, voxel_size),
    }


def _summary(s: Statistics) -> dict[str, list[float]]:
    """Mean and standard deviation of each."""
    values = {
        "periodicity": s.periodicity,
        "atoms": s.atoms,
        "spread": s.spread,
        "mean": s.mean,
        "peak": s.peak,
    }
    return {key: [float(np.mean(v)), float(np.std(v))] for key, v in values.items()}
