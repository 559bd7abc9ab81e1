"""Where this program keeps what is not the user's: choices, states of runs, caches."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

CONFIG = "MEPDIFF_CONFIG"  # environment variables that name other places
RECOVERY = "MEPDIFF_RECOVERY"
CACHE = "MEPDIFF_CACHE"
_NAME = "napari-mepdiff"


def preferences_file() -> Path:
    """The file of remembered choices."""
    return _given(CONFIG) or Path(platformdirs.user_config_dir(_NAME, appauthor=False)) / (
        "last.json"
    )


def recovery_folder() -> Path:
    """Where running runs leave their states."""
    return _given(RECOVERY) or Path(platformdirs.user_data_dir(_NAME, appauthor=False)) / "runs"


def cache_folder() -> Path:
    """Where what can be computed again is kept."""
    return _given(CACHE) or Path(platformdirs.user_cache_dir(_NAME, appauthor=False))


def places_of_its_own(prefix: str) -> Path:
    """A new folder for this process's choices and states, as of a demonstration or a benchmark.

    It neither takes nor leaves anybody's settings.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    os.environ.update({CONFIG: str(folder / "last.json"), RECOVERY: str(folder / "runs")})
    return folder


def _given(variable: str) -> Path | None:
    text = os.environ.get(variable)
    return Path(text) if text else None
