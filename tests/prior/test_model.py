"""Prior: evaluation on any field, loading and saving."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_mepdiff.prior.condition import Condition
from napari_mepdiff.prior.model import Prior, PriorError, _starts, bundled
from napari_mepdiff.prior.noise import x_from_v

from .nets import TINY, tiny


def _z(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_x_prediction_is_alpha_z_minus_sigma_v():
    prior, z = tiny(), _z(4, 32, 32)
    v = prior.network(z[None], torch.tensor([-3.0]), torch.zeros(1, 2, 4, 32, 32), torch.zeros(1, 3))
    assert torch.allclose(prior(z, -3.0), x_from_v(z, v[0], -3.0), atol=1e-6)


def test_a_dropped_condition_is_the_unconditional_path():
    """What training shows as 'no condition' is what is evaluated without one."""
    from napari_mepdiff.prior.condition import Dropout, corrupt

    prior, z = tiny(), _z(2, 4, 32, 32)
    channels, flags = corrupt(_z(2, 4, 32, 32, seed=1), torch.Generator().manual_seed(0), Dropout(1.0, 0.0))
    v = prior.network(z, torch.full((2,), -3.0), channels, flags)
    assert torch.equal(x_from_v(z, v, torch.full((2,), -3.0)), prior(z, -3.0))
    told = prior(z[0], -3.0, Condition.from_sum(np.ones((32, 32)), 4))
    assert (told - prior(z[0], -3.0)).abs().max() > 1e-4


def test_a_batch_is_what_its_members_are_alone():
    prior, z = tiny(), _z(3, 4, 32, 32)
    levels = torch.tensor([-9.0, -3.0, 1.0])
    together = prior(z, levels)
    for n in range(3):
        assert torch.allclose(together[n], prior(z[n], float(levels[n])), atol=1e-5)


def test_the_pullback_is_the_transposed_jacobian():
    prior, z = tiny(), _z(4, 16, 16)
    x, pull = prior.vjp(z, -2.0)
    g, d = _z(4, 16, 16, seed=1), _z(4, 16, 16, seed=2)
    assert torch.allclose(x, prior(z, -2.0))
    with torch.no_grad():
        step = 1e-2
        along = (prior(z + step * d, -2.0) - prior(z - step * d, -2.0)) / (2 * step)
    assert float((pull(g) * d).sum()) == pytest.approx(float((g * along).sum()), rel=1e-2)


@pytest.mark.parametrize("shape", [(4, 16, 16), (5, 30, 21), (8, 64, 64), (7, 96, 50), (12, 64, 64), (9, 130, 100)])
@pytest.mark.parametrize("tiling", ["auto", "windows"])
def test_any_field_and_any_number_of_slices_from_four(shape, tiling):
    prior = tiny(tiling=tiling)
    z = _z(*shape)
    x, pull = prior.vjp(z, -2.0, Condition.from_sum(np.ones(shape[1:]), shape[0]))
    assert x.shape == z.shape
    assert torch.isfinite(x).all()
    assert torch.isfinite(pull(torch.ones_like(x))).all()


@pytest.mark.parametrize("shape", [(3, 64, 64), (8, 8, 64), (64, 64)])
def test_impossible_fields_are_refused(shape):
    with pytest.raises(ValueError, match=r"at least 4 slices|a volume is"):
        tiny()(_z(*shape), 0.0)
    with pytest.raises(ValueError, match="the condition is"):
        tiny()(_z(8, 32, 32), 0.0, Condition.from_sum(np.ones((16, 32)), 8))


def test_windows_blend_to_one_without_a_seam():
    """A network that returns its λ-dependent constant must return it everywhere, whatever the offset."""
    prior = tiny(tiling="windows")
    prior.network.forward = lambda z, level, condition, flags: torch.ones_like(z) * level[:, None, None, None]
    for periodic in (False, True):
        prior.periodic = periodic
        z = torch.zeros(2, 19, 150, 90)
        v_like = prior(z, torch.tensor([-3.0, 1.0]))
        wanted = x_from_v(z, torch.ones_like(z) * torch.tensor([-3.0, 1.0])[:, None, None, None], torch.tensor([-3.0, 1.0]))
        assert torch.allclose(v_like, wanted, atol=1e-5)


def test_windows_see_the_right_part_of_the_volume():
    prior = tiny(tiling="windows")
    prior.network.forward = lambda z, level, condition, flags: z + 2 * condition[:, 0]
    z, known = _z(11, 100, 80), Condition.from_sum(_z(100, 80, seed=3), 11)
    for periodic in (False, True):
        prior.periodic = periodic
        expected = x_from_v(z, z + 2 * known.channels(prior.scale)[0][0], 0.0)
        assert torch.allclose(prior(z, 0.0, known), expected, atol=1e-4)


def test_windows_over_depth_split_a_known_volume_into_their_own_mean_and_trend():
    prior = tiny(tiling="windows")
    seen = []

    def look(z, level, condition, flags):
        seen.append(condition)
        return torch.zeros_like(z)

    prior.network.forward = look
    volume = _z(14, 32, 32, seed=3)
    prior(_z(14, 32, 32), 0.0, Condition.from_volume(volume, 0.5))
    parts = torch.cat(seen)
    assert len(parts) > 1
    assert parts[:, 1].mean(dim=1).abs().max() < 1e-4
    assert parts[:, 0].std(dim=1).max() < 1e-4
    first = parts.sum(dim=1)[0, :, 5, 5]
    apart = [float((first - prior.scale * volume[n : n + 8, 5, 5]).abs().max()) for n in range(7)]
    assert min(apart) < 1e-4


def test_offsets_change_from_call_to_call_and_return_with_the_seed():
    prior, z = tiny(tiling="windows", periodic=True), _z(8, 128, 128)
    prior.reseed(5)
    first, second = prior(z, -2.0), prior(z, -2.0)
    prior.reseed(5)
    assert torch.equal(prior(z, -2.0), first)
    assert (first - second).abs().max() > 1e-6


@pytest.mark.parametrize("periodic", [False, True])
def test_windows_cover_every_voxel(periodic):
    rng = np.random.default_rng(0)
    for length in (65, 88, 100, 128, 129, 300):
        for _ in range(20):
            starts = _starts(length, 64, 24, rng, periodic)
            covered = {(s + i) % length for s in starts for i in range(64)}
            assert covered == set(range(length))
            assert periodic or max(starts) + 64 <= length


def test_weights_come_back(tmp_path):
    prior = tiny(info={"samples": 7})
    digest = prior.save(tmp_path / "p.safetensors", torch.float32)
    again = Prior.load(tmp_path / "p.safetensors", precision="float32")
    z = _z(4, 32, 32)
    assert torch.equal(again(z, -3.0), prior(z, -3.0))
    assert again.info == {"samples": 7}
    assert again.network.config == TINY
    assert len(digest) == 64
    half = tmp_path / "h.safetensors"
    prior.save(half)
    assert half.stat().st_size < 0.6 * (tmp_path / "p.safetensors").stat().st_size
    assert (Prior.load(half, precision="float32")(z, -3.0) - prior(z, -3.0)).abs().max() < 0.1


def test_what_is_not_a_prior_is_refused_with_the_reason(tmp_path):
    z = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no such prior"):
        Prior.load(z)
    with pytest.raises(FileNotFoundError, match="no prior 'huge'"):
        Prior.load("huge")
    z.write_bytes(b"nonsense")
    with pytest.raises(PriorError, match="damaged"):
        Prior.load(z)
    save_file({"a": torch.ones(2)}, z)
    with pytest.raises(PriorError, match="not a prior"):
        Prior.load(z)
    for name in ("model.pkl", "model.bin", "model.ckpt"):
        (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(PriorError, match="pickled models are refused"):
            Prior.load(tmp_path / name)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(PriorError, match="refused"):
        Prior.load(tmp_path / "model.pt")


def _header(**change):
    base = {"format": "mepdiff-prior", "version": "1", "network": TINY.model_dump_json(), "voxel_size": "[1.6, 0.2, 0.2]",
            "energy": "300", "scale": "25", "info": "{}"}
    return {k: v for k, v in {**base, **change}.items() if v is not None}


@pytest.mark.parametrize(("change", "state", "message"), [
    ({"version": "2"}, {}, "newer version"),
    ({"network": "{}"}, {}, "does not say"),
    ({"network": None}, {}, "does not say"),
    ({}, {"stem.weight": torch.zeros(1)}, "do not fit"),
    ({}, {"extra": torch.zeros(1)}, "do not fit"),
    ({}, {"stem.bias": torch.full((8,), float("nan"))}, "NaN"),
])
def test_files_that_do_not_fit_are_refused(tmp_path, change, state, message):
    full = {k: v.clone().contiguous() for k, v in tiny().network.state_dict().items()}
    save_file({**full, **state}, tmp_path / "x.safetensors", metadata=_header(**change))
    with pytest.raises(PriorError, match=message):
        Prior.load(tmp_path / "x.safetensors")


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="the device 'abacus' cannot be used"):
        tiny(device="abacus")


def test_bundled_weights_are_checked_against_their_hash(tmp_path, monkeypatch):
    import napari_mepdiff.prior.model as model

    digest = tiny().save(tmp_path / "mine.safetensors")
    (tmp_path / "weights.json").write_text(json.dumps({"mine": digest}))
    monkeypatch.setattr(model, "_bundled", lambda name: (tmp_path / "mine.safetensors", digest))
    assert Prior.load("mine").network.config == TINY
    with open(tmp_path / "mine.safetensors", "r+b") as handle:
        handle.seek(-3, 2)
        handle.write(b"\x01")
    with pytest.raises(PriorError, match="not those that were shipped"):
        Prior.load("mine")


def test_the_shipped_prior_is_there_small_and_sound():
    assert "compact" in bundled()
    from importlib.resources import files

    folder = files("napari_mepdiff.prior") / "weights"
    assert (folder / "compact.safetensors").stat().st_size < 20e6
    assert "CC-BY" in (folder / "compact.md").read_text()
    prior = Prior.load()
    assert prior.info["samples"] > 1000
    assert prior.voxel_size == (1.6, 0.2, 0.2)
