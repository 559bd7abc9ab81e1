"""A GPU without a GPU: tensors that have a device, a shape and a type, but no numbers.

Under PyTorch's ``FakeTensorMode`` a tensor that was left on the CPU, or has the wrong type, is an
error as on a GPU. Three things of a machine with a GPU have to be lent: that mixed precision is
there, that a network is built of real weights before it is moved, and a backward pass, since
PyTorch's own asks the driver for streams.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

DEVICE = "cuda"
# found by trying 2.5 to 2.10 with a CUDA build and no driver
FOLLOWS = torch.cuda.is_available() or tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 10)
followed = pytest.mark.skipif(
    not FOLLOWS,
    reason="before PyTorch 2.10 even a tensor without numbers cannot be indexed without a driver",
)
built = [
    pytest.mark.skipif(
        not torch.backends.cuda.is_built(), reason="this PyTorch was built without CUDA"
    ),
    followed,
]


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    """Within it `device="cuda"` works wherever no number is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **options: True)
        patch.setattr(torch.autograd, "grad", _grad)
        patch.setattr(Tensor, "backward", _backward)
        _forget()
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                yield mode
        finally:
            _forget()


@contextmanager
def lent_numbers(answers: Iterable[bool]) -> Iterator[None]:
    """Within :func:`fake_gpu`: work that asks a tensor for numbers goes on with made-up ones.

    Every number is 1 and every array is full of ones; the answers to yes-no questions are given, so
    that both branches of the work can be taken. An array is still only had of a tensor on the CPU.
    """
    asked = iter(answers)

    def array(self: FakeTensor, *, force: bool = False) -> np.ndarray:
        if self.device.type != "cpu":
            raise TypeError(f"can't convert {self.device} device type tensor to numpy")
        with unset_fake_temporarily():
            return torch.ones(tuple(self.shape), dtype=self.dtype).numpy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTensor, "__float__", lambda self: 1.0, raising=False)
        patch.setattr(FakeTensor, "__bool__", lambda self: next(asked), raising=False)
        patch.setattr(FakeTensor, "numpy", array, raising=False)
        known = vars(FakeTensor)["item_memo"]  # where PyTorch's own code looks for a number
        FakeTensor.item_memo = property(lambda self: 1.0, lambda *_: None)
        try:
            yield
        finally:
            FakeTensor.item_memo = known


def _forget() -> None:
    """Empty the package's caches: what was made without numbers must not serve later work."""
    for name, module in list(sys.modules.items()):
        if name.startswith("napari_mepdiff."):
            for value in list(vars(module).values()):
                clear = getattr(value, "cache_clear", None)
                if callable(clear):
                    clear()


def really(make: Any) -> Any:
    """`make`, with real tensors also within the mode: modules can be moved once, from real ones."""

    def made(*args: Any, **options: Any) -> Any:
        with unset_fake_temporarily():
            return make(*args, **options)

    return made


def _grad(
    outputs: Tensor, inputs: Tensor | Sequence[Tensor], grad_outputs: Tensor | None = None
) -> tuple[Tensor, ...]:
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    found = _walk(outputs, grad_outputs)
    return tuple(found[id(t)][1] for t in wanted)


def _backward(self: Tensor, *_args: Any, **_options: Any) -> None:
    for leaf, gradient in _walk(self, None).values():
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def _walk(output: Tensor, gradient: Tensor | None) -> dict[int, tuple[Tensor, Tensor]]:
    """Every leaf and its gradient: nodes are called once all their gradients are there."""
    root = output.grad_fn
    waiting: dict[Any, int] = {root: 0}
    todo = [root]
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None:
                if node not in waiting:
                    waiting[node] = 0
                    todo.append(node)
                waiting[node] += 1
    given: dict[Any, list[Tensor | None]] = {n: [None] * len(n._input_metadata) for n in waiting}
    given[root][output.output_nr] = torch.ones_like(output) if gradient is None else gradient
    leaves: dict[int, tuple[Tensor, Tensor]] = {}
    ready = [root]
    while ready:
        node = ready.pop()
        gradients = given.pop(node)
        for n, expected in enumerate(node._input_metadata):
            found = gradients[n]
            if found is not None:
                assert found.device == expected.device, node
                assert found.dtype == expected.dtype, node
                # what was spread over an axis is summed over it, as PyTorch does between nodes
                gradients[n] = found.sum_to_size(tuple(expected.shape))
        if hasattr(node, "variable"):  # of a leaf
            assert gradients[0] is not None
            leaves[id(node.variable)] = (node.variable, gradients[0])
            continue
        out = node(*gradients)
        for (following, number), part in zip(
            node.next_functions, out if isinstance(out, tuple) else (out,), strict=True
        ):
            if following is None:
                continue
            if part is not None:
                before = given[following][number]
                given[following][number] = part if before is None else before + part
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
    return leaves
