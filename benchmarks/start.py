"""From opening a 1.5 GB measurement to the first step of Adam: seconds and peak memory.

    python benchmarks/start.py [--gigabytes 1.5] [--folder DIR] [--json FILE]

What a user waits for after *Start*: the file is opened, looked through, loaded, the physics set up,
and the misfit and its gradient evaluated for the first batch. The file is compressed HDF5 of 16-bit
counts. Time and memory are those of a process of its own (imports not counted). Runs with the
package that PYTHONPATH names, so that two states of it can be compared.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output, recording

DETECTOR, STEP = 128, 0.3  # px, Å
CALIBRATION = {
    "pixel_size": 1 / 25.6,
    "energy": 300.0,
    "semi_angle": 21.4,
    "scan_step": (STEP, STEP),
}


class FirstStep(Exception):
    """Ends the run once its first gradient is there."""


def bright_disks() -> NDArray[np.uint16]:
    """Patterns of 128² px with counting noise, (1, 8, 128, 128)."""
    y, x = np.mgrid[:DETECTOR, :DETECTOR] - DETECTOR // 2
    lit = np.hypot(y, x) < 27.83
    rng = np.random.default_rng(0)
    return rng.poisson(0.2 + 40.0 * lit, (1, 8, DETECTOR, DETECTOR)).astype(np.uint16)


def measure(path: Path) -> dict[str, Any]:
    """Open, set up and take the first step, in this process."""
    import psutil

    try:  # the readers' name in earlier versions
        formats = importlib.import_module("napari_mepdiff.measurement.formats")
    except ModuleNotFoundError:
        formats = importlib.import_module("napari_mepdiff.measurement.readers")
    from napari_mepdiff.measurement.dataset import Calibration
    from napari_mepdiff.physics.likelihood import Likelihood
    from napari_mepdiff.physics.optics import Optics
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve

    settings = SOLVERS["adam"].default(iterations=1, misfit="poisson")
    optics = Optics(energy=300.0, semi_angle=21.4, overfocus=200.0, C30=5000.0)
    Calibration.model_validate(CALIBRATION)
    reached: dict[str, float] = {}
    evaluate = Likelihood.__call__

    def once(self: Likelihood, volume: Any, batch: Any = None) -> Any:
        evaluate(self, volume, batch)
        raise FirstStep

    Likelihood.__call__ = once  # type: ignore[method-assign]
    process, done, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begin = time.perf_counter()
    data = formats.open_4dstem(path, calibration=CALIBRATION)
    reached["opened"] = time.perf_counter() - begin
    problem = Problem.from_data(data, slices=2, slice_thickness=5.0, optics=optics)
    reached["set_up"] = time.perf_counter() - begin
    try:
        for _frame in solve(problem, settings):
            raise AssertionError("a whole pass went by without the first step")
    except FirstStep:
        reached["first_step"] = time.perf_counter() - begin
    done.set()
    watcher.join()
    return {
        "seconds": {k: round(v, 2) for k, v in reached.items()},
        "peak_gb": round((peak[0] - before) / 1e9, 3),
        "patterns": list(problem.patterns.shape),
        "type": str(problem.patterns.dtype),
    }


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--folder", type=Path, help="where the file is written for the time being")
    parser.add_argument("--measure", type=Path, help="only measure, on this file")
    args = output.parse(parser)
    if args.measure is not None:
        output.write(measure(args.measure), args.json)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "measurement.h5"
        shape = recording.write(path, args.gigabytes, bright_disks())
        size = int(np.prod(shape, dtype=np.int64)) * 2
        path.read_bytes()  # into the system's cache: the disk is not what is measured
        command = [sys.executable, __file__, "--measure", str(path), "--json", "-"]
        child = subprocess.run(
            command, check=True, capture_output=True, text=True, env=dict(os.environ)
        )
    found = {"gigabytes": round(size / 1e9, 3), **json.loads(child.stdout)}
    seconds = found["seconds"]
    print(
        f"{found['gigabytes']:.2f} GB, {shape[0]} × {shape[1]} patterns: opened after "
        f"{seconds['opened']:.1f} s, set up after {seconds['set_up']:.1f} s, first step after "
        f"{seconds['first_step']:.1f} s; {found['peak_gb']:.2f} GB above the start at most"
    )
    output.write(found, args.json)


if __name__ == "__main__":
    main()
