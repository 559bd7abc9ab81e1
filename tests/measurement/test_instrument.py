import json
from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.measurement.formats import open_4dstem
from napari_mepdiff.measurement.formats.own import save
from napari_mepdiff.measurement.instrument import Instrument
from napari_mepdiff.measurement.multislice import box_of
from napari_mepdiff.measurement.recording import fine_slice, own_potential, spread
from napari_mepdiff.measurement.simulate import Conditions, diffraction, simulate
from napari_mepdiff.physics.optics import Optics, interaction_parameter
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.specimen.crystals import bilayer, doped_srtio3, interface, srtio3
from napari_mepdiff.specimen.lattice import cut_box

from ..needs import needs

SMALL = Conditions(
    scan=Raster(shape=(4, 4), step=(0.8, 0.8)),
    slices=3,
    voxel_size=(4.0, 0.2, 0.2),
    detector=32,
    geometry="extended",
    optics=Optics(overfocus=40),
    dose=None,
)


def taken(dose=None, **errors):
    c = SMALL.model_copy(update={"instrument": Instrument(**errors), "dose": dose})
    return simulate(srtio3(), c)


def counts(data):
    return np.asarray(data.data, np.float64).reshape(-1, 32, 32)


def by_hand(data, positions=None, **optics):
    """Patterns of the truth, without an instrument."""
    true = Optics.model_validate(data.truth_instrument["optics"] | optics)
    places = data.truth_instrument["positions"] if positions is None else positions
    return diffraction(data.truth, places, true, 32, "extended")


@pytest.fixture(scope="module")
def perfect():
    return simulate(srtio3(), SMALL)


@needs("abtem")
def test_a_perfect_instrument_changes_nothing(perfect):
    same = taken()
    assert np.array_equal(counts(same), counts(perfect))
    assert np.array_equal(same.truth.array, perfect.truth.array)
    assert np.array_equal(same.positions, perfect.positions)
    assert np.allclose(same.truth_instrument["positions"], same.positions)
    assert same.optics == perfect.optics
    dosed = simulate(srtio3(), SMALL.model_copy(update={"dose": 1e4}))
    assert np.array_equal(counts(taken(1e4)), counts(dosed))


@needs("abtem")
def test_what_is_not_told_is_in_the_patterns_and_not_in_the_optics(perfect):
    data = taken(
        overfocus_error=-23.0, overfocus_rounding=10.0, C12=15.0, phi12=0.4, C21=300.0,
        semi_angle_error=0.4, thickness_error=3.0,
    )  # fmt: skip
    assert data.optics == SMALL.optics.model_copy(update={"overfocus": 20.0, "semi_angle": 21.8})
    assert data.calibration.semi_angle == 21.8
    assert data.calibration.thickness == 15.0
    true = data.truth_instrument["optics"]
    assert (true["overfocus"], true["C12"], true["semi_angle"]) == (40.0, 15.0, 21.4)
    assert np.allclose(counts(data), by_hand(data), atol=1e-9)
    assert np.abs(counts(data) - counts(perfect)).sum() > 0.05 * counts(perfect).sum()


@needs("abtem")
def test_positions_are_told_as_a_raster_and_recorded_as_they_were():
    data = taken(jitter=0.1, drift=(0.3, 0.0))
    assert np.allclose(np.diff(data.positions.reshape(4, 4, 2)[0, :, 1]), 0.8)
    assert np.allclose(counts(data), by_hand(data), atol=1e-9)


def test_the_scan_errors_are_as_large_as_stated():
    raster = Raster(shape=(40, 40), step=(0.5, 0.5))
    told = raster.positions()

    def away(**errors):
        return Instrument(**errors).true_positions(raster, np.random.default_rng(0)) - told

    assert away(jitter=0.1).std() == pytest.approx(0.1, rel=0.05)
    assert np.allclose(away(drift=(1.0, -2.0))[-1] - away(drift=(1.0, -2.0))[0], (1.0, -2.0))
    x = told[:, 1] - told[:, 1].mean()
    assert np.allclose(away(shear=0.02), np.stack([0.02 * x, 0 * x], axis=1))
    assert np.allclose(away(scale=0.01), 0.01 * (told - told.mean(axis=0)))
    turned = Raster(shape=(40, 40), step=(0.5, 0.5), rotation=1.0).positions()
    assert np.allclose(away(rotation=1.0), turned - told)


