"""Options of a command from the fields of a pydantic model, built when the command is used.

So each field of the preparation is an option by its own name, with its unit and description, and
`mepdiff --help` needs to load none of it.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
import typer.main
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic import BaseModel

_NAMES = {"rotation": ["--scan-rotation"], "C30": ["--cs", "--C30"]}


def command_with(models: Callable[[], list[type[BaseModel]]]) -> type[TyperCommand]:
    """A command class with an option for each field of some models.

    The values that were given are found by :func:`given`.

    Parameters
    ----------
    models : callable
        Imports and returns the models.
    """

    class Command(TyperCommand):
        def get_params(self, ctx: Any) -> list[Any]:
            own = super().get_params(ctx)
            taken = {name for p in own for name in p.opts}
            more = [o for model in models() for o in _options(model) if not taken & {*o.opts}]
            return [*own, *more]

    return Command


def given(context: Any, model: type[BaseModel]) -> dict[str, Any]:
    """The fields of a model that were given as options."""
    values = context.meta.get("mepdiff.fields", {})
    return {name: values[name] for name in model.model_fields if name in values}


def _options(model: type[BaseModel]) -> list[Any]:
    """The options, made by typer from a function with such parameters."""
    parameters = []
    for name, field in model.model_fields.items():
        kind = _kind(field.annotation)
        if kind is None:
            continue
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        text = ", ".join(str(t) for t in (field.title, unit, field.description) if t)
        declared = _NAMES.get(name, [f"--{name.replace('_', '-')}"])
        option = typer.Option(
            *declared, help=text, callback=_keeper(name), expose_value=False, show_default=False
        )
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, option],
            )
        )

    def function() -> None: ...

    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return [p for p in typer.main.get_command(app).params if p.name in model.model_fields]


def _keeper(name: str) -> Callable[[typer.Context, Any], None]:
    def keep(context: typer.Context, value: Any) -> None:
        if value is not None:
            context.meta.setdefault("mepdiff.fields", {})[name] = value

    return keep


def _kind(annotation: Any) -> type | None:
    """The plain type of an option; None where a field is none of a word, a number or a switch."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        kinds = [a for a in get_args(annotation) if a is not type(None)]
        return _kind(kinds[0]) if len(kinds) == 1 else None
    if origin is Literal:
        return str
    return annotation if annotation in (bool, int, float, str) else None
