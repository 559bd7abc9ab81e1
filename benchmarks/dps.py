"""Posterior sampling: where the time of a step goes, and what each variant reaches on new crystals.

    python benchmarks/dps.py [--json FILE]     # time of a step and of 100 steps
    python benchmarks/dps.py --sweep out       # the table and every volume; resumable
    python benchmarks/dps.py --report out      # means, failures and spread from it, as markdown

Ordinary solvers get the benefit of the best stopping: of all their frames the one with the highest
SSIM counts, which only those who know the truth could choose. DPS and its kin are judged by their
last frame.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output

ORDINARY: dict[str, tuple[str, dict[str, Any]]] = {
    "L-BFGS": (
        "lbfgs",
        {
            "misfit": "poisson",
            "batch": None,
            "learning_rates": (1.0,),
            "evaluations": 5,
            "iterations": 12,
            "line_search": True,
        },
    ),
    "L-BFGS, non-negative": (
        "lbfgs",
        {
            "misfit": "poisson",
            "batch": None,
            "learning_rates": (1.0,),
            "evaluations": 5,
            "iterations": 16,
            "line_search": True,
            "non_negative": True,
        },
    ),
    "atomic sources": ("atomic", {"elements": True}),
    "Adam": ("adam", {"iterations": 10, "learning_rate": 5e-4}),
    "Adam, non-negative": (
        "adam",
        {"iterations": 25, "learning_rate": 5e-4, "misfit": "poisson", "non_negative": True},
    ),
}
FREE = {"condition": "none", "samples": 1, "passes": 1}
GIVEN = {"guidance": "newton", "condition": "volume", "samples": 1}
SWEEP: list[tuple[str, dict[str, Any]]] = [
    ("atoms", {"guidance": "atoms", "elements": True, "steps": 100}),
    ("newton", {"guidance": "newton", **FREE, "steps": 100}),
    ("paper", {"guidance": "paper", "samples": 1, "steps": 100}),
    ("Adam-guidance", {"guidance": "adam", **FREE, "steps": 100}),
    ("newton, given a volume", {**GIVEN, "steps": 100}),
    ("newton", {"guidance": "newton", **FREE, "steps": 100, "schedule": "alpha"}),
    ("decoupled", {"guidance": "decoupled", **FREE, "steps": 50}),
    ("warm start", {"guidance": "newton", **FREE, "steps": 50, "warm": True}),
    ("newton", {"guidance": "newton", **FREE, "steps": 25}),
    ("newton, given a volume", {**GIVEN, "steps": 25}),
    ("decoupled", {"guidance": "decoupled", **FREE, "steps": 50, "schedule": "constant"}),
    ("newton, given a volume, 8 samples", {**GIVEN, "steps": 25, "samples": 8}),
    ("Adam-guidance", {"guidance": "adam", **FREE, "steps": 25}),
    ("atoms", {"guidance": "atoms", "elements": True, "steps": 25}),
    ("atoms", {"guidance": "atoms", "elements": True, "steps": 50}),
    ("newton", {"guidance": "newton", **FREE, "steps": 50}),
    ("Adam-guidance", {"guidance": "adam", **FREE, "steps": 50}),
    ("newton, given a volume, all positions", {**GIVEN, "steps": 25, "fraction": 1.0}),
    ("newton, given a volume, 1/16 of the positions", {**GIVEN, "steps": 25, "fraction": 1 / 16}),
    ("newton, given a volume", {**GIVEN, "steps": 100, "schedule": "alpha"}),
    ("warm start", {"guidance": "newton", **FREE, "steps": 100, "warm": True}),
    ("newton", {"guidance": "newton", **FREE, "steps": 200}),
    ("Adam-guidance", {"guidance": "adam", **FREE, "steps": 200}),
    ("atoms", {"guidance": "atoms", "elements": True, "steps": 200}),
]
FIELDS = (
    "crystal",
    "variant",
    "steps",
    "schedule",
    "ssim",
    "psnr",
    "ssim_sum",
    "psnr_sum",
    "correlation",
    "depth_correlation",
    "atoms_in_slice",
    "misfit",
    "seconds",
    "spread_error",
    "volume",
)


# ---- speed ---------------------------------------------------------------------------------------
def measure(steps: int = 100) -> dict[str, Any]:
    """Seconds of 100 steps of each guidance on a sample, and where they go."""
    from napari_mepdiff.measurement.samples import open_sample
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve

    problem = Problem.from_data(open_sample("cuwo4"))
    parts: dict[str, dict[str, float]] = {}
    for name, fields in {
        "newton": {"guidance": "newton", **FREE},
        "paper": {"guidance": "paper", "samples": 1},
        "adam": {"guidance": "adam", **FREE},
        "decoupled": {"guidance": "decoupled", **FREE},
        "decoupled, one step": {"guidance": "decoupled", **FREE, "inner": 1},
        "atoms": {"guidance": "atoms", "elements": ("Cu", "W", "O")},
    }.items():
        if name != "atoms":
            list(
                solve(problem, SOLVERS["dps"].default(steps=4, **fields))
            )  # plans and compiled code
        begin = time.perf_counter()
        frames = [
            f for f in solve(problem, SOLVERS["dps"].default(steps=steps, **fields)) if f.step
        ]
        total = time.perf_counter() - begin
        spent = {
            p: sum(getattr(f.info, f"seconds_{p}") for f in frames)
            for p in ("network", "pullback", "likelihood", "step")
        }
        rest = spent["step"] - spent["network"] - spent["pullback"] - spent["likelihood"]
        parts[name] = {
            **{k: v / steps for k, v in spent.items()},
            "rest": rest / steps,
            "overhead": rest / spent["step"],
            "seconds": total,
        }
    fastest = min((n for n in parts), key=lambda n: parts[n]["seconds"])
    return {
        "overhead_fraction": max(p["overhead"] for p in parts.values()),
        "seconds_100_steps": {
            "newton": parts["newton"]["seconds"],
            "paper": parts["paper"]["seconds"],
            "fastest": parts[fastest]["seconds"],
        },
        "fastest": fastest,
        "parts": parts,
    }


# ---- quality -------------------------------------------------------------------------------------
def judge(truth: Any, atoms: Any, volume: Any, std: Any = None) -> dict[str, float]:
    """The metrics of one volume, by name."""
    import numpy as np

    from napari_mepdiff.evaluation.metrics import evaluate
    from napari_mepdiff.specimen.volume import Volume

    scores = evaluate(Volume(volume, truth.voxel_size), truth, atoms).as_dict()
    row = {k: v for k, v in scores.items() if k != "deviance"}
    if std is not None:
        row["spread_error"] = float(
            np.corrcoef(std.ravel(), np.abs(volume - truth.array).ravel())[0, 1]
        )
    return row


def sweep(
    folder: Path, crystals: list[int], part: str, core: int | None, only: list[str] | None = None
) -> None:
    """Every variant (or only those named) on these crystals; rows of the table are not redone."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import numpy as np
    import torch

    if core is not None:
        torch.set_num_threads(1)
    from ase.data import chemical_symbols

    from napari_mepdiff.evaluation.benchmark import held_out
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve

    table = folder / f"sweep_{core if core is not None else 'all'}.csv"
    done = {
        (r["crystal"], r["variant"], r["steps"], r["schedule"])
        for f in folder.glob("sweep_*.csv")
        for r in output.table(f)
    }
    data = {}
    for n in crystals:
        for name, measured in held_out(1, part, first=n):  # type: ignore[arg-type]
            symbols = sorted({chemical_symbols[z] for z in measured.truth_atoms["numbers"]})  # type: ignore[index]
            data[name] = (measured, Problem.from_data(measured), symbols)
            np.savez(
                folder / f"{name.replace(' ', '_')}_truth.npz",
                volume=measured.truth.array,  # type: ignore[union-attr]
                **measured.truth_atoms,
            )  # type: ignore[arg-type]
    ordinary: list[tuple[str, str, dict[str, Any]]] = [
        (name, solver, fields) for name, (solver, fields) in ORDINARY.items()
    ]
    # what matters most first, so that a table that is cut short has every crystal of it
    jobs = ordinary[:3] + [(name, "dps", fields) for name, fields in SWEEP[:10]] + ordinary[3:]
    jobs += [(name, "dps", fields) for name, fields in SWEEP[10:]]
    for variant, solver, fields in jobs:
        if only and f"{variant} {fields.get('steps', '')}".strip() not in only:
            continue
        for name, (measured, problem, symbols) in data.items():
            given = dict(fields)
            schedule = given.get("schedule", "shifted-sigmoid") if solver == "dps" else ""
            key = (name, variant, str(given.get("steps", "")), schedule)
            if key in done:
                continue
            if given.get("elements"):
                given["elements"] = symbols
            start, file = (
                None,
                folder / f"{name}_{variant}_{key[2]}_{key[3]}".replace(" ", "_").replace(",", ""),
            )
            if given.pop("warm", False):
                start = _start(folder, name)
            settings = SOLVERS[solver].default(**{"detector_stride": 2, **given})
            begin, best, last = (
                time.process_time(),
                None,
                None,
            )  # of one core, however busy the machine is
            try:
                for last in solve(problem, settings, start=start):
                    if solver != "dps" and last.step:
                        row = judge(measured.truth, measured.truth_atoms, last.volume)
                        if best is None or row["ssim"] > best[0]["ssim"]:
                            best = (row, last.volume, last.loss, time.process_time() - begin)
            except (ArithmeticError, ValueError) as error:
                print(f"{name} {variant}: {error}", flush=True)
                continue
            assert last is not None
            if best is None:
                seconds = time.process_time() - begin
                row = judge(
                    measured.truth, measured.truth_atoms, last.volume, last.arrays.get("std")
                )
                best = (row, last.volume, last.loss, seconds)
            row, volume, loss, seconds = best
            extra = {
                k: v.astype(np.float16) for k, v in last.arrays.items() if k in ("std", "agreement")
            }
            np.savez_compressed(
                file.with_name(file.name + ".npz"), volume=volume.astype(np.float16), **extra
            )
            full = {
                **dict.fromkeys(FIELDS, ""),
                **row,
                "crystal": name,
                "variant": variant,
                "steps": key[2],
                "schedule": key[3],
                "misfit": loss,
                "seconds": round(seconds, 1),
                "volume": file.name,
            }
            fresh = not table.exists()
            with table.open("a", newline="") as handle:
                writer = csv.DictWriter(handle, FIELDS)
                if fresh:
                    writer.writeheader()
                writer.writerow(
                    {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in full.items()}
                )
            print(
                f"{name} {variant} {key[2]} {key[3]}: SSIM {row['ssim']:.3f}, depth "
                f"{row['depth_correlation']:.2f}, "
                f"{seconds:.0f} s",
                flush=True,
            )


