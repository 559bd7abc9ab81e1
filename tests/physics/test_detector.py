"""Blur and background of the detector: model and gradients."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_mepdiff.physics.detector import Detector, point_spread
from napari_mepdiff.physics.fisher import fisher

from ..needs import needs

MISFITS = ["intensity", "amplitude", "poisson"]


def _slope(function, at, h):
    """Fourth-order central difference of a function of one number."""
    f = [function(at + k * h) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)


def _image(side=32):
    y, x = np.mgrid[:side, :side]
    return 0.3 * np.exp(-(((y - 10) / 9) ** 2) - ((x - 20) / 7) ** 2)


@pytest.mark.parametrize("blur", [0.3, 0.8, 1.7])
def test_point_spread(blur):
    weights, slope = point_spread(blur)
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert (weights > 0).all()
    assert slope.sum() == pytest.approx(0, abs=1e-12)
    h = 1e-5
    up, down = (point_spread(blur + d)[0] for d in (h, -h))
    np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=1e-6, atol=1e-9)
    if blur > 0.5:
        n = np.arange(len(weights)) - len(weights) // 2
        assert np.sqrt(weights @ n**2) == pytest.approx(blur, rel=1e-2)
    assert point_spread(1e-9)[0] == pytest.approx(point_spread(0.0)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blur_is_the_gaussian_filter_of_the_sharp_patterns(small, dtype):
    p = small(dtype=dtype)
    like = p.likelihood()
    sharp = like.patterns(p.volume).double().numpy()
    like.set_detector(blur=0.9)
    blurred = like.patterns(p.volume).double().numpy()
    expected = gaussian_filter(sharp, (0, 0.9, 0.9), mode="wrap", truncate=8)
    np.testing.assert_allclose(blurred, expected, rtol=1e-5 if dtype == torch.float32 else 1e-7)
    assert np.abs(blurred - sharp).max() > 0.1 * sharp.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [32, 30])
def test_blur_keeps_counts_and_background_adds_what_it_says(small, dtype, side):
    p = small(dtype=dtype, window=side, canvas=side, modes=2)
    like = p.likelihood()
    sharp = like.patterns(p.volume).double()
    like.set_detector(blur=2.5)
    total = like.patterns(p.volume).double().sum(dim=(1, 2))
    assert torch.allclose(total, sharp.sum(dim=(1, 2)), rtol=2e-6)
    assert float(like.patterns(p.volume).min()) > 0
    image = _image(side)
    for blur in (0.0, 0.7):
        like.set_detector(blur=blur)
        without = like.patterns(p.volume).double()
        like.set_detector(blur=blur, background=0.25, image=torch.from_numpy(image))
        added = (like.patterns(p.volume).double() - without).numpy()
        expected = np.broadcast_to(0.25 + image, added.shape)
        np.testing.assert_allclose(added, expected, atol=3e-6 * float(sharp.max()))
    like.set_detector()
    assert torch.equal(like.patterns(p.volume).double(), sharp)


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("blur", [0.5, 1.2])
def test_detector_gradients_match_finite_differences(small, misfit, blur):
    p = small(modes=2)
    mask = torch.ones(32, 32)
    mask[14:17, 12:19] = 0  # a beam stop: what it hides still spreads
    like = p.likelihood(p.patterns(), misfit=misfit, band_limit=2 / 3, mask=mask)
    image, background = _image(), 0.2
    like.set_detector(blur=blur, background=background, image=image)
    x, batch = p.volume * 0.7, [1, 4, 12]
    found = like.gradients(x, batch, detector=True, probe=True)

    def of_blur(value):
        like.set_detector(blur=value, background=background, image=image)
        return like.loss(x, batch)

    def of_background(value):
        like.set_detector(blur=blur, background=value, image=image)
        return like.loss(x, batch)

    assert found.blur == pytest.approx(_slope(of_blur, blur, 1e-4), rel=1e-6)
    assert found.background == pytest.approx(_slope(of_background, background, 1e-3), rel=1e-6)

    like.set_detector(blur=blur, background=background, image=image)
    direction = torch.randn(p.shape, dtype=torch.float64, generator=p.rng)
    numeric = _slope(lambda t: like.loss(x + t * direction, batch), 0.0, 1e-4)
    assert float((found.volume * direction).sum()) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("options", [
    {"blur": 0.8}, {"background": 0.4}, {"image": _image()},
    {"blur": 1.3, "background": 0.1, "image": _image()},
])  # fmt: skip
def test_both_engines_agree_on_the_detector(small, misfit, options):
    double, single = small(modes=2), small(dtype=torch.float32, modes=2)
    y = double.patterns()
    a, b = (p.likelihood(y, misfit=misfit, slice_thickness=9.0) for p in (double, single))
    x, batch = double.volume * 0.6, [0, 3, 4, 11, 19]
    for like in (a, b):
        like.set_detector(**options)
        like.set_gaps(tilt=(8.0, -5.0))
    ga, gb = (
        q.gradients(x, batch, probe=True, positions=True, gaps=True, detector=True) for q in (a, b)
    )
    assert gb.loss == pytest.approx(ga.loss, rel=2e-5)
    counted = float(y[batch].sum())  # the intensity misfit's is a difference of such sums
    assert gb.background == pytest.approx(ga.background, rel=5e-5, abs=2e-6 * counted)
    assert gb.blur == pytest.approx(ga.blur, rel=5e-5)
    assert (ga.blur != 0) == ("blur" in options)
    for name in ("volume", "probe", "positions", "thickness", "tilt"):
        u, v = getattr(ga, name), getattr(gb, name)
        assert float((v - u).norm() / u.norm()) < 5e-5, name
    pa, pb = a.patterns(x, batch), b.patterns(x, batch)
    assert float((pa - pb).norm() / pa.norm()) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_perfect_detector_changes_nothing(small, dtype):
    p = small(dtype=dtype)
    y = p.patterns()
    like = p.likelihood(y, misfit="poisson")
    old = like.gradients(p.volume * 0.5, probe=True)
    assert old.background is old.blur is None
    like.set_detector(blur=1.0, background=0.1)
    assert like.loss(p.volume * 0.5) != old.loss
    like.set_detector()
    assert like.data.detector is None
    new = like.gradients(p.volume * 0.5, probe=True, detector=True)
    assert new.loss == old.loss
    assert torch.equal(new.volume, old.volume)
    assert torch.equal(new.probe, old.probe)
    assert new.blur == 0.0  # nothing leaves the pixel, to any order
    assert new.background != 0.0


def test_fisher_information_counts_the_detector(small):
    p = small(slices=2)
    like = p.likelihood(p.patterns(), misfit="poisson")
    basis = torch.randn(2, 32, 32, generator=p.rng, dtype=torch.float64) * 0.1
    sharp = fisher(like, p.volume, basis, [3])
    like.set_detector(blur=1.0, background=0.5)
    found = fisher(like, p.volume, basis, [3])
    h, changes = 1e-4, []
    for s in range(2):
        for c in range(2):
            step = torch.zeros_like(p.volume)
            step[s] = h * basis[c]
            up, down = (like.patterns(p.volume + q, [3])[0] for q in (step, -step))
            changes.append(((up - down) / (2 * h)).reshape(-1))
    slopes = torch.stack(changes)
    expected = (slopes / like.patterns(p.volume, [3])[0].reshape(-1)) @ slopes.T
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    assert float(found.trace()) < float(sharp.trace())  # both cost information


def test_background_image_with_every_second_pixel(small):
    p = small(window=64, canvas=32)
    image = _image(64)
    full, half = p.likelihood(), p.likelihood(detector_stride=2)
    with pytest.raises(ValueError, match="detector_stride 1"):
        half.set_detector(blur=0.5)
    for like in (full, half):
        like.set_detector(image=image, background=0.1)
    a, b = full.patterns(p.volume), half.patterns(p.volume)
    assert torch.allclose(b, a[:, ::2, ::2], atol=1e-6 * float(a.max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blur": -0.1}, "blur is in pixels"),
        ({"blur": float("nan")}, "blur is in pixels"),
        ({"blur": 5.0}, "leaves nothing"),
        ({"background": -1.0}, "background is in electrons"),
        ({"image": np.ones((4, 4))}, "background image is"),
        ({"image": -np.ones((32, 32))}, "negative or not finite"),
    ],
)
def test_bad_detectors_are_named(small, change, message):
    like = small().likelihood()
    with pytest.raises(ValueError, match=message):
        like.set_detector(**change)
    assert like.detector.blur == like.detector.background == 0


@needs("ptyrad")
def test_blur_is_ptyrads():
    from torchvision.transforms.functional import gaussian_blur

    pattern = torch.zeros(1, 32, 32)
    pattern[0, 10:20, 12:18] = torch.rand(10, 6)
    theirs = gaussian_blur(pattern, kernel_size=13, sigma=1.1)
    ours = Detector(blur=1.1).spread(pattern)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5
