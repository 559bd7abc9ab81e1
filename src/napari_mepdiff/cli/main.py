"""`mepdiff …`: parse, call, print. Everything heavy is imported by the command that uses it."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from ..base.log import show
from . import automatic, data, diagnose, judge, microscope, prior, run, train

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Multislice electron ptychography: simulate, look, reconstruct, judge, export.",
)


def main() -> None:
    """Entry point: an error is a line that says what to do, not a traceback."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        print("mepdiff: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        from ..session.work import plain_words

        print(f"mepdiff: {plain_words(error)}", file=sys.stderr)
        if not isinstance(error, (ValueError, OSError, KeyError, MemoryError, ArithmeticError)):
            kind = type(error).__name__
            print(f"({kind}: run it with --debug to see where)", file=sys.stderr)
        raise SystemExit(1) from None


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and all that the log says.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more of what happens.")] = False,
) -> None:
    show(logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING)
    if version:
        from .. import __version__

        print(__version__)
        raise typer.Exit


for _commands in (data, automatic, microscope, run, judge, diagnose, train, prior):
    _commands.register(app)
