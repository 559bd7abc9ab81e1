"""Settings of the solvers, as forms: a part of the Reconstruct dock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ...reconstruction.registry import SOLVERS
from ..widgets.basic import Section, button, row, words
from ..widgets.forms import Form

if TYPE_CHECKING:
    from ...measurement.dataset import FourDSTEM
    from ...session.session import Session

FIRST = {
    "dps": ("elements", "steps", "samples", "seed"),
    "adam": ("iterations", "learning_rate", "misfit", "non_negative", "seed"),
    "lbfgs": ("iterations", "evaluations", "batch", "misfit", "non_negative", "seed"),
    "atomic": ("elements", "iterations", "misfit"),
    "refine": ("iterations", "modes", "probe", "positions", "misfit"),
}
ELSEWHERE = {
    "weight",
    "schedule",
    "curve",
    "misfit",
    "fraction",
    "inner",
    "guidance",
    "odds",
    "adam_strength",
}  # in the Guidance dock
HIDDEN = {"solver", "engine", "keep"}
FIXED = "It holds for the whole run: stop, and begin a new one for that."
HINTS = {
    "samples": "8 with elements, else 1",
    "passes": "4 with elements, else 1",
    "rho": "1, or 7 for karras",
    "batch": "all",
    "elements": "e.g. Sr, Ti, O",
}


class SettingsSection(Section):
    """The settings that matter most; all others are in `more`, a section of its own.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Settings")
        self.session = session
        self.more = Section("All settings", folded=True)
        self._forms: dict[str, tuple[Form, Form]] = {}
        self._named: tuple[str, ...] = ()  # elements that the file names
        self.crystal = words("", small=True)
        self.use_elements = button(
            "Use",
            "Take these elements over, as if you had typed them: whole atoms can be placed then",
            self._use_elements,
            name="use elements",
        )
        self.offer = row(self.crystal, self.use_elements)
        self.add(self.offer)

    def of_solver(self, name: str) -> tuple[Form, Form]:
        """Forms of a solver, made when it is first chosen."""
        if name not in self._forms:
            model = SOLVERS[name].settings_type()
            base = name.removeprefix("ptyrad-")
            first = [f for f in FIRST[base] if f in model.model_fields]
            skip = {*first, *HIDDEN, *(ELSEWHERE if name == "dps" else ())}
            rest = [f for f in model.model_fields if f not in skip]
            forms = (
                Form(model, first, self._change_settings),
                Form(model, rest, self._change_settings),
            )
            self.add(forms[0])
            self.more.add(forms[1])
            self._forms[name] = forms
        return self._forms[name]

    def _change_settings(self, name: str, value: Any) -> None:
        self.session.change_settings(**{name: value})

    def show_choices(self) -> None:
        """Show the settings of the chosen solver, those of its run where one goes on."""
        solver = self.session.choices.setup.solver
        forms = self.of_solver(solver)
        for name, pair in self._forms.items():
            for form in pair:
                form.setVisible(name == solver)
        settings: Any = self.session.settings_in_force()
        for form in forms:
            form.show_values(settings, HINTS)
        self.lock()

    def lock(self) -> None:
        """Grey out what has no effect, or what the run that goes on cannot take."""
        run = self.session.active
        for name, pair in self._forms.items():
            settings: Any = self.session.settings_in_force(name)
            reasons = dict(settings.idle())
            every = SOLVERS[name].every_pixel
            if every and settings.detector_stride == 1:  # what was set elsewhere can be mended
                reasons["detector_stride"] = f"It takes every detector pixel: {every}."
            if run is not None and run.solver == name:
                fixed = type(settings).model_fields.keys() - settings.live
                reasons |= {**dict.fromkeys(fixed, FIXED), **run.control.idle}
            for form in pair:
                form.block(reasons)
        self._show_offer()

    def read_elements(self, data: FourDSTEM | None) -> None:
        """The elements of a simulated crystal, which its file names; they are offered, not taken.

        A run must not begin otherwise on a file that knows its specimen than on one that does not.
        """
        crystal = None if data is None else data.provenance.get("crystal")
        formula = crystal.get("formula") if isinstance(crystal, dict) else None
        self._named = tuple(dict.fromkeys(re.findall("[A-Z][a-z]?", formula or "")))
        self._show_offer()

    def _show_offer(self) -> None:
        settings: Any = self.session.settings()
        acts = hasattr(settings, "elements") and "elements" not in settings.idle()
        useful = bool(self._named) and acts and set(settings.elements) != set(self._named)
        self.offer.setVisible(useful and self.session.active is None)
        names = ", ".join(self._named)
        self.crystal.setText(f"The file names the elements of its crystal: {names}")

    def _use_elements(self) -> None:
        try:
            self._change_settings("elements", self._named)
        except ValueError as error:
            self.session.report(error, "not taken")
