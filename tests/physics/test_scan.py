import numpy as np
import pytest
import torch

from napari_mepdiff.physics.scan import Raster, Windows, canvas_shape


def test_raster_order_step_and_origin():
    pos = Raster(shape=(2, 3), step=(0.5, 0.4), origin=(1.0, 2.0)).positions()
    assert pos.tolist() == pytest.approx(
        np.array([[1, 2], [1, 2.4], [1, 2.8], [1.5, 2], [1.5, 2.4], [1.5, 2.8]])
    )


def test_flips_and_transpose_keep_the_field():
    base = Raster(shape=(3, 3), step=(1.0, 1.0)).positions().reshape(3, 3, 2)
    flipped = Raster(shape=(3, 3), step=(1.0, 1.0), flip_y=True).positions().reshape(3, 3, 2)
    assert np.allclose(flipped, base[::-1])
    swapped = Raster(shape=(3, 3), step=(1.0, 1.0), transpose=True).positions().reshape(3, 3, 2)
    assert np.allclose(swapped, base.transpose(1, 0, 2))


def test_rotation_turns_x_towards_y():
    pos = Raster(shape=(1, 3), step=(1.0, 1.0), rotation=90).positions()
    assert np.allclose(pos - pos[1], [[-1, 0], [0, 0], [1, 0]], atol=1e-12)


def test_affine_acts_after_the_rotation():
    pos = (
        Raster(shape=(3, 3), step=(1.0, 1.0), affine=(2.0, 0.0, 0.5, 1.0))
        .positions()
        .reshape(3, 3, 2)
    )
    assert np.allclose(pos[2, 1] - pos[1, 1], [2.0, 0.5])


def test_window_corners_and_fractions():
    w = Windows(np.array([[1.0, 1.05]]), (16, 16), (8, 8), (0.2, 0.2), "periodic")
    assert w.corner.tolist() == [[1, 1]]
    assert w.fraction[0].tolist() == pytest.approx([0.0, 0.25])


def test_pad_and_fold_are_adjoint():
    w = Windows(np.zeros((1, 2)), (6, 5), (8, 8), (1.0, 1.0), "periodic")
    a, b = torch.randn(2, 6, 5, dtype=torch.float64), torch.randn(2, *w.padded, dtype=torch.float64)
    assert float((w.pad(a) * b).sum()) == pytest.approx(float((a * w.fold(b)).sum()))


def test_extended_canvas_holds_every_window_and_complains_otherwise():
    pos = Raster(shape=(4, 4), step=(0.5, 0.5)).positions()
    shape, moved = canvas_shape(pos, (0.2, 0.2), (32, 32))
    Windows(moved, shape, (32, 32), (0.2, 0.2), "extended")
    assert canvas_shape(moved, (0.2, 0.2), (32, 32))[0] == shape  # settled
    with pytest.raises(ValueError, match="stick out"):
        Windows(pos, shape, (32, 32), (0.2, 0.2), "extended")
    with pytest.raises(ValueError, match="NaN"):
        Windows(np.array([[np.nan, 0]]), shape, (32, 32), (0.2, 0.2), "periodic")
