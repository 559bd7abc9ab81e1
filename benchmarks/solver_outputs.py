"""What ordinary solvers return on validation crystals, and what they know about depth.

    python benchmarks/solver_outputs.py [--count 12] [--npz FILE] [--json FILE]

Each crystal of the validation list is rendered along one axis (a, b, c in turn), recorded by abTEM
in the paper geometry at 1e6 e/Å² and reconstructed from nothing by non-negative L-BFGS and by
atomic sources, on every second detector pixel. Printed: per depth harmonic k (DCT-II over the
slices) the gain, |output| / |truth|, and the coherence, the correlation of both.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output

RUNS = {
    "lbfgs": (
        "lbfgs",
        {
            "non_negative": True,
            "detector_stride": 2,
            "misfit": "poisson",
            "batch": None,
            "line_search": True,
            "learning_rates": (1.0,),
            "iterations": 4,
        },
    ),
    "atomic": ("atomic", {"detector_stride": 2}),
}


def harmonics(truth: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and coherence per depth harmonic, (D,) each."""
    from scipy.fft import dct

    a, b = (
        dct(v.astype(np.float64), axis=0, norm="ortho").reshape(len(v), -1) for v in (truth, test)
    )
    a[0] -= a[0].mean()
    b[0] -= b[0].mean()
    na, nb = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    return nb / na, (a * b).sum(axis=1) / (na * nb + 1e-30)


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--npz", type=Path)
    args = output.parse(parser)
    from napari_mepdiff.evaluation.metrics import depth_correlation, ssim
    from napari_mepdiff.measurement.dataset import Calibration, FourDSTEM
    from napari_mepdiff.measurement.simulate import diffraction
    from napari_mepdiff.physics.optics import Optics
    from napari_mepdiff.physics.scan import Raster
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.reconstruction.registry import SOLVERS, solve
    from napari_mepdiff.specimen.structures import load_structures
    from napari_mepdiff.specimen.volume import Volume
    from napari_mepdiff.training.stream import CrystalStream

    volumes, _, names = CrystalStream(load_structures().part("validation")).fixed()
    optics = Optics(energy=300, semi_angle=21.4, overfocus=200, C30=5000)
    positions = Raster(shape=(26, 26), step=(0.512, 0.512)).positions()
    kept: dict[str, list[np.ndarray]] = {"truth": [], **{name: [] for name in RUNS}}
    rows, chosen = [], []
    for n in range(args.count):
        index = 3 * n + n % 3
        truth = Volume(volumes[index].numpy(), (1.6, 0.2, 0.2), energy=300)
        counts = np.random.default_rng([7, n]).poisson(
            diffraction(truth, positions, optics, 128) * 1e6 * 0.512**2
        )
        data = FourDSTEM(
            counts.astype(np.uint16).reshape(26, 26, 128, 128),
            Calibration(
                pixel_size=1 / 25.6, energy=300, semi_angle=21.4, scan_step=(0.512, 0.512), dose=1e6
            ),
            optics=optics,
            positions=positions,
            boundary="periodic",
            canvas=(64, 64),
            truth=truth,
            band_limit=2 / 3,
        )
        problem = Problem.from_data(data, check=False)
        kept["truth"].append(truth.array)
        chosen.append(names[index])
        for name, (solver, fields) in RUNS.items():
            start = time.perf_counter()
            *_, frame = solve(problem, SOLVERS[solver].default(**fields))
            gain, coherence = harmonics(truth.array, frame.volume)
            kept[name].append(frame.volume)
            rows.append(
                {
                    "crystal": names[index],
                    "solver": name,
                    "ssim": ssim(truth.array, frame.volume),
                    "ssim_sum": ssim(truth.depth_sum(), frame.volume.sum(axis=0)),
                    "depth_correlation": depth_correlation(truth.array, frame.volume),
                    "misfit": float(frame.loss),
                    "gain": gain.round(3).tolist(),
                    "coherence": coherence.round(3).tolist(),
                    "seconds": time.perf_counter() - start,
                }
            )
            r = rows[-1]
            print(
                f"{r['crystal']:16s} {name:7s} ssim {r['ssim']:.3f} sum {r['ssim_sum']:.3f} depth "
                f"{r['depth_correlation']:.2f} "
                f"misfit {r['misfit']:.3f} {r['seconds']:.0f} s gain "
                f"{' '.join(f'{g:.2f}' for g in gain)} "
                f"coherence {' '.join(f'{c:.2f}' for c in coherence)}",
                flush=True,
            )
        if args.npz:
            np.savez_compressed(
                args.npz,
                names=np.array(chosen),
                **{k: np.array(v, np.float16) for k, v in kept.items()},
            )
    output.write(rows, args.json)


if __name__ == "__main__":
    main()
