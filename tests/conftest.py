"""Shared small problems. Windows of 32 px at 0.4 Å keep the physics real and the tests fast."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.optics import Optics, probe_from_parameters
from napari_mepdiff.physics.scan import Raster

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("QT_API", "pyqt6")  # PySide6 aborts at exit on Python 3.11
os.environ.setdefault("PYTEST_QT_API", "pyqt6")
# what is written after a test has ended must not land in places of whoever runs the tests either
_PLACES = Path(tempfile.mkdtemp(prefix="mepdiff-tests-"))
os.environ.setdefault("NAPARI_CONFIG", str(_PLACES / "napari.yaml"))
os.environ["MEPDIFF_CONFIG"] = str(_PLACES / "last.json")
os.environ["MEPDIFF_RECOVERY"] = str(_PLACES / "runs")
ROOT = Path(__file__).parents[1]
WINDOWS = {"make_napari_viewer", "qtbot", "screen"}  # fixtures of whatever needs a screen
CRYSTALS = ROOT / "sample_data" / "crystals"

OPTICS = Optics(energy=300, semi_angle=15, overfocus=60, C30=5000)


class Small:
    """A small multislice problem with everything that a likelihood takes."""

    def __init__(
        self,
        dtype=torch.float64,
        boundary="periodic",
        modes=1,
        window=32,
        canvas=32,
        slices=4,
        scan=(5, 4),
        seed=0,
    ):
        rng = torch.Generator().manual_seed(seed)
        self.dtype, self.boundary = dtype, boundary
        self.pixel, self.shape = (0.4, 0.4), (slices, canvas, canvas)
        self.volume = torch.rand(self.shape, generator=rng, dtype=torch.float64) * 0.3
        complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        self.probe = (
            probe_from_parameters(
                OPTICS, (window, window), self.pixel, modes=modes, dtype=complex_dtype
            )
            * 30
        )
        origin = (
            (0.0, 0.0) if boundary == "periodic" else (window * 0.2 + 0.31, window * 0.2 + 0.17)
        )
        self.positions = Raster(shape=scan, step=(0.73, 0.57), origin=origin).positions()
        self.count = len(self.positions)
        self.rng = rng

    def likelihood(self, patterns=None, **options):
        if patterns is None:
            patterns = torch.zeros(self.count, *self.probe.shape[1:])
        settings = {
            "pixel_size": self.pixel,
            "slice_thickness": 1.7,
            "energy": 300.0,
            "boundary": self.boundary,
            "dtype": self.dtype,
        }
        return Likelihood(
            patterns, self.probe, self.positions, self.shape, **{**settings, **options}
        )

    def patterns(self, noise=True, **options):
        clean = self.likelihood(**options).patterns(self.volume)
        return torch.poisson(clean, generator=None) if noise else clean


@pytest.fixture
def small():
    return Small


@pytest.fixture
def screen():
    """For a program that opens a window of its own; skipped where there is no screen."""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002


def pytest_collection_modifyitems(items):
    """Tests that open a viewer need a screen, which `make test` makes, and come last.

    PtyRAD loads Triton, which ends a process that has loaded Mesa's OpenGL before.
    """

    def opens_a_window(item):
        return not WINDOWS.isdisjoint(getattr(item, "fixturenames", ()))

    def last(item):
        return any(
            f"tests/{folder}/" in item.nodeid for folder in ("gui", "e2e")
        ) or opens_a_window(item)

    items.sort(key=last)
    # known only now: pytest-xvfb makes a screen for each process when pytest is configured
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        skip = pytest.mark.skip(reason="no screen: run `make test`, or install Xvfb")
        for item in items:
            if opens_a_window(item):
                item.add_marker(skip)
