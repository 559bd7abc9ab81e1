"""Guard against two copies of LLVM in one process: Mesa's OpenGL drivers bring one, Triton (a part of PyTorch's compiler) another.

On Linux, loading Triton after Mesa has loaded its libLLVM crashes the process (seen with Mesa 22.3 and Triton 3: importing
``torch.optim`` pulls Triton in). Nothing here compiles with Triton, so it is declared absent there; PyTorch copes with that.
"""

from __future__ import annotations

import sys
from pathlib import Path


def avoid_llvm_clash() -> bool:
    """Declare Triton absent where loading it would crash. Returns whether that was needed."""
    if not sys.platform.startswith("linux") or "triton" in sys.modules:
        return False
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return False
    if "libLLVM" not in maps:
        return False
    sys.modules["triton"] = None  # type: ignore[assignment]  # "import triton" now raises ImportError
    return True
