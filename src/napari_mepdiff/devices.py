"""Whether a device can be used, said before the work begins."""

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