@needs("abtem")
def test_a_source_is_the_mean_over_shifted_positions():
    data = taken(source_size=0.3, configurations=4)
    places = spread(np.random.default_rng([0, 1]), 4, 2, 0.3)
    assert np.allclose(places.mean(axis=0), 0)
    assert np.allclose(places.T @ places / 4, 0.3**2 * np.eye(2))
    mean = np.mean([by_hand(data, data.positions + p) for p in places], axis=0)
    assert np.allclose(counts(data), mean, atol=1e-9)


@needs("abtem")
def test_a_focal_spread_is_the_mean_over_foci():
    data = taken(focal_spread=20.0, configurations=2)
    mean = (by_hand(data, overfocus=60.0) + by_hand(data, overfocus=20.0)) / 2
    assert np.allclose(counts(data), mean, atol=1e-7)


@needs("abtem")
def test_a_tilt_is_abtems_tilt_and_that_of_the_model(perfect):
    """A tilted beam in the propagator is a crystal that leans by −tilt · z."""
    tilt = np.array([8.0, -5.0])
    tilted = counts(taken(tilt=tuple(tilt)))
    ky, kx = (np.fft.fftfreq(n, 0.2) for n in perfect.truth.shape[1:])
    leaning = np.fft.fft2(perfect.truth.array)
    for k in range(3):
        y, x = -k * 4.0 * tilt * 1e-3
        leaning[k] *= np.exp(-2j * np.pi * (ky[:, None] * y + kx * x))
    volume = replace(perfect.truth, array=np.fft.ifft2(leaning).real.astype(np.float32))
    model = diffraction(volume, perfect.positions, SMALL.optics, 32, "extended")
    change = np.abs(tilted - counts(perfect)).sum()
    assert np.abs(tilted - model).sum() < 0.2 * change


@needs("abtem")
def test_the_detector_blurs_adds_multiplies_and_has_bad_pixels(perfect):
    clean = taken(1e5)
    few = counts(taken(1e3, background=2.0)).sum() - counts(taken(1e3)).sum()
    assert few == pytest.approx(2.0 * clean.data.size, rel=0.05)
    gained = taken(1e5, gain=3.5)
    assert np.allclose(counts(gained), 3.5 * counts(clean))
    assert gained.data.dtype == np.float32
    blurred = taken(blur=1.5)
    assert counts(blurred).sum() == pytest.approx(counts(perfect).sum(), rel=2e-3)
    assert counts(blurred).std() < 0.97 * counts(perfect).std()
    bad = taken(1e5, dead_pixels=3, hot_pixels=2, masked=True)
    known = bad.truth_instrument
    assert all((counts(bad)[:, y, x] == 0).all() for y, x in known["dead_pixels"])
    assert all((counts(bad)[:, y, x] > counts(clean).max()).all() for y, x in known["hot_pixels"])
    assert bad.mask.sum() == 32 * 32 - 5
    assert taken(1e5, dead_pixels=3).mask is None


