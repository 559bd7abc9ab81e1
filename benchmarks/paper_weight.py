"""Which weights of the paper's guidance are stable: misfit and size of the volume on validation
crystals.

    python benchmarks/paper_weight.py [--steps 30] [--weights 1,1e-2,1e-5] [--json FILE]

Every second position along both axes of the scan (169 of 676), at four times the weight, so that
the sum over positions is about that of the whole scan. Nothing is recovered from divergence.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output


def measure(crystal: int, steps: int, weights: list[float]) -> list[dict[str, Any]]:
    """One row for each weight, printed as it comes."""
    import torch

    from napari_mepdiff.evaluation.benchmark import held_out
    from napari_mepdiff.physics.misfit import shot_noise
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve
    from napari_mepdiff.reconstruction.run import SolverError

    rows: list[dict[str, Any]] = []
    (name, measured), *_ = held_out(1, "validation", first=crystal)
    whole, n = Problem.from_data(measured), np.arange(0, 26, 2)
    some = (26 * n[:, None] + n).ravel()
    problem = replace(
        whole,
        patterns=np.asarray(whole.patterns)[some],
        positions=np.asarray(whole.positions)[some],
    )
    judge = problem.likelihood("poisson", detector_stride=2)
    noise = shot_noise(judge, "poisson") * judge.count
    empty = judge.loss(torch.zeros(problem.shape)) / noise
    assert measured.truth is not None
    truth = float(np.sqrt(np.square(measured.truth.array).mean()))
    print(f"{name}: empty volume {empty:.3g} × shot noise; truth {truth:.3g} rad rms", flush=True)
    for weight in weights:
        settings = SOLVERS["dps"].default(
            guidance="paper", samples=1, steps=steps, weight=4 * weight, recover=False
        )
        last, trouble = None, ""
        try:
            for frame in solve(problem, settings):
                last = frame
        except SolverError as error:
            trouble = str(error)
        row: dict[str, Any] = {"crystal": name, "weight": weight, "steps": steps, "end": trouble}
        rows.append(row)
        if last is None:
            print(f"{weight:g}: {trouble}", flush=True)
            continue
        misfit = judge.loss(torch.as_tensor(last.volume)) / noise
        size = float(np.sqrt(np.square(last.volume).mean()))
        row |= {"step": last.step, "misfit": misfit, "rms_rad": size, "truth_rms_rad": truth}
        end = f"step {last.step}, {misfit:.3g} × shot noise, {size:.3g} rad rms"
        print(f"{weight:g}: {end} {trouble}", flush=True)
    return rows


def main() -> None:
    """Parse and run."""
    parser = output.parser(__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--weights", default="1e-3,1e-4,1e-2,0.1,1,1e-5,1e-6")
    parser.add_argument("--crystals", type=int, default=2)
    args = output.parse(parser)
    weights = [float(w) for w in args.weights.split(",")]
    rows = [row for n in range(args.crystals) for row in measure(n, args.steps, weights)]
    output.write(rows, args.json)


if __name__ == "__main__":
    main()
