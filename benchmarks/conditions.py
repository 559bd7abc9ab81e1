"""What a condition is worth: samples given the depth sum, or the volume, of a solver's output.

    python benchmarks/solver_outputs.py --npz outputs.npz
    python benchmarks/conditions.py outputs.npz [--prior compact] [--steps 50] [--json FILE]

For each validation crystal and each solver: samples of the prior given (a) only the depth sum of
the solver's output, (b) the output itself as a depth-blurred volume, at several values of the
trust; against the truth, beside the solver's own output. No diffraction data are used here: this is
what the prior adds by itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--prior", default="compact")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--trust", default="0.2,0.35,0.6")
    args = output.parse(parser)
    from napari_mepdiff.evaluation.metrics import correlation, depth_correlation, psnr, ssim
    from napari_mepdiff.prior.condition import Condition
    from napari_mepdiff.prior.model import Prior
    from napari_mepdiff.prior.sampler import sample

    prior = Prior.load(args.prior)
    with np.load(args.outputs) as file:
        names = [str(n) for n in file["names"]]
        truth = file["truth"].astype(np.float32)
        solvers = {k: file[k].astype(np.float32) for k in file.files if k not in ("names", "truth")}
    rows = []
    for n, name in enumerate(names):
        for solver, outputs in solvers.items():
            found = outputs[n]
            if correlation(truth[n].sum(axis=0), found.sum(axis=0)) < 0.5:
                print(f"{name} {solver}: the solver itself failed; left out", flush=True)
                continue
            kinds = {
                "solver": None,
                "true sum": Condition.from_sum(truth[n].sum(axis=0), 8),
                "its sum": Condition.from_sum(found.sum(axis=0), 8),
            }
            kinds |= {
                f"its volume, trust {t}": Condition.from_volume(found, float(t))
                for t in args.trust.split(",")
            }
            for kind, condition in kinds.items():
                if condition is None:
                    drawn = found[None]
                else:
                    drawn = sample(
                        prior, count=args.draws, steps=args.steps, condition=condition, seed=n
                    ).numpy()
                for label, volumes in (
                    (kind, drawn),
                    *(
                        [(f"{kind}, mean of {args.draws}", drawn.mean(axis=0)[None])]
                        if len(drawn) > 1
                        else []
                    ),
                ):
                    rows.append(
                        {
                            "crystal": name,
                            "solver": solver,
                            "kind": label,
                            "ssim": float(np.mean([ssim(truth[n], v) for v in volumes])),
                            "psnr": float(np.mean([psnr(truth[n], v) for v in volumes])),
                            "ssim_sum": float(
                                np.mean([ssim(truth[n].sum(0), v.sum(0)) for v in volumes])
                            ),
                            "depth_correlation": float(
                                np.mean([depth_correlation(truth[n], v) or 0 for v in volumes])
                            ),
                        }
                    )
        print(f"{name} done", flush=True)
    print(f"\n| solver | given | SSIM | PSNR (dB) | sum SSIM | depth correlation |\n{'|---' * 6}|")
    for solver in solvers:
        for kind in dict.fromkeys(r["kind"] for r in rows):
            chosen = [r for r in rows if r["kind"] == kind and r["solver"] == solver]
            mean = {
                k: np.mean([r[k] for r in chosen])
                for k in ("ssim", "psnr", "ssim_sum", "depth_correlation")
            }
            print(
                f"| {solver} | {kind} | {mean['ssim']:.3f} | {mean['psnr']:.1f} | "
                f"{mean['ssim_sum']:.3f} | "
                f"{mean['depth_correlation']:.3f} |"
            )
    output.write(rows, args.json)


if __name__ == "__main__":
    main()
