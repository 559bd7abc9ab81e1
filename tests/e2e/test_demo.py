"""The demonstration, from a measurement to exported volumes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.gui.demo import UNDER_XVFB
from napari_mepdiff.measurement.formats import own
from tests.gui.conftest import small_data


def test_the_demonstration_comes_to_its_end(tmp_path, screen):
    """It is the first thing that a newcomer runs."""
    data = tmp_path / "small.h5"  # smaller than the samples
    own.save(small_data(), data)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "napari_mepdiff.gui.demo", "--output", tmp_path),
            *("--sample", data, "--steps", "4", "--guidance", "newton"),
        ],
        env={**os.environ, UNDER_XVFB: "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = {p.stem for p in tmp_path.glob("*.png")}
    assert {"1_data", "2_running", "3_comparison", "4_export"} <= pictures
    volumes = list(tmp_path.glob("*.tif"))
    assert len(volumes) == 2
    assert all(load_volume(path).shape == (4, 32, 32) for path in volumes)
    assert "ssim" in done.stdout
