import numpy as np
import pytest
import torch

from napari_mepdiff.physics.engines.torch import TorchEngine
from napari_mepdiff.physics.optics import wavelength
from napari_mepdiff.physics.propagation import band_mask, propagator
from tests.needs import needs

MISFITS = ["intensity", "amplitude", "poisson"]


def _numeric(function, at, direction, h=1e-4):
    """Fourth-order central difference along a direction."""
    f = [function(at + k * h * direction) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("boundary", ["periodic", "extended"])
@pytest.mark.parametrize("band_limit", [None, 2 / 3])
def test_volume_gradient_matches_finite_differences(small, misfit, boundary, band_limit):
    p = small(boundary=boundary, canvas=32 if boundary == "periodic" else 44)
    y = p.patterns(band_limit=band_limit)
    like = p.likelihood(y, misfit=misfit, band_limit=band_limit)
    x = p.volume * 0.7
    _, gradient = like(x)
    direction = torch.randn(p.shape, dtype=torch.float64, generator=p.rng)
    numeric = _numeric(like.loss, x, direction)
    assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("misfit", MISFITS)
def test_probe_gradient_matches_finite_differences(small, misfit, modes):
    p = small(modes=modes)
    y = p.patterns()
    like = p.likelihood(y, misfit=misfit, propagator="exact")
    x, probe = p.volume * 0.8, p.probe.clone()
    direction = torch.randn(probe.shape, dtype=torch.complex128, generator=p.rng)

    def loss(q):
        like.set_probe(q)
        return like.loss(x)

    numeric = _numeric(loss, probe, direction, 1e-5)
    like.set_probe(probe)
    g = like.gradients(x, probe=True).probe
    assert float((g.conj() * direction).real.sum()) == pytest.approx(numeric, rel=1e-6)


def test_position_gradient_matches_finite_differences(small):
    p = small()
    y = p.patterns()
    like = p.likelihood(y, misfit="poisson")
    x = p.volume * 0.8
    g = like.gradients(x, positions=True).positions
    start = like.positions.clone()
    for i, axis in ((0, 0), (7, 1), (13, 0)):
        direction = torch.zeros_like(start)
        direction[i, axis] = 1

        def loss(places):
            like.set_positions(places)
            return like.loss(x)

        numeric = _numeric(loss, start, direction, 1e-4)
        assert float(g[i, axis]) == pytest.approx(
            numeric, rel=1e-5, abs=1e-6 * float(g.abs().max())
        )


@pytest.mark.parametrize("band_limit", [None, 2 / 3])
def test_forward_and_adjoint_pass_the_dot_product_test(small, band_limit):
    p = small(modes=2)
    like = p.likelihood(band_limit=band_limit)
    m = like.model
    _, canvas = m.transmission(p.volume)
    index = m.indices(m.windows.corner[:6])
    wave = m.incident(like.spectrum, m.windows.fraction[:6])
    out = torch.randn(6, 2, 32, 32, dtype=torch.complex128)
    # linear in the incident wave
    _, detector = m.forward(canvas, index, wave)
    back = m.backward(
        canvas, index, m.forward(canvas, index, wave)[0], out, torch.zeros_like(canvas)
    )
    assert complex((out.conj() * detector).sum()) == pytest.approx(
        complex((back.conj() * wave).sum()), rel=1e-10
    )


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("band_limit", [None, 2 / 3])
@pytest.mark.parametrize("modes", [1, 2])
def test_the_cores_do_what_torch_does(small, misfit, band_limit, modes):
    double, single = small(modes=modes), small(dtype=torch.float32, modes=modes)
    y = double.patterns(band_limit=band_limit)
    mask = torch.ones(32, 32)
    mask[3:6, 10:20] = 0
    options = {"misfit": misfit, "band_limit": band_limit, "mask": mask}
    a, b = double.likelihood(y, **options), single.likelihood(y, **options)
    x, batch = double.volume * 0.6, [0, 3, 4, 11, 19]
    ga = a.gradients(x, batch, probe=True, positions=True)
    gb = b.gradients(x, batch, probe=True, positions=True)
    assert gb.loss == pytest.approx(ga.loss, rel=2e-5)
    for name in ("volume", "probe", "positions"):
        u, v = getattr(ga, name), getattr(gb, name)
        assert float((u - v).abs().square().sum().sqrt() / u.abs().square().sum().sqrt()) < 2e-5, (
            name
        )
    pa, pb = a.patterns(x, batch), b.patterns(x, batch)
    assert float((pa - pb).norm() / pa.norm()) < 2e-6


def test_any_subset_adds_up_to_the_whole(small):
    p = small(dtype=torch.float32)
    like = p.likelihood(p.patterns(), misfit="poisson")
    whole, gradient = like(p.volume * 0.5)
    parts = [
        like(p.volume * 0.5, b)
        for b in np.array_split(np.random.default_rng(0).permutation(p.count), 3)
    ]
    assert sum(v for v, _ in parts) == pytest.approx(whole, rel=1e-5)
    assert torch.allclose(
        sum(g for _, g in parts), gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
    )
    assert like(p.volume, [2])[0] == pytest.approx(like.loss(p.volume, [2]))


def test_repeats_bit_for_bit(small):
    p = small(dtype=torch.float32)
    like = p.likelihood(p.patterns())
    assert torch.equal(like(p.volume)[1], like(p.volume)[1])


@pytest.mark.parametrize("misfit", MISFITS)
def test_loss_vanishes_at_noise_free_truth(small, misfit):
    p = small()
    like = p.likelihood(p.patterns(noise=False), misfit=misfit)
    assert like.loss(p.volume) == pytest.approx(0, abs=1e-9)
    assert float(like(p.volume)[1].abs().max()) < 1e-9
    assert like.loss(p.volume * 0.9) > 1e-3


def test_masked_pixels_do_not_count(small):
    p = small()
    y = p.patterns(noise=False)
    mask = torch.ones(32, 32)
    mask[16, 16] = 0
    spoiled = y.clone()
    spoiled[:, 16, 16] = 1e6
    assert p.likelihood(spoiled, mask=mask).loss(p.volume) == pytest.approx(0, abs=1e-9)


def test_patterns_hold_the_probe_intensity(small):
    p = small()
    total = p.likelihood(background=0.0).patterns(p.volume).sum(dim=(1, 2))
    assert torch.allclose(total, torch.full_like(total, float(p.probe.abs().square().sum())))


def test_per_slice_thickness_and_exact_propagator(small):
    p = small()
    even = p.likelihood(slice_thickness=[1.7] * 4).patterns(p.volume)
    assert torch.allclose(even, p.likelihood().patterns(p.volume))
    uneven = p.likelihood(slice_thickness=[1.0, 2.4, 1.7, 9.0]).patterns(p.volume)
    assert float((uneven - even).norm() / even.norm()) > 1e-4
    last = p.likelihood(slice_thickness=[1.0, 2.4, 1.7, 0.1]).patterns(p.volume)
    assert torch.equal(last, uneven)  # nothing is propagated after the last slice
    exact = p.likelihood(propagator="exact").patterns(p.volume)
    assert 0 < float((exact - even).norm() / even.norm()) < 1e-3
    lam, k = wavelength(300), 1.0
    fresnel, true = (
        propagator((32, 32), (0.4, 0.4), 1.6, lam, kind)[0, 13] for kind in ("fresnel", "exact")
    )
    k = 13 / 12.8
    assert float(torch.angle(fresnel)) == pytest.approx(-np.pi * lam * 1.6 * k**2)
    assert float(torch.angle(true)) == pytest.approx(
        2 * np.pi * 1.6 * (np.sqrt(1 / lam**2 - k**2) - 1 / lam), rel=1e-6
    )


def test_stride_two_is_every_second_pixel_of_the_full_model(small):
    p = small(dtype=torch.float64, window=64, canvas=32)
    full = p.likelihood().patterns(p.volume)
    half = p.likelihood(detector_stride=2).patterns(p.volume)
    assert torch.allclose(half, full[:, ::2, ::2], atol=1e-6 * float(full.max()))


@needs("abtem")
def test_band_mask_is_abtems():
    from abtem.antialias import antialias_aperture

    assert np.allclose(
        band_mask((64, 48), (0.2, 0.2), 0.6666666),
        antialias_aperture((64, 48), (0.2, 0.2), np),
        atol=1e-6,
    )


def test_out_of_memory_halves_the_chunk_and_goes_on(small, monkeypatch, caplog):
    p = small()
    like = p.likelihood(p.patterns())
    expected = like(p.volume)
    asked = []
    original = TorchEngine._attempt

    def small_device(self, canvas, spectrum, index, volume, waves, size):
        asked.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, canvas, spectrum, index, volume, waves, size)

    monkeypatch.setattr(TorchEngine, "_attempt", small_device)
    with caplog.at_level("WARNING"):
        loss, gradient = like(p.volume)
    assert "short of memory: 2 positions at a time" in caplog.text
    assert asked[0] > asked[-1] <= 3
    assert loss == pytest.approx(expected[0])
    assert torch.allclose(gradient, expected[1])


