"""How soon the package is imported and the command line answers, in seconds: the best of several.

    python benchmarks/start_up.py [--repeats 7] [--json FILE]

Both load neither PyTorch, numpy nor napari; aim: below half a second each.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output

COMMANDS = {
    "import": ["-c", "import napari_mepdiff"],
    "help": ["-m", "napari_mepdiff.cli", "--help"],
    "python alone": ["-c", ""],
}


def main() -> None:
    """Parse and run."""
    parser = output.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    args = output.parse(parser)
    best: dict[str, float] = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(args.repeats):
        for name, words in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            best[name] = min(best[name], time.perf_counter() - begin)
    for name, seconds in best.items():
        print(f"{name:14} {seconds:.3f} s")
    output.write(best, args.json)


if __name__ == "__main__":
    main()
