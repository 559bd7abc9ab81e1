"""What a device can do, said before the work begins."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

_trusted: set[str] = set()  # devices of a doubtful kind that have passed the self-test
_DOUBTFUL = {
    "mps": (
        "on Apple's GPU (mps) PyTorch may compute three-dimensional convolutions wrongly without a "
        "word (pytorch issue 197114)"
    )
}

# limits that oneDNN knows by name and that leave the processor's bf16 instructions unused
_WITHOUT_BF16 = frozenset(
    ["SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"]
)


@dataclass(frozen=True)
class Device:
    """Something that can do the work. `free` and `total` in bytes of its memory."""

    name: str
    title: str
    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.title} ({self.free / 1e9:.0f} of {self.total / 1e9:.0f} GB free)"


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def devices() -> list[Device]:
    """The GPUs that PyTorch can use, best first, and the CPU."""
    import psutil

    torch = load_torch()
    out = []
    for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        try:
            free, total = torch.cuda.mem_get_info(n)
            out.append(Device(f"cuda:{n}", torch.cuda.get_device_name(n), int(free), int(total)))
        except RuntimeError as error:  # in use by another process alone, or broken
            log.warning("GPU %d is left out: %s", n, first_line(error))
    out.sort(key=lambda d: -d.free)
    memory, cores = psutil.virtual_memory(), cpu_cores()
    title = f"CPU, {cores} core{'s' if cores > 1 else ''}"
    return [*out, Device("cpu", title, int(memory.available), int(memory.total))]


def require_device(device: str) -> str:
    """The device, if a tensor can be made there and what is computed there can be relied on.

    Raises
    ------
    ValueError
        If it is unknown, not there, or of a kind that gives wrong results and has not passed the
        self-test (:func:`napari_mepdiff.prior.self_test.prove`); with the reason and what
        to do.
    """
    torch = load_torch()
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(
            f"the device {device!r} cannot be used: {first_line(error)}; choose 'cpu', "
            "or check its driver"
        ) from error
    doubt = doubtful(device)
    if doubt is not None and device not in _trusted:
        raise ValueError(
            f"the device {device!r} is refused: {doubt}; choose 'cpu'. `mepdiff reconstruct` tries "
            "whether it computes rightly, and takes it if it does"
        )
    return device


def doubtful(device: str) -> str | None:
    """Why results from this kind of device need a proof first; None if they do not."""
    return _DOUBTFUL.get(device.split(":")[0])


def trust(device: str) -> None:
    """Take a doubtful device from now on: it has passed the self-test in this process."""
    _trusted.add(device)


@contextmanager
def on_trial(device: str) -> Iterator[None]:
    """Take a device inside the block whatever its kind: for the self-test."""
    new = device not in _trusted
    _trusted.add(device)
    try:
        yield
    finally:
        if new:
            _trusted.discard(device)


def has_bf16(device: str) -> bool:
    """Whether bf16 pays there: a processor without its instructions is slower with it than in
    float32, and so is one whose oneDNN was told not to use them (``ONEDNN_MAX_CPU_ISA``)."""
    torch = load_torch()
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    limits = (os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"))
    if any(limit.upper() in _WITHOUT_BF16 for limit in limits):
        return False
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check()) if check is not None else False


def to_device(array: Any, device: Any) -> Any:
    """A NumPy array or tensor of the CPU there; on a GPU the copy is queued, and nothing waits for
    it."""
    torch = load_torch()
    tensor = torch.as_tensor(array)
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


# ---- PyTorch itself -----------------------------------------------------------------------------
def load_torch() -> ModuleType:
    """PyTorch.

    Raises
    ------
    OSError
        If its libraries cannot be loaded; the message says what to do.
    """
    try:
        import torch
    except OSError as error:
        raise OSError(torch_trouble(error) or str(error)) from error
    return torch


def torch_trouble(error: BaseException) -> str | None:
    """What to do about an error that comes from loading PyTorch's libraries; None if it is another
    error.

    On Windows, PyTorch 2.9 and later cannot initialise c10.dll once Qt has been loaded ([WinError
    1114]).
    """
    text = " ".join(str(error).split())
    if not isinstance(error, OSError) or not any(
        n in text for n in ("c10", "torch", "WinError 1114")
    ):
        return None
    if sys.platform != "win32":
        return (
            f"PyTorch cannot be loaded: {text}; install it anew (https://pytorch.org/get-started)"
        )
    return (
        f"PyTorch cannot be loaded: {text}. PyTorch 2.9 and later fail on Windows when Qt was "
        "loaded first: start napari with  "
        'python -c "import torch; from napari.__main__ import main; main()"  '
        'or install an earlier one:  pip install "torch<2.9"'
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
