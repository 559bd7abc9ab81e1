"""`make` on a machine whose Python is too old: one clear sentence, and nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from .conftest import ROOT


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("version", "refused"), [((3, 10, 13), True), ((3, 11, 0), False)])
def test_a_python_that_is_too_old_is_refused(tmp_path, version, refused):
    """It went on to pip, which ended with pages about versions of other packages."""
    said = ".".join(map(str, version))
    as_old = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    _script(
        tmp_path / "python3",
        f'[ "$1" = --version ] && {{ echo "Python {said}"; exit; }}',
        f"exec {sys.executable} -c '{as_old}' \"$2\"",
    )
    _script(tmp_path / "apt-get", f'touch "{tmp_path}/installed"')
    out = subprocess.run(
        ["make", "system"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert (out.returncode != 0) is refused, out.stdout + out.stderr
    assert ("Python 3.11 or newer is needed" in out.stdout) is refused
    assert (said in out.stdout) is refused
    assert not (tmp_path / "installed").exists()


def _script(path, *lines):
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
