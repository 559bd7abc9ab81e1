"""The parts of the U-Net: residual blocks, attention, resampling, and the embedding of λ."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Stride = tuple[int, int, int]
FLAGS = 3  # numbers: has a mean, has a trend, how far the trend can be trusted


def zero(layer: nn.Conv3d | nn.Linear) -> None:
    """So that a block adds nothing before it has learnt anything."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation over groups of at least 8 channels."""
    groups = next(g for g in (8, 4, 2, 1) if (channels % g == 0 and channels // g >= 4) or g == 1)
    return nn.GroupNorm(groups, channels)


class Embedding(nn.Module):
    """λ as sines and cosines of 32 log-spaced frequencies, and the flags, to a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer(
            "frequencies", torch.logspace(math.log10(0.05), math.log10(4.0), 32), persistent=False
        )
        self.first, self.second = nn.Linear(64 + FLAGS, width), nn.Linear(width, width)

    def forward(self, log_snr: Tensor, flags: Tensor) -> Tensor:
        """(B,), (B, 3) to (B, width)."""
        angle = log_snr[:, None] * self.frequencies
        return self.second(F.silu(self.first(torch.cat([angle.sin(), angle.cos(), flags], dim=1))))


def convolution(inputs: int, outputs: int, kernel: str) -> nn.Module:
    """3 × 3 × 3, or lateral and then along depth."""
    if kernel == "full":
        return nn.Conv3d(inputs, outputs, 3, padding=1)
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1)),
        nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0)),
    )


class Residual(nn.Module):
    """Two convolutions; the embedding scales and shifts between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int, kernel: str) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), convolution(inputs, outputs, kernel)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.norm2, self.conv2 = norm(outputs), convolution(outputs, outputs, kernel)
        self.skip = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        *_, last = (m for m in self.conv2.modules() if isinstance(m, nn.Conv3d))
        zero(last)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, D, H, W), (B, E)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulate(embedding)[:, :, None, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention over all features, rotary in depth, height and width, so that only differences
    of place count.
    """

    def __init__(self, channels: int, head_width: int, feed_forward: int) -> None:
        super().__init__()
        if channels % head_width:
            raise ValueError(
                f"{channels} channels are not a multiple of the head width {head_width}"
            )
        self.heads = channels // head_width
        self.norm, self.qkv = norm(channels), nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        zero(self.out)
        self.mlp: nn.Module | None = None
        if feed_forward:
            narrower = nn.Linear(feed_forward * channels, channels)
            self.mlp = nn.Sequential(
                nn.LayerNorm(channels),
                nn.Linear(channels, feed_forward * channels),
                nn.SiLU(),
                narrower,
            )
            zero(narrower)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        b, c, d, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 4, 1).reshape(b, d * h * w, c)
        q, k, v = (
            self.qkv(tokens)
            .reshape(b, d * h * w, 3, self.heads, c // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        turn = rotary((d, h, w), c // self.heads, x.device, q.dtype)
        mixed = F.scaled_dot_product_attention(_rotate(q, turn), _rotate(k, turn), v)
        tokens = self.out(mixed.transpose(1, 2).reshape(b, d * h * w, c))
        x = x + tokens.reshape(b, d, h, w, c).permute(0, 4, 1, 2, 3)
        if self.mlp is not None:
            x = x + self.mlp(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return x


def rotary(
    shape: tuple[int, int, int], width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines (tokens, width / 2) that turn queries and keys by their place (Su et al.
    2021), a third for each axis.
    """
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
