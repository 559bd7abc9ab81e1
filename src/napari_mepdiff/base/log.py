"""The log of this package: silent as a library, on standard error where the command line asks for
it."""

from __future__ import annotations

import logging
import sys

NAME = "napari_mepdiff"
_FORMAT = "%(levelname)s %(name)s: %(message)s"


class _StandardError(logging.Handler):
    """To standard error as it is when a record comes, not as it was when the handler was made."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr)
        except Exception:  # as all handlers do
            self.handleError(record)


def quiet() -> None:
    """What a library does: its records go where the application sends them, and else nowhere."""
    log = logging.getLogger(NAME)
    if not any(isinstance(h, logging.NullHandler) for h in log.handlers):
        log.addHandler(logging.NullHandler())


def show(level: int = logging.WARNING) -> None:
    """Print this package's records from `level` on to standard error; other packages' are left
    alone.

    Called again, it changes the level.
    """
    log = logging.getLogger(NAME)
    shown = next((h for h in log.handlers if h.get_name() == NAME), None)
    if shown is None:
        shown = _StandardError()
        shown.set_name(NAME)
        shown.setFormatter(logging.Formatter(_FORMAT))
        log.addHandler(shown)
    shown.setLevel(level)
    log.setLevel(level)
