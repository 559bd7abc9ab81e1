"""Values of the microscope and what is done with them: a part of the Microscope dock."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog

from ...microscope.files import TITLES, Format
from ...session.saving import unused
from ..folders import refusal
from ..widgets.basic import Section, allow, button, combo, row, words
from ..widgets.microscope_table import MicroscopeTable

if TYPE_CHECKING:
    from ...session.jobs import Report
    from ...session.microscope_look import Look
    from ...session.microscopes import Found
    from ..workspace import Workspace

NOTHING = "nothing is refined yet: run the solver refine (Reconstruct dock), or load a file"
NO_DATA = "no 4D-STEM data are open"
KINDS: dict[str, Format] = {
    f"{TITLES['own']} (*_microscope.h5 *.h5)": "own",
    f"{TITLES['ptyrad']} (*.hdf5)": "ptyrad",
    f"{TITLES['py4dstem']} (*.h5)": "py4dstem",
}
LOADED = "Refined microscopes (*.h5 *.hdf5);;All files (*)"


class ValuesOfMicroscope(Section):
    """The table, and the buttons below it.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Microscope")
        self.workspace, self.session = workspace, workspace.session
        self.microscopes = workspace.microscopes
        self.look: Look | None = None
        self.ask_save: Callable[[str], tuple[str, str]] = self._ask_save
        self.ask_load: Callable[[], str] = self._ask_load
        self.sources = combo((), "What is shown as refined: a run of refine, or a file", 12)
        self.sources.activated.connect(self._choose)
        self.estimate_button = button(
            "Estimate",
            "Disk, gain, rotation, defocus and astigmatism by the patterns alone, within seconds "
            "and before any reconstruction",
            self.estimate,
        )
        self.table = MicroscopeTable(self._freed, self.update_buttons)
        self.detail = words("", small=True)
        self.take_button = button(
            "Take over",
            "Put the ticked values into the preparation, as if you had typed them in the Data "
            "dock. One step of undo.",
            self.take_over,
            primary=True,
        )
        self.use_button = button(
            "Use in next run",
            "Let the next runs begin with the refined probe, positions, tilt and background. They "
            "are kept in a file NAME_microscope.h5 in the folder of exports. Can be undone.",
            self.use_in_next_run,
        )
        self.save_button = button(
            "Save…",
            "Write the refined microscope: for a later run here, or as a result of PtyRAD or "
            "py4DSTEM",
            self.save,
            name="save microscope",
        )
        self.load_button = button(
            "Load…",
            "Show a refined microscope of this scan: NAME_microscope.h5 of an earlier run, a "
            "result of PtyRAD, or py4DSTEM's ptychography",
            self.load,
            name="load microscope",
        )
        self.next = words("", small=True)
        self.forget_button = button(
            "As told",
            "Let the next runs begin with the microscope as the data have it. Can be undone.",
            self._forget,
        )
        self.forget_button.hide()
        top = row(self.sources, self.estimate_button)
        top.layout().setStretch(0, 1)
        self.add(
            top,
            self.table,
            self.detail,
            row(self.take_button, self.use_button, self.save_button, self.load_button),
            self.next,
            row(self.forget_button, stretch=True),
        )

    # ---- showing ----------------------------------------------------------------------------
    def show_look(self, look: Look) -> None:
        """What was found, as it is now."""
        self.look = look
        self.table.show_rows(look.rows, look.free)
        self.update_buttons()

    def update_sources(self) -> None:
        """Offer the runs and files that have refined something."""
        names = self.microscopes.sources
        if [self.sources.itemText(n) for n in range(self.sources.count())] != (names or [""]):
            self.sources.clear()
            self.sources.addItems(names or ["nothing refined yet"])
        self.sources.setEnabled(bool(names))
        self.sources.setCurrentIndex(max(0, self.sources.findText(self.microscopes.shown)))

    def update_buttons(self) -> None:
        """Who can act, and why not; what the next run begins with."""
        run, found = self.session.active, None if self.look is None else self.look.found
        busy = "" if run is None else f"{run.name} is still going on: stop it first"
        none = NO_DATA if self.session.data is None else ""
        chosen = self.table.chosen()
        allow(self.estimate_button, none)
        allow(self.load_button, none)
        tick = "" if chosen else "no value is ticked: tick estimated or refined ones in the table"
        allow(self.take_button, none or busy or tick)
        missing = "" if found is not None else none or NOTHING
        allow(self.save_button, missing)
        used = self.session.choices.setup.microscope
        same = found is not None and found.path is not None and str(found.path) == used
        already = "the next run begins with it already" if same else ""
        allow(self.use_button, missing or already)
        refining = run is not None and run.solver == "refine"
        self.table.hold_blocks(
            f"{run.name} goes on: what it refines holds for the whole run" if refining else ""
        )
        self._tell(used, missing, chosen)

    def _tell(self, used: str, missing: str, chosen: dict[str, Any]) -> None:
        name = self.table.looked_at()
        said = {r.name: r.verdict for r in self.look.rows} if self.look is not None else {}
        if said.get(name):
            self.detail.setText(f"<b>{escape(name)}</b>: {escape(said[name])}")
        elif missing:
            self.detail.setText(escape(missing[:1].upper() + missing[1:] + "."))
        else:
            self.detail.setText("" if chosen else "Tick the values to take over.")
        self.detail.setVisible(bool(self.detail.text()))
        self.next.setText(
            f"The next run begins with <b>{escape(Path(used).name)}</b>: probe, positions, tilt "
            "and background of that file, whatever the preparation says."
            if used
            else "The next run begins with the microscope as it is told."
        )
        self.next.setToolTip(used)
        self.forget_button.setVisible(bool(used))

    def _choose(self, index: int) -> None:
        self.microscopes.choose(self.sources.itemText(index))

    # ---- what the user does -----------------------------------------------------------------
    def _freed(self, block: str, free: bool) -> None:
        self.microscopes.set_free(block, free)

    def estimate(self) -> None:
        """Estimate in the background."""
        data = self.session.data

        def work(report: Report) -> Any:
            return self.microscopes.estimate(report)

        def done(found: Any) -> None:
            if self.session.data is data:
                self.microscopes.take_estimate(found)
                for note in found.notes:
                    self.session.message.emit("info", note, "")

        self.workspace.jobs.run("estimate microscope", "estimating", work, done)

    def take_over(self) -> None:
        """Put the ticked values into the preparation; what does not fit is said."""
        rows, chosen = () if self.look is None else self.look.rows, self.table.chosen()

        def change() -> None:
            said = self.microscopes.take_over(chosen, rows)
            self.session.message.emit("info", said, "")

        try:
            if self.workspace.when_looked(change, "not taken over"):
                self.table.untick()
        except ValueError as error:
            self.session.report(error, "not taken over")

    def use_in_next_run(self) -> None:
        """Keep what is shown in a file, and let the next run begin with it."""
        source, folder = self.microscopes.source, self.workspace.export_folder()
        why = refusal(folder)
        asked = ""
        if why:
            asked, _kind = self.ask_save("Keep the refined microscope for the next run")
            if not asked:
                return
        stem = self.session.measurement_name if source is None else _stem(source)

        def work(_report: Report) -> Found | None:
            found = self.microscopes.read_off(source)
            if found is None or (found.path is not None and found.path.exists()):
                return found
            path = Path(asked) if asked else unused(folder / f"{stem}_microscope.h5")
            return self.microscopes.save(path, found=found)

        self.workspace.jobs.run("use microscope", "keeping the microscope", work, self._use)

    def _use(self, found: Found | None) -> None:
        try:
            path = self.microscopes.use_in_next_run(found=found)
        except (ValueError, OSError) as error:
            self.session.report(error, "the next run begins as before")
            return
        self.session.message.emit("info", f"the next run begins with {path}", "")
        self.microscopes.changed.emit()

    def _forget(self) -> None:
        self.session.change("setup", microscope="")

    def save(self) -> None:
        """Ask for a file, and write what is shown there."""
        source = self.microscopes.source
        path, pattern = self.ask_save("Save the refined microscope")
        if not path:
            return
        kind = KINDS.get(pattern, "own")

        def work(_report: Report) -> Any:
            self.microscopes.save(path, kind, self.microscopes.read_off(source))

        def done(_: Any) -> None:
            self.session.message.emit("info", f"wrote {path}: {TITLES[kind]}", "")
            self.microscopes.changed.emit()

        self.workspace.jobs.run("save microscope", "saving the microscope", work, done)

    def load(self) -> None:
        """Ask for a file, and show what it holds."""
        path = self.ask_load()
        if path:
            self.workspace.jobs.run(
                "load microscope",
                f"{Path(path).name} is not shown",
                lambda _report: self.microscopes.read(path),
                self.microscopes.show_file,
            )

    def _ask_save(self, title: str) -> tuple[str, str]:
        source = self.microscopes.source
        stem = self.session.measurement_name if source is None else _stem(source)
        start = str(self.workspace.export_folder() / f"{stem}_microscope.h5")
        return QFileDialog.getSaveFileName(self, title, start, ";;".join(KINDS))

    def _ask_load(self) -> str:
        return self.workspace.ask_file(self, "Load a refined microscope", LOADED)


def _stem(source: Any) -> str:
    """For the name of a file."""
    stem = getattr(source, "file_stem", "") or Path(source.name).stem
    return stem.removesuffix("_microscope")
