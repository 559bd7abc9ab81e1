"""PyTorch's Adam and L-BFGS without PyTorch's compiler.

The optimisers of ``torch.optim`` load the compiler (``torch._dynamo``, and Triton with it) when
the first of them is made: seconds of importing for nothing, since nothing is compiled, and on
Linux the end of the process where OpenGL drivers have loaded another copy of LLVM before. Their
methods are only wrapped to hide them from the compiler; here they stand unwrapped, and do the same
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(function, "__wrapped__", function)


class LBFGS(torch.optim.LBFGS):
    """``torch.optim.LBFGS``."""


class Adam(torch.optim.Adam):
    """``torch.optim.Adam``."""

    step = torch.no_grad()(_unwrapped(torch.optim.Adam.step))  # type: ignore[assignment]


for _class in (LBFGS, Adam):
    for _name in _WRAPPED:
        setattr(_class, _name, _unwrapped(getattr(torch.optim.Optimizer, _name)))