def test_memory_bound_sets_the_chunk(small):
    p = small()
    roomy, tight = p.likelihood(memory=1 << 30), p.likelihood(memory=1 << 20)
    assert tight.engine.chunk < roomy.engine.chunk == p.count
    assert torch.allclose(roomy.patterns(p.volume), tight.patterns(p.volume))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patterns": -1.0}, "negative"),
        ({"patterns": float("nan")}, "NaN"),
        ({"misfit": "l2"}, "misfit is"),
        ({"detector_stride": 3}, "detector_stride is"),
        ({"slice_thickness": [1.0, 2.0]}, "4 slices need"),
        ({"slice_thickness": -1.0}, "positive"),
        ({"mask": torch.zeros(32, 32)}, "leave some pixels"),
        ({"mask": torch.ones(4, 4)}, "detector mask is"),
        ({"band_limit": 1.7}, "fraction"),
        ({"background": 0.0, "misfit": "poisson"}, "background"),
    ],
)
def test_bad_input_is_named(small, change, message):
    p = small()
    patterns = torch.full((p.count, 32, 32), change.pop("patterns", 1.0))
    with pytest.raises(ValueError, match=message):
        p.likelihood(patterns, **change)


def test_wrong_volume_and_batch_are_named(small):
    like = small().likelihood()
    with pytest.raises(ValueError, match="model expects"):
        like(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match="names some of"):
        like(torch.zeros(4, 32, 32), [400])


