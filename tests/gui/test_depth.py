"""Every slice of a volume can be reached with the slider of napari."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mepdiff.gui.layers import LayerBook
from napari_mepdiff.specimen.volume import Volume


def deepest(viewer):
    """The slice that is shown when the slider is dragged to its end."""
    layer = viewer.layers[-1]
    viewer.dims.set_current_step(0, viewer.dims.nsteps[0] - 1)
    return LayerBook(viewer).shown_slice(layer)


@pytest.mark.parametrize("origin", [0.0, -3.7])
def test_whatever_the_thickness(origin):
    """8 slices of 9.76 Å ended at the seventh: the bottom of the specimen could not be seen."""
    rng = np.random.default_rng(0)
    thicknesses = [9.76, 1.6, *rng.uniform(0.1, 50, 12).round(3), *rng.uniform(0.1, 50, 12)]
    short = 0
    for thickness in thicknesses:
        slices = int(rng.integers(2, 65))
        slices = 8 if thickness == 9.76 else slices
        array = np.zeros((slices, 4, 4), np.float32)
        other = ViewerModel()
        other.add_image(array, scale=(thickness, 0.2, 0.2), translate=(origin, 0, 0))
        short += other.dims.nsteps[0] < slices
        viewer = ViewerModel()
        volume = Volume(array, (float(thickness), 0.2, 0.2), (origin, 0.0, 0.0))
        layer = LayerBook(viewer).add_volume(volume, "ours")
        assert deepest(viewer) == slices - 1, (thickness, slices)
        np.testing.assert_allclose(layer.scale, volume.voxel_size, rtol=1e-12)
    assert short, "napari counts right now: depth.py has no use any more"


def test_beside_other_layers():
    viewer = ViewerModel()
    book = LayerBook(viewer)
    for name in ("truth", "run"):
        book.add_volume(Volume(np.zeros((8, 4, 4), np.float32), (9.76, 0.2, 0.2)), name)
        assert deepest(viewer) == 7
