"""`mepdiff` as its entry point runs it, in this process: without the seconds of a new one."""

from __future__ import annotations

import io
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from napari_mepdiff.cli import main as module


def mepdiff(*arguments: object, cwd: Path | str = ".") -> tuple[int, str]:
    """Exit code and what is printed, as the entry point gives them."""
    said = io.StringIO()
    with (
        chdir(cwd),
        mock.patch.object(sys, "argv", ["mepdiff", *map(str, arguments)]),
        mock.patch.dict("os.environ", COLUMNS="200"),
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        try:
            module.main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()
