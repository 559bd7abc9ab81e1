"""The prior on other fields than it was trained on: whole, or in overlapping windows.

    python benchmarks/fields.py [--prior compact] [--count 12] [--json FILE]

Mean v-loss over validation volumes of several shapes at λ = −7, −4 and −1, with nothing known and
with the depth sum known. A shape on which the network works as well as on 8 × 64 × 64 needs no
windows.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output

SHAPES = (
    (8, 64, 64),
    (8, 32, 32),
    (8, 48, 48),
    (8, 96, 96),
    (8, 128, 128),
    (4, 64, 64),
    (6, 64, 64),
    (12, 64, 64),
    (16, 64, 64),
)
LEVELS = (-7.0, -4.0, -1.0)


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--prior", default="compact")
    parser.add_argument("--count", type=int, default=12)
    args = output.parse(parser)
    import torch

    from napari_mepdiff.prior.condition import Condition
    from napari_mepdiff.prior.model import Prior
    from napari_mepdiff.prior.process import diffuse
    from napari_mepdiff.specimen.structures import load_structures
    from napari_mepdiff.training.stream import CrystalStream

    stream = CrystalStream(load_structures().part("validation"))
    prior = Prior.load(args.prior)
    rows = []
    print(
        "| voxels | tiling | known | "
        + " | ".join(f"λ = {v:g}" for v in LEVELS)
        + f" | ms |\n{'|---' * (4 + len(LEVELS))}|"
    )
    for shape in SHAPES:
        volumes = stream.fixed(shape, limit=args.count)[0]
        for tiling in ("whole", "windows"):
            if tiling == "windows" and shape[0] <= 8 and shape[1] <= 64:
                continue
            prior.tiling = tiling
            for known in ("nothing", "depth sum"):
                sums, seconds = [0.0] * len(LEVELS), 0.0
                for n, volume in enumerate(volumes):
                    x = prior.scale * volume
                    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(n))
                    condition = (
                        None
                        if known == "nothing"
                        else Condition.from_sum(volume.sum(dim=0), shape[0])
                    )
                    for m, level in enumerate(LEVELS):
                        sigma2 = float(torch.sigmoid(torch.tensor(-level)))
                        start = time.perf_counter()
                        error = prior(diffuse(x, noise, level), level, condition) - x
                        seconds += time.perf_counter() - start
                        sums[m] += (
                            float(error.square().mean()) / sigma2
                        )  # |v − v_θ|² = |x − x_θ|² / σ²
                found = [s / len(volumes) for s in sums]
                rows.append(
                    {
                        "shape": shape,
                        "tiling": tiling,
                        "known": known,
                        "losses": found,
                        "ms": 1e3 * seconds / len(volumes) / len(LEVELS),
                    }
                )
                print(
                    f"| {' × '.join(map(str, shape))} | {tiling} | {known} | "
                    + " | ".join(f"{v:.3f}" for v in found)
                    + f" | {rows[-1]['ms']:.0f} |",
                    flush=True,
                )
    output.write(rows, args.json)


if __name__ == "__main__":
    main()
