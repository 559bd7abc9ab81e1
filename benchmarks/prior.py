"""Speed of the prior: one evaluation, one with its vector–Jacobian product, training, rendering.

    python benchmarks/prior.py [--prior compact] [--threads 2] [--device cpu] [--json FILE]

8 × 64 × 64 voxels. Evaluations are the best of several, rounds in turn, since machines are noisy;
training is a run of some seconds with all that belongs to it (stream, renderer, conditions,
optimiser).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--prior", default="compact")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=40.0, help="of training")
    parser.add_argument("--batch", type=int, default=16)
    args = output.parse(parser)
    import torch

    from napari_mepdiff.prior.condition import Condition
    from napari_mepdiff.prior.model import Prior
    from napari_mepdiff.specimen.structures import load_structures
    from napari_mepdiff.training.settings import TrainSettings
    from napari_mepdiff.training.step import Trainer
    from napari_mepdiff.training.stream import CrystalStream

    torch.set_num_threads(args.threads)
    prior = Prior.load(args.prior, device=args.device)
    training = load_structures().part("train")
    volume = CrystalStream(training).batch(0, 1)[0]
    condition = Condition.from_sum(volume.sum(dim=0), 8)
    z, gradient = torch.randn(2, 8, 64, 64)

    def now() -> float:
        if args.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(call: object) -> float:
        start = now()
        call()  # type: ignore[operator]
        return now() - start

    stream = CrystalStream(training)
    calls = {
        "forward_ms": lambda: prior(z, -4.0, condition),
        "vjp_ms": lambda: prior.vjp(z, -4.0, condition)[1](gradient),
        "render_ms": lambda: stream.batch(1, 16, device=args.device),
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(args.rounds + 2):
        for name, call in calls.items():
            best[name] = min(best[name], timed(call))
    found = {
        name: 1e3 * seconds / (16 if name == "render_ms" else 1) for name, seconds in best.items()
    }
    trainer = Trainer(
        TrainSettings(network=prior.network.config, batch=args.batch, other_shapes=0.0),
        training,
        args.device,
    )
    trainer.advance()
    trainer.advance()
    start, samples = now(), trainer.samples
    while now() - start < args.seconds:
        trainer.advance()
    found["train_samples_per_s"] = (trainer.samples - samples) / (now() - start)
    found = {
        k: round(found[k], 3) for k in ("forward_ms", "vjp_ms", "train_samples_per_s", "render_ms")
    }
    for name, value in found.items():
        print(f"{name:22s} {value:10.3f}")
    print(
        f"{prior.network.parameters_count / 1e6:.2f} M parameters, {prior.precision}, "
        f"{args.threads} threads, {args.device}"
    )
    output.write(found, args.json)


if __name__ == "__main__":
    main()
