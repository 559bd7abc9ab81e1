"""What a device can do, said before the work begins."""

from __future__ import annotations


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
