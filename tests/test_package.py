"""The package as a whole: imports that cost nothing, a manifest that validates, clean code."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from .conftest import ROOT
from .needs import needs

HEAVY = (
    "torch",
    "safetensors",
    "pyarrow",
    "qtpy",
    "PyQt6",
    "PyQt5",
    "PySide6",
    "pyqtgraph",
    "superqt",
    "magicgui",
    "napari",
    "numpy",
    "h5py",
    "dask",
    "ase",
    "numba",
    "scipy",
    "skimage",
    "matplotlib",
    "pydantic",
    "abtem",
    "ptyrad",
)


def _loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_loads_nothing_heavy():
    assert _loaded("import napari_mepdiff") == set()
    assert _loaded("import napari_mepdiff.cli.main") == set()
    assert (
        _loaded("import napari_mepdiff.base.headless, napari_mepdiff.gui.demo, napari_mepdiff.gui")
        == set()
    )


def test_the_manifest_validates():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(ROOT / "src" / "napari_mepdiff" / "napari.yaml")
    assert manifest.name == "napari-mepdiff"
    out = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(ROOT / "src/napari_mepdiff/napari.yaml")],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stdout + out.stderr


@needs("ruff")
def test_ruff_is_content():
    out = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stdout


@needs("mypy")
def test_types_hold(tmp_path):
    out = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stdout


def test_imports_keep_to_the_floors():
    """The contracts in pyproject.toml, imports inside functions included."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    out = subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert out.returncode == 0, out.stdout + out.stderr
    assert " 0 broken" in out.stdout


MODULES = {"pillow": "PIL", "rosettasciio": "rsciio", "scikit-image": "skimage"}  # by package
UNSEEN = {
    "torchvision": "PtyRAD imports it and does not declare it",
    "napari-mepdiff": "the extras name one another",
    "PyQt6": "the Qt binding, by way of qtpy",
}
CHECKING = {"_typeshed"}  # what only a type checker has


def _imported() -> set[str]:
    """Top modules that src imports, by statement or by ``require`` and ``import_module``."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
                name = node.args[0]
                if isinstance(name, ast.JoinedStr):
                    name = name.values[0]
                if isinstance(name, ast.Constant):
                    found.add(str(name.value).partition(".")[0])
    return found


def test_what_is_declared_is_imported_and_the_other_way_round():
    """Somebody would install packages for nothing, or meet an import of one that is not there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if "test" not in k}
    declared = {
        re.split(r"[\[<>=]", line)[0]
        for line in (*project["dependencies"], *(d for e in extras.values() for d in e))
    }
    modules = {MODULES.get(name, name).replace("-", "_") for name in declared - set(UNSEEN)}
    imported = _imported() - set(sys.stdlib_module_names) - CHECKING - {"napari_mepdiff"}
    assert modules - imported == set(), "declared, and nothing imports it"
    assert imported - modules == set(), "imported, and not declared"


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(),
    reason="git alone knows what belongs to the project",
)
def test_no_large_files():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    sizes = {n: (ROOT / n).stat().st_size for n in tracked if n and (ROOT / n).exists()}
    assert max(sizes.values()) < 20e6


def test_samples_are_small():
    sizes = [p.stat().st_size for p in (ROOT / "sample_data").glob("*.h5")]
    assert sum(sizes) < 40e6
    assert max(sizes) < 8e6