@needs("pyfftw")
def test_plans_are_kept_between_processes(small, tmp_path, monkeypatch):
    import pyfftw

    from napari_mepdiff.physics.engines import wisdom

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pyfftw.forget_wisdom()
    p = small(dtype=torch.float32, window=20, canvas=20)
    first = p.likelihood(torch.ones(p.count, 20, 20))(p.volume)[1]
    kept = wisdom.path().read_bytes()
    assert b"fftw" in kept
    pyfftw.forget_wisdom()
    again = p.likelihood(torch.ones(p.count, 20, 20))(p.volume)[1]
    assert torch.equal(first, again)
    assert wisdom.path().read_bytes() == kept  # nothing was planned anew
    wisdom.path().write_bytes(b"damaged")
    pyfftw.forget_wisdom()
    assert torch.allclose(p.likelihood(torch.ones(p.count, 20, 20))(p.volume)[1], first)


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_patterns_are_used_as_they_were_recorded(small, misfit, stride, dtype):
    """One array serves problem and likelihood, in its own type: no float copy of all patterns."""
    p = small(dtype=dtype)
    floats = p.patterns().to(torch.float32)
    counts = floats.numpy().astype(np.uint16)
    mask = torch.ones(32, 32)
    mask[5:9, 12:30] = 0
    options = {"misfit": misfit, "detector_stride": stride, "mask": mask}
    a, b = p.likelihood(floats, **options), p.likelihood(counts, **options)
    assert np.shares_memory(b.data.counts, counts)
    x, batch = p.volume.to(dtype) * 0.5, [1, 7, 4]
    (la, ga), (lb, gb) = a(x, batch), b(x, batch)
    assert lb == pytest.approx(la, rel=1e-7)
    assert torch.equal(ga, gb)
    assert torch.equal(a.counts([2, 3]), b.counts([2, 3]))
    np.testing.assert_allclose(a.mean_pattern, b.mean_pattern, rtol=1e-12)
    expected = floats if stride == 1 else floats[:, ::2, ::2]
    np.testing.assert_array_equal(b.counts().numpy(), expected.numpy())


@pytest.mark.parametrize("shape", [(7, 8), (8, 7), (9, 9), (6, 6)])
def test_dc_goes_to_the_corner(shape):
    from napari_mepdiff.physics.engines import passes
    from napari_mepdiff.physics.patterns import Patterns

    counts = np.random.default_rng(0).integers(0, 99, (3, *shape)).astype(np.uint8)
    data = Patterns(
        counts, None, "poisson", 1.0, near=True, device=torch.device("cpu"), dtype=torch.float32
    )
    out = np.empty(shape, np.float32)
    data.corner(1, out)
    np.testing.assert_array_equal(out, np.fft.ifftshift(counts[1]))
    compiled = np.empty(shape, np.float32)
    passes.to_corner(counts[1], compiled)
    np.testing.assert_array_equal(compiled, out)
    np.testing.assert_array_equal(data.of(np.array([1]), torch.device("cpu"))[0].numpy(), out)
    n = counts[[0, 2]].astype(float)
    term = np.where(n > 0, n * np.log(np.maximum(n, 1)), 0) - n
    assert data.constants(np.array([0, 2, 0])) == pytest.approx(
        term.sum() + term[0].sum(), rel=1e-6
    )
