"""The anisotropic 3D U-Net (paper, section 3 and appendix D) in one class, with two presets.

Voxels are 1.6 × 0.2 × 0.2 Å. The first stages resample laterally only, until features are isotropic; later ones along all
axes. Self-attention sits where features are coarse. The network takes the noisy volume, λ and, where there is one, a condition
(the depth mean, and a depth-blurred volume's deviation from it), and returns v.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Stride = tuple[int, int, int]
LATERAL, ALL = (1, 2, 2), (2, 2, 2)
CONDITION = 2  # channels: depth mean, trend
FLAGS = 3  # numbers: has a mean, has a trend, how far the trend can be trusted


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
            Level(channels=16), Level(channels=32), Level(channels=64),
            Level(channels=128, attention=1), Level(channels=128, attention=1, down=(1, 1, 1)),
            Level(channels=256, attention=1, down=ALL), Level(channels=256, attention=1, down=(1, 1, 1)),
        ),
        embedding=1024, feed_forward=4, resample_kernel=3,
    ),
    "compact": UNetConfig(
        patch=2,
        levels=(Level(channels=24, blocks=1), Level(channels=48), Level(channels=96, attention=1)),
        embedding=192,
    ),
}


class UNet(nn.Module):
    """v-prediction network.

    Parameters
    ----------
    config : UNetConfig
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        levels, p2, e = config.levels, config.patch**2, config.embedding
        self.embed = Embedding(e)
        self.stem = nn.Conv3d((1 + CONDITION) * p2, levels[0].channels, (1, 3, 3), padding=(0, 1, 1))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = []
        width = levels[0].channels
        for n, level in enumerate(levels):
            coarser = Down(width, level.channels, level.down, config.resample_kernel) if n else nn.Identity()
            stage = nn.ModuleDict({"resample": coarser})
            width = level.channels
            blocks, attention = nn.ModuleList(), nn.ModuleList()
            for _ in range(level.blocks):
                blocks.append(Residual(width, width, e, config.kernel))
                skips.append(width)
            for _ in range(level.attention):
                attention.append(Attention(width, config.head_width, config.feed_forward))
            stage["blocks"], stage["attention"] = blocks, attention
            self.down.append(stage)
        self.middle = nn.ModuleList()
        for _ in range(config.middle):
            self.middle.append(Residual(width, width, e, config.kernel))
            self.middle.append(Attention(width, config.head_width, config.feed_forward))
        self.middle.append(Residual(width, width, e, config.kernel))
        for n in reversed(range(len(levels))):
            level = levels[n]
            blocks, attention = nn.ModuleList(), nn.ModuleList()
            for _ in range(level.blocks):
                blocks.append(Residual(width + skips.pop(), level.channels, e, config.kernel))
                width = level.channels
            for _ in range(level.attention):
                attention.append(Attention(width, config.head_width, config.feed_forward))
            above = levels[n - 1].channels if n else width
            finer = Up(width, above, level.down, config.resample_kernel) if n else nn.Identity()
            stage = nn.ModuleDict({"blocks": blocks, "attention": attention, "resample": finer})
            width = above
            self.up.append(stage)
        self.norm = norm(width)
        self.head = nn.Conv3d(width, p2, (1, 3, 3), padding=(0, 1, 1))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, log_snr: Tensor, condition: Tensor, flags: Tensor) -> Tensor:
        """v of a noisy volume.

        Parameters
        ----------
        z : Tensor
            (B, D, H, W), scaled; H, W, D whole multiples of ``config.stride``.
        log_snr : Tensor
            (B,).
        condition : Tensor
            (B, 2, D, H, W), scaled: depth mean spread over the slices, and the trend; zero where there is none.
        flags : Tensor
            (B, 3): has a mean, has a trend, trust in the trend; 0 or 1, 0 or 1, 0 to 1.
        """
        p = self.config.patch
        embedding = F.silu(self.embed(log_snr, flags))
        x = torch.cat([z[:, None], condition], dim=1)
        x = unshuffle(x, (1, p, p)).contiguous(memory_format=torch.channels_last_3d)
        x = self.stem(x)
        skips = []
        for stage in self.down:
            x = stage["resample"](x)  # type: ignore[index]
            for block in stage["blocks"]:  # type: ignore[index]
                x = block(x, embedding)
                skips.append(x)
            for layer in stage["attention"]:  # type: ignore[index]
                x = layer(x)
        for part in self.middle:
            x = part(x, embedding) if isinstance(part, Residual) else part(x)
        for stage in self.up:
            for block in stage["blocks"]:  # type: ignore[index]
                x = block(torch.cat([x, skips.pop()], dim=1), embedding)
            for layer in stage["attention"]:  # type: ignore[index]
                x = layer(x)
            x = stage["resample"](x)  # type: ignore[index]
        x = self.head(F.silu(self.norm(x)))
        return shuffle(x, (1, p, p))[:, 0].float()

    @property
    def parameters_count(self) -> int:
        """Number of trainable numbers."""
        return sum(p.numel() for p in self.parameters())


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation over groups of at least 8 channels."""
    groups = next(g for g in (8, 4, 2, 1) if (channels % g == 0 and channels // g >= 4) or g == 1)
    return nn.GroupNorm(groups, channels)


class Embedding(nn.Module):
    """λ as sines and cosines of 32 log-spaced frequencies, and the flags, to a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(math.log10(0.05), math.log10(4.0), 32), persistent=False)
        self.first, self.second = nn.Linear(64 + FLAGS, width), nn.Linear(width, width)

    def forward(self, log_snr: Tensor, flags: Tensor) -> Tensor:
        """(B,), (B, 3) to (B, width)."""
        angle = log_snr[:, None] * self.frequencies
        return self.second(F.silu(self.first(torch.cat([angle.sin(), angle.cos(), flags], dim=1))))


