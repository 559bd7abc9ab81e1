"""One button from a bare measurement to a volume: a part of the Reconstruct dock."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QLabel, QSpinBox

from ...reconstruction.estimate import clock
from ...session.plan import ROUNDS, Plan, RunStep, asked_in, lacking, plan_of
from ..widgets.basic import COLOURS, allow, button, row, words
from ..widgets.boxes import NoWheel

if TYPE_CHECKING:
    from ...reconstruction.estimate import Estimate
    from ...session.jobs import Report
    from ..workspace import Workspace

PAUSE = 700  # ms after the last change: the estimate of Start goes first
MARKS = {"waiting": "○", "going on": "▸", "done": "✓", "stopped": "■", "failed": "✗"}
WHAT = (
    "From the patterns to a volume, without anything else to choose. What nobody told of the "
    "microscope is read off the patterns and taken over into the preparation (one step of undo); "
    "what you told stays. Then volume and microscope are found together, and then the volume again "
    "with that microscope and with what crystals look like. Each is a run of its own below. Stop "
    "ends it where it is."
)

AGAIN = (
    "How often the volume is sampled. Before each further time the microscope is refined again, "
    "from that volume: coma, tilt or the size of the source, which free voxels can take up, are "
    "told apart then."
)


class Steps(QLabel):
    """Text that changes often and wraps; it has the height that it needs at its width.

    A section would give it the height that it needs at the width of its choice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setStyleSheet("font-size: 11px;")
        self.hide()

    def show_text(self, text: str) -> None:
        """Set it, if it is another; without a text it is hidden."""
        if text != self.text():
            self.setText(text)
            self._fit()
        self.setVisible(bool(text))

    def resizeEvent(self, event: Any) -> None:
        """Another width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        self.setMinimumHeight(max(0, self.heightForWidth(self.width())))


class AutomaticPart(QObject):
    """The button, and below it the steps with what each costs and what it took over.

    Parameters
    ----------
    workspace : Workspace
    parent : QObject
    """

    def __init__(self, workspace: Workspace, parent: QObject) -> None:
        super().__init__(parent)
        self.workspace, self.session, self.chain = workspace, workspace.session, workspace.chain
        self.button = button("Automatic", WHAT, lambda: workspace.do_automatic(self.rounds.value()))
        self.rounds = QSpinBox()
        self.rounds.setRange(1, 9)
        self.rounds.setValue(ROUNDS)
        self.rounds.setPrefix("rounds: ")
        self.rounds.setToolTip(AGAIN)
        self.rounds.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.rounds.installEventFilter(NoWheel(self.rounds))
        self.rounds.valueChanged.connect(lambda _n: self.changed())
        self.total, self.said = words("", small=True), Steps()
        self.row = row(self.button, self.rounds, self.total)
        self.row.layout().setStretch(2, 1)
        self._costs: tuple[Any, tuple[Estimate | None, ...]] = (None, ())  # for which plan
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(PAUSE)
        self._wait.timeout.connect(self.measure)

    def changed(self) -> None:
        """Measurement, choices, or the steps that go on."""
        self.show_steps()
        if not self.chain.going_on and self.session.active is None:
            self._wait.start()

    # ---- what it shows ----------------------------------------------------------------------
    def show_steps(self) -> None:
        """The steps that go on, or have ended; and who can act."""
        run, data = self.session.active, self.session.data
        if self.chain.going_on:
            reason = f"{self.chain.line} goes on"
        elif run is not None:
            reason = f"{run.name} is still going on: stop it first"
        else:
            reason = "no 4D-STEM data are open" if data is None else lacking(data)
        self.rounds.setEnabled(not self.chain.going_on)
        self.button.setProperty("tip", self._tip())
        allow(self.button, reason)
        self.total.setText(self._total())
        self.said.show_text("".join(self._blocks()))

    def _blocks(self) -> list[str]:
        """A block for each step, with what came of it below."""
        blocks = []
        for number, stage in enumerate(self.chain.stages, 1):
            head = f"{MARKS[stage.state]} {number}. {escape(stage.step.title)}"
            if stage.run:
                head += f" ({escape(stage.run.split(' · ')[0])})"
            if stage.state == "going on":
                cost = "" if stage.cost is None else f": {escape(str(stage.cost))}"
                head = f"<b>{head}</b>{cost}"
            blocks += [f"<div>{head}</div>", *map(_indented, stage.notes)]
        blocks += map(_indented, self.chain.notes)
        if self.chain.reason:
            colour = COLOURS["error" if self.chain.state == "failed" else "warning"]
            blocks.append(f"<div style='color:{colour}'>{escape(self.chain.reason)}</div>")
        return blocks

    def _total(self) -> str:
        """What all steps will take, as far as that is known."""
        plan, (key, costs) = self._plan(), self._costs
        if plan is None or self.chain.going_on or key != self._key() or None in costs:
            return ""
        seconds = sum(cost.seconds for cost in costs if cost is not None)
        return f"{len(plan.steps)} steps, roughly {clock(seconds)}"

    def _tip(self) -> str:
        """What it does, and what each step will take as far as that is known."""
        plan = self._plan()
        if plan is None:
            return WHAT
        key, costs = self._costs
        known = iter(costs if key == self._key() else ())
        lines = []
        for number, step in enumerate(plan.steps, 1):
            cost = next(known, None) if isinstance(step, RunStep) else "seconds"
            lines.append(f"{number}. {step.title}" + (f": {cost}" if cost is not None else ""))
        return "\n".join([WHAT, "", *lines, *plan.notes])

    # ---- what it will take ------------------------------------------------------------------
    def _plan(self) -> Plan | None:
        data = self.session.data
        if data is None or lacking(data):
            return None
        try:
            return plan_of(data, asked_in(self.session, self.rounds.value()))
        except ValueError:
            return None

    def _key(self) -> Any:
        choices = self.session.choices
        rounds, path = self.rounds.value(), self.session.path
        return choices.setup, choices.settings, choices.preparation, path, rounds

    def measure(self) -> None:
        """Measure what the steps will take, in the background, while the button is in sight."""
        plan, data, key = self._plan(), self.session.data, self._key()
        if plan is None or data is None or self._costs[0] == key or not self.button.isVisible():
            return
        jobs = self.workspace.jobs
        if self.chain.going_on or self.session.active is not None:
            return
        if jobs.busy("look") or jobs.busy("estimate"):
            self._wait.start()
            return

        def work(_report: Report) -> tuple[Estimate | None, ...]:
            from ...session.stages import costs_of

            return costs_of(data, plan)

        def done(found: tuple[Estimate | None, ...]) -> None:
            if key == self._key():
                self._costs = key, found
                self.show_steps()

        jobs.run("cost of the steps", "estimating time", work, done, lambda _e: None, shown_in=self)


def _indented(note: str) -> str:
    return f"<div style='margin-left:14px; text-indent:-6px'>· {escape(note)}</div>"
