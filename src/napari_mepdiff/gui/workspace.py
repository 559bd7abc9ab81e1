"""Workspace: session, runner, jobs and layers of one viewer, made once and shared by its docks."""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from . import memory
from .guard import avoid_llvm_clash
from .jobs import Jobs
from .layers import KEY, LayerBook, scan_affine, volume_of
from .runner import Runner
from .session import Session

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..specimen.volume import Volume
    from .record import RunRecord

_WORKSPACES: dict[int, Workspace] = {}
LOADED = 2 * 1024**3  # bytes of patterns that are held in memory, so that looking is quick


def workspace_of(viewer: Any) -> Workspace:
    """The workspace of a viewer."""
    avoid_llvm_clash()
    real = getattr(viewer, "__wrapped__", viewer)
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
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        choices, self.last_path, self.last_options, exported = memory.load()
        self.session = Session(choices)
        self.session.exported = exported
        self.runner = Runner(self.session, self)
        self.jobs = Jobs(self.session.report, self)
        self.book = LayerBook(viewer)
        self.runner.arrived.connect(self._arrived)
        self.session.run_changed.connect(self._run_changed)
        self.session.choices_changed.connect(self._remember_soon)
        self.session.measurement_changed.connect(self._measured)
        self.session.message.connect(self._tell)
        self._window: Any = None
        self._closed = False
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(500)
        self._later.timeout.connect(self.remember)
        self._bind_keys()

    # ---- the window --------------------------------------------------------------------------------------------
    def watch_window(self, dock: QWidget) -> None:
        """Called by each dock when it is shown: ask before the window is closed in mid-run."""
        window = dock.window()
        if self._window is None and window is not None and window.inherits("QMainWindow"):
            self._window = window
            window.installEventFilter(self)
            window.destroyed.connect(self.close)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Closing the window: ask where a run goes on, save its volume, remember the choices."""
        if event.type() == QEvent.Type.Close and watched is self._window and not self._closed:
            if not self.may_close():
                event.ignore()
                return True
            self.remember()
            QTimer.singleShot(0, self._close_if_gone)  # napari may ask too, and the user may stay
        return False

    def _close_if_gone(self) -> None:
        try:
            gone = self._window is None or not self._window.isVisible()
        except RuntimeError:  # its C++ part is deleted
            gone = True
        if gone:
            self.close()

    def may_close(self) -> bool:
        """Ask what shall become of a run that goes on. False: stay."""
        run = self.session.active
        if run is None:
            return True
        answer = self.ask_closing(run) if memory.preference("ask_before_closing", True) else "save"
        if answer == "cancel":
            return False
        self.runner.stop()
        self.runner.wait(120)
        if answer == "save" and run.frame is not None:
            path = self.partial_path(run)
            try:
                from ..export.volumes import save_volume

                save_volume(run.volume(), path)
                self.session.note_exported([path])
            except (OSError, ValueError) as error:
                self.session.report(error, "the partial volume could not be saved")
                return False
        return True

    def ask_closing(self, run: RunRecord) -> str:
        """'save', 'discard' or 'cancel'."""
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle("A reconstruction is going on")
        step = "no step yet" if run.frame is None else f"step {run.frame.step} of {run.frame.total}"
        box.setText(f"{run.name} is going on ({step}).")
        box.setInformativeText(f"Its volume can be kept in\n{self.partial_path(run)}")
        save = box.addButton("Stop, save and close", QMessageBox.ButtonRole.AcceptRole)
        discard = box.addButton("Close without saving", QMessageBox.ButtonRole.DestructiveRole)
        stay = box.addButton("Stay", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(stay)
        box.exec()
        clicked = box.clickedButton()
        return "save" if clicked is save else "discard" if clicked is discard else "cancel"

    def partial_path(self, run: RunRecord) -> Path:
        """Where the partial volume of a run goes: the export folder; never over another file."""
        folder = self.export_folder()
        stem = f"{self.data_name()}_run{run.number}_partial"
        path = folder / f"{stem}.h5"
        number = 2
        while path.exists():
            path, number = folder / f"{stem}-{number}.h5", number + 1
        return path

    def close(self) -> None:
        """Stop work, remember, let go."""
        if self._closed:
            return
        self._closed = True
        self.remember()
        self.jobs.shut()
        self.runner.stop()
        self.runner.wait(30)
        self._later.stop()
        with contextlib.suppress(RuntimeError):  # its C++ part may be deleted
            if self._window is not None:
                self._window.removeEventFilter(self)
                self._window.destroyed.disconnect(self.close)
        self.book.close()
        for run in self.session.runs:
            run.frames.close()
        for name in ("measurement_changed", "summary_changed", "choices_changed", "run_added", "run_changed", "frame_shown",
                     "exported_changed", "message"):
            getattr(self.session, name).disconnect()
        _WORKSPACES.pop(id(self.viewer), None)

    # ---- memory ------------------------------------------------------------------------------------------------
    def _remember_soon(self, *_: Any) -> None:
        if not self._closed:
            self._later.start()

    def remember(self) -> None:
        """Write down what shall be found again."""
        s = self.session
        options = {k: v for k, v in s.open_options.items() if k in ("scan_shape", "dataset")}
        memory.save(s.choices, s.path or self.last_path, options if s.path else self.last_options, s.exported)

    def restore(self) -> None:
        """Open the last file again, with the layers that were exported."""
        if self.last_path:
            self.open(self.last_path, keep=True, **self.last_options)
        for path in self.session.exported[-4:]:
            self.open_volume(path)

    # ---- opening -----------------------------------------------------------------------------------------------
    def open(self, path: str, *, keep: bool = False, **options: Any) -> None:
        """Open 4D-STEM data (a file or the name of a sample) in the background.

        Parameters
        ----------
        keep : bool
            Keep the present preparation (restoring), else it is forgotten.
        """
        if self.session.active is not None:
            self.session.message.emit("warning", f"{self.session.active.name} is going on; the new data are for the next run", "")

        def work(report: Any) -> FourDSTEM:
            from ..recipe import open_data

            report(0.05)
            data = open_data(Path(path), scan=options.get("scan_shape"), dataset=options.get("dataset"))
            report(0.3)
            return data.loaded(LOADED)

        def done(data: FourDSTEM) -> None:
            self.take(data, str(path), keep=keep, **options)

        def failed(error: BaseException) -> None:
            self.session.report(error, f"{Path(path).name} was not opened")

        self.jobs.run("open", f"opening {Path(path).name}", work, done, failed)

    def take(self, data: FourDSTEM, path: str, keep: bool = False, **options: Any) -> None:
        """A measurement that is open already."""
        if keep:
            self.session.path = path
            self.session.raw = data
        self.session.take(data, path, **options)
        self.remember()

    def _measured(self, data: FourDSTEM | None) -> None:
        """Look through data that are new or prepared otherwise; show their virtual image."""
        if data is None:
            return

        def work(report: Any) -> Any:
            from ..measurement.validation import validate
            from ..measurement.virtual import summary

            seen = summary(data, lambda f: report(0.9 * f))
            return seen, validate(data, seen)

        def done(result: Any) -> None:
            if self.session.data is data:
                self.session.looked_through(*result)

        self.jobs.run("look", "looking through the data", work, done)

    def open_volume(self, path: str | Path) -> None:
        """A volume file as a layer."""

        def work(report: Any) -> Volume:
            from ..export.volumes import load_volume

            return load_volume(path)

        self.jobs.run(f"volume {path}", f"opening {Path(path).name}", work,
                      lambda volume: self.book.add_volume(volume, Path(path).stem, "volume", file=str(path)),
                      lambda error: self.session.report(error, f"{Path(path).name} was not opened"))

    def show_truth(self) -> Any:
        """The ground truth of the data as a layer; None where there is none."""
        data = self.session.data
        if data is None or data.truth is None:
            return None
        for layer in self.viewer.layers:
            entry = layer.metadata.get(KEY, {})
            if entry.get("role") == "truth" and entry.get("path") == self.session.path:
                return layer
        return self.book.add_volume(data.truth, "ground truth", "truth", select=False, path=self.session.path)

    def mark_position(self, y: float, x: float) -> None:
        """A cross at the scan position that is looked at, in Å."""
        name = "scan position"
        if name in self.viewer.layers:
            self.viewer.layers[name].data = np.array([[y, x]])
            return
        before = set(self.viewer.layers.selection)
        if "virtual image" not in self.viewer.layers:
            return  # the first layer sets the view; a point has no size
        self.book.add_points(np.array([[y, x]]), name, size=1.2, face_color="#e0a030", border_color="black", border_width=0.1,
                             symbol="cross", visible=self.viewer.layers["virtual image"].visible, metadata={KEY: {"role": name}})
        self.viewer.layers.selection = before

    def pick_on(self, layer: Any, data: FourDSTEM, picked: Any) -> None:
        """Clicks on the virtual image in the picture choose the scan position."""
        inverse = np.linalg.inv(scan_affine(data))
        layer.mouse_drag_callbacks.clear()

        def click(_layer: Any, event: Any) -> None:
            if event.button == 1:
                place = inverse @ np.array([*event.position[-2:], 1.0])
                picked(round(place[0]), round(place[1]))

        layer.mouse_drag_callbacks.append(click)

    # ---- running -----------------------------------------------------------------------------------------------
    def start(self, checkpoint: Any = None) -> RunRecord | None:
        """Begin a run with the present choices; what is wrong is said, not raised."""
        try:
            run = self.runner.start(self._start_volume(), checkpoint)
        except (ValueError, RuntimeError) as error:
            self.session.report(error, "the run was not started")
            return None
        return run

    def _start_volume(self) -> Any:
        name = self.session.choices.setup.start
        if not name:
            return None
        if name not in self.viewer.layers:
            raise ValueError(f"the layer {name!r}, from which the run shall start, is gone: choose another one")
        return np.array(volume_of(self.viewer.layers[name]).to_unit("rad").array)

    def _arrived(self, run: RunRecord, frame: Any) -> None:
        if self._closed:
            return
        watching = self.session.choices.watching
        if watching.follow:
            self.book.show(run, frame, prediction=watching.prediction, sweep=watching.sweep)
        self.session.frame_shown.emit(run)

    def _run_changed(self, run: RunRecord) -> None:
        if run.state in ("done", "stopped", "failed") and run.problem is not None and not self._closed and run in self.session.runs:
            self.book.finish(run)

    # ---- names and messages ------------------------------------------------------------------------------------
    def data_name(self) -> str:
        """Name of the measurement, for files."""
        return Path(self.session.path).stem or "reconstruction"

    def export_folder(self) -> Path:
        """The folder that was chosen, or that of the data, or home."""
        chosen = self.session.choices.export.folder
        near = Path(self.session.path).parent if self.session.path and Path(self.session.path).exists() else Path.home()
        for folder in (Path(chosen) if chosen else None, near, Path.home()):
            if folder is not None and folder.is_dir() and os.access(folder, os.W_OK):
                return folder
        return Path.cwd()

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
        start = str(Path(self.session.path).parent) if Path(self.session.path).exists() else str(Path.home())
        return QFileDialog.getOpenFileName(parent, title, start, pattern)[0]

    # ---- keys --------------------------------------------------------------------------------------------------
    KEYS: ClassVar = {
        "Alt-R": ("Start, or go on", "toggle"), "Alt-P": ("Pause", "pause"), "Alt-N": ("One step", "single"),
        "Alt-S": ("Stop", "stop"), "Alt-Z": ("Undo the last change of settings", "undo"),
        "Alt-Y": ("Redo it", "redo"), "Alt-B": ("Back ten steps", "back"),
    }

    def _bind_keys(self) -> None:
        for key, (_title, name) in self.KEYS.items():
            self.viewer.bind_key(key, lambda _viewer, n=name: getattr(self, f"do_{n}")(), overwrite=True)

    def do_toggle(self) -> None:
        """Start a run, or go on with a paused one."""
        run = self.session.active
        if run is None:
            self.start()
        elif run.state == "paused":
            self.runner.resume()

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
        """End after the present step."""
        self.runner.stop()

    def do_undo(self) -> None:
        """Take the last change of settings back."""
        if not self.session.undo():
            self.session.message.emit("info", "there is nothing to undo", "")

    def do_redo(self) -> None:
        """Make it again."""
        self.session.redo()

    def do_back(self) -> None:
        """Back ten steps, and on from there."""
        run = self.session.active
        if run is not None and run.frame is not None:
            self.runner.back(max(0, run.frame.step - 10))
