"""Report on a prior: losses on held-out crystals, samples and their statistics, depth from a known depth sum."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..files import atomic
from ..prior.condition import Condition
from ..prior.crystals import CrystalStream
from ..prior.model import Prior
from ..prior.noise import diffuse
from ..prior.sampling import sample
from ..prior.structures import Part, Structures
from ..prior.validate import GRID, losses
from .crystallinity import Statistics, statistics
from .metrics import atoms_in_slice, depth_correlation, psnr, ssim
from .neighbours import nearest

Array = NDArray[np.floating]
Progress = Callable[[int, int, str], None]
SHOWN = (-13.0, -10.0, -8.0, -6.0, -4.0, -2.0, 0.0, 4.0)  # λ of the figure of x-predictions


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


def evaluate_prior(prior: Prior, structures: Structures, folder: str | Path, plan: Plan | None = None, name: str = "prior",
                   progress: Progress | None = None) -> Path:
    """Write ``report.md``, its figures and ``report.json`` into the folder; returns the path of the first.

    Parameters
    ----------
    structures : Structures
        With the held-out crystals of the committed split, and the training ones for the search of neighbours.

    Raises
    ------
    ValueError
        If the structures hold none of the held-out crystals.
    """
    plan, folder = plan or Plan(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda done, total, note: None)
    held = structures.part(plan.part)
    volumes, atoms, names = CrystalStream(held).fixed(limit=plan.crystals)
    stages = 2 + (4 if plan.samples else 0) + plan.depth
    tell(0, stages, "losses")
    found: dict[str, Any] = {"prior": name, "info": prior.info, "part": plan.part, "volumes": len(volumes), "log_snr": list(GRID)}
    found["losses"] = losses(prior.network, volumes, device=prior.device, precision=prior.precision, seed=plan.seed)
    text = [f"# The prior `{name}` on the {plan.part} crystals", "", _about(prior), "", *_loss_table(found["losses"], len(volumes))]
    tell(1, stages, "x-predictions")
    predictions(prior, volumes[len(volumes) // 2].numpy(), folder / "predictions.png", plan.seed)
    text += ["", "## x-predictions", "", "A held-out crystal (slice 5 of 8, and its depth sum) with noise added at falling "
             "levels, and what the network makes of it without being told anything, given its depth sum, and given a depth-blurred "
             "volume. Compare figure 3 of the paper.",
             "", "![x-predictions](predictions.png)"]
    if plan.samples:
        tell(2, stages, "samples")
        drawn = sample(prior, count=plan.samples, steps=plan.steps, seed=plan.seed,
                       progress=lambda d, t: tell(2, stages, f"samples, step {d} of {t}")).cpu().numpy()
        np.save(folder / "samples.npy", drawn.astype(np.float16))
        gallery(drawn, folder / "samples.png")
        tell(4, stages, "statistics")
        real, made = statistics(volumes.numpy()), statistics(drawn)
        statistics_figure({f"{plan.part} crystals": real, "samples": made}, folder / "statistics.png")
        found["statistics"] = {"crystals": _summary(real), "samples": _summary(made)}
        text += ["", "## Unconditional samples", "", f"{plan.samples} samples, {plan.steps} steps of SDE-DPM-Solver++(2M), "
                 f"seed {plan.seed}; four slices and the depth sum of each.", "", "![samples](samples.png)", "",
                 *_statistics_table(found["statistics"]), "",
                 "![statistics](statistics.png)"]
        count = min(plan.neighbours, plan.samples)
        tell(5, stages, "neighbours")
        training = structures.part("train")
        near = nearest(drawn[:count], training, seed=plan.seed)
        known = nearest(volumes[:: max(1, len(volumes) // count)][:count].numpy(), training, seed=plan.seed)
        found["neighbours"] = {"samples": [asdict(n) for n in near], "crystals": [asdict(n) for n in known]}
        text += ["", *_neighbour_table(near, known)]
    if plan.depth:
        rows, picture = depth_test(prior, volumes, atoms, names, plan,
                                   lambda d, note: tell(stages - plan.depth + d, stages, note))
        found["depth"] = rows
        depth_figure(picture, folder / "depth.png")
        text += ["", *_depth_table(rows, plan), "", "![depth test](depth.png)"]
    tell(stages, stages, "done")
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    report = folder / "report.md"
    with atomic(report) as temporary:
        temporary.write_text("\n".join(text) + "\n")
    return report


def depth_test(prior: Prior, volumes: torch.Tensor, atoms: list[Any], names: list[str], plan: Plan,
               tell: Callable[[int, str], None] = lambda done, note: None) -> tuple[list[dict[str, Any]], list[Any]]:
    """Samples given the true depth sum of held-out crystals and pure noise, beside two baselines."""
    rows, picture = [], []
    chosen = np.linspace(0, len(volumes) - 1, plan.depth).round().astype(int)
    for n, index in enumerate(chosen):
        tell(n, f"depth of {names[index]}")
        truth = volumes[index].numpy()
        condition = Condition.from_sum(truth.sum(axis=0), truth.shape[0])
        drawn = sample(prior, count=plan.draws, steps=plan.steps, condition=condition, seed=plan.seed + n).cpu().numpy()
        even = np.broadcast_to(truth.mean(axis=0), truth.shape)
        where = {"positions": atoms[index][1]}
        inside = ((where["positions"][:, 1:] >= 0) & (where["positions"][:, 1:] < truth.shape[1] * prior.voxel_size[1])).all(axis=1)
        where = {"positions": where["positions"][inside]}

        def judged(test: Array, truth: Array = truth, where: dict[str, Any] = where) -> dict[str, float | None]:
            return {"psnr": psnr(truth, test), "ssim": ssim(truth, test), "ssim_sum": ssim(truth.sum(axis=0), test.sum(axis=0)),
                    "depth_correlation": depth_correlation(truth, test),
                    "atoms_in_slice": atoms_in_slice(test, where, prior.voxel_size)}

        each = [judged(d) for d in drawn]
        # reversing the slices leaves the sum as it is: the sum alone cannot tell which of the two is right
        either = [max(judged(d), judged(d[::-1]), key=lambda s: s["depth_correlation"] or 0.0) for d in drawn]
        rows.append({"crystal": names[index], "sample": _mean(each), "sample or its mirror image": _mean(either),
                     f"mean of {plan.draws}": judged(drawn.mean(axis=0)), "even spread": judged(even)})
        picture.append((names[index], truth, drawn[0], drawn[1 % len(drawn)]))
    return rows, picture


def predictions(prior: Prior, truth: Array, path: Path, seed: int = 0) -> None:
    """The paper's figure 3: noised volumes and x-predictions over λ."""
    x = torch.from_numpy(np.asarray(truth, np.float32))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    middle = x.shape[0] // 2
    known = {"noised": None, "x-prediction": None, "given the sum": Condition.from_sum(truth.sum(axis=0), len(truth))}
    blurred = _blur(truth, 1.5)
    known["given a blurred\nvolume"] = Condition.from_volume(blurred, depth_correlation(truth, blurred) or 0.0)
    figure, axes = _figure(len(known) + 1, len(SHOWN) + 1, 1.25)
    top, total = float(np.percentile(truth, 99.8)), truth.sum(axis=0)
    for row, (label, condition) in enumerate(known.items()):
        axes[row, 0].set_ylabel(label, fontsize=8)
        for column, level in enumerate(SHOWN):
            z = diffuse(prior.scale * x, noise, level)
            if label == "noised":
                axes[row, column].imshow(z[middle], cmap="gray", vmin=-3, vmax=3 if level < 0 else prior.scale * top)
                axes[row, column].set_title(f"λ = {level:g}", fontsize=8)
            else:
                made = prior(z, level, condition).numpy() / prior.scale
                axes[row, column].imshow(made[middle], cmap="gray", vmin=0, vmax=top)
                if label == "x-prediction":
                    axes[len(known), column].imshow(made.sum(axis=0), cmap="gray", vmin=0, vmax=np.percentile(total, 99.8))
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
    """Histogram, power spectrum, periodicity, atoms per slice and depth variation of several sets."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 2.7), layout="constrained")
    axes = figure.subplots(1, 5)
    for n, (name, s) in enumerate(sets.items()):
        style: dict[str, Any] = {"color": f"C{n}", "label": name, "lw": 1.3}
        axes[0].semilogy(s.bins, np.maximum(s.histogram, 1e-7), **style)
        axes[1].semilogy(s.frequency[1:], s.power[1:], **style)
        for axis, values, top in ((axes[2], s.periodicity, 1.0), (axes[3], s.atoms, 60.0), (axes[4], s.spread, 1.0)):
            axis.hist(values.clip(0, top), bins=np.linspace(0, top, 21), density=True, histtype="step", **style)
    for axis, label in zip(axes, ("phase (rad)", "lateral frequency (Å⁻¹)", "periodicity", "atoms in a slice",
                                  "share of variance along depth"), strict=True):
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
        for row, (label, volume) in enumerate(zip((f"{name}\ntruth", "sample 1", "sample 2"), (truth, *drawn), strict=True)):
            axes[3 * n + row, 0].set_ylabel(label, fontsize=7)
            for s in range(depth):
                axes[3 * n + row, s].imshow(volume[s], cmap="gray", vmin=0, vmax=top)
            axes[3 * n + row, depth].imshow(volume.sum(axis=0), cmap="gray")
    axes[0, depth].set_title("depth sum", fontsize=8)
    _write(figure, path)


def _figure(rows: int, columns: int, size: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size * columns, size * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def _write(figure: Any, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _blur(volume: Array, slices: float) -> Array:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(volume, slices, axis=0, mode="reflect")


def _mean(scores: list[dict[str, float | None]]) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for key in scores[0]:
        values = [s[key] for s in scores if s[key] is not None]
        out[key] = float(np.mean(values)) if values else None  # type: ignore[arg-type]
    return out


def _summary(s: Statistics) -> dict[str, list[float]]:
    """Mean and standard deviation of each."""
    return {key: [float(np.mean(values)), float(np.std(values))] for key, values in (
        ("periodicity", s.periodicity), ("atoms", s.atoms), ("spread", s.spread), ("mean", s.mean), ("peak", s.peak))}


def _about(prior: Prior) -> str:
    info = prior.info
    seen = f"{info['samples']:,} volumes in {info['steps']:,} steps, {info['hours']:.1f} h" if "samples" in info else "unknown"
    return (f"{prior.network.parameters_count / 1e6:.2f} M parameters; trained on {seen}. Volumes of 8 × 64 × 64 voxels, "
            f"{' × '.join(f'{v:g}' for v in prior.voxel_size)} Å.")


def _loss_table(found: dict[str, list[float]], count: int) -> list[str]:
    kinds = {"none": "nothing known", "sum": "depth sum known", "trend": "depth-blurred volume known"}
    rows = [f"## Losses: mean of |v − v_θ|² over {count} volumes", "",
            "| | weighted | " + " | ".join(f"λ = {v:g}" for v in GRID) + " |",
            "|---" * (len(GRID) + 2) + "|"]
    rows += [f"| {label} | **{found[f'weighted {kind}'][0]:.4f}** | " + " | ".join(f"{v:.3f}" for v in found[kind]) + " |"
             for kind, label in kinds.items()]
    return [*rows, "", "Weighted: mean over these λ with N(λ; −7, 3). Noise and conditions are the same in every run of one seed."]


def _statistics_table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    labels = {"periodicity": "periodicity (largest correlation with itself moved by ≥ 1.6 Å)", "atoms": "atoms in a slice",
              "spread": "share of variance along depth", "mean": "mean phase (rad)", "peak": "highest phase (rad)"}
    rows = ["| mean ± standard deviation | held-out crystals | samples |", "|---|---|---|"]
    for key, label in labels.items():
        (a, b), (c, d) = found["crystals"][key], found["samples"][key]
        rows.append(f"| {label} | {a:.3f} ± {b:.3f} | {c:.3f} ± {d:.3f} |")
    return rows


def _neighbour_table(near: list[Any], known: list[Any]) -> list[str]:
    def line(kind: str, n: int, one: Any) -> str:
        return f"| {kind} {n + 1} | {one.name} ({one.formula}) along {one.axis} | {one.correlation:.3f} |"

    return ["Nearest training crystals (of 3,000 drawn as in training; best in-plane turn, mirror image and move). A sample that "
            "copied one would correlate with it as a crystal does with itself (1); held-out crystals show what is usual.", "",
            "| | nearest | correlation |", "|---|---|---|",
            *(line("sample", n, one) for n, one in enumerate(near)),
            *(line("held-out crystal", n, one) for n, one in enumerate(known))]


def _depth_table(rows: list[dict[str, Any]], plan: Plan) -> list[str]:
    kinds = [k for k in rows[0] if k != "crystal"]
    out = ["## Depth from a known depth sum", "", f"{len(rows)} volumes, {plan.draws} samples each of {plan.steps} steps, given "
           "the true depth sum and pure noise; no diffraction data. \"Even spread\": the sum shared equally among the slices.", "",
           "| | PSNR (dB) | SSIM | sum SSIM | depth correlation | atoms in slice |", "|---|---|---|---|---|---|"]
    for kind in kinds:
        mean = _mean([r[kind] for r in rows])
        cells = [mean["psnr"], mean["ssim"], mean["ssim_sum"], mean["depth_correlation"], mean["atoms_in_slice"]]
        shown = ["–" if c is None else f"{c:.{1 if n == 0 else 3}f}" for n, c in enumerate(cells)]
        out.append(f"| {kind} | {' | '.join(shown)} |")
    return out
