"""A 10 GB HDF5 file: time to open, and the memory that its PACBED needs.

    python benchmarks/large_file.py [--gigabytes 10] [--folder DIR] [--json FILE]

The file holds compressed blocks of simulated counts. Memory is the highest resident set above that
at the start, in the process that reads.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output, recording


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path)
    args = output.parse(parser)
    import psutil

    from napari_mepdiff.measurement.detectors import pacbed
    from napari_mepdiff.measurement.formats import open_4dstem

    process, peak, done = psutil.Process(os.getpid()), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "large.h5"
        block = np.random.default_rng(0).poisson(3.0, (1, 32, 128, 128)).astype(np.uint16)
        shape = recording.write(path, args.gigabytes, block)
        base = process.memory_info().rss
        threading.Thread(target=watch, daemon=True).start()
        start = time.perf_counter()
        data = open_4dstem(path, hash_input=False)
        opened = time.perf_counter() - start
        start = time.perf_counter()
        pattern = pacbed(data)
        took = time.perf_counter() - start
        done.set()
        result = {
            "gigabytes": data.nbytes / 1e9,
            "shape": shape,
            "open_seconds": opened,
            "pacbed_seconds": took,
            "peak_memory_mb": (peak[0] - base) / 1e6,
            "mean_counts": float(pattern.mean()),
        }
    print(
        f"{result['gigabytes']:.1f} GB {shape}: opened in {opened:.2f} s, PACBED in {took:.1f} s, "
        f"{result['peak_memory_mb']:.0f} MB above the start, mean {result['mean_counts']:.4f} "
        f"counts (drawn with 3)"
    )
    output.write(result, args.json)


if __name__ == "__main__":
    main()
