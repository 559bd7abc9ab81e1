"""Whole atoms on crystals recorded with a soft aperture edge that nobody told of.

    python benchmarks/soft_aperture.py [--crystals 12] [--part validation] [--json FILE]

Three probes: the one that is told (a hard edge), the one that `refine` finds of the same patterns,
and the exact one. The same crystals, dose and settings for all three.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output

PROBES = ("told", "refined", "exact")


def main() -> None:
    """Measure and print."""
    parser = output.parser(__doc__)
    parser.add_argument("--crystals", type=int, default=12)
    parser.add_argument("--first", type=int, default=0, help="crystals of the list to leave out")
    parser.add_argument("--part", default="test", choices=("validation", "test"))
    parser.add_argument("--steps", type=int, default=25, help="of the sampler")
    parser.add_argument("--probes", nargs="+", default=PROBES, choices=PROBES)
    parser.add_argument("--iterations", type=int, default=20, help="passes of refine")
    args = output.parse(parser)
    from napari_mepdiff.evaluation.benchmark import held_out

    rows = []
    for name, data in held_out(args.crystals, args.part, first=args.first, soft=True):
        row = {"crystal": name, **probes(data, args.steps, args.iterations, args.probes)}
        rows.append(row)
        print(row, flush=True)
    for probe in args.probes:
        mean = sum(r[probe]["ssim"] for r in rows) / len(rows)
        print(f"{probe:8s} SSIM {mean:.4f}")
    output.write(rows, args.json)


def probes(data: Any, steps: int, iterations: int, wanted: Sequence[str]) -> dict[str, Any]:
    """SSIM and misfit of whole atoms with each of the wanted probes."""
    from ase.data import chemical_symbols

    from napari_mepdiff.evaluation.metrics import evaluate
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve
    from napari_mepdiff.specimen.volume import Volume

    elements = sorted({chemical_symbols[z] for z in data.truth_atoms["numbers"]})
    problem = Problem.from_data(data)
    begin = time.perf_counter()
    last = list(solve(problem, SOLVERS["refine"].default(iterations=iterations)))[-1]
    seconds = time.perf_counter() - begin
    found: dict[str, Any] = {"refine_seconds": round(seconds, 1), "refine_misfit": last.loss}
    state = problem.microscope(last.info)  # type: ignore[arg-type]
    soft = data.optics.model_copy(update={"soft_edge": edge(data), "edge": "linear"})
    settings = SOLVERS["dps"].default(guidance="atoms", elements=elements, steps=steps)
    for name, given in {
        "told": problem,
        "refined": Problem.from_data(data, microscope=state),
        "exact": Problem.from_data(data, optics=soft),
    }.items():
        if name not in wanted:
            continue
        begin = time.perf_counter()
        frame = list(solve(given, settings))[-1]
        scores = evaluate(
            Volume(frame.volume, data.truth.voxel_size), data.truth, data.truth_atoms
        ).as_dict()
        found[name] = {
            "ssim": round(scores["ssim"], 4),
            "atoms_in_slice": round(float(scores["atoms_in_slice"]), 3),
            "misfit": round(frame.loss, 3),
            "seconds": round(time.perf_counter() - begin, 1),
        }
    return found


def edge(data: Any) -> float:
    """Width of abTEM's soft edge, mrad: one detector pixel."""
    return float(data.calibration.pixel_mrad)


if __name__ == "__main__":
    main()
