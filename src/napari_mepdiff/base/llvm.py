"""Two copies of LLVM in one process: Mesa's OpenGL drivers bring one, Triton (of PyTorch's
compiler) another.

On Linux the process dies when Triton is imported after Mesa has loaded its own (seen with Mesa
22.3 and Triton 3). Nothing of ours imports Triton; what does is asked not to, with the reason.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def triton_would_crash() -> bool:
    """Whether importing Triton now would end this process."""
    if not sys.platform.startswith("linux") or "triton" in sys.modules:
        return False
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        return "libLLVM" in Path("/proc/self/maps").read_text()
    except OSError:
        return False
