"""Workspace: session, runner, jobs and layers of one viewer, made once and shared by its docks."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QFileDialog, QWidget

from ..measurement.preparation import Unseen
from ..session import preferences as memory
from ..session.chain import Chain
from ..session.microscopes import Microscopes
from ..session.plan import ROUNDS
from ..session.session import Session
from .files import Files
from .folders import usual_folder
from .jobs import Jobs
from .keys import Keys
from .layer_data import volume_of
from .layers import LayerBook
from .measurement_layers import MeasurementLayers
from .run_layers import RunLayers
from .runner import Runner
from .viewers import itself
from .window import Window

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..session.jobs import Report
    from ..session.runs import RunRecord

_WORKSPACES: dict[int, Workspace] = {}


def workspaces() -> list[Workspace]:
    """Those of all viewers."""
    return list(_WORKSPACES.values())


def workspace_of(viewer: Any) -> Workspace:
    """The workspace of a viewer."""
    real = itself(viewer)
    known = _WORKSPACES.get(id(real))
    if known is None:
        known = _WORKSPACES[id(real)] = Workspace(real)
        weakref.finalize(real, _WORKSPACES.pop, id(real), None)
    return known


class Workspace(QObject):
    """What the docks share.

    Attributes
    ----------
    session : Session
    runner : Runner
    jobs : Jobs
    book : LayerBook
    run_layers : RunLayers
    measurement_layers : MeasurementLayers
    microscopes : Microscopes
    chain : Chain
    files : Files
    window : Window
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        choices, self.last_path, self.last_options, exported = memory.load()
        self.session = Session(choices, wait=False)
        self.session.exported = exported
        self.runner = Runner(self.session, self)
        self.jobs = Jobs(self.session.report, self)
        self.book = LayerBook(viewer)
        self.run_layers = RunLayers(self.book)
        self.measurement_layers = MeasurementLayers(self.book, self.session)
        self.microscopes = Microscopes(self.session)
        self.chain = Chain(self.session, self.runner, self.jobs, self.microscopes)
        self.files = Files(self)
        self.book.renamed.connect(self.session.layer_renamed)
        self.runner.arrived.connect(self._arrived)
        self.session.run_changed.connect(self._run_changed)
        self.session.choices_changed.connect(self._remember_soon)
        self.session.measurement_changed.connect(self._measured)
        self.session.message.connect(self._tell)
        self.window = Window(self)
        self._closed = False
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(500)
        self._later.timeout.connect(self.remember)
        self.keys = Keys(viewer, lambda name: getattr(self, f"do_{name}")())

    def watch_window(self, widget: QWidget) -> None:
        """Called by each dock when it is shown: ask before the window is closed in mid-run."""
        self.window.watch(widget)

    def close(self) -> None:
        """Stop work, remember, let go. Nothing is waited for."""
        if self._closed:
            return
        self._closed = True
        self.remember()
        self._later.stop()
        self.chain.close()
        self.jobs.shut()
        self.runner.stop_watching()
        self.window.close()
        self.run_layers.close()
        self.microscopes.close()
        self.book.close()
        self.keys.release()
        for run in self.session.runs:
            run.frames.close()
        for name in (
            "measurement_changed",
            "summary_changed",
            "choices_changed",
            "run_added",
            "run_changed",
            "settings_taken",
            "frame_shown",
            "exported_changed",
            "message",
        ):
            getattr(self.session, name).disconnect()
        _WORKSPACES.pop(id(self.viewer), None)
        with contextlib.suppress(RuntimeError):
            self.deleteLater()  # by Qt, in this thread: garbage collection might, in any

    # ---- memory -----------------------------------------------------------------------------
    def _remember_soon(self, *_: Any) -> None:
        if not self._closed:
            self._later.start()

    def remember(self) -> None:
        """Write down what shall be found again."""
        s = self.session
        options = {k: v for k, v in s.open_options.items() if k in ("scan_shape", "dataset")}
        memory.save(
            s.choices,
            s.path or self.last_path,
            options if s.path else self.last_options,
            s.exported,
        )

    # ---- preparing --------------------------------------------------------------------------
    def when_looked(self, change: Callable[[], Any], what: str) -> bool:
        """Change the preparation; where that needs a pass over all patterns, after a job for it.

        Parameters
        ----------
        change : callable
            Changes the session; called again after the pass.
        what : str
            For people: what did not happen, where the change turns out not to fit after the pass.

        Returns
        -------
        bool
            Whether it is done already.
        """
        try:
            change()
        except Unseen as unseen:

            def done(_: Any) -> None:
                try:
                    self.when_looked(change, what)
                except ValueError as error:
                    self.session.report(error, what)

            self.jobs.run("prepare", "looking for faulty pixels", unseen.look, done)
            return False
        return True

    def _measured(self, data: FourDSTEM | None) -> None:
        """Look through data that are new or prepared otherwise; show their virtual image."""
        if data is None:
            return

        def work(report: Report) -> Any:
            from ..measurement.checks import validate
            from ..measurement.detectors import summary

            seen = summary(data, lambda f: report(0.9 * f))
            return seen, validate(data, seen)

        def done(result: Any) -> None:
            if self.session.data is data:
                self.session.looked_through(*result)

        self.jobs.run("look", "looking through the data", work, done)

    # ---- running ----------------------------------------------------------------------------
    def start(self, checkpoint: Any = None) -> RunRecord | None:
        """Begin a run with the present choices; what is wrong is said, not raised."""
        try:
            if self.chain.going_on:
                raise ValueError(f"{self.chain.line} goes on: stop it first")
            run = self.runner.start(self._start_volume(), checkpoint)
        except (ValueError, RuntimeError, OSError) as error:
            self.session.report(error, "the run was not started")
            return None
        return run

    def _start_volume(self) -> Any:
        name = self.session.choices.setup.start
        if not name:
            return None
        if name not in self.viewer.layers:
            raise ValueError(
                f"the layer {name!r}, from which the run shall start, is gone: choose another one"
            )
        return np.array(volume_of(self.viewer.layers[name], check=False).to_unit("rad").array)

    def _arrived(self, run: RunRecord, frame: Any) -> None:
        if self._closed:
            return
        watching = self.session.choices.watching
        if watching.follow:
            self.run_layers.show(run, frame, prediction=watching.prediction, sweep=watching.sweep)
        self.session.frame_shown.emit(run)

    def _run_changed(self, run: RunRecord) -> None:
        if (
            run.state in ("done", "stopped", "failed")
            and run.problem is not None
            and not self._closed
            and run in self.session.runs
        ):
            self.run_layers.finish(run)

    # ---- folders and messages ---------------------------------------------------------------
    def export_folder(self) -> Path:
        """The folder that was chosen; where none was, that of the data, or home."""
        return usual_folder(self.session.choices.export.folder, self.session.path)

    def _tell(self, level: str, text: str, details: str) -> None:
        """A notification of napari's own, besides the notice in the docks."""
        from napari.utils import notifications

        if self._closed:
            return
        if level == "error":
            notifications.notification_manager.dispatch(notifications.Notification(text, "error"))
        elif level == "warning":
            notifications.notification_manager.dispatch(notifications.Notification(text, "warning"))

    def ask_file(self, parent: QWidget, title: str, pattern: str) -> str:
        """A file to open."""
        start = (
            str(Path(self.session.path).parent)
            if Path(self.session.path).exists()
            else str(Path.home())
        )
        return QFileDialog.getOpenFileName(parent, title, start, pattern)[0]

    # ---- what keys, buttons and the palette do ----------------------------------------------
    def do_toggle(self) -> None:
        """Start a run, or go on with a paused one."""
        run = self.session.active
        if run is None:
            self.start()
        elif run.state == "paused":
            self.runner.resume()

    def do_automatic(self, rounds: int = ROUNDS) -> None:
        """From what the patterns say to a volume, step by step, sampled so many times."""
        try:
            self.chain.start(self.export_folder(), rounds)
        except (ValueError, OSError) as error:
            self.session.report(error, "nothing was started")

    def do_pause(self) -> None:
        """Hold before the next step."""
        self.runner.pause()

    def do_hold(self) -> None:
        """Hold before the next step, or go on."""
        run = self.session.active
        if run is not None and run.state == "paused":
            self.runner.resume()
        else:
            self.runner.pause()

    def do_single(self) -> None:
        """One step, then hold."""
        self.runner.single()

    def do_stop(self) -> None:
        """End after the present step; asked again while that takes long, do not wait for it."""
        if self.session.active is None:
            self.chain.stop()
        self.runner.stop_or_leave()

    def do_undo(self) -> None:
        """Take the last change of settings back."""

        def take_back() -> None:
            undone = self.session.undo()
            text = f"taken back: {undone}" if undone else "there is nothing to undo"
            self.session.message.emit("info", text, "")

        self.when_looked(take_back, "not taken back")

    def do_redo(self) -> None:
        """Make it again."""
        self.when_looked(self.session.redo, "not made again")

    def do_back(self) -> None:
        """Back ten steps, and on from there."""
        run = self.session.active
        if run is not None and run.frame is not None:
            self.runner.back(max(0, run.frame.step - 10))
