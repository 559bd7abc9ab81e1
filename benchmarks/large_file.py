"""A 10 GB HDF5 file: time to open, and the memory that its PACBED needs.

    python benchmarks/large_file.py [--gigabytes 10] [--folder DIR] [--json FILE]

The file holds real, compressed blocks (one block of simulated counts, stored over and over), so that every byte is unpacked as in a
real measurement, though it takes little room on disk. Memory is the highest resident set above that at the start, in the process
that reads.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np


def write(path: Path, gigabytes: float) -> tuple[int, ...]:
    """A file of that size when read: (n, n, 128, 128) uint16."""
    import h5py

    side = int(np.ceil((gigabytes * 1e9 / (2 * 128 * 128)) ** 0.5 / 32) * 32)
    block = np.random.default_rng(0).poisson(3.0, (1, 32, 128, 128)).astype(np.uint16)
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        data = file.create_dataset("data", (side, side, 128, 128), np.uint16, chunks=block.shape, compression="gzip",
                                   compression_opts=1, shuffle=True)
        data[0:1, 0:32] = block
        _, packed = data.id.read_direct_chunk((0, 0, 0, 0))
        for y in range(side):
            for x in range(0, side, 32):
                data.id.write_direct_chunk((y, x, 0, 0), packed)
        return data.shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import psutil

    from napari_mepdiff.measurement.readers import open_4dstem
    from napari_mepdiff.measurement.virtual import pacbed

    process, peak, done = psutil.Process(os.getpid()), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "large.h5"
        shape = write(path, args.gigabytes)
        base = process.memory_info().rss
        threading.Thread(target=watch, daemon=True).start()
        start = time.perf_counter()
        data = open_4dstem(path, hash_input=False)
        opened = time.perf_counter() - start
        start = time.perf_counter()
        pattern = pacbed(data)
        took = time.perf_counter() - start
        done.set()
        result = {"gigabytes": data.nbytes / 1e9, "shape": shape, "open_seconds": opened, "pacbed_seconds": took,
                  "peak_memory_mb": (peak[0] - base) / 1e6, "mean_counts": float(pattern.mean())}
    print(f"{result['gigabytes']:.1f} GB {shape}: opened in {opened:.2f} s, PACBED in {took:.1f} s, "
          f"{result['peak_memory_mb']:.0f} MB above the start, mean {result['mean_counts']:.4f} counts (drawn with 3)")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
