"""Settings of training runs that take seconds."""

from __future__ import annotations

from napari_mepdiff.training.settings import TrainSettings

from ..prior.nets import TINY

SETTINGS = TrainSettings(
    network=TINY,
    batch=4,
    lateral=32,
    slices=4,
    warm_up=5,
    other_shapes=0.0,
    learning_rate=3e-3,
    average=0.9,
    precision="float32",
)
