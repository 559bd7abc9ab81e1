"""The floors of the house as a picture, drawn from the imports in the code: ``make map``.

    python docs/map.py [--output docs/map.svg]

Floors and their order come from the contract in pyproject.toml, their purpose from the first line
of its package, arrows from the imports, those inside functions included.
"""

from __future__ import annotations

import argparse
import ast
import math
import re
import tomllib
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "napari_mepdiff"
WIDTH, HEIGHT, GAP, LEFT, ARCS = 560, 46, 20, 16, 230  # px: boxes, between them, margins
Arrows = Counter[tuple[str, str]]


def layers() -> list[list[str]]:
    """The floors from the top down; those on one line stand side by side."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(c for c in tool["contracts"] if c["id"] == "floors")
    lines = [re.findall(r"\w+", line) for line in contract["layers"]]
    there = [
        [f for f in line if (ROOT / "src" / PACKAGE / f / "__init__.py").exists()] for line in lines
    ]
    return [line for line in there if line]


def purpose(floor: str) -> str:
    """The first sentence of a floor's package."""
    text = ast.get_docstring(
        ast.parse((ROOT / "src" / PACKAGE / floor / "__init__.py").read_text())
    )
    return (text or "").split("\n")[0].rstrip(".")


def arrows() -> Arrows:
    """How many modules' imports lead from one floor to another."""
    import grimp

    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    out: Arrows = Counter()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            a, b = (m.split(".")[1] if "." in m else "" for m in (module, other))
            if a and b and a != b:
                out[a, b] += 1
    return out


def draw(floors: list[list[str]], found: Arrows) -> str:
    """An SVG: floors as boxes, imports as arcs that run down on the right."""
    middle: dict[str, tuple[float, float]] = {}
    boxes = []
    for n, line in enumerate(floors):
        width = (WIDTH - GAP * (len(line) - 1)) / len(line)
        for k, floor in enumerate(line):
            x, y = LEFT + k * (width + GAP), LEFT + n * (HEIGHT + GAP)
            middle[floor] = (x + width, y + HEIGHT / 2)
            words = purpose(floor)
            room = int(width / 6.1)
            words = words if len(words) <= room else words[: room - 1].rsplit(" ", 1)[0] + " …"
            boxes.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}" rx="5" '
                'fill="#eef3f8" stroke="#3b6ea5"/>\n'
                f'<text x="{x + 10:.0f}" y="{y + 19}" font-size="13" font-weight="bold">'
                f"{floor}</text>\n"
                f'<text x="{x + 10:.0f}" y="{y + 36}">{escape(words)}</text>'
            )
    edge = LEFT + WIDTH
    arcs = []
    for (a, b), count in sorted(found.items()):
        (_, ya), (_, yb) = middle[a], middle[b]
        rank = list(middle).index(a) * 1.7 - 8
        begin, end = ya + rank * 0.4, yb - 8 + rank * 0.8
        out = edge + 18 + min(ARCS - 40, abs(yb - ya) * 0.42)
        arcs.append(
            f'<path data-arrow="{a} {b}" d="M{edge} {begin:.0f} C{out:.0f} {begin:.0f} '
            f'{out:.0f} {end:.0f} {edge + 3} {end:.0f}" '
            f'stroke-width="{0.7 + 0.7 * math.log2(count):.1f}" marker-end="url(#tip)">'
            f"<title>{a} → {b}: {count} imports</title></path>"
        )
    height = 2 * LEFT + len(floors) * (HEIGHT + GAP) - GAP
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{edge + ARCS}" height="{height}"
 viewBox="0 0 {edge + ARCS} {height}" font-family="sans-serif" font-size="11">
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
 markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="#3b6ea5"/></marker></defs>
<rect x="0" y="0" width="{edge + ARCS}" height="{height}" fill="#fff"/>
<g fill="none" stroke="#3b6ea5" opacity="0.55">
{chr(10).join(arcs)}
</g>
<g stroke="none" fill="#1d2b3a">
{chr(10).join(boxes)}
</g>
</svg>
"""


def main() -> None:
    """Parse, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "map.svg")
    args = parser.parse_args()
    args.output.write_text(draw(layers(), arrows()))
    print(args.output)


if __name__ == "__main__":
    main()
