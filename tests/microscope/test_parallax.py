"""Defocus, astigmatism and rotation, drawn and recovered within what is stated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mepdiff.measurement.dataset import Calibration, DataError, FourDSTEM
from napari_mepdiff.measurement.samples import open_sample
from napari_mepdiff.microscope.orientation_table import integrate, orientation_table
from napari_mepdiff.microscope.parallax import parallax
from napari_mepdiff.physics.optics import Optics

from .thin import ANGLE, ENERGY, record


def turned(a: float, b: float, period: float = 360.0) -> float:
    """How far two angles are apart."""
    return abs((a - b + period / 2) % period - period / 2)


@pytest.mark.parametrize("seed", range(3))
def test_drawn_optics_are_found(seed):
    rng = np.random.default_rng(seed + 100)
    true = Optics(
        energy=ENERGY,
        semi_angle=ANGLE,
        overfocus=float(rng.choice([-1, 1]) * rng.uniform(200, 400)),
        C12=float(rng.uniform(40, 90)),
        phi12=float(rng.uniform(0, np.pi)),
        C30=0.0,
    )
    rotation = float(rng.uniform(-180, 180))
    found = parallax(record(seed, true, rotation))
    assert found.significance > 4
    if found.C10 * true.overfocus < 0:  # both readings are one answer
        found = found.other
    assert abs(found.C10 - true.overfocus) < 3 * found.C10_error < 60
    assert abs(found.C12 - true.C12) < 3 * found.C12_error
    assert turned(found.phi12, true.phi12, np.pi) < 3 * found.C12_error / true.C12
    assert turned(found.angle, rotation) < 3 * found.angle_error < 12
    assert not found.transpose
    assert found.image.shape == (20 * found.upsampled,) * 2


def test_a_told_sign_and_rotation_count():
    data = record(3, rotation=40.0)
    told = Optics(energy=ENERGY, semi_angle=ANGLE, overfocus=-1.0, C30=0.0)
    plain = parallax(replace(data, optics=told.model_copy(update={"overfocus": 1.0})))
    other = parallax(replace(data, optics=told).calibrated(rotation=40.0, thickness=20.0))
    assert plain.C10 > 0 > other.C10
    assert turned(plain.angle, 40) < 6
    assert turned(other.angle, -140) < 6
    assert other.entrance == pytest.approx(other.C10 - 10)
    back = plain.other.other
    assert back.C10 == plain.C10
    assert turned(back.angle, plain.angle) < 1e-6
    assert turned(back.phi12, plain.phi12, np.pi) < 1e-6


def test_a_swapped_detector_is_noticed():
    data = record(4, rotation=25.0)
    swapped = data.transpose_detector()
    found = parallax(swapped)
    assert found.transpose
    found = found if found.C10 > 0 else found.other
    assert turned(found.angle, 25) < 6
    table = orientation_table(swapped, shifts=found)
    assert len({o.name for o in table}) == 8
    assert [o.verdict for o in table].count("mirrored") == 4
    assert table[0].verdict == "best"
    for o in table[:4]:  # each of the right half puts the data right
        again = swapped.transpose_detector() if o.transpose else swapped
        again = again.flip_detector(o.flip_y, o.flip_x)
        seen = parallax(again)
        seen = seen if seen.C10 > 0 else seen.other
        assert not seen.transpose
        assert turned(seen.angle, o.rotation) < 4
    # a misfit that prefers the other reading turns the whole table
    judged = orientation_table(swapped, shifts=found, misfit=lambda o: o.C10)
    assert judged[0].C10 < 0 < found.C10
    assert judged[0].misfit < judged[0].other_misfit


def test_the_plane_is_the_middle_of_a_thick_specimen():
    """A crystal of 12.8 Å, its entrance surface at 200 Å overfocus."""
    found = parallax(open_sample("cuwo4_extended"))
    assert abs(found.C10 - 206.4) < 3 * found.C10_error
    assert turned(found.angle, 0) < 3 * found.angle_error


def test_what_does_not_tell_is_refused():
    with pytest.raises(DataError, match="at least 8 × 8"):
        parallax(record(0, scan=(1, 1)))
    with pytest.raises(DataError, match="do not correlate"):
        parallax(record(0, strength=0.0))
    data = record(0, scan=(8, 8))
    bare = FourDSTEM(np.asarray(data.data), Calibration(energy=ENERGY))
    with pytest.raises(DataError, match=r"detector pixel \(Å⁻¹\), scan step"):
        parallax(bare)


def test_a_gradient_is_summed_to_what_it_came_from():
    y, x = np.mgrid[:24, :30] * 2.0
    hill = np.exp(-((y - 20) ** 2 + (x - 33) ** 2) / 80)
    field = np.stack(np.gradient(hill, 2.0), axis=-1)
    assert np.corrcoef(integrate(field, (2.0, 2.0)).ravel(), hill.ravel())[0, 1] > 0.99
