"""What a device can do, said before the work begins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """Something that can do the work. `free` and `total` in bytes of its memory."""

    name: str
    title: str
    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.title} ({self.free / 1e9:.0f} of {self.total / 1e9:.0f} GB free)"


def devices() -> list[Device]:
    """The GPUs that PyTorch can use, best first, and the CPU."""
    import os

    import psutil
    import torch

    out = []
    for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        try:
            free, total = torch.cuda.mem_get_info(n)
            out.append(Device(f"cuda:{n}", torch.cuda.get_device_name(n), int(free), int(total)))
        except RuntimeError:  # in use by another process alone, or broken
            continue
    out.sort(key=lambda d: -d.free)
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [*out, Device("cpu", f"CPU, {cores} core{'s' if cores > 1 else ''}", int(memory.available), int(memory.total))]


def require_device(device: str) -> str:
    """The device, if a tensor can be made there.

    Raises
    ------
    ValueError
        If it is unknown or not there, with the reason.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"the device {device!r} cannot be used: {reason}; choose 'cpu', or see to the driver") from error
    return device


def has_bf16(device: str) -> bool:
    """Whether bf16 pays there: a processor without its instructions is slower with it than in float32."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check()) if check is not None else False
