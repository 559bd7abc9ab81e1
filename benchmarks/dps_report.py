"""From what ``benchmarks/dps.py --sweep`` left: means, bars, failures, spread, figures.

python benchmarks/dps.py --report out      # prints markdown; writes docs/data and docs/dps
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import output

DOCS = Path(__file__).parents[1] / "docs"
SHOWN = ("ssim", "psnr", "ssim_sum", "psnr_sum", "depth_correlation", "atoms_in_slice", "seconds")
ORDINARY = ("Adam", "Adam, non-negative", "L-BFGS", "L-BFGS, non-negative")
VOXEL = (1.6, 0.2, 0.2)


def report(folder: Path) -> str:
    """Markdown of the whole sweep."""
    rows = [r for f in sorted(folder.glob("sweep_*.csv")) for r in output.table(f)]
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for r in rows:
        groups[(r["variant"], r["steps"], r["schedule"])].append(r)
    _write(rows, DOCS / "data" / "dps_sweep.csv")
    out = [
        "| variant | steps | schedule | n | SSIM | PSNR (dB) | sum SSIM | sum PSNR (dB) | depth "
        "corr. | atoms in slice "
        "| s (one core) |",
        "|---" * 11 + "|",
    ]
    for (variant, steps, schedule), members in sorted(
        groups.items(), key=lambda g: _mean(g[1], "ssim")[0]
    ):
        cells = []
        for name in SHOWN:
            mean, error, count = _mean(members, name)
            digits = {"psnr": 1, "psnr_sum": 1, "seconds": 0}.get(name, 3)
            cells.append(
                ""
                if not count
                else f"{mean:.{digits}f}"
                + (f" ± {error:.{digits}f}" if name in ("ssim", "psnr") else "")
            )
        out.append(
            f"| {variant} | {steps} | {schedule} | {len(members)} | " + " | ".join(cells) + " |"
        )
    out += ["", *_bars(groups), "", *_failures(folder, groups), "", *_spread(folder, groups)]
    _figures(folder, groups)
    return "\n".join(out)


def _write(rows: list[dict[str, str]], path: Path) -> None:
    fields = [f for f in rows[0] if f not in ("volume", "spread_error")]
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, fields, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(
            sorted(
                rows,
                key=lambda r: (r["variant"], r["schedule"], int(r["steps"] or 0), r["crystal"]),
            )
        )


def _values(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(r[name]) for r in rows if r.get(name, "") not in ("", "nan")])


def _mean(rows: list[dict[str, str]], name: str) -> tuple[float, float, int]:
    v = _values(rows, name)
    return (
        (float(v.mean()), float(v.std(ddof=1) / len(v) ** 0.5) if len(v) > 1 else 0.0, len(v))
        if len(v)
        else (0.0, 0.0, 0)
    )


def _best(
    groups: Any, variants: tuple[str, ...], name: str, crystals: set[str]
) -> dict[str, float]:
    """Of each crystal, the best value that any of the variants reached."""
    out: dict[str, float] = {}
    for (variant, _, _), members in groups.items():
        if variant in variants:
            for r in members:
                if r["crystal"] in crystals:
                    out[r["crystal"]] = max(out.get(r["crystal"], -1e9), float(r[name]))
    return out


def _bars(groups: Any) -> list[str]:
    key = max(
        (k for k in groups if k[0] == "atoms"), key=lambda k: (len(groups[k]), int(k[1]) == 100)
    )
    dps = {r["crystal"]: r for r in groups[key]}
    out = [
        f"`atoms`, {key[1]} steps, {len(dps)} crystals, against the best of each crystal's "
        f"ordinary solutions:",
        "",
    ]
    for title, variants in (("Adam and L-BFGS", ORDINARY), ("atomic sources", ("atomic sources",))):
        for name, kind in (("ssim", "ratio"), ("psnr", "gain"), ("ssim_sum", "gain")):
            other = _best(groups, variants, name, set(dps))
            shared = sorted(set(other) & set(dps))
            ours, theirs = (
                np.mean([float(dps[c][name]) for c in shared]),
                np.mean([other[c] for c in shared]),
            )
            better = sum(float(dps[c][name]) > other[c] for c in shared)
            value = f"{ours / theirs:.2f} ×" if kind == "ratio" else f"{ours - theirs:+.3f}"
            out.append(
                f"- {name} {ours:.3f} against {theirs:.3f} of {title}: {value}; better on "
                f"{better} of {len(shared)}"
            )
    return out


def _load(
    folder: Path, row: dict[str, str]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], Any]:
    truth = np.load(folder / f"{row['crystal'].replace(' ', '_')}_truth.npz")
    found = np.load(folder / f"{row['volume']}.npz")
    return (
        truth["volume"],
        found["volume"].astype(np.float32),
        {k: truth[k] for k in truth.files if k != "volume"},
        found,
    )


def _failures(folder: Path, groups: Any) -> list[str]:
    from napari_mepdiff.evaluation.failures import failures

    names = (
        "slices in the wrong order",
        "blurred in depth",
        "missing atoms",
        "extra atoms",
        "another structure",
    )
    out = [
        "| variant | steps | crystals | none of these | "
        + " | ".join(names)
        + " | atoms missing | atoms extra |",
        "|---" * 11 + "|",
    ]
    for (variant, steps, schedule), members in sorted(groups.items()):
        if (
            schedule not in ("", "shifted-sigmoid")
            or variant in ("Adam", "L-BFGS")
            or steps not in ("", "50", "100")
        ):
            continue
        seen, missing, extra, total = Counter(), 0, 0, 0
        for row in members:
            truth, volume, atoms, _ = _load(folder, row)
            found = failures(volume, truth, atoms, VOXEL)
            seen.update(found.names() or ["none"])
            missing, extra, total = (
                missing + found.missing,
                extra + found.extra,
                total + found.atoms,
            )
        out.append(
            f"| {variant} | {steps} | {len(members)} | {seen['none']} | "
            + " | ".join(str(seen[n]) for n in names)
            + f" | {missing / total:.0%} | {extra / total:.0%} |"
        )
    return out


def _spread(folder: Path, groups: Any) -> list[str]:
    out = [
        "| variant | steps | correlation of spread with error | where samples agree, error (rad "
        "rms) | where not |",
        "|---|---|---|---|---|",
    ]
    for (variant, steps, schedule), members in sorted(groups.items()):
        values, sure, unsure = [], [], []
        for row in members:
            truth, volume, _, found = _load(folder, row)
            if "std" not in found.files or not found["std"].any():
                continue
            error = np.abs(volume - truth)
            values.append(np.corrcoef(found["std"].astype(np.float32).ravel(), error.ravel())[0, 1])
            agree = found["agreement"].astype(np.float32) > 0.9
            sure.append(np.sqrt((error[agree] ** 2).mean()))
            unsure.append(np.sqrt((error[~agree] ** 2).mean()) if (~agree).any() else np.nan)
        if values:
            name = f"{variant}, {schedule}" if schedule == "alpha" else variant
            out.append(
                f"| {name} | {steps} | {np.mean(values):.2f} ({min(values):.2f} to "
                f"{max(values):.2f}) | {np.mean(sure):.3f} "
                f"| {np.nanmean(unsure):.3f} |"
            )
    return out


# ---- figures -------------------------------------------------------------------------------------
def _figures(folder: Path, groups: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), dpi=130)
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    palette = [
        "#4477aa",
        "#66ccee",
        "#228833",
        "#ccbb44",
        "#ee6677",
        "#aa3377",
        "#bbbbbb",
        "#222222",
        "#885522",
        "#117733",
        "#999933",
        "#882255",
    ]
    colours = dict(zip(sorted({k[0] for k in groups}), palette, strict=False))
    shown: set[str] = set()
    for (variant, steps, schedule), members in sorted(groups.items()):
        s, error, _ = _mean(members, "ssim")
        mark = (
            "s"
            if not steps
            else ("^" if schedule == "alpha" else "v" if schedule == "constant" else "o")
        )
        axis.errorbar(
            int(steps) if steps else 12,
            s,
            error,
            fmt=mark,
            color=colours[variant],
            capsize=2,
            ms=5,
            label=None if variant in shown else variant,
        )
        shown.add(variant)
    axis.set(
        xscale="log",
        xlabel="network steps (ordinary solvers at the left)",
        ylabel="volume SSIM, mean ± standard error",
        title="Crystals that training never saw, 1e6 e/Å², paper geometry",
    )
    axis.set_xticks([12, 25, 50, 100, 200], ["none", "25", "50", "100", "200"])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.tight_layout()
    figure.savefig(DOCS / "dps" / "quality.png")

    from napari_mepdiff.evaluation.figures import compare_figure
    from napari_mepdiff.evaluation.metrics import evaluate
    from napari_mepdiff.specimen.volume import Volume

    best = sorted(
        (k for k in groups if k[0] == "atoms" and k[1] == "100"), key=lambda k: -len(groups[k])
    )[0]
    order = sorted(groups[best], key=lambda r: float(r["ssim"]))
    for name, row in (("good", order[-2]), ("middle", order[len(order) // 2]), ("bad", order[0])):
        volumes, scores = {}, {}
        truth, _, atoms, _ = _load(folder, row)
        volumes["truth"] = Volume(truth, VOXEL)
        for variant, key in (
            ("L-BFGS\nnon-negative", ("L-BFGS, non-negative", "", "")),
            ("atomic\nsources", ("atomic sources", "", "")),
            ("Newton guidance", ("newton", "100", "shifted-sigmoid")),
            ("whole atoms", best),
        ):
            match = [r for r in groups.get(key, []) if r["crystal"] == row["crystal"]]
            if match:
                volumes[variant] = Volume(_load(folder, match[0])[1], VOXEL)
                scores[variant] = evaluate(volumes[variant], volumes["truth"], atoms)
        compare_figure(
            volumes,
            DOCS / "dps" / f"{name}.png",
            scores,
            f"{row['crystal']}, held out: phase in rad",
        )

    figure = Figure(figsize=(10, 3.2), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    row = order[len(order) // 2]
    truth, volume, _, found = _load(folder, row)
    if "std" in found.files:
        std, s = (
            found["std"].astype(np.float32),
            int(np.argmax(np.abs(volume - truth).sum(axis=(1, 2)))),
        )
        for axis, image, title in (
            (axes[0], np.abs(volume - truth)[s], "|error|"),
            (axes[1], std[s], "spread of the answers"),
        ):
            shown_image = axis.imshow(image, cmap="inferno", extent=(0, 12.8, 12.8, 0))
            figure.colorbar(shown_image, ax=axis, label="rad", fraction=0.046)
            axis.set(title=f"{title}, slice {s + 1}", xlabel="Å")
        every, gone = np.argsort(std.ravel()), np.abs(volume - truth).ravel()
        bins = np.array_split(every, 20)
        axes[2].plot(
            [std.ravel()[b].mean() for b in bins],
            [np.sqrt((gone[b] ** 2).mean()) for b in bins],
            "o-",
            color="#aa3377",
        )
        axes[2].set(
            xlabel="spread (rad)",
            ylabel="true error (rad rms)",
            title="each point 5 % of the voxels",
        )
        axes[2].grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(DOCS / "dps" / "spread.png")
