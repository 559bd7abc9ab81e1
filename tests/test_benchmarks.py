"""The benchmarks are not run in the tests; that they can be is."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys

import pytest

from .conftest import ROOT

FILES = sorted(p for p in (ROOT / "benchmarks").glob("*.py") if p.stem != "__init__")
NOT_COMMANDS = (
    "output", "dps_report", "recording", "experiment_judge", "experiment_ptyrad",
    "experiment_lsqml",
)  # fmt: skip
COMMANDS = [p.stem for p in FILES if p.stem not in NOT_COMMANDS]


def _run(*words):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_each_answers_as_a_module_and_as_a_script(name):
    for words in (("-m", f"benchmarks.{name}"), (f"benchmarks/{name}.py",)):
        out = _run(*words, "--help")
        assert out.returncode == 0, out.stderr
        assert "--json FILE" in out.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_what_they_import_of_the_package_is_there(path):
    """Most imports stand inside functions: only a run of minutes would meet a changed name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari_mepdiff"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_numbers_go_to_a_file_or_alone_to_standard_output(tmp_path):
    (tmp_path / "measure.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from benchmarks import output\n"
        "args = output.parse(output.parser('A measurement.'))\n"
        "print('at work')\n"
        "output.write({'seconds': 1.5}, args.json)\n"
    )
    alone = _run(tmp_path / "measure.py", "--json", "-")
    assert json.loads(alone.stdout) == {"seconds": 1.5}
    assert "at work" in alone.stderr
    kept = _run(tmp_path / "measure.py", "--json", tmp_path / "found.json")
    assert kept.stdout == "at work\n"
    assert json.loads((tmp_path / "found.json").read_text()) == {"seconds": 1.5}
    assert _run(tmp_path / "measure.py").stdout == "at work\n"
