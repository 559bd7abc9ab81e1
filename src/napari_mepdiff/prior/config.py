"""The shape of a network, and two presets."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .layers import Stride

LATERAL, ALL = (1, 2, 2), (2, 2, 2)
CONDITION = 2  # channels: depth mean, trend
ELEMENTS = 98  # H to Cf; and a number that says whether the elements are told
ANSWER = 4  # channels, see prior.answer


class Level(BaseModel):
    """One resolution of the U-Net.

    Attributes
    ----------
    channels : int
    blocks : int
        Residual blocks on the way down, and again on the way up.
    attention : int
        Attention layers on the way down, and again on the way up (after the last residual blocks).
    down : (1, 1, 1), (1, 2, 2) or (2, 2, 2)
        Resampling between the level above and this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int
    blocks: int = 2
    attention: int = 0
    down: Stride = LATERAL


class UNetConfig(BaseModel):
    """Shape of a network; travels with its weights.

    Attributes
    ----------
    patch : int
        Lateral pixel-unshuffle before the first convolution.
    levels : tuple of Level
        From fine to coarse; the resampling of the first is not used.
    middle : int
        Rounds of residual block and attention at the bottom, closed by one more residual block.
    embedding : int
        Width of the embedding of λ and the condition's flags.
    head_width : int
        Channels per attention head.
    kernel : 'full' or 'factorised'
        3 × 3 × 3, or 1 × 3 × 3 and then 3 × 1 × 1.
    feed_forward : int
        Widening of the feed-forward part of an attention layer; 0 for none.
    resample_kernel : int
        Voxels a side of the convolution beside each resampling: 1 or 3.
    elements : bool
        Whether it can be told which elements there are.
    answer : bool
        Whether it can be shown what the data say of a first guess.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: int = Field(2, ge=1)
    levels: tuple[Level, ...]
    middle: int = 1
    embedding: int = 256
    head_width: int = 32
    kernel: Literal["full", "factorised"] = "full"
    feed_forward: int = 0
    resample_kernel: Literal[1, 3] = 1
    elements: bool = False
    answer: bool = False

    @property
    def stride(self) -> Stride:
        """Voxels per feature at the bottom, (z, y, x)."""
        total = [1, self.patch, self.patch]
        for level in self.levels[1:]:
            total = [a * b for a, b in zip(total, level.down, strict=True)]
        return total[0], total[1], total[2]


PRESETS: dict[str, UNetConfig] = {
    "paper": UNetConfig(
        patch=1,
        levels=(
            Level(channels=16),
            Level(channels=32),
            Level(channels=64),
            Level(channels=128, attention=1),
            Level(channels=128, attention=1, down=(1, 1, 1)),
            Level(channels=256, attention=1, down=ALL),
            Level(channels=256, attention=1, down=(1, 1, 1)),
        ),
        embedding=1024,
        feed_forward=4,
        resample_kernel=3,
    ),
    "compact": UNetConfig(
        patch=2,
        levels=(Level(channels=24, blocks=1), Level(channels=48), Level(channels=96, attention=1)),
        embedding=192,
    ),
}
