"""What the microscope did beside the probe: beam tilt, thickness, detector; model and gradients."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from napari_mepdiff.measurement.multislice import patterns_of, potential_of
from napari_mepdiff.physics.engines.cores import CpuEngine
from napari_mepdiff.physics.engines.ptyrad import PtyRADLikelihood
from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.optics import Optics, interaction_parameter, probe_from_parameters
from napari_mepdiff.physics.propagation import (
    phase_per_thickness,
    phase_per_tilt,
    propagation_phase,
)
from napari_mepdiff.physics.scan import Raster

from ..needs import needs

MISFITS = ["intensity", "amplitude", "poisson"]
TILT = (7.0, -11.0)
UNEVEN = [14.0, 21.0, 17.0]


def _slope(function, at, h):
    """Fourth-order central difference of a function of one number."""
    f = [function(at + k * h) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)


def _apart(a, b):
    return float((a - b).norm() / b.norm())


# ---- gaps: gradients ----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["fresnel", "exact"])
def test_phase_is_differentiated(kind):
    shape, pixel, lam = (8, 6), (0.3, 0.4), 0.0197
    of_t = _slope(lambda t: propagation_phase(shape, pixel, t, lam, kind, TILT), 9.0, 0.1)
    np.testing.assert_allclose(of_t, phase_per_thickness(shape, pixel, lam, kind, TILT), rtol=1e-9)
    y, x = phase_per_tilt(shape, pixel, 9.0, TILT)
    of_y = _slope(lambda a: propagation_phase(shape, pixel, 9.0, lam, kind, (a, TILT[1])), 7.0, 1)
    of_x = _slope(lambda a: propagation_phase(shape, pixel, 9.0, lam, kind, (TILT[0], a)), -11.0, 1)
    np.testing.assert_allclose(of_y, np.broadcast_to(y, shape), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(of_x, np.broadcast_to(x, shape), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize(
    ("boundary", "band_limit", "modes", "kind"),
    [("periodic", None, 1, "fresnel"), ("extended", 2 / 3, 3, "exact")],
)
def test_gap_gradients_match_finite_differences(small, misfit, boundary, band_limit, modes, kind):
    p = small(boundary=boundary, canvas=32 if boundary == "periodic" else 44, modes=modes)
    options = {"band_limit": band_limit, "propagator": kind, "slice_thickness": 17.0}
    like = p.likelihood(p.patterns(**options), misfit=misfit, **options)
    like.set_gaps(UNEVEN, TILT)
    x = p.volume * 0.8
    batch = [0, 3, 8, 15]
    found = like.gradients(x, batch, gaps=True)
    assert found.thickness.shape == (3,)
    assert found.tilt.shape == (2,)

    def with_thickness(i):
        def loss(value):
            like.set_gaps([*UNEVEN[:i], value, *UNEVEN[i + 1 :]], TILT)
            return like.loss(x, batch)

        return loss

    for i, value in enumerate(UNEVEN):
        numeric = _slope(with_thickness(i), value, 1e-2)
        assert float(found.thickness[i]) == pytest.approx(numeric, rel=1e-6)

    def with_tilt(axis):
        def loss(value):
            like.set_gaps(UNEVEN, (value, TILT[1]) if axis == 0 else (TILT[0], value))
            return like.loss(x, batch)

        return loss

    for axis, value in enumerate(TILT):
        numeric = _slope(with_tilt(axis), value, 1e-2)
        assert float(found.tilt[axis]) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("band_limit", [None, 2 / 3])
@pytest.mark.parametrize("modes", [1, 2])
def test_both_engines_agree_on_gaps(small, modes, band_limit):
    double, single = small(modes=modes), small(dtype=torch.float32, modes=modes)
    options = {"misfit": "poisson", "band_limit": band_limit, "slice_thickness": 17.0}
    y = double.patterns(**options)
    a, b = double.likelihood(y, **options), single.likelihood(y, **options)
    x, batch = double.volume * 0.6, [0, 3, 4, 11, 19]
    b.loss(x, batch)  # the engine is there before the gaps change
    for like in (a, b):
        like.set_gaps(UNEVEN, TILT)
    ga, gb = (q.gradients(x, batch, gaps=True, probe=True) for q in (a, b))
    assert gb.loss == pytest.approx(ga.loss, rel=2e-5)
    for name in ("volume", "probe", "thickness", "tilt"):
        assert _apart(getattr(gb, name), getattr(ga, name)) < 5e-5, name
    assert _apart(b.patterns(x, batch), a.patterns(x, batch)) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fixed_microscope_is_untouched(small, dtype):
    p = small(dtype=dtype, modes=2)
    y = p.patterns()
    before, like = p.likelihood(y, misfit="poisson"), p.likelihood(y, misfit="poisson")
    old = before.gradients(p.volume * 0.5, probe=True, positions=True)
    assert old.thickness is old.tilt is None
    like.gradients(p.volume, gaps=True)
    like.set_gaps(23.0, TILT)
    like.set_gaps(tilt=(0, 0))
    like.set_gaps(1.7)
    for gaps in (False, True):  # asked for or not, the others keep their last bit
        new = like.gradients(p.volume * 0.5, probe=True, positions=True, gaps=gaps)
        assert new.loss == old.loss
        assert torch.equal(new.volume, old.volume)
        assert torch.equal(new.probe, old.probe)
        assert torch.equal(new.positions, old.positions)
    alone = like.gradients(p.volume * 0.5, gaps=True, volume_gradient=False)
    assert alone.volume is None
    assert torch.equal(alone.thickness, new.thickness)


@pytest.mark.parametrize("band_limit", [None, 2 / 3])
def test_threads_add_up(small, band_limit):
    p = small(dtype=torch.float32, modes=2)
    y = p.patterns()
    found = []
    for threads in (1, 3, 3):
        like = p.likelihood(y, misfit="poisson", band_limit=band_limit, slice_thickness=9.0)
        like.engine = CpuEngine(like.model, like.data, 2, memory=1 << 30, threads=threads)
        like.set_gaps(UNEVEN, TILT)
        like.set_detector(blur=0.8, background=0.1)
        assert like.engine.threads == threads
        found.append(like.gradients(p.volume * 0.5, gaps=True, detector=True))
    one, several, again = found
    for name in ("volume", "thickness", "tilt"):
        assert _apart(getattr(several, name), getattr(one, name)) < 1e-5, name
        assert torch.equal(getattr(again, name), getattr(several, name)), name
    assert several.blur == pytest.approx(one.blur, rel=1e-5)
    assert several.background == pytest.approx(one.background, rel=1e-5)
    assert (again.blur, again.background) == (several.blur, several.background)


def test_no_transform_more_unless_asked(small, monkeypatch):
    like = small().likelihood()
    x = torch.zeros(like.shape)
    calls = []
    original = torch.fft.fft2
    monkeypatch.setattr(torch.fft, "fft2", lambda *a, **k: calls.append(1) or original(*a, **k))

    def transforms(**options):
        calls.clear()
        like.gradients(x, **options)
        return len(calls)

    plain = transforms()
    assert transforms(gaps=True) == plain + 3  # one for each gap
    like.set_gaps(23.0, TILT)
    assert transforms() == plain


def test_what_stays_and_what_changes(small):
    like = small().likelihood(slice_thickness=[1.0, 2.0, 3.0, 4.0])
    like.set_gaps(tilt=TILT)
    assert (like.thickness, like.tilt) == ((1.0, 2.0, 3.0), TILT)
    like.set_gaps([5.0, 6.0, 7.0])
    assert (like.thickness, like.tilt) == ((5.0, 6.0, 7.0), TILT)
    assert like.model.thickness == [5.0, 6.0, 7.0, 4.0]
    like.set_gaps(np.float32(2.5))
    assert like.model.thickness == [2.5] * 4
    assert like.model.propagators[0] is like.model.propagators[2]  # equal gaps share theirs
    like.set_gaps([1.0, 2.0, 3.0, 9.0])
    assert like.thickness == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thickness": -1.0}, "positive"),
        ({"thickness": [1.0, 2.0]}, "4 slices need"),
        ({"thickness": float("nan")}, "positive"),
        ({"tilt": (1.0,)}, "beam tilt is"),
        ({"tilt": (300.0, 0.0)}, "mrad, at most"),
        ({"tilt": (float("nan"), 0.0)}, "mrad, at most"),
    ],
)
def test_bad_gaps_are_named_and_change_nothing(small, change, message):
    like = small().likelihood()
    with pytest.raises(ValueError, match=message):
        like.set_gaps(**change)
    assert (like.thickness, like.tilt) == ((1.7,) * 3, (0.0, 0.0))


def test_a_single_slice_has_no_gap(small):
    like = small(slices=1).likelihood()
    with pytest.raises(ValueError, match="no gap"):
        like.set_gaps(tilt=(1.0, 0.0))
    with pytest.raises(ValueError, match="no gap"):
        like.gradients(torch.zeros(like.shape), gaps=True)


# ---- gaps: the model ----------------------------------------------------------------------------
def test_a_tilted_beam_sees_a_leaning_crystal(small):
    """Over each gap the wave moves by one pixel: as if every slice lay one pixel further back."""
    p = small()
    gap = 6.0
    angle = 1e3 * math.atan(0.4 / gap)
    like = p.likelihood(slice_thickness=gap)
    like.set_gaps(tilt=(angle, 0.0))
    leaning = torch.stack([torch.roll(x, -s, dims=0) for s, x in enumerate(p.volume)])
    straight = p.likelihood(slice_thickness=gap)
    assert _apart(like.patterns(p.volume), straight.patterns(leaning)) < 1e-10
    assert _apart(like.patterns(p.volume), straight.patterns(p.volume)) > 1e-2


def test_a_tilted_beam_leaves_the_disk_where_it_is(small):
    like = small().likelihood()
    still = like.patterns(torch.zeros(like.shape))
    like.set_gaps(tilt=(30.0, -20.0))
    assert torch.allclose(like.patterns(torch.zeros(like.shape)), still)


def _smooth(depth, side):
    rng = np.random.default_rng(0)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(side, 0.2), np.fft.fftfreq(side, 0.2)))
    smooth = np.fft.ifft2(np.fft.fft2(rng.random((depth, side, side))) * np.exp(-((k / 0.6) ** 2)))
    return 0.4 * (smooth.real - smooth.real.min()) / np.ptp(smooth.real)


@needs("abtem")
@pytest.mark.parametrize(("tilt", "thickness"), [((0.0, 0.0), 4.0), ((9.0, -5.0), 4.0)])
def test_tilt_and_thickness_are_abtems(tilt, thickness):
    phase, optics = _smooth(6, 64), Optics()
    positions = Raster(shape=(2, 2), step=(3.1, 2.7)).positions()
    sigma = interaction_parameter(optics.energy)
    potential = potential_of(phase, 0.2, thickness, sigma)
    theirs = patterns_of(potential, positions, optics, side=64, pixel=0.2, detector=64, tilt=tilt)
    like = Likelihood(
        np.zeros((4, 64, 64)), probe_from_parameters(optics, (64, 64), (0.2, 0.2)), positions,
        phase.shape, pixel_size=(0.2, 0.2), slice_thickness=1.6, energy=optics.energy,
        background=0.0, band_limit=2 / 3,
    )  # fmt: skip
    x, there = torch.from_numpy(phase), torch.from_numpy(theirs)
    wrong = _apart(like.patterns(x).double(), there)
    like.set_gaps(thickness, tilt)
    right = _apart(like.patterns(x).double(), there)
    assert right < 1e-3
    assert wrong > 20 * right
    if any(tilt):  # neither the sign nor the axes are the other way
        for other in ((-tilt[0], -tilt[1]), (tilt[1], tilt[0])):
            like.set_gaps(tilt=other)
            assert _apart(like.patterns(x).double(), there) > 20 * right


@needs("ptyrad")
def test_tilt_thickness_and_their_gradients_are_ptyrads():
    common = {"pixel_size": (0.2, 0.2), "slice_thickness": 1.6, "energy": 300.0}
    shape, thickness, tilt = (5, 64, 64), 5.0, (9.0, -6.0)
    probe = probe_from_parameters(Optics(), (64, 64), (0.2, 0.2)) * 300
    positions = Raster(shape=(2, 3), step=(0.9, 1.1)).positions()
    volume = torch.rand(shape) * 0.3

    def pair(y):
        ours = Likelihood(
            y, probe, positions, shape, propagator="exact", misfit="poisson", **common
        )
        return ours, PtyRADLikelihood(y, probe, positions, shape, misfit="poisson", **common)

    ours, theirs = pair(torch.zeros(6, 64, 64))
    fixed = theirs.patterns(volume)
    for like in (ours, theirs):
        like.set_gaps(thickness, tilt)
    assert theirs.model.opt_obj_tilts.tolist() == [[-9.0, 6.0]]
    a, b = ours.patterns(volume), theirs.patterns(volume)
    assert _apart(a, b) < 1e-4
    ours.set_gaps(tilt=(-9.0, 6.0))
    assert _apart(ours.patterns(volume), b) > 1e-2
    theirs.set_gaps(1.6, (0.0, 0.0))
    assert _apart(theirs.patterns(volume), fixed) < 1e-5

    ours, theirs = pair(torch.poisson(a))
    for like in (ours, theirs):
        like.set_gaps(thickness, tilt)
    ga, gb = (like.gradients(volume * 0.6, gaps=True) for like in (ours, theirs))
    assert gb.loss == pytest.approx(ga.loss, rel=1e-4)
    assert _apart(ga.volume, gb.volume) < 1e-4
    assert _apart(ga.tilt, gb.tilt) < 1e-4
    assert float(gb.thickness) == pytest.approx(float(ga.thickness.sum()), rel=1e-4)
    assert theirs.gradients(volume).tilt is None
    with pytest.raises(ValueError, match="one thickness for all"):
        theirs.set_gaps([1.0, 2.0, 1.0, 1.0])


def test_the_gradients_lead_to_the_microscope_that_was(small):
    """Tilt, thickness, background and blur at once, from noisy patterns of a known volume."""
    p = small(dtype=torch.float32)
    p.probe = p.probe * 10
    truth = np.array([6.0, -9.0, 12.0, 0.5, 0.8])
    like = p.likelihood(slice_thickness=10.0)
    like.set_gaps(truth[2], truth[:2])
    like.set_detector(background=truth[3], blur=truth[4])
    like = p.likelihood(torch.poisson(like.patterns(p.volume)), misfit="poisson")

    def loss(values):
        like.set_gaps(values[2], values[:2])
        like.set_detector(background=values[3], blur=values[4])
        g = like.gradients(p.volume, volume_gradient=False, gaps=True, detector=True)
        return g.loss, np.array([*g.tilt, float(g.thickness.sum()), g.background, g.blur])

    start = np.array([0.0, 0.0, 10.0, 0.1, 0.5])
    bounds = [(-50, 50), (-50, 50), (5, 20), (0, 5), (0.3, 2)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    assert np.abs(found.x[:2] - truth[:2]).max() < 0.2  # mrad
    assert found.x[2] == pytest.approx(truth[2], abs=0.2)  # Å
    assert found.x[3] == pytest.approx(truth[3], rel=0.1)
    assert found.x[4] == pytest.approx(truth[4], rel=0.01)
