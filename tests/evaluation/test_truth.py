"""Who may look at ground truth: only what compares with it, never what reconstructs."""

from __future__ import annotations

import ast
from pathlib import Path

import napari_mepdiff

SOURCE = Path(napari_mepdiff.__file__).parent
NAMES = {"truth", "truth_atoms"}
MAY = {
    "cli/data.py",  # says whether there is one
    "cli/judge.py",  # mepdiff evaluate
    "export/readers.py",  # takes it out of a file as a volume of its own
    "session/runs.py",  # hands that of a run's own measurement to the comparison
}


def _readers(source: Path) -> set[str]:
    """Modules below the docks, and outside measurement and evaluation, that read a truth."""
    found = set()
    for path in source.rglob("*.py"):
        name = path.relative_to(source).as_posix()
        if name.split("/")[0] in ("measurement", "evaluation", "gui"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            attribute = isinstance(node, ast.Attribute) and node.attr in NAMES
            asked = isinstance(node, ast.Call) and any(
                isinstance(a, ast.Constant) and a.value in NAMES for a in node.args
            )
            if attribute or asked:
                found.add(name)
    return found


def test_nothing_that_reconstructs_looks_at_the_truth():
    """A user has none: defaults that come from it make every test kinder than the microscope."""
    assert _readers(SOURCE) <= MAY