def convolution(inputs: int, outputs: int, kernel: str) -> nn.Module:
    """3 × 3 × 3, or lateral and then along depth."""
    if kernel == "full":
        return nn.Conv3d(inputs, outputs, 3, padding=1)
    return nn.Sequential(nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1)),
                         nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0)))


class Residual(nn.Module):
    """Two convolutions; the embedding scales and shifts between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int, kernel: str) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), convolution(inputs, outputs, kernel)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.norm2, self.conv2 = norm(outputs), convolution(outputs, outputs, kernel)
        self.skip = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        last = self.conv2 if isinstance(self.conv2, nn.Conv3d) else self.conv2[-1]  # type: ignore[index]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, D, H, W), (B, E)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulate(embedding)[:, :, None, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention over all features, rotary in depth, height and width, so that only differences of place count."""

    def __init__(self, channels: int, head_width: int, feed_forward: int) -> None:
        super().__init__()
        if channels % head_width:
            raise ValueError(f"{channels} channels are not a multiple of the head width {head_width}")
        self.heads = channels // head_width
        self.norm, self.qkv = norm(channels), nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.mlp: nn.Module | None = None
        if feed_forward:
            self.mlp = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, feed_forward * channels), nn.SiLU(),
                                     nn.Linear(feed_forward * channels, channels))
            nn.init.zeros_(self.mlp[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.mlp[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        b, c, d, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 4, 1).reshape(b, d * h * w, c)
        q, k, v = self.qkv(tokens).reshape(b, d * h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        turn = rotary((d, h, w), c // self.heads, x.device, q.dtype)
        mixed = F.scaled_dot_product_attention(_rotate(q, turn), _rotate(k, turn), v)
        tokens = self.out(mixed.transpose(1, 2).reshape(b, d * h * w, c))
        x = x + tokens.reshape(b, d, h, w, c).permute(0, 4, 1, 2, 3)
        if self.mlp is not None:
            x = x + self.mlp(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return x


def rotary(shape: tuple[int, int, int], width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (tokens, width / 2) that turn queries and keys by their place (Su et al. 2021), a third for each axis."""
    half = width // 2
    part = [half - 2 * (half // 3), half // 3, half // 3]
    angles = []
    for axis, count in enumerate(part):
        frequency = math.pi / torch.logspace(0, math.log10(32), count, device=device)
        place = torch.arange(shape[axis], device=device, dtype=torch.float32)
        angle = place[:, None] * frequency
        view = [1, 1, 1, count]
        view[axis] = shape[axis]
        angles.append(angle.reshape(view).expand(*shape, count))
    angle = torch.cat(angles, dim=-1).reshape(-1, half)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Down(nn.Module):
    """Coarser: neighbours into channels, then a convolution."""

    def __init__(self, inputs: int, outputs: int, stride: Stride, kernel: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv3d(inputs * math.prod(stride), outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        return self.conv(unshuffle(x, self.stride))


class Up(nn.Module):
    """Finer: a convolution, then channels into neighbours."""

    def __init__(self, inputs: int, outputs: int, stride: Stride, kernel: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv3d(inputs, outputs * math.prod(stride), kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        return shuffle(self.conv(x), self.stride)


def unshuffle(x: Tensor, stride: Stride) -> Tensor:
    """(B, C, D, H, W) to (B, s C, D / sz, H / sy, W / sx), in the memory order of convolutions."""
    if math.prod(stride) == 1:
        return x
    b, c, d, h, w = x.shape
    sz, sy, sx = stride
    x = x.reshape(b, c, d // sz, sz, h // sy, sy, w // sx, sx).permute(0, 2, 4, 6, 3, 5, 7, 1)
    return x.reshape(b, d // sz, h // sy, w // sx, sz * sy * sx * c).permute(0, 4, 1, 2, 3)


def shuffle(x: Tensor, stride: Stride) -> Tensor:
    """The inverse of :func:`unshuffle`."""
    if math.prod(stride) == 1:
        return x
    b, c, d, h, w = x.shape
    sz, sy, sx = stride
    n = c // (sz * sy * sx)
    x = x.permute(0, 2, 3, 4, 1).reshape(b, d, h, w, sz, sy, sx, n).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, d * sz, h * sy, w * sx, n).permute(0, 4, 1, 2, 3)
