"""What the benchmarks share: their command line, and where the numbers go."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--json``; the description is the docstring of the benchmark."""
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument(
        "--json",
        metavar="FILE",
        help="write the numbers to this file; - prints them, and all else goes to standard error",
    )
    return out


def parse(options: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line. With ``--json -`` whatever else is printed goes to standard error."""
    args = options.parse_args()
    if args.json == "-":
        sys.stdout = sys.stderr
    return args


def write(found: Any, where: str | None) -> None:
    """What was measured, to a file, to standard output (``-``) or nowhere (None)."""
    if where == "-":
        print(json.dumps(found), file=sys.__stdout__, flush=True)
    elif where is not None:
        Path(where).write_text(json.dumps(found, indent=1) + "\n")


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))
