"""Undo: what was changed, part by part, so that it can be taken back and said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

DEPTH = 100  # steps
WINDOW = 1.0  # s within which changes of one field are one step, where that is asked for


@dataclass(frozen=True)
class Step:
    """One part of the choices before and after a change.

    Attributes
    ----------
    part : str
        Name of the part.
    before, after
        Its values.
    fields : frozenset of str
        What was changed.
    words : str
        For people, e.g. 'guidance weight 1 → 0.5'.
    group : int
        Steps of one group are taken back together.
    """

    part: str
    before: Any
    after: Any
    fields: frozenset[str]
    words: str
    group: int


class History:
    """Steps that were made, and steps that were taken back.

    Parameters
    ----------
    clock : callable
        Seconds; for merging.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done: list[Step] = []
        self._undone: list[Step] = []
        self._group = 0
        self._open = 0  # depth of one_step
        self._when = -float("inf")

    def add(self, step: Step, merge: bool = False) -> None:
        """A change was made. With `merge` it joins one of the same fields just before."""
        now = self._clock()
        last = self._done[-1] if self._done else None
        joins = last is not None and last.part == step.part and last.after == step.before
        same_group = self._open and last is not None and last.group == self._group
        if (
            last is not None
            and joins
            and (same_group or (merge and last.fields == step.fields and now - self._when < WINDOW))
        ):
            self._done[-1] = Step(
                step.part,
                last.before,
                step.after,
                last.fields | step.fields,
                step.words,
                last.group,
            )
            if last.before == step.after:
                self._done.pop()
        else:
            if not self._open:
                self._group += 1
            self._done.append(
                Step(step.part, step.before, step.after, step.fields, step.words, self._group)
            )
            del self._done[:-DEPTH]
        self._when = now
        self._undone = [s for s in self._undone if s.part != step.part]

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """All that is changed inside is taken back at once."""
        if not self._open:
            self._group += 1
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._when = -float("inf")

    def newest(self, part: str | None = None, undone: bool = False) -> list[Step]:
        """What undo (or redo) would take, of a part or of all, newest first."""
        steps = [s for s in (self._undone if undone else self._done) if part in (None, s.part)]
        return [s for s in reversed(steps) if s.group == steps[-1].group] if steps else []

    def rewrite(self, part: str, change: Callable[[Any], Any]) -> None:
        """What a part's steps lead to is called otherwise now (a layer was renamed)."""
        for steps in (self._done, self._undone):
            for n, step in enumerate(steps):
                if step.part == part:
                    before, after = change(step.before), change(step.after)
                    steps[n] = replace(step, before=before, after=after)

    def moved(self, step: Step, undone: bool) -> None:
        """A step was taken back (or made again)."""
        source, target = (self._undone, self._done) if undone else (self._done, self._undone)
        source.remove(step)
        target.append(step)
        self._when = -float("inf")


def described(model: type[BaseModel] | None, before: dict[str, Any], after: dict[str, Any]) -> str:
    """What differs, in words: 'guidance weight 1 → 0.5'.

    Parameters
    ----------
    model : type, optional
        Where the fields have their titles.
    before, after : dict
        Values by field.
    """
    names = [n for n in after if before.get(n) != after[n]] + [n for n in before if n not in after]
    words = []
    for name in names:
        field = None if model is None else model.model_fields.get(name)
        title = (field.title if field is not None else None) or name.replace("_", " ")
        title = title if title[:2].isupper() else title[:1].lower() + title[1:]
        words.append(f"{title} {_value(before.get(name))} → {_value(after.get(name))}")
    if len(words) > 3:
        words = [*words[:2], f"and {len(words) - 2} more"]
    return ", ".join(words)


def _value(value: Any) -> str:
    if value is None or value == "" or value == () or value == []:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(v) for v in value) if len(value) < 5 else f"{len(value)} values"
    return str(value)
