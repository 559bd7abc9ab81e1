"""The package as a whole: imports that cost nothing, a manifest that validates, clean code."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import ROOT

HEAVY = ("torch", "safetensors", "pyarrow", "qtpy", "PyQt6", "PyQt5", "PySide6", "pyqtgraph", "superqt", "magicgui", "napari",
         "numpy", "h5py", "dask", "abtem", "ptyrad")


def _loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_loads_nothing_heavy():
    assert _loaded("import napari_mepdiff") == set()
    assert _loaded("import napari_mepdiff.cli") == set()
    assert _loaded("import napari_mepdiff.headless, napari_mepdiff.demo, napari_mepdiff.gui") == set()


def test_import_and_help_answer_quickly():
    def best(command):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best([sys.executable, "-c", "import napari_mepdiff"]) < 0.5
    assert best([sys.executable, "-m", "napari_mepdiff.cli", "--help"]) < 0.5


def test_the_manifest_validates():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(ROOT / "src" / "napari_mepdiff" / "napari.yaml")
    assert manifest.name == "napari-mepdiff"
    out = subprocess.run([sys.executable, "-m", "npe2", "validate", str(ROOT / "src/napari_mepdiff/napari.yaml")],
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr


def test_ruff_is_content():
    out = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout


def test_types_hold():
    out = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout


FLOORS = ["physics", "specimen", "measurement", "prior", "reconstruction", "evaluation", "export"]
ALLOWED = {
    "physics": set(), "specimen": {"physics"}, "measurement": {"physics", "specimen"},
    "prior": {"physics", "specimen"},
    "reconstruction": {"physics", "specimen", "measurement", "prior", "evaluation"},
    "evaluation": {"physics", "specimen", "measurement", "prior", "reconstruction"},
    "export": {"physics", "specimen", "measurement", "evaluation"},
}


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_one_way(floor):
    for path in (ROOT / "src/napari_mepdiff" / floor).rglob("*.py"):
        for match in re.finditer(r"^\s*from \.{2,3}(\w+)", path.read_text(), re.M):
            other = match[1]
            if other in FLOORS and other != floor:
                assert other in ALLOWED[floor], f"{path.name} imports {other}"
        assert not re.search(r"^\s*(import|from) (napari|qtpy|PyQt6|magicgui)\b", path.read_text(), re.M)


def test_no_large_files():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    sizes = {n: (ROOT / n).stat().st_size for n in tracked if n and (ROOT / n).exists()}
    assert max(sizes.values(), default=0) < 20e6
    samples = sum(p.stat().st_size for p in Path(ROOT / "sample_data").glob("*.h5"))
    assert samples < 40e6
    assert all(p.stat().st_size < 8e6 for p in Path(ROOT / "sample_data").glob("*.h5"))
