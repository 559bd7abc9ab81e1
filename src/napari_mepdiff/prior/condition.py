"""What is already known about a volume, as the network takes it: its depth mean, and how it varies
over depth.

The data nearly fix the sum over depth; of the rest an ordinary solver knows about one depth
harmonic. A condition carries both, with a number that says how far its depth variation can be
trusted: its expected depth correlation with the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import ANSWER, CONDITION, ELEMENTS
from .layers import FLAGS


def elements_vector(numbers: Iterable[int]) -> Tensor:
    """Atomic numbers as the network takes them, (99,): 1 for each, H first, and a last 1.

    Raises
    ------
    ValueError
        If there are none, or one has no place.
    """
    found = sorted({int(n) for n in numbers})
    if not found or found[0] < 1 or found[-1] > ELEMENTS:
        raise ValueError(
            f"elements are atomic numbers from 1 (H) to {ELEMENTS} (Cf), one or more; got {found}"
        )
    out = torch.zeros(ELEMENTS + 1)
    out[[n - 1 for n in found]] = 1.0
    out[-1] = 1.0
    return out


@dataclass(frozen=True)
class Condition:
    """Known beforehand about one volume.

    Attributes
    ----------
    volume : Tensor or None
        (D, H, W), phase in rad; constant over depth where only the sum is known; None: neither is.
    depth_correlation : float or None
        Expected correlation of the volume's depth variation with the truth's, 0 to 1; None: only
        the depth sum is known.
    elements : tuple of int, optional
        Atomic numbers of what the specimen may hold; one too many does little harm. Only for
        priors that were trained with them.
    """

    volume: Tensor | None = None
    depth_correlation: float | None = None
    elements: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.volume is None and self.depth_correlation is not None:
            raise ValueError("a depth correlation says how far a volume can be trusted: give one")
        if self.elements is not None:
            elements_vector(self.elements)

    @classmethod
    def from_elements(cls, numbers: Iterable[int]) -> Condition:
        """From atomic numbers alone."""
        return cls(elements=tuple(sorted(set(numbers))))

    @classmethod
    def from_sum(cls, image: NDArray[np.floating] | Tensor, slices: int) -> Condition:
        """From the sum over the slices (H, W) in rad.

        Raises
        ------
        ValueError
            If the image is not 2D and finite.
        """
        tensor = torch.as_tensor(np.asarray(image), dtype=torch.float32)
        if tensor.ndim != 2 or not torch.isfinite(tensor).all() or slices < 1:
            raise ValueError(
                f"a depth sum is a finite image (H, W), got shape {tuple(tensor.shape)} "
                f"for {slices} slices"
            )
        return cls((tensor / slices).expand(slices, *tensor.shape).contiguous())

    @classmethod
    def from_volume(
        cls, volume: NDArray[np.floating] | Tensor, depth_correlation: float = 0.3
    ) -> Condition:
        """From an ordinary solver's volume (D, H, W) in rad.

        Raises
        ------
        ValueError
            If the volume is not 3D and finite, or the correlation not between 0 and 1.
        """
        tensor = torch.as_tensor(np.asarray(volume), dtype=torch.float32)
        if tensor.ndim != 3 or not torch.isfinite(tensor).all():
            raise ValueError(
                f"a condition is a finite volume (D, H, W), got shape {tuple(tensor.shape)}"
            )
        if not 0 <= depth_correlation <= 1:
            raise ValueError(
                f"the expected depth correlation lies between 0 and 1, got {depth_correlation}"
            )
        return cls(tensor.contiguous(), float(depth_correlation))

    def channels(
        self, scale: float, shape: tuple[int, int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(2, D, H, W) and flags (3,), see :class:`~napari_mepdiff.prior.network.UNet`."""
        if self.volume is None:
            if shape is None:
                raise ValueError("where no volume is known the number of voxels must be given")
            return torch.zeros(CONDITION, *shape), torch.zeros(FLAGS)
        x = self.volume * scale
        mean = x.mean(dim=0, keepdim=True).expand_as(x)
        if self.depth_correlation is None:
            return torch.stack([mean, torch.zeros_like(x)]), torch.tensor([1.0, 0.0, 0.0])
        return torch.stack([mean, x - mean]), torch.tensor([1.0, 1.0, self.depth_correlation])


def given(
    condition: Condition | None,
    answer: Tensor | None,
    field: tuple[int, int, int],
    count: int,
    scale: float,
    device: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All that is known of `count` volumes, as the network takes it.

    Parameters
    ----------
    condition : Condition or None
    answer : Tensor or None
        (4, D, H, W) or (B, 4, D, H, W), see :mod:`~.prior.answer`.
    field : (D, H, W)
        Voxels of the volumes.
    count : int
        B.

    Returns
    -------
    channels (2, D, H, W), or with an answer (6, D, H, W) or (B, 6, D, H, W); flags (3,); elements
    (99,) or None.

    Raises
    ------
    ValueError
        If a shape is not that of the volumes.
    """
    condition = condition or Condition()
    if condition.volume is not None and tuple(condition.volume.shape) != field:
        raise ValueError(
            f"the condition is {tuple(condition.volume.shape)} voxels, the volume {field}"
        )
    channels, flags = (t.to(device) for t in condition.channels(scale, field))
    if answer is not None:
        shape = tuple(answer.shape)
        if shape not in ((ANSWER, *field), (count, ANSWER, *field)):
            raise ValueError(
                f"an answer of the data is {ANSWER} channels of the volume's {field} voxels, "
                f"got shape {shape}"
            )
        shown = answer.detach().to(device, torch.float32)
        channels = torch.cat([channels.expand(*shown.shape[:-4], *channels.shape), shown], dim=-4)
    elements = None
    if condition.elements is not None:
        elements = elements_vector(condition.elements).to(device)
    return channels, flags, elements
