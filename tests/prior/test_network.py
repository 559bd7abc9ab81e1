"""The network."""

from __future__ import annotations

import pytest
import torch

from napari_mepdiff.prior.layers import Attention, _rotate, rotary, shuffle, unshuffle
from napari_mepdiff.prior.network import ALL, PRESETS, Level, UNet, UNetConfig

from .nets import TINY, tiny


def _inputs(shape, batch=2):
    rng = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, *shape, generator=rng),
        torch.linspace(-7, 2, batch),
        torch.randn(batch, 2, *shape, generator=rng),
        torch.ones(batch, 3),
    )


def test_unshuffle_gathers_neighbours_and_shuffle_undoes_it():
    x = torch.arange(2 * 3 * 4 * 8 * 6.0).reshape(2, 3, 4, 8, 6)
    for stride in ((1, 2, 2), (2, 2, 2), (1, 4, 2)):
        assert torch.equal(shuffle(unshuffle(x, stride), stride), x)
    packed = unshuffle(x, (1, 2, 2))
    assert packed.shape == (2, 12, 4, 4, 3)
    assert sorted(packed[0, :, 1, 2, 1].tolist()) == sorted(x[0, :, 1, 4:6, 2:4].ravel().tolist())


def test_a_fresh_network_returns_zero_and_shapes_are_kept():
    network = UNet(TINY)
    out = network(*_inputs((4, 32, 16)))
    assert out.shape == (2, 4, 32, 16)
    assert out.abs().max() == 0


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_return_their_input_s_shape(name):
    network = UNet(PRESETS[name]).eval()
    z, level, condition, flags = _inputs((8, 32, 32), 1)
    with torch.no_grad():
        assert network(z, level, condition, flags).shape == z.shape


def test_the_paper_preset_is_the_table_of_appendix_d():
    config = PRESETS["paper"]
    assert [c for lv in config.levels[:3] for c in [lv.channels] * lv.blocks] == [
        16,
        16,
        32,
        32,
        64,
        64,
    ]
    assert [c for lv in config.levels[3:] for c in [lv.channels] * lv.blocks] == [128] * 4 + [
        256
    ] * 4
    assert [lv.attention for lv in config.levels] == [0, 0, 0, 1, 1, 1, 1]
    # lateral only down to isotropic voxels of 1.6 Å, then all axes
    assert config.stride == (2, 16, 16)
    assert [lv.down for lv in config.levels if lv.down == ALL] == [ALL]


def test_stages_resample_laterally_only_until_voxels_are_isotropic():
    network = UNet(PRESETS["paper"]).eval()
    seen = []
    for stage in network.down:
        stage["blocks"][-1].register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[2:])))
    with torch.no_grad():
        network(*_inputs((8, 64, 64), 1))
    assert seen == [
        (8, 64, 64),
        (8, 32, 32),
        (8, 16, 16),
        (8, 8, 8),
        (8, 8, 8),
        (4, 4, 4),
        (4, 4, 4),
    ]


def test_gradient_through_the_network_is_that_of_finite_differences():
    network = tiny().network.double()
    z, _level, condition, _flags = (t.double() for t in _inputs((4, 16, 16), 1))
    z = (0.3 * z).requires_grad_(True)
    weight = torch.randn(z.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def value(at):
        x = torch.cat([at[:, None], condition], dim=1)
        x = network.stem(unshuffle(x, (1, 4, 4)))
        return (network.norm(x).mean(dim=1) * weight[:, :, ::4, ::4]).sum()

    value(z).backward()
    direction = torch.randn(
        z.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    with torch.no_grad():
        numeric = (value(z + 1e-5 * direction) - value(z - 1e-5 * direction)) / 2e-5
    assert float((z.grad * direction).sum()) == pytest.approx(float(numeric), rel=1e-6)


def test_lambda_condition_and_flags_each_matter():
    network = tiny().network
    z, level, condition, flags = _inputs((4, 16, 16), 1)
    with torch.no_grad():
        base = network(z, level, condition, flags)
        for other in (
            network(z, level + 1, condition, flags),
            network(z, level, 0 * condition, flags),
            network(z, level, condition, 0 * flags),
        ):
            assert (other - base).abs().max() > 1e-4


def test_attention_knows_differences_of_place_only():
    torch.manual_seed(0)
    layer = Attention(32, 16, 0)
    torch.nn.init.normal_(layer.out.weight, 0, 0.2)
    q, k = torch.randn(1, 1, 60, 16), torch.randn(1, 1, 60, 16)
    turn = rotary((3, 4, 5), 16, torch.device("cpu"), torch.float32)
    same_q, same_k = q[:, :, :1].expand_as(q), k[:, :, :1].expand_as(k)
    score = (_rotate(same_q, turn) @ _rotate(same_k, turn).transpose(-1, -2))[0, 0].reshape(
        3, 4, 5, 3, 4, 5
    )
    assert torch.allclose(score[0, 0, 0, 1, 2, 1], score[1, 1, 2, 2, 3, 3], atol=1e-4)
    assert (score[0, 0, 0, 1, 2, 1] - score[0, 0, 0, 1, 2, 2]).abs() > 1e-4


def test_impossible_configurations_are_refused():
    with pytest.raises(ValueError, match="head width"):
        UNet(UNetConfig(levels=(Level(channels=40, attention=1),), head_width=32))
