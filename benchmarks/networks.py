"""Designs of the network at equal wall time, and where the seconds of a training step go.

    python benchmarks/networks.py [--designs compact,patch4] [--minutes 2.2] [--json FILE]
    python benchmarks/networks.py --profile [--designs compact]

Every design trains from nothing for the same time on an otherwise idle machine; then the losses on
60 validation volumes, with nothing known, the depth sum known, and a depth-blurred volume known
(weighted with N(λ; −7, 3)).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output


def designs() -> dict[str, dict[str, Any]]:
    """Settings of each design."""
    from napari_mepdiff.prior.network import PRESETS, Level, UNetConfig

    def level(channels: int, blocks: int = 2, attention: int = 0) -> Level:
        return Level(channels=channels, blocks=blocks, attention=attention)

    common = {
        "other_shapes": 0.0,
        "average": 0.99,
        "warm_up": 50,
        "batch": 16,
        "learning_rate": 1e-3,
    }
    quick = {"batch": 8, "learning_rate": 2e-3}
    patch4 = {"patch": 4, "levels": (level(64), level(128, 2, 1))}
    out = {
        "patch8": {"network": UNetConfig(patch=8, levels=(level(128, 3, 1),))},
        "patch4": {"network": UNetConfig(**patch4)},
        "patch4-factorised": {
            "network": UNetConfig(
                patch=4, levels=(level(64), level(160, 2, 1)), kernel="factorised"
            )
        },
        "patch4-small": {"network": UNetConfig(patch=4, levels=(level(48), level(96, 2, 1)))},
        "prototype": {
            "network": UNetConfig(patch=2, levels=(level(32), level(64), level(128, 2, 1)))
        },
        "compact": {"network": PRESETS["compact"]},
        "compact-quick": {"network": PRESETS["compact"], **quick},
        "compact-quick-4e-3": {"network": PRESETS["compact"], **quick, "learning_rate": 4e-3},
        "compact-curriculum": {"network": PRESETS["compact"], **quick, "curriculum": True},
        "patch1-quick": {
            "network": UNetConfig(
                patch=1,
                levels=(level(12, 1), level(24, 1), level(48), level(96, 2, 1)),
                embedding=192,
            ),
            **quick,
        },
    }
    return {name: {**common, **fields} for name, fields in out.items()}


def profile(fields: dict[str, Any], structures: Any) -> None:
    """Share of the time of each kind of operation in a training step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    from napari_mepdiff.training.settings import TrainSettings
    from napari_mepdiff.training.step import Trainer

    trainer = Trainer(
        TrainSettings(**{k: v for k, v in fields.items() if k != "curriculum"}), structures
    )
    for _ in range(3):
        trainer.advance()
    with record(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(5):
            trainer.advance()
    kinds = {
        "convolution": ("convolution",),
        "attention": ("attention",),
        "normalisation": ("norm",),
        "SiLU": ("silu",),
        "linear layers": ("addmm", "aten::mm", "bmm"),
        "optimiser": ("adam",),
        "Fourier transforms": ("fft",),
    }
    total, sums = 0.0, dict.fromkeys([*kinds, "the rest (renderer, conditions, copies, sums)"], 0.0)
    for event in found.key_averages():
        total += event.self_cpu_time_total
        kind = next(
            (k for k, words in kinds.items() if any(w in event.key for w in words)), list(sums)[-1]
        )
        sums[kind] += event.self_cpu_time_total
    for kind, spent in sorted(sums.items(), key=lambda item: -item[1]):
        print(f"  {kind:45s} {100 * spent / total:5.1f} %")


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--designs", help="by name, separated by commas; all if not given")
    parser.add_argument("--minutes", type=float, default=2.2)
    parser.add_argument("--structures", type=Path)
    parser.add_argument("--profile", action="store_true")
    args = output.parse(parser)
    import torch

    from napari_mepdiff.prior.network import UNet
    from napari_mepdiff.specimen.structures import load_structures
    from napari_mepdiff.training.settings import TrainSettings
    from napari_mepdiff.training.step import Trainer
    from napari_mepdiff.training.validation import losses, volumes_of

    structures = load_structures(args.structures)
    training, volumes = structures.part("train"), volumes_of(structures, "validation", 60)
    rows = []
    print(
        "| design | parameters | volumes/s | steps | nothing known | depth sum | blurred volume "
        "|\n|---|---|---|---|---|---|---|"
    )
    known = designs()
    for name in args.designs.split(",") if args.designs else known:
        fields = known[name]
        if args.profile:
            print(name)
            profile(fields, training)
            continue
        curriculum = fields.pop("curriculum", False)
        settings = TrainSettings(
            **{**fields, **({"lateral": 32, "batch": 4 * fields["batch"]} if curriculum else {})}
        )
        trainer, start = Trainer(settings, training), time.perf_counter()
        while (spent := time.perf_counter() - start) < 60 * args.minutes:
            if curriculum and settings.lateral == 32 and spent > 30 * args.minutes:
                trainer.settings = settings = settings.model_copy(
                    update={"lateral": 64, "batch": fields["batch"]}
                )
            trainer.advance()
        network = UNet(settings.network).to(memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
        network.load_state_dict(trainer.average)
        found = losses(network, volumes)
        rows.append(
            {
                "design": name,
                "parameters": network.parameters_count,
                "steps": trainer.step,
                "samples": trainer.samples,
                "samples_per_s": trainer.samples / trainer.seconds,
                "losses": found,
            }
        )
        cells = " | ".join(
            f"{found['weighted ' + mode][0]:.3f}" for mode in ("none", "sum", "trend")
        )
        print(
            f"| {name} | {network.parameters_count / 1e6:.2f} M | "
            f"{trainer.samples / trainer.seconds:.1f} | {trainer.step} | "
            f"{cells} |",
            flush=True,
        )
    output.write(rows, args.json)


if __name__ == "__main__":
    main()
