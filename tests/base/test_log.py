"""The log: silent as a library, on standard error where it is asked for."""

import subprocess
import sys

CODE = """
import logging, sys, napari_mepdiff
from napari_mepdiff.base import log
if sys.argv[1] != "library":
    log.show(getattr(logging, sys.argv[1]))
    log.show(getattr(logging, sys.argv[1]))
ours = logging.getLogger("napari_mepdiff.physics.engines.torch")
ours.debug("a detail"); ours.info("a note"); ours.warning("short of memory")
logging.getLogger("somebody.else").info("not ours")
assert len(logging.getLogger("napari_mepdiff").handlers) <= 2
assert not logging.getLogger().handlers
"""


def _said(how):
    result = subprocess.run(
        [sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True
    )
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_a_library_says_nothing_of_itself():
    assert _said("library") == []


def test_the_command_line_shows_as_much_as_it_is_asked_for():
    name = "napari_mepdiff.physics.engines.torch"
    assert _said("WARNING") == [f"WARNING {name}: short of memory"]
    assert len(_said("INFO")) == 2
    assert _said("DEBUG")[0] == f"DEBUG {name}: a detail"


MOVED = """
import contextlib, io, logging
from napari_mepdiff.base import log
with contextlib.redirect_stderr(io.StringIO()) as elsewhere:
    log.show()
    logging.getLogger("napari_mepdiff").warning("first")
assert "first" in elsewhere.getvalue()
elsewhere.close()
logging.getLogger("napari_mepdiff").warning("second")
"""


def test_the_log_follows_standard_error_when_that_is_moved():
    """A command called within a program left a log that printed tracebacks of itself."""
    result = subprocess.run(
        [sys.executable, "-c", MOVED], capture_output=True, text=True, check=True
    )
    assert result.stderr.splitlines() == ["WARNING napari_mepdiff: second"]


def test_verbose_and_debug_are_options_of_every_command():
    for option, expected in (("--verbose", "INFO"), ("--debug", "DEBUG")):
        code = (
            "import sys, logging; from napari_mepdiff.cli.main import app; import contextlib\n"
            "with contextlib.suppress(SystemExit): app(sys.argv[1:])\n"
            "print(logging.getLevelName(logging.getLogger('napari_mepdiff').level))"
        )
        out = subprocess.run(
            [sys.executable, "-c", code, option, "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.splitlines()[-1] == expected
