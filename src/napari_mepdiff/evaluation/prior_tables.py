"""Words and tables (Markdown) of the report on a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..prior.model import Prior
from ..training.validation import GRID
from .neighbours import Neighbour

Values = dict[str, float | None]


@dataclass(frozen=True)
class DepthRow:
    """One crystal of the depth test: scores of the samples and of what they are compared with."""

    crystal: str
    scores: dict[str, Values]

    def as_dict(self) -> dict[str, object]:
        """As it stands in the JSON report."""
        return {"crystal": self.crystal, **self.scores}


def mean_scores(scores: Sequence[Values]) -> Values:
    """Mean of each score over those that have it."""
    out: Values = {}
    for key in scores[0]:
        values = [v for s in scores if (v := s[key]) is not None]
        out[key] = float(np.mean(values)) if values else None
    return out


def about(prior: Prior) -> str:
    """A sentence: size, training, voxels."""
    info = prior.info
    trained = (
        f"{info['samples']:,} volumes in {info['steps']:,} steps, {info['hours']:.1f} h"
        if "samples" in info
        else "unknown"
    )
    return (
        f"{prior.network.parameters_count / 1e6:.2f} M parameters; trained on {trained}. "
        f"Volumes of 8 × 64 × 64 voxels, {' × '.join(f'{v:g}' for v in prior.voxel_size)} Å."
    )


def loss_table(found: dict[str, list[float]], count: int) -> list[str]:
    """v-losses by λ and by what is known."""
    kinds = {
        "none": "nothing known",
        "sum": "depth sum known",
        "trend": "depth-blurred volume known",
    }
    rows = [
        f"## Losses: mean of |v − v_θ|² over {count} volumes",
        "",
        "| | weighted | " + " | ".join(f"λ = {v:g}" for v in GRID) + " |",
        "|---" * (len(GRID) + 2) + "|",
    ]
    rows += [
        f"| {label} | **{found[f'weighted {kind}'][0]:.4f}** | "
        + " | ".join(f"{v:.3f}" for v in found[kind])
        + " |"
        for kind, label in kinds.items()
    ]
    return [
        *rows,
        "",
        "Weighted: mean over these λ with N(λ; −7, 3). Noise and conditions are the same in every "
        "run of one seed.",
    ]


def statistics_table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Held-out crystals and samples beside each other."""
    labels = {
        "periodicity": "periodicity (largest correlation with itself moved by ≥ 1.6 Å)",
        "atoms": "atoms in a slice",
        "spread": "share of variance along depth",
        "mean": "mean phase (rad)",
        "peak": "highest phase (rad)",
    }
    rows = ["| mean ± standard deviation | held-out crystals | samples |", "|---|---|---|"]
    for key, label in labels.items():
        (a, b), (c, d) = found["crystals"][key], found["samples"][key]
        rows.append(f"| {label} | {a:.3f} ± {b:.3f} | {c:.3f} ± {d:.3f} |")
    return rows


def neighbour_table(near: Sequence[Neighbour], known: Sequence[Neighbour]) -> list[str]:
    """Nearest training crystals of samples and, for comparison, of held-out crystals."""

    def line(kind: str, n: int, one: Neighbour) -> str:
        what = f"{one.name} ({one.formula}) along {one.axis}"
        return f"| {kind} {n + 1} | {what} | {one.correlation:.3f} |"

    return [
        "Nearest training crystals (of 3,000 drawn as in training; best in-plane turn, mirror "
        "image and move). A sample that copied one would correlate with it as a crystal does with "
        "itself (1); held-out crystals show what is usual.",
        "",
        "| | nearest | correlation |",
        "|---|---|---|",
        *(line("sample", n, one) for n, one in enumerate(near)),
        *(line("held-out crystal", n, one) for n, one in enumerate(known)),
    ]


def depth_table(rows: Sequence[DepthRow], draws: int, steps: int) -> list[str]:
    """Mean scores of the depth test."""
    out = [
        "## Depth from a known depth sum",
        "",
        f"{len(rows)} volumes, {draws} samples each of {steps} steps, given the true depth sum and "
        'pure noise; no diffraction data. "Even spread": the sum shared equally among the slices.',
        "",
        "| | PSNR (dB) | SSIM | sum SSIM | depth correlation | atoms in slice |",
        "|---|---|---|---|---|---|",
    ]
    for kind in rows[0].scores:
        mean = mean_scores([r.scores[kind] for r in rows])
        shown = [
            "–" if (c := mean[name]) is None else f"{c:.{1 if name == 'psnr' else 3}f}"
            for name in ("psnr", "ssim", "ssim_sum", "depth_correlation", "atoms_in_slice")
        ]
        out.append(f"| {kind} | {' | '.join(shown)} |")
    return out
