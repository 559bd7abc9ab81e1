"""Refined probe and positions: written, read, refused where they cannot be right."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from napari_mepdiff.microscope.state import MicroscopeState


def some_state(**fields) -> MicroscopeState:
    rng = np.random.default_rng(0)
    probe = rng.normal(size=(2, 16, 18)) + 1j * rng.normal(size=(2, 16, 18))
    values = {
        "probe": probe,
        "positions": rng.random((20, 2)) * 5,
        "pixel_size": (0.2, 0.21),
        "energy": 200.0,
        "tilt": (1.5, -2.0),
        "background": 0.3,
        "provenance": {"run": {"solver": "refine", "step": 40}, "sample": "Å"},
    }
    return MicroscopeState(**{**values, **fields})


def test_a_state_comes_back_as_it_was(tmp_path):
    state = some_state()
    state.save(tmp_path / "state.h5")
    again = MicroscopeState.load(tmp_path / "state.h5")
    np.testing.assert_array_equal(again.probe, state.probe)
    np.testing.assert_array_equal(again.positions, state.positions)
    assert (again.pixel_size, again.energy) == (state.pixel_size, state.energy)
    assert again.provenance == state.provenance
    assert (again.tilt, again.background) == ((1.5, -2.0), 0.3)
    assert again.probe.dtype == np.complex64
    assert again.electrons == pytest.approx(float((np.abs(state.probe) ** 2).sum()), rel=1e-5)
    assert list(tmp_path.iterdir()) == [tmp_path / "state.h5"]


def test_a_file_of_an_earlier_version_has_neither_tilt_nor_background(tmp_path):
    some_state().save(tmp_path / "state.h5")
    with h5py.File(tmp_path / "state.h5", "r+") as file:
        file.attrs["version"] = 1
        del file.attrs["tilt"], file.attrs["background"]
    again = MicroscopeState.load(tmp_path / "state.h5")
    assert (again.tilt, again.background) == ((0.0, 0.0), 0.0)


def test_a_single_mode_needs_no_axis():
    assert some_state(probe=np.ones((8, 8), complex)).probe.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"probe": np.ones((8, 8))}, "a probe is complex"),
        ({"probe": np.full((8, 8), np.nan + 0j)}, "NaN"),
        ({"probe": np.zeros((8, 8), complex)}, "empty"),
        ({"positions": np.ones((4, 3))}, "positions are finite"),
        ({"positions": np.full((4, 2), np.inf)}, "positions are finite"),
        ({"pixel_size": (0.2, -0.2)}, "pixel size"),
        ({"energy": 0.0}, "energy"),
        ({"tilt": (0.0, np.nan)}, "tilt is"),
        ({"background": -0.1}, "background is"),
    ],
)
def test_impossible_states_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        some_state(**fields)


def test_files_that_hold_no_state_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        MicroscopeState.load(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("probe")
    with pytest.raises(ValueError, match=r"text\.h5"):
        MicroscopeState.load(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.ones(3)
    with pytest.raises(ValueError, match="no refined probe"):
        MicroscopeState.load(tmp_path / "other.h5")
    some_state().save(tmp_path / "part.h5")
    with h5py.File(tmp_path / "part.h5", "a") as file:
        del file["positions"]
    with pytest.raises(ValueError, match="lacks"):
        MicroscopeState.load(tmp_path / "part.h5")
    some_state().save(tmp_path / "newer.h5")
    with h5py.File(tmp_path / "newer.h5", "a") as file:
        file.attrs["version"] = 99
    with pytest.raises(ValueError, match="newer"):
        MicroscopeState.load(tmp_path / "newer.h5")
