"""What the columns do not explain, the same in all slices.

The image of atomic sources r ≥ 0: atoms beyond the edge that reach in, faint ones that cannot be
counted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...physics.likelihood import Likelihood
from ...specimen.kernels import atom_kernel
from ..optimisers import LBFGS

MARGIN = 2.0  # Å around the field where sources may stand
GENERIC = 8  # atomic number of their shape


class Rest:
    """Sources, and their image r.

    Parameters
    ----------
    shape : (H, W)
        Of the field.
    pixel_size : (dy, dx)
        Å.
    energy : float
        kV.
    device : torch.device

    Attributes
    ----------
    sources : Tensor
        u, wider than the field by a margin; u² atoms per pixel.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size: tuple[float, float],
        energy: float,
        device: torch.device,
    ) -> None:
        self._pad = tuple(round(MARGIN / n) for n in pixel_size)
        wide = (shape[0] + 2 * self._pad[0], shape[1] + 2 * self._pad[1])
        self._kernel = atom_kernel(GENERIC, wide, pixel_size, energy).to(device)
        # an even start of 0.02 rad in all: the square needs something to grow from
        level = float(0.02 / self._kernel[0, 0])
        self.sources = torch.full(wide, level**0.5, device=device)

    @property
    def image(self) -> Tensor:
        """r (H, W), rad, summed over depth; from 0, since the data do not see a constant phase."""
        image = self._seen(self.sources)
        return image - image.min()

    def fit(self, likelihood: Likelihood, base: Tensor, evaluations: int) -> None:
        """Fit r to the data beside a volume (D, H, W) in rad, by L-BFGS on all positions."""
        free, depth = self.sources.clone(), len(base)
        scale, (py, px) = 1.0 / (10.0 * likelihood.count), self._pad
        optimizer = LBFGS(
            [free],
            lr=1,
            max_iter=evaluations,
            max_eval=int(1.3 * evaluations),
            history_size=10,
            line_search_fn="strong_wolfe",
            tolerance_grad=0,
            tolerance_change=0,
        )

        def closure() -> float:
            loss, gradient = likelihood(base + self._seen(free) / depth)
            wide = torch.nn.functional.pad(gradient.mean(dim=0), (px, px, py, py))
            free.grad = (
                2
                * scale
                * free
                * torch.fft.irfft2(torch.fft.rfft2(wide) * self._kernel, s=free.shape)
            )
            return loss * scale

        optimizer.step(closure)  # type: ignore[arg-type]
        if torch.isfinite(free).all():
            self.sources = free.detach()

    def _seen(self, sources: Tensor) -> Tensor:
        """The image of sources within the field."""
        py, px = self._pad
        wide = torch.fft.irfft2(torch.fft.rfft2(sources.square()) * self._kernel, s=sources.shape)
        return wide[py : wide.shape[0] - py, px : wide.shape[1] - px]
