"""The main job from end to end: a sample reconstructed by ordinary solvers and by DPS, judged, drawn and exported."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the demonstration; ``--output`` says where its picture and volumes go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", default="cuwo4")
    parser.add_argument("--steps", type=int, default=60, help="of DPS")
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    args = parser.parse_args()

    from ase.formula import Formula

    from .evaluation.figures import compare_figure
    from .evaluation.judge import judge
    from .export.volumes import save_volume
    from .measurement.samples import open_sample
    from .reconstruction.problem import Problem
    from .reconstruction.registry import SOLVERS, solve
    from .terminal import print_scores, progress

    args.output.mkdir(parents=True, exist_ok=True)
    data = open_sample(args.sample)
    assert data.truth is not None
    problem = Problem.from_data(data)
    formula = Formula(data.provenance["crystal"]["formula"]).reduce()[0].format("metal")
    print(f"{args.sample}: {formula}, {data.shape[0]} × {data.shape[1]} patterns of {data.shape[2]}² px → {problem.shape} voxels")
    elements = re.findall("[A-Z][a-z]?", formula)
    every_second = {"detector_stride": 2}
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "Adam": ("adam", {"iterations": 20, "misfit": "poisson", "non_negative": True, **every_second}),
        "L-BFGS": ("lbfgs", {"non_negative": True, "misfit": "poisson", "batch": None, "learning_rates": (1.0,), "iterations": 4,
                             "evaluations": 10, "line_search": True, **every_second}),
        "atomic sources": ("atomic", {"elements": elements, **every_second}),
        "DPS": ("dps", {"elements": elements, "steps": args.steps}),
    }
    volumes, scores = {"truth": data.truth}, {}
    for name, (solver, fields) in runs.items():
        settings = SOLVERS[solver].default(**fields)
        start, frame = time.perf_counter(), None
        with progress(name) as advance:
            for frame in solve(problem, settings):
                advance(frame.step, frame.total, frame.info.get("stage", f"misfit {frame.loss:.3f} × shot noise"))
        assert frame is not None
        volume = problem.volume(frame.volume, made_by="make demo", solver=solver,
                                settings=settings.model_dump(mode="json"), loss=frame.loss)
        volumes[name], scores[name] = volume, judge(volume, data.truth, data)
        print(f"{name}: {time.perf_counter() - start:.0f} s")
    print_scores(scores)
    best = max((n for n in scores if n != "DPS"), key=lambda n: scores[n].ssim)
    print(f"volume SSIM {scores['DPS'].ssim:.3f} by DPS, {scores[best].ssim:.3f} by {best}, the best ordinary solver here; depth "
          f"correlation {scores['DPS'].depth_correlation:.2f} and {scores[best].depth_correlation:.2f}")
    picture = compare_figure(volumes, args.output / "comparison.png", scores,
                             f"{formula}: truth, ordinary solvers and diffusion posterior sampling, 1e6 e/Å², phase in rad")
    written = save_volume(volumes["DPS"], args.output / "dps.tif", overwrite=True)
    written += save_volume(volumes["L-BFGS"], args.output / "lbfgs.h5", overwrite=True)
    print("picture:", picture)
    print("volumes:", ", ".join(str(p) for p in written if p.suffix != ".json"))


if __name__ == "__main__":
    main()
