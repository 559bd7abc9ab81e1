"""What the data say of a guess: the same in training and in use, whatever the dose and the scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.light import light
from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.many import PeriodicScan
from napari_mepdiff.physics.optics import Optics, probe_from_parameters
from napari_mepdiff.prior.answer import channels, of_likelihood
from napari_mepdiff.prior.network import UNet, on_device
from napari_mepdiff.prior.process import SCALE
from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training.stream import CrystalStream

from .nets import TINY, noise, tiny

SIDE, PIXEL, THICK = 32, 0.2, 1.6
ASKING = TINY.model_copy(update={"answer": True, "elements": True})
GEOMETRY = {"pixel_size": (PIXEL, PIXEL), "slice_thickness": THICK, "energy": 300.0}


def _probe():
    optics = Optics(semi_angle=20.0, overfocus=120.0, C30=0.0, C12=10.0)
    return probe_from_parameters(optics, (SIDE, SIDE), (PIXEL, PIXEL), dtype=torch.complex128)[0]


def _scan(count, band_limit=None):
    step = SIDE // count
    places = [(y, x) for y in range(1, SIDE, step) for x in range(2, SIDE, step)]
    return places, PeriodicScan.over(_probe(), places, **GEOMETRY, band_limit=band_limit)


def _likelihood(places, counts, electrons, band_limit=None, misfit="amplitude"):
    return Likelihood(
        torch.fft.fftshift(counts, dim=(-2, -1)),
        _probe() * np.sqrt(electrons),
        np.array(places) * PIXEL,
        (4, SIDE, SIDE),
        **GEOMETRY,
        misfit=misfit,
        band_limit=band_limit,
        dtype=torch.float64,
    )


@pytest.fixture(scope="module")
def crystals():
    stream = CrystalStream(load_structures().part("validation"))
    return stream.batch(0, 3, (4, SIDE, SIDE)).double()


@pytest.mark.parametrize("band_limit", [None, 2 / 3])
def test_many_volumes_at_once_are_each_the_likelihood(crystals, band_limit):
    places, scan = _scan(3, band_limit)
    electrons = torch.tensor([1e3, 1e4, 1e5], dtype=torch.float64)
    rate = scan.patterns(crystals) * electrons[:, None, None, None]
    counts = torch.poisson(rate, generator=torch.Generator().manual_seed(0))
    guess = 0.5 * crystals
    found = scan.gradient(guess, counts, electrons)
    for n in range(3):
        one = _likelihood(places, counts[n], float(electrons[n]), band_limit)
        _, gradient = one(guess[n])
        assert (found[n] - gradient).norm() < 1e-9 * gradient.norm()
    # what of the propagators is cut off differs where they are band-limited, in nothing else
    through = light(one) / float(electrons[2])
    assert torch.allclose(through, scan.light(4), atol=1e-9)
    assert float(through[0].sum()) == pytest.approx(len(places))


def _channels(scan, truth, guess, dose, seed=0):
    electrons = torch.tensor([dose * (SIDE * PIXEL) ** 2 / len(scan.waves)], dtype=torch.float64)
    rate = scan.patterns(truth[None]) * electrons
    counts = torch.poisson(rate, generator=torch.Generator().manual_seed(seed))
    slope = 2 * scan.gradient(guess[None], counts, electrons)
    return channels(SCALE * guess[None], slope, scan.light(4)[None] * electrons)[0]


def test_the_answer_depends_neither_on_the_dose_nor_on_the_scan(crystals):
    truth = crystals[0]
    guess = 0.8 * truth
    reference = _channels(_scan(8)[1], truth, guess, 1e10)
    other_dose = _channels(_scan(8)[1], truth, guess, 1e9)
    other_scan = _channels(_scan(4)[1], truth, guess, 1e10)  # a quarter of the positions
    # how slices differ is small, and what a coarse scan leaves of it is its own
    for other, compared in ((other_dose, (1, 2)), (other_scan, (1,))):
        for channel in compared:
            a, b = reference[channel], other[channel]
            assert float((a * b).sum() / (a.norm() * b.norm())) > 0.8
            assert float(b.norm() / a.norm()) == pytest.approx(1, abs=0.2)
    # it points where the guess must go
    error = SCALE * (truth - guess).mean(dim=0)
    mean = reference[1, 0]
    assert float((mean * error).sum() / (mean.norm() * error.norm())) > 0.8
    # and what it says less surely is damped, and said to be so
    weak = _channels(_scan(8)[1], truth, guess, 1e2)
    assert float(weak[2].std()) < 3 * float(reference[2].std())
    assert 0 < float(weak[3].mean()) < float(other_dose[3].mean()) < float(reference[3].mean())


def test_a_measurement_says_the_same_as_in_training(crystals):
    places, scan = _scan(4)
    truth, guess, electrons = crystals[1], 0.9 * crystals[1], 1e6
    counts = torch.poisson(
        scan.patterns(truth[None])[0] * electrons, generator=torch.Generator().manual_seed(0)
    )
    per = torch.tensor([electrons], dtype=torch.float64)
    slope = 2 * scan.gradient(guess[None], counts[None], per)
    trained = channels(SCALE * guess, slope[0], scan.light(4) * electrons)
    used = of_likelihood(_likelihood(places, counts, electrons), SCALE * guess)
    assert torch.allclose(used, trained, atol=1e-6)
    poisson = of_likelihood(_likelihood(places, counts, electrons, misfit="poisson"), SCALE * guess)
    assert float((poisson - trained)[1].norm() / trained[1].norm()) < 0.35
    with pytest.raises(ValueError, match="question of probability"):
        of_likelihood(_likelihood(places, counts, electrons, misfit="intensity"), SCALE * guess)


def test_a_network_that_learns_to_listen_begins_as_the_one_before():
    old, new = tiny().network, on_device(UNet(ASKING), "cpu")
    new.load_state_dict({**new.state_dict(), **old.state_dict()})
    z = noise(2, 4, 16, 16)
    given = (torch.tensor([-3.0, 1.0]), torch.zeros(2, 2, 4, 16, 16), torch.zeros(2, 3))
    shown = noise(2, 4, 4, 16, 16, seed=1)
    with torch.no_grad():
        assert torch.allclose(old(z, *given), new(z, *given, None, shown), atol=1e-6)
    with pytest.raises(ValueError, match="cannot be shown what the data say"):
        old(z, *given, None, shown)


def test_an_answer_matters_whole_and_in_windows_for_one_volume_and_for_several():
    whole, windows = tiny(config=ASKING), tiny(config=ASKING, tiling="windows")
    z, shown = noise(2, 8, 32, 32), noise(2, 4, 8, 32, 32, seed=1)
    told = whole(z, -3.0, answer=shown)
    assert (told - whole(z, -3.0)).abs().max() > 1e-3
    assert torch.allclose(windows(z, -3.0, answer=shown), told, atol=1e-5)
    alone = whole(z[1], -3.0, answer=shown[1])
    assert torch.allclose(alone, told[1], atol=1e-5)
    x, pull = whole.vjp(z, -3.0, answer=shown)
    assert torch.allclose(x, told, atol=1e-6)
    assert pull(torch.ones_like(z)).shape == z.shape
    # a field with more windows than one, with answers of their own
    wide = torch.cat([shown, shown], dim=-1)
    assert windows(noise(2, 8, 32, 96), -3.0, answer=noise(2, 4, 8, 32, 96)).shape[-1] == 96
    with pytest.raises(ValueError, match="4 channels of the volume's"):
        whole(z, -3.0, answer=wide)
