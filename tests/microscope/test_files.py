"""Refined microscopes of other packages: what is read, what is written, what is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from napari_mepdiff.measurement.formats import load_probe
from napari_mepdiff.microscope.files import format_of, load_microscope, save_microscope
from napari_mepdiff.microscope.files.found import OWN, told_optics
from napari_mepdiff.microscope.state import MicroscopeState
from napari_mepdiff.physics.optics import Optics, energy_of, wavelength
from tests.needs import needs

from . import foreign

MAKERS = {
    "ptyrad": lambda path: foreign.ptyrad(path),
    "ptyrad 2": lambda path: foreign.ptyrad(path, schema=2),
    "py4dstem": foreign.py4dstem,
}


@pytest.fixture(params=MAKERS, scope="module")
def theirs(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("theirs") / "result.hdf5")


@pytest.fixture(scope="module")
def found(theirs):
    return load_microscope(theirs)


def _state(**fields) -> MicroscopeState:
    """What a run here could have refined: everything off what is usual."""
    optics = Optics(
        energy=foreign.ENERGY, semi_angle=20.4, overfocus=80.0, C12=30.0, phi12=0.3,
        C30=0.0, soft_edge=2.0,
    )  # fmt: skip
    values = {
        "probe": foreign.modes() * 100,
        "positions": foreign.places(),
        "pixel_size": (foreign.PIXEL, foreign.PIXEL),
        "energy": foreign.ENERGY,
        "tilt": (2.0, -3.0),
        "background": 0.25,
        "provenance": {"run": "refine 1", "optics": Optics().model_dump(mode="json")},
        "optics": optics,
        "source_size": 0.31,
        "errors": {"C10": 1.5},
    }
    return MicroscopeState(**{**values, **fields})


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() <= 1e-5 * np.abs(b).max())


def test_a_foreign_result_has_our_signs_units_and_frame(found):
    """A sign the wrong way round would start a run at the mirrored focus, tilt or scan."""
    state = found
    assert _same(state.probe / state.electrons**0.5, foreign.modes() / 1.04**0.5)
    expected = foreign.places()
    assert np.allclose(state.positions, expected - expected.min(axis=0), atol=1e-5)
    assert state.tilt == pytest.approx((2.0, -3.0))
    assert state.pixel_size == pytest.approx((0.3, 0.3))
    assert state.energy == pytest.approx(300.0)


def test_the_optics_are_those_that_the_probe_shows_not_those_told(found):
    shown = found.optics.model_dump()
    assert shown["overfocus"] == pytest.approx(80, abs=1)
    assert shown["C12"] == pytest.approx(30, abs=1)
    assert shown["phi12"] == pytest.approx(0.3, abs=0.03)
    assert shown["semi_angle"] == pytest.approx(20.4, abs=0.2)


def test_what_the_other_package_was_told_stands_beside_it(tmp_path):
    told = told_optics(load_microscope(foreign.ptyrad(tmp_path / "a.hdf5")))
    assert (told.overfocus, told.C12) == pytest.approx((70.0, 20.0))
    assert told.phi12 == pytest.approx(np.radians(10))
    told = told_optics(load_microscope(foreign.ptyrad(tmp_path / "b.hdf5", schema=2)))
    assert (told.overfocus, told.semi_angle) == (70.0, 20.4)
    told = told_optics(load_microscope(foreign.py4dstem(tmp_path / "c.h5")))
    assert (told.overfocus, told.C12, told.soft_edge) == (80.0, 30.0, 2.0)
    assert told.phi12 == pytest.approx(0.3)
    assert told.semi_angle == pytest.approx(20.4)


def test_positions_are_laid_on_the_scan(theirs):
    """They count from a corner of the other package's canvas, wherever that is."""
    scan = np.stack(np.mgrid[:4, :5].reshape(2, -1) * 0.9, axis=1) + np.array([100.0, -50.0])
    moved = load_microscope(theirs, scan).positions
    assert np.allclose(moved.mean(axis=0), scan.mean(axis=0))
    assert np.abs(moved - scan).max() < 0.3


def test_an_electron_count_survives_from_py4dstem(tmp_path):
    state = load_microscope(foreign.py4dstem(tmp_path / "a.h5"))
    assert state.electrons == pytest.approx(1.04e4, rel=1e-5)


