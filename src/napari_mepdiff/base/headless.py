"""Headless: a screen for napari where there is none (Linux without a display): Xvfb with Mesa's
software OpenGL."""

from __future__ import annotations

import os
import shutil
import sys

PACKAGES = (
    "xvfb", "xauth", "libegl1", "libgl1", "libgl1-mesa-dri",
    "libxkbcommon-x11-0", "libdbus-1-3", "libfontconfig1", "libglib2.0-0",
    "libxcb-cursor0", "libxcb-icccm4", "libxcb-keysyms1", "libxcb-image0",
    "libxcb-render-util0", "libxcb-xkb1", "libxcb-shape0",
)  # fmt: skip
SCREEN = "1600x1000x24"


def has_display() -> bool:
    """Whether Qt will find a screen."""
    return not sys.platform.startswith("linux") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def ensure_display() -> None:
    """Where there is no display, run this very program again under Xvfb.

    Raises
    ------
    RuntimeError
        If Xvfb is not installed; says how to get it.
    """
    if has_display():
        return
    runner = shutil.which("xvfb-run")
    if runner is None or shutil.which("Xvfb") is None:
        raise RuntimeError(
            "there is no display, and no Xvfb to make one: run `make display` as root, or install "
            + " ".join(PACKAGES)
        )
    os.environ.setdefault("QT_API", "pyqt6")
    os.execv(
        runner, [runner, "-a", "-s", f"-screen 0 {SCREEN}", sys.executable, *sys.orig_argv[1:]]
    )


def main() -> None:
    """``python -m napari_mepdiff.base.headless``: what to install."""
    print(" ".join(PACKAGES))


if __name__ == "__main__":
    main()
