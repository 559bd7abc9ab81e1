"""Choosing: choices that change, validated and told, and can be taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from psygnal import Signal

from ..reconstruction.registry import SOLVERS
from ..reconstruction.settings import SolverSettings
from .choices import Choices, valid_fields
from .undo import History, Step, described


class Choosing:
    """What the user chooses, and how it came about. Knows of no measurement and no run.

    Attributes
    ----------
    choices : Choices
        Frozen; replaced by :meth:`change`.
    history : History
        What can be taken back.
    """

    choices_changed = Signal(object, object)  # before, after
    message = Signal(str, str, str)  # level (info, warning, error), text, details

    def __init__(self, choices: Choices | None = None) -> None:
        self.choices = choices or Choices()
        self.history = History()

    def change(self, part: str, *, merge: bool = False, **fields: Any) -> Choices:
        """Change fields of a part of the choices, validated.

        Parameters
        ----------
        part : str
            'preparation', 'setup', 'watching', 'comparison' or 'export'.
        merge : bool
            One step of undo with the change of the same fields just before (a slider that is
            dragged).

        Raises
        ------
        ValueError
            If a value is out of range, or does not fit the measurement; nothing changes then.
        """
        old = getattr(self.choices, part)
        new = type(old).model_validate({**old.model_dump(), **fields})
        self._set(part, new, described(type(old), old.model_dump(), new.model_dump()), merge)
        return self.choices

    def change_settings(
        self, solver: str | None = None, /, *, merge: bool = False, **fields: Any
    ) -> SolverSettings:
        """Change fields of a solver's settings, validated.

        A run of that solver that is going on takes them before its next step. Where it cannot,
        nothing changes, and the reason is told as a message.

        Returns
        -------
        SolverSettings
            Those that hold now, see :meth:`settings`.

        Raises
        ------
        ValueError
            If a value is out of range or does not fit the others; nothing changes then.
        """
        name = solver or self.choices.setup.solver
        before = self.settings(name)
        after = type(before).model_validate({**before.model_dump(), **fields})
        if not self._carried_out(name, after, fields):
            return before
        differing = {**self.choices.settings, name: differing_fields(name, after)}
        words = described(type(after), before.model_dump(), after.model_dump())
        self._set("settings", differing, words, merge, fields.keys())
        return after

    def settings(self, solver: str | None = None) -> SolverSettings:
        """Settings of a solver (the chosen one) for the next run."""
        return settings_kept(solver or self.choices.setup.solver, self.choices.settings)

    def run_settings(self) -> SolverSettings:
        """Settings that a run would begin with; reduced for a preview."""
        if not self.choices.setup.preview:
            return self.settings()
        from ..reconstruction.preview import preview

        return preview(self.settings())

    def layer_renamed(self, before: str, after: str) -> None:
        """A layer has another name: where it is chosen it stays chosen. No step of undo."""
        for part, field in (("setup", "start"), ("export", "region")):

            def named(value: Any, field: str = field) -> Any:
                there = getattr(value, field) == before
                return value.model_copy(update={field: after}) if there else value

            self.history.rewrite(part, named)
            old = self.choices
            new = named(getattr(old, part))
            if new != getattr(old, part):
                self.choices = old.model_copy(update={part: new})
                self.choices_changed.emit(old, self.choices)

    # ---- back and forth --------------------------------------------------------------------
    @contextmanager
    def one_undo_step(self) -> Iterator[None]:
        """All changes inside are one step of undo (from press to release of a slider)."""
        with self.history.one_step():
            yield

    def undo(self, part: str | None = None) -> str | None:
        """Take the last change of choices back, of a part or of all.

        Parameters
        ----------
        part : str, optional
            'preparation', 'setup', 'settings', 'watching', 'comparison', 'export'.

        Returns
        -------
        str or None
            What was taken back ('guidance weight 1 → 0.5'); None if there was nothing, or a run
            that goes on could not follow (told as a message).
        """
        return self._travel(part, undone=False)

    def redo(self, part: str | None = None) -> str | None:
        """Make a change again that was taken back; see :meth:`undo`."""
        return self._travel(part, undone=True)

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self.history.newest())

    @property
    def can_redo(self) -> bool:
        """Whether there is a change to make again."""
        return bool(self.history.newest(undone=True))

    def _travel(self, part: str | None, undone: bool) -> str | None:
        words = []
        for step in self.history.newest(part, undone):
            wanted = step.after if undone else step.before
            if step.part == "settings" and not self._followed(wanted):
                break
            try:
                self._install(step.part, wanted)
            except ValueError as error:
                self.message.emit("warning", f"not taken back: {error}", "")
                break
            self.history.moved(step, undone)
            words.append(step.words)
        return "; ".join(words) or None

    # ---- how a change takes effect ---------------------------------------------------------
    def _set(self, part: str, new: Any, words: str, merge: bool, fields: Any = None) -> None:
        before = getattr(self.choices, part)
        if new == before:
            return
        self._install(part, new)
        if fields is None:
            fields = [n for n in type(new).model_fields if getattr(new, n) != getattr(before, n)]
        self.history.add(Step(part, before, new, frozenset(fields), words, 0), merge)

    def _install(self, part: str, new: Any) -> None:
        """Put a part of the choices in place, or raise ValueError where it does not fit."""
        self.choices_changed.emit(self._replace(part, new), self.choices)

    def _replace(self, part: str, new: Any) -> Choices:
        """The choices with another part; returns those before."""
        old = self.choices
        self.choices = old.model_copy(update={part: new})
        return old

    def _carried_out(self, solver: str, after: SolverSettings, names: Iterable[str]) -> bool:
        """Whether what is going on takes these fields; if not, they do not change."""
        return True

    def _followed(self, wanted: dict[str, dict[str, Any]]) -> bool:
        """Whether what is going on takes settings that come back; if not, they do not."""
        return True


def differing_fields(solver: str, settings: SolverSettings) -> dict[str, Any]:
    """The fields that differ from the solver's defaults."""
    plain = SOLVERS[solver].default().model_dump(mode="json")
    return {k: v for k, v in settings.model_dump(mode="json").items() if v != plain[k]}


def settings_kept(solver: str, kept: dict[str, dict[str, Any]]) -> SolverSettings:
    """Settings of a solver from the fields that the choices keep, by solver."""
    fields = kept.get(solver, {})
    try:
        return SOLVERS[solver].default(**fields)
    except ValueError:  # remembered by another version
        return SOLVERS[solver].default(**valid_fields(solver, fields))