def _start(folder: Path, name: str) -> Any:
    import numpy as np

    return np.load(folder / (f"{name}_L-BFGS_non-negative__".replace(" ", "_") + ".npz"))[
        "volume"
    ].astype(np.float32)


def main() -> None:
    """Parse and run."""
    parser = output.parser(__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--sweep", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--crystals", type=int, default=12)
    parser.add_argument("--part", default="test")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--only",
        action="append",
        help="variant with its steps, e.g. 'atoms 100'; as often as needed",
    )
    args = output.parse(parser)
    if args.report:
        from benchmarks.dps_report import report

        print(report(args.report))
    elif args.sweep:
        args.sweep.mkdir(parents=True, exist_ok=True)
        numbers = list(range(args.crystals))
        if args.workers == 1:
            sweep(args.sweep, numbers, args.part, None, args.only)
            return
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(
                target=sweep, args=(args.sweep, numbers[k :: args.workers], args.part, k, args.only)
            )
            for k in range(args.workers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    else:
        found = measure(args.steps)
        output.write({k: found[k] for k in ("overhead_fraction", "seconds_100_steps")}, args.json)
        heads = ("network", "pullback", "likelihood", "rest", "step", "overhead", "100 steps")
        print(f"{'':22}" + "".join(f"{h:>12}" for h in heads))
        for name, p in found["parts"].items():
            print(
                f"{name:22}"
                + "".join(
                    f"{p[k] * 1e3:>9.1f} ms"
                    for k in ("network", "pullback", "likelihood", "rest", "step")
                )
                + f"{p['overhead']:>12.3f}{p['seconds']:>10.1f} s"
            )


if __name__ == "__main__":
    main()
