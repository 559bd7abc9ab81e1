"""Where files are written: the chosen folder or, where none was chosen, one that is named aloud."""

from __future__ import annotations

import tempfile
from pathlib import Path


def refusal(folder: Path) -> str:
    """Why files cannot be written to a folder, found by trying; empty where they can."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mepdiff-"):
            return ""
    except OSError as error:
        return f"nothing can be written to {folder} ({error.strerror or error})"


def usual_folder(chosen: str, data: str) -> Path:
    """The folder for exports.

    Parameters
    ----------
    chosen : str
        What the user chose; it is never replaced by another.
    data : str
        File of the measurement, whose folder it is where nothing was chosen, if that can be
        written to; the home folder if not.
    """
    if chosen:
        return Path(chosen)
    near = Path(data).parent
    return near if data and Path(data).exists() and not refusal(near) else Path.home()