@pytest.mark.parametrize("kind", ["own", "ptyrad", "py4dstem"])
def test_a_state_comes_back_whole(tmp_path, kind):
    state, path = _state(), tmp_path / "state.h5"
    save_microscope(state, path, kind)
    assert format_of(path) == kind
    back = load_microscope(path, np.zeros((20, 2)))  # the origin is known: no scan moves it
    assert _same(back.probe, state.probe)
    assert np.abs(back.positions - state.positions).max() < 1e-5
    assert back.tilt == pytest.approx(state.tilt, abs=1e-6)
    assert back.pixel_size == pytest.approx(state.pixel_size, rel=1e-9)
    for name in ("energy", "background", "optics", "source_size", "errors", "provenance"):
        assert getattr(back, name) == getattr(state, name), name
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["ptyrad", "py4dstem"])
def test_what_is_written_holds_without_our_own_part(tmp_path, kind):
    """The other package reads the plain layout, so that is where the signs must be right."""
    state, path = _state(), tmp_path / "state.h5"
    save_microscope(state, path, kind)
    with h5py.File(path, "r+") as file:
        del file[OWN]
    back = load_microscope(path)
    assert _same(back.probe, state.probe)
    steps = np.diff(state.positions, axis=0)
    assert np.abs(np.diff(back.positions, axis=0) - steps).max() < 1e-5
    assert back.tilt == pytest.approx(state.tilt, abs=1e-6)
    told = told_optics(back)
    for name in ("energy", "semi_angle", "overfocus", "C12", "phi12"):
        assert getattr(told, name) == pytest.approx(getattr(state.optics, name), abs=1e-5)
    assert back.optics.overfocus == pytest.approx(80, abs=1)


def test_a_written_ptyrad_file_is_one_for_the_readers_that_were_there(tmp_path):
    state = _state()
    save_microscope(state, tmp_path / "model.hdf5", "ptyrad")
    assert np.array_equal(load_probe(tmp_path / "model.hdf5"), state.probe)
    with h5py.File(tmp_path / "model.hdf5") as file:
        corner = file["model_attributes/crop_pos"][...]
        shift = file["optimizable_tensors/probe_pos_shifts"][...]
        assert np.array_equal(file["optimizable_tensors/obj_tilts"][...], [[-2.0, 3.0]])
    assert corner.dtype.kind == "i"
    assert np.abs(shift).max() <= 0.5
    extent = np.floor(1.2 * np.ceil(np.ptp(corner + shift, axis=0) + foreign.N))
    assert (corner >= 0).all()  # PtyRAD refuses windows beyond its canvas
    assert (corner + foreign.N <= extent).all()


def test_the_probe_of_the_coming_layout_is_a_probe(tmp_path):
    path = foreign.ptyrad(tmp_path / "model.hdf5", schema=2)
    assert np.array_equal(load_probe(path), foreign.modes())


@needs("emdfile")
def test_emdfile_reads_what_is_written_for_py4dstem(tmp_path):
    """py4DSTEM reads with it: types that it does not know would be lost there."""
    import emdfile

    state = _state()
    save_microscope(state, tmp_path / "state.h5", "py4dstem")
    with h5py.File(tmp_path / "state.h5") as file:
        group = file["mepdiff_microscope_state_root/mepdiff_microscope_state"]
        before = emdfile._read_metadata(group, "instantiation_metadata")
        done = emdfile._read_metadata(group, "preprocess_metadata")
        probe = emdfile.Array.from_h5(group["_probe_emd"])
    assert before["energy"] == 300e3
    assert before["vacuum_probe_intensity"] is None
    assert before["slice_thicknesses"].shape == (0,)
    assert done["sampling"] == pytest.approx((0.3, 0.3))
    assert not done["data_transpose"]
    total = float((np.abs(np.fft.fft2(probe.data)) ** 2).sum())  # its sum of a pattern
    assert total == pytest.approx(state.electrons, rel=1e-5)


def test_a_tilt_for_each_position_becomes_their_mean_and_is_said(tmp_path):
    tilts = np.tile([[-2.0, 3.0], [-4.0, 3.0]], (10, 1))
    state = load_microscope(foreign.ptyrad(tmp_path / "a.hdf5", tilts=tilts))
    assert state.tilt == pytest.approx((3.0, -3.0))
    assert "for each position" in " ".join(state.provenance["notes"])


def test_turned_and_flipped_data_are_said(tmp_path):
    notes = load_microscope(foreign.ptyrad(tmp_path / "a.hdf5")).provenance["notes"]
    assert "flipped the patterns (up-down)" in notes[0]
    notes = load_microscope(foreign.py4dstem(tmp_path / "b.h5", True)).provenance["notes"]
    assert "28.65°, transposed" in notes[0]


