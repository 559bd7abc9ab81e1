"""A real measurement has no truth: two halves of it, unrefined and refined, and how they agree.

    python benchmarks/halves.py SCAN.npy --energy 300 --semi-angle 1.03 --step 31.25
                                [--thickness 300] [--picture FILE.png] [--json FILE]

What else there is of the microscope is taken over from the patterns, as ``mepdiff auto`` does. Both
halves (the black and the white squares of a chessboard) are reconstructed by the same solver in one
slice: once with probe and positions as estimated, once with both refined. Fourier ring correlation
of the halves, misfit of positions held out, and the pictures of all positions.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output

THRESHOLD = 0.143  # of the Fourier ring correlation of two halves


def main() -> None:
    """Estimate, reconstruct, compare, print."""
    parser = output.parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--energy", type=float, required=True, help="kV")
    parser.add_argument("--semi-angle", type=float, required=True, help="mrad")
    parser.add_argument("--step", type=float, required=True, help="scan step, Å")
    parser.add_argument("--thickness", type=float, default=300.0, help="of the slice, Å")
    parser.add_argument("--iterations", type=int, default=16)
    parser.add_argument("--modes", type=int, default=2)
    parser.add_argument("--room", type=float, default=15.0, help="largest shift, Å")
    parser.add_argument("--picture", type=Path, help="of both, all positions")
    args = output.parse(parser)
    problem = prepared(args)
    found: dict[str, Any] = {}
    pictures = {}
    refined = {"modes": args.modes, "max_shift": args.room}
    for name, fields in (
        ("unrefined", {"modes": 1, "probe": "fixed", "positions": "fixed"}),
        ("refined", refined),
    ):
        fields = {"iterations": args.iterations, "tilt": False, **fields}
        rows, halves = [], []
        for half in (0, 1):
            row, picture = solved(part(problem, half), fields)
            rows.append(row)
            halves.append(picture)
            print(name, half, row, flush=True)
        found[name] = {"halves": rows, **agreement(problem, *halves)}
        if args.picture:
            found[name]["whole"], pictures[name] = solved(problem, fields)
        print(name, {k: v for k, v in found[name].items() if k != "halves"}, flush=True)
    if args.picture:
        draw(problem, pictures, args.picture)
    output.write(found, args.json)


def prepared(args: Any) -> Any:
    """The problem, with what the patterns say."""
    from napari_mepdiff.measurement.formats import open_4dstem
    from napari_mepdiff.measurement.preparation import Preparation
    from napari_mepdiff.microscope.estimate import estimate
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.session.automatic import told_by_patterns

    told = {"energy": args.energy, "semi_angle": args.semi_angle}
    steps = {"scan_step_y": args.step, "scan_step_x": args.step}
    preparation = Preparation.model_validate({**told, **steps})
    raw = open_4dstem(args.file)
    data = preparation.apply(raw)
    preparation, notes = told_by_patterns(preparation, data, estimate(data))
    print(*notes, sep="\n")
    data = preparation.apply(raw)
    return Problem.from_data(data, slices=1, slice_thickness=args.thickness, margin=args.room)


def part(problem: Any, half: int) -> Any:
    """Every second position, as on a chessboard."""
    import numpy as np

    # of rows as long as there are: a raster's first row ends where the next begins
    places = np.round(problem.positions, 3)
    along = places[1] - places[0]
    row = (np.diff(places, axis=0) @ along < 0).argmax() + 1
    index = np.arange(len(places))
    chosen = index[(index // row + index % row) % 2 == half]
    return replace(
        problem,
        patterns=problem.patterns[chosen],
        positions=problem.positions[chosen],
        scan=None,
        scan_index=None,
    )


def solved(problem: Any, fields: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Misfits and the picture."""
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve

    begin = time.perf_counter()
    frame = list(solve(problem, SOLVERS["refine"].default(**fields)))[-1]
    held_out = frame.info.held_out  # type: ignore[union-attr]
    row = {"misfit": round(frame.loss, 3), "held_out": held_out and round(held_out, 3)}
    return {**row, "seconds": round(time.perf_counter() - begin, 1)}, frame.volume[0]


def inner(problem: Any) -> tuple[slice, slice]:
    """The largest upright square within a field of any rotation."""
    import numpy as np

    pixel = np.array(problem.voxel_size[1:])
    middle = problem.positions.mean(axis=0)
    half = int(np.ptp(problem.positions, axis=0).min() / pixel[0] / 4)
    y, x = (middle / pixel).astype(int)
    return slice(y - half, y + half), slice(x - half, x + half)


def agreement(problem: Any, one: Any, other: Any) -> dict[str, Any]:
    """Fourier ring correlation of two halves, and the detail up to which it holds."""
    import numpy as np

    from napari_mepdiff.evaluation.rings import ring_correlation

    field = inner(problem)
    rings = ring_correlation(one[field], other[field])
    side = len(one[field]) * problem.voxel_size[1]
    below = np.flatnonzero(rings[1:] < THRESHOLD)
    first = below[0] + 1 if len(below) else len(rings)
    detail = side / first if first > 1 else None
    return {
        "detail": detail and round(detail, 1),
        "rings": [round(float(r), 2) for r in rings[1:16]],
    }


def draw(problem: Any, pictures: dict[str, Any], path: Path) -> None:
    """Phases side by side, each between the first and the last percent of the inner field."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    pixel = problem.voxel_size[1]
    low, high = (problem.positions.min(axis=0), problem.positions.max(axis=0))
    (y0, x0), (y1, x1) = (low / pixel).astype(int), (high / pixel).astype(int)
    figure, axes = plt.subplots(1, len(pictures), figsize=(5 * len(pictures), 5.2))
    for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
        near, far = np.percentile(picture[inner(problem)], (1, 99))
        extent = (0, (x1 - x0) * pixel / 10, (y1 - y0) * pixel / 10, 0)
        axis.imshow(picture[y0:y1, x0:x1], cmap="gray", vmin=near, vmax=far, extent=extent)
        axis.set_title(f"{name}, phase {near:.2f} to {far:.2f} rad")
        axis.set_xlabel("nm")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
