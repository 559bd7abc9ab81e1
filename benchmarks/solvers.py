"""What the ordinary solvers return on the samples: a table against ground truth.

    python benchmarks/solvers.py [--samples srtio3,cuwo4] [--solvers 'lbfgs;atomic'] [--json FILE]

Every row is a full run from nothing with the true probe; seconds are wall time of the run alone.
"""

from __future__ import annotations

import csv
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "lbfgs": ("lbfgs", {}),
    "lbfgs+": ("lbfgs", {"non_negative": True}),
    "lbfgs+ poisson": (
        "lbfgs",
        {
            "non_negative": True,
            "misfit": "poisson",
            "batch": None,
            "line_search": True,
            "learning_rates": (1.0,),
            "iterations": 4,
        },
    ),
    "adam": ("adam", {}),
    "adam+": ("adam", {"non_negative": True, "learning_rate": 2e-3, "iterations": 40}),
    "atomic": ("atomic", {}),
    "atomic, elements": ("atomic", {"elements": "formula"}),
    "ptyrad-lbfgs": ("ptyrad-lbfgs", {}),
}


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--samples", default="srtio3,mos2,litao3,cuwo4")
    parser.add_argument(
        "--solvers", default="lbfgs;lbfgs+;lbfgs+ poisson;adam+;atomic;atomic, elements"
    )
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--figure", type=Path)
    args = output.parse(parser)
    from napari_mepdiff.evaluation.figures import compare_figure
    from napari_mepdiff.evaluation.judge import judge
    from napari_mepdiff.measurement.samples import open_sample
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve

    rows = []
    for sample in args.samples.split(","):
        data = open_sample(sample)
        assert data.truth is not None
        problem = Problem.from_data(data)
        volumes, scores = {"truth": data.truth}, {}
        for name in args.solvers.split(";"):
            solver, fields = RUNS[name]
            if fields.get("elements") == "formula":
                fields = {
                    **fields,
                    "elements": re.findall("[A-Z][a-z]?", data.provenance["crystal"]["formula"]),
                }
            start = time.perf_counter()
            *_, frame = solve(problem, SOLVERS[solver].default(**fields))
            seconds = time.perf_counter() - start
            volumes[name] = problem.volume(frame.volume)
            scores[name] = judge(volumes[name], data.truth, data)
            rows.append(
                {"sample": sample, "solver": name, **scores[name].as_dict(), "seconds": seconds}
            )
            s = scores[name]
            print(
                f"{sample:16} {name:16} SSIM {s.ssim:.3f} PSNR {s.psnr:5.2f} dB | sum "
                f"{s.ssim_sum:.3f} {s.psnr_sum:5.2f} dB | "
                f"depth corr. {s.depth_correlation or 0:.3f} | in slice "
                f"{s.atoms_in_slice or 0:.3f} | misfit {s.deviance:.4f} | "
                f"{seconds:.0f} s",
                flush=True,
            )
        if args.figure:
            compare_figure(
                volumes, args.figure.with_stem(f"{args.figure.stem}_{sample}"), scores, sample
            )
    output.write(rows, args.json)
    if args.csv:
        with open(args.csv, "w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