@needs("abtem")
def test_abtems_own_potential_is_the_truth_at_rest(perfect):
    size = (12.0, *(n * 0.2 for n in perfect.truth.shape[1:]))
    side, offset = box_of(perfect.truth.shape[1:], 32)
    box = cut_box(srtio3(), size, margin=8.0)
    inner = (offset[1] * 0.2, offset[0] * 0.2)
    fine = Instrument(fine_slice=1.5)
    assert fine_slice(fine, 4.0) == pytest.approx(4 / 3)
    made = own_potential(box, fine, SMALL, side, inner, np.random.default_rng(0))
    phase = interaction_parameter(300.0) * np.asarray(made.array).transpose(0, 2, 1)
    assert len(phase) == 9
    height, width = perfect.truth.shape[1:]
    inside = phase[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    whole = simulate(srtio3(), SMALL.model_copy(update={"vacancies": 0.0})).truth.array
    assert np.allclose(inside.reshape(3, 3, height, width).sum(axis=1), whole, atol=1e-2)


@needs("abtem")
def test_phonons_scatter_beside_the_disk():
    wide = SMALL.model_copy(update={"detector": 64, "scan": Raster(shape=(2, 2), step=(0.8, 0.8))})

    def dark(**errors):
        data = simulate(srtio3(), wide.model_copy(update={"instrument": Instrument(**errors)}))
        mean = np.asarray(data.data, np.float64).mean(axis=(0, 1))
        y, x = np.mgrid[-32:32, -32:32] / 12.8 * data.optics.wavelength * 1e3
        return mean[np.hypot(y, x) > 30].sum()

    still = dark(fine_slice=2.0)
    assert dark(vibration=0.1, configurations=2) != pytest.approx(still, rel=0.01)
    assert dark(vibrations={"Sr": 0.1}, configurations=2) != pytest.approx(still, rel=0.002)
    assert dark(finite=True) == pytest.approx(still, rel=0.2)


@needs("abtem")
def test_a_file_keeps_the_truth_apart(tmp_path):
    data = taken(1e5, jitter=0.1, C12=17.25, overfocus_error=-13.0, thickness_error=2.0)
    save(data, tmp_path / "a.h5")
    again = open_4dstem(tmp_path / "a.h5")
    assert np.array_equal(again.truth_instrument["positions"], data.truth_instrument["positions"])
    for name in ("optics", "instrument", "conditions", "thickness"):
        assert again.truth_instrument[name] == json.loads(json.dumps(data.truth_instrument[name]))
    blind = open_4dstem(tmp_path / "a.h5", truth=False)
    assert (blind.truth, blind.truth_atoms, blind.truth_instrument) == (None, None, None)
    told = json.dumps(blind.provenance) + blind.optics.model_dump_json()
    assert "17.25" not in told
    assert 'C12": 0' in told
    assert "-13" not in told
    assert blind.provenance["conditions"]["optics"]["overfocus"] == 27.0
    assert blind.calibration.thickness == 14.0
    assert Problem.from_data(blind).shape[1:] == data.truth.shape[1:]
    assert again.crop_detector(16).truth_instrument is None
    assert again.crop_scan(slice(0, 2)).truth_instrument is None
    assert again.transpose_scan().truth_instrument is None


@needs("abtem")
def test_progress_goes_on_and_ends_the_work():
    class Stopped(Exception):
        pass

    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done == 2:
            raise Stopped

    c = SMALL.model_copy(update={"instrument": Instrument(source_size=0.2, configurations=3)})
    with pytest.raises(Stopped):
        simulate(srtio3(), c, stop)
    assert seen == [(1, 3), (2, 3)]


def test_contradictions_are_refused():
    def refuse(match, **changes):
        with pytest.raises(ValueError, match=match):
            simulate(srtio3(), SMALL.model_copy(update={"instrument": Instrument(), **changes}))

    refuse("extended geometry", geometry="paper")
    refuse("give vibration", vibration=0.1)
    refuse("needs a dose", instrument=Instrument(background=1))
    refuse("two configurations", instrument=Instrument(source_size=0.1, configurations=1))
    refuse("thickness", instrument=Instrument(thickness_error=-20))
    with pytest.raises(ValueError, match="less than or equal to 2"):
        Instrument(fine_slice=3)


def test_drawn_instruments_are_honest_and_repeatable():
    assert Instrument.drawn(4) == Instrument.drawn(4) != Instrument.drawn(5)
    many = [Instrument.drawn(s) for s in range(40)]
    assert all(abs(i.overfocus_error) <= 30 and i.C21 <= 400 for i in many)
    assert all(np.hypot(*i.tilt) <= 8 and abs(i.shear) <= 0.02 for i in many)
    assert 5 < sum(i.gain == 1 for i in many) < 35
    assert Instrument.model_validate_json(many[0].model_dump_json()) == many[0]


def test_crystals_are_what_they_say():
    doped, (z, y, x) = doped_srtio3((8, 3, 4), "La", 12.0)
    at = doped.positions[doped.symbols == "La"]
    assert np.allclose(at, [[x, y, z]])
    assert z == pytest.approx(3 * 3.905)
    with pytest.raises(ValueError, match="outside"):
        doped_srtio3((2, 3, 3), depth=30.0)
    other = srtio3()
    other.symbols[other.symbols == "Sr"] = "Ba"
    other.set_cell([4.0] * 3, scale_atoms=True)
    both = interface(srtio3(), other, cells=3)
    assert both.cell.lengths() == pytest.approx([3 * 7.905, 3.905, 3.905])
    assert (both.positions[both.symbols == "Ba"][:, 0] >= 3 * 3.905).all()
    sheets = bilayer()
    assert sheets.get_chemical_formula() == "Mo4S8"
    sheets = sheets.repeat((3, 2, 1))
    near = sheets.get_all_distances(mic=True) + 9 * np.eye(72)
    assert near.min() == pytest.approx(2.405, abs=0.02)  # Mo to S
    assert ((near < 2.5).sum(axis=1) == np.where(sheets.symbols == "Mo", 6, 3)).all()
