"""The anisotropic 3D U-Net (paper, section 3 and appendix D) in one class, with two presets.

Voxels are 1.6 × 0.2 × 0.2 Å. The first stages resample laterally only, until features are
isotropic; later ones along all axes. Self-attention sits where features are coarse. The network
takes the noisy volume, λ and, where there is one, a condition (the depth mean, and a depth-blurred
volume's deviation from it), and returns v.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ALL, ANSWER, CONDITION, ELEMENTS, LATERAL, PRESETS, Level, UNetConfig
from .layers import FLAGS, Attention, Down, Embedding, Residual, Up, norm, shuffle, unshuffle, zero

__all__ = [
    "ALL",
    "ANSWER",
    "CONDITION",
    "ELEMENTS",
    "FLAGS",
    "LATERAL",
    "PRESETS",
    "Level",
    "UNet",
    "UNetConfig",
]


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
        self.stem = nn.Conv3d(
            (1 + CONDITION) * p2, levels[0].channels, (1, 3, 3), padding=(0, 1, 1)
        )
        # both begin as nothing, so that a network that learns to listen begins as the one before
        if config.elements:
            self.told = nn.Linear(ELEMENTS + 1, e, bias=False)
            zero(self.told)
        if config.answer:
            self.answered = nn.Conv3d(
                ANSWER * p2, levels[0].channels, (1, 3, 3), padding=(0, 1, 1), bias=False
            )
            zero(self.answered)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = []
        width = levels[0].channels
        for n, level in enumerate(levels):
            coarser = (
                Down(width, level.channels, level.down, config.resample_kernel)
                if n
                else nn.Identity()
            )
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
        zero(self.head)

    def forward(
        self,
        z: Tensor,
        log_snr: Tensor,
        condition: Tensor,
        flags: Tensor,
        elements: Tensor | None = None,
        answer: Tensor | None = None,
    ) -> Tensor:
        """v of a noisy volume.

        Parameters
        ----------
        z : Tensor
            (B, D, H, W), scaled; H, W, D whole multiples of ``config.stride``.
        log_snr : Tensor
            (B,).
        condition : Tensor
            (B, 2, D, H, W), scaled: depth mean spread over the slices, and the trend; zero where
            there is none.
        flags : Tensor
            (B, 3): has a mean, has a trend, trust in the trend; 0 or 1, 0 or 1, 0 to 1.
        elements : Tensor, optional
            (B, 99): 1 for each element that may be there, H first, and 1 if they are told at all.
        answer : Tensor, optional
            (B, 4, D, H, W): what the data say of a first guess, see :mod:`~.prior.answer`; zero
            where they are not asked.

        Raises
        ------
        ValueError
            If elements or an answer are given to a network that has not learnt to take them.
        """
        p = self.config.patch
        embedding = self.embed(log_snr, flags)
        if elements is not None:
            if not self.config.elements:
                raise ValueError(
                    "this prior cannot be told the elements: it was trained without them; "
                    "leave them out, or choose a prior that knows elements"
                )
            embedding = embedding + self.told(elements)
        embedding = F.silu(embedding)
        x = torch.cat([z[:, None], condition], dim=1)
        x = unshuffle(x, (1, p, p)).contiguous(memory_format=torch.channels_last_3d)
        x = self.stem(x)
        if answer is not None:
            if not self.config.answer:
                raise ValueError(
                    "this prior cannot be shown what the data say: it was trained without them"
                )
            y = unshuffle(answer, (1, p, p)).contiguous(memory_format=torch.channels_last_3d)
            x = x + self.answered(y)
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


def on_device(network: UNet, device: str) -> UNet:
    """The network there, its kernels in the memory order that 3D convolutions are fast in."""
    # one conversion, since tensors without numbers (FakeTensorMode) can be moved only once
    return network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
