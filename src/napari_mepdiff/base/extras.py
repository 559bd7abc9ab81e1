"""Packages that only some of the work needs, and what to do where one is missing.

The base installation opens, reconstructs and shows. What reads a maker's format, simulates, trains
or writes a film stands on packages of their own; they come with an *extra*, as in ``pip install
"napari-mepdiff[formats]"``. Every import of such a package goes through :func:`require`.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

PACKAGES = {
    "imageio_ffmpeg": "imageio-ffmpeg",
    "ome_zarr": "ome-zarr",
    "pyfftw": "pyFFTW",
    "rsciio": "rosettasciio",
}  # by module, where the name to install is another


class MissingExtra(ImportError, ValueError):
    """A package that this piece of work needs is missing or cannot be loaded.

    Attributes
    ----------
    name : str
        The module.
    extra : str
        What to install: ``napari-mepdiff[extra]``.
    """

    def __init__(self, message: str, *, name: str | None = None, extra: str = "") -> None:
        super().__init__(message, name=name)
        self.extra = extra

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def package_of(module: str) -> str:
    """The name under which a module's package is installed."""
    top = module.partition(".")[0]
    return PACKAGES.get(top, top)


def available(module: str) -> bool:
    """Whether the package of a module is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):  # half installed, or put out of reach
        return False


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Such as ``"rsciio.digitalmicrograph"``.
    extra : str
        The extra of this package that brings it.
    what : str
        The work that needs it, as the start of a sentence: ``"Reading .dm4 files"``.

    Returns
    -------
    module
        The module named, a submodule itself.

    Raises
    ------
    MissingExtra
        If it is not installed, or is and cannot be loaded; the message says what is missing, for
        what, and how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, missing = package_of(module), getattr(error, "name", None)
        command = f'pip install "napari-mepdiff[{extra}]"'
        if isinstance(error, ModuleNotFoundError) and missing in _parents(module):
            text = f"{what} needs the package {package}, which is not installed: {command}"
        else:
            text = (
                f"{what} needs the package {package}, which cannot be loaded ({error}): {command}"
            )
        raise MissingExtra(text, name=module, extra=extra) from error


def _parents(module: str) -> set[str]:
    """``a.b.c`` → ``{a, a.b, a.b.c}``."""
    parts = module.split(".")
    return {".".join(parts[: n + 1]) for n in range(len(parts))}