def test_the_wavelength_stands_in_for_the_energy(tmp_path):
    path = foreign.ptyrad(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        del file["params/init_params/probe_kv"]
    assert load_microscope(path).energy == pytest.approx(300, abs=1e-3)
    assert energy_of(wavelength(80.0)) == pytest.approx(80.0, rel=1e-12)


def test_a_probe_without_an_aperture_has_no_optics(tmp_path):
    path = foreign.ptyrad(tmp_path / "a.hdf5")
    rng = np.random.default_rng(0)
    with h5py.File(path, "r+") as file:
        noise = rng.normal(size=(2, 32, 32)) + 1j * rng.normal(size=(2, 32, 32))
        file["optimizable_tensors/probe"][...] = noise
    assert load_microscope(path).optics is None


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("optimizable_tensors/probe", "no probe"),
        ("model_attributes/crop_pos", "crop_pos"),
        ("model_attributes/dx", "pixel size"),
    ],
)
def test_what_a_ptyrad_result_lacks_is_named(tmp_path, lost, said):
    path = foreign.ptyrad(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        del file[lost]
    with pytest.raises(ValueError, match=rf"a\.hdf5 cannot be used.*{said}"):
        load_microscope(path)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("metadatabundle/instantiation_metadata/energy", "beam energy"),
        ("metadatabundle/preprocess_metadata/positions_px", "positions"),
        ("metadatabundle/preprocess_metadata/sampling", "pixel size"),
        ("_probe_emd", "no probe"),
    ],
)
def test_what_a_py4dstem_result_lacks_is_named(tmp_path, lost, said):
    path = foreign.py4dstem(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file[f"multi-slice_root/multi-slice/{lost}"]
    with pytest.raises(ValueError, match=rf"a\.h5 cannot be used.*{said}"):
        load_microscope(path)


def test_damaged_values_are_refused(tmp_path):
    path = foreign.ptyrad(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        file["optimizable_tensors/probe_pos_shifts"][3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        load_microscope(path)
    with h5py.File(path, "r+") as file:
        del file["optimizable_tensors/probe_pos_shifts"]
        file["optimizable_tensors/probe_pos_shifts"] = np.zeros((7, 2))
    with pytest.raises(ValueError, match="20 positions and shifts of shape"):
        load_microscope(path)


def test_files_cut_short_are_refused(theirs, tmp_path):
    whole = theirs.read_bytes()
    for n, share in enumerate((0.02, 0.3, 0.7, 0.99)):
        part = tmp_path / f"part{n}.h5"
        part.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=f"part{n}"):
            load_microscope(part)


def test_files_of_something_else_say_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_microscope(tmp_path / "none.h5")
    np.save(tmp_path / "probe.npy", foreign.modes())
    with pytest.raises(ValueError, match="it is no HDF5 file"):
        load_microscope(tmp_path / "probe.npy")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.ones(3)
    with pytest.raises(ValueError, match="neither of an earlier run nor as PtyRAD"):
        load_microscope(tmp_path / "plain.h5")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.attrs["format"] = "mepdiff-4dstem"
    with pytest.raises(ValueError, match="it is a measurement"):
        load_microscope(tmp_path / "data.h5")
    path = foreign.py4dstem(tmp_path / "parallax.h5")
    with h5py.File(path, "r+") as file:
        file["multi-slice_root/multi-slice"].attrs["python_class"] = "Parallax"
    with pytest.raises(ValueError, match="Parallax reconstruction of py4DSTEM, which has no probe"):
        load_microscope(path)


def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="square pixels only"):
        save_microscope(_state(pixel_size=(0.3, 0.31)), tmp_path / "a.hdf5", "ptyrad")
    with pytest.raises(ValueError, match="square windows"):
        save_microscope(_state(probe=foreign.modes()[:, :, 1:]), tmp_path / "a.hdf5", "ptyrad")
    with pytest.raises(ValueError, match=r"named \.hdf5"):  # it would not open it there
        save_microscope(_state(), tmp_path / "a.dat", "ptyrad")
    with pytest.raises(ValueError, match="own, ptyrad, py4dstem"):
        save_microscope(_state(), tmp_path / "a.hdf5", "abtem")
    assert not list(tmp_path.iterdir())


def test_pixels_that_are_not_square_are_kept_for_py4dstem(tmp_path):
    state = _state(pixel_size=(0.3, 0.4), probe=foreign.modes()[:, :, 2:], optics=None)
    save_microscope(state, tmp_path / "a.h5", "py4dstem")
    back = load_microscope(tmp_path / "a.h5")
    assert back.pixel_size == pytest.approx((0.3, 0.4))
    assert np.abs(back.positions - state.positions).max() < 1e-5
    assert _same(back.probe, state.probe)
