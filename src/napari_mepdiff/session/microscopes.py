"""Microscopes: what was estimated and refined of the microscope of a session's measurement.

A script uses it as the Microscope dock does::

    found = Microscopes(session)
    found.take_estimate(found.estimate())
    found.take_over({"C10": "refined"})
    found.use_in_next_run("first_microscope.h5")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ..microscope.estimate import Estimate, estimate
from ..microscope.files import TITLES, Format, format_of, load_microscope, save_microscope
from ..microscope.state import MicroscopeState
from ..reconstruction.frame import RefineInfo
from .microscope_table import Row, microscope_table
from .takeover import Source, require_same_scan, take_over, taken_fields, use_in_next_run

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..measurement.reading import Progress
    from ..reconstruction.ordinary.refine_settings import RefineSettings
    from .runs import RunRecord
    from .session import Session

_HARMLESS = {"overfocus", "C30", "C12", "phi12", "C21", "phi21", "C23", "phi23"}


@dataclass(frozen=True)
class Found:
    """A refined microscope.

    Attributes
    ----------
    name : str
        Of the run and its step, or of the file.
    state : MicroscopeState
    path : Path or None
        A file that holds just this.
    step : int
        Of the run; 0 of a file.
    """

    name: str
    state: MicroscopeState
    path: Path | None = None
    step: int = 0


class Microscopes:
    """Estimated and refined microscopes for the measurement that is open.

    Parameters
    ----------
    session : Session
    """

    changed = Signal()  # another estimate, file or choice

    def __init__(self, session: Session) -> None:
        self.session = session
        self.estimated: Estimate | None = None
        self.files: list[Found] = []
        self.chosen = ""  # name of a source; empty: the newest
        self._of, self._prepared = session.raw, session.choices.preparation
        self._kept: dict[tuple[str, int], Path] = {}  # states of runs that were written
        session.measurement_changed.connect(self._measured)

    def close(self) -> None:
        """Let the session go."""
        self.session.measurement_changed.disconnect(self._measured)
        self.changed.disconnect()

    def _measured(self, _data: FourDSTEM | None) -> None:
        """What was estimated holds as long as the patterns are the same; so do files."""
        raw, now = self.session.raw, self.session.choices.preparation
        before = self._prepared
        self._prepared = now
        differing = {n for n in type(now).model_fields if getattr(now, n) != getattr(before, n)}
        if raw is not self._of:
            self._of, self.files, self.chosen, self.estimated = raw, [], "", None
        elif not differing <= _HARMLESS:
            self.estimated = None
        self.changed.emit()

    # ---- where refined values come from ----------------------------------------------------
    def runs(self) -> list[RunRecord]:
        """Runs on the measurement that is open which have refined something, oldest first."""
        path = self.session.path
        return [
            run
            for run in self.session.runs
            if run.path == path and run.frame is not None and isinstance(run.frame.info, RefineInfo)
        ]

    @property
    def sources(self) -> list[str]:
        """Names of what can be shown as refined: runs, then files that were loaded."""
        return [run.name for run in self.runs()] + [found.name for found in self.files]

    @property
    def shown(self) -> str:
        """Name of the source that is shown: the chosen one, else the newest; empty: none."""
        names = self.sources
        return self.chosen if self.chosen in names else (names[-1] if names else "")

    def choose(self, name: str) -> None:
        """Show another source; empty for the newest.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        if name and name not in self.sources:
            raise ValueError(f"{name} has no refined microscope of this measurement")
        self.chosen = name
        self.changed.emit()

    @property
    def run(self) -> RunRecord | None:
        """The run that is shown; None where a file is, or nothing."""
        return next((run for run in self.runs() if run.name == self.shown), None)

    @property
    def source(self) -> RunRecord | Found | None:
        """The run or file that is shown."""
        return self.run or next((found for found in self.files if found.name == self.shown), None)

    def found(self) -> Found | None:
        """What is shown as refined; of a run its newest frame."""
        return self.read_off(self.source)

    def read_off(self, source: RunRecord | Found | None) -> Found | None:
        """What a source holds; takes a while of a large probe, and may be called in a worker."""
        if source is None or isinstance(source, Found):
            return source
        frame, state = source.frame, source.microscope()
        if frame is None or state is None:
            return None
        return Found(source.name, state, self._kept.get((source.name, frame.step)), frame.step)

    # ---- table -----------------------------------------------------------------------------
    def next_settings(self) -> RefineSettings:
        """Settings of `refine` for the next run."""
        return self.session.settings("refine")  # type: ignore[return-value]

    def rows(self, found: Found | None = None) -> tuple[Row, ...]:
        """The table; of what is shown if not given."""
        found = self.found() if found is None else found
        state = None if found is None else found.state
        return microscope_table(self.session.data, self.estimated, state, self.next_settings())

    def set_free(self, block: str, free: bool) -> None:
        """Let the next run of `refine` move probe, positions, tilt or background, or hold them.

        Raises
        ------
        ValueError
            If there is no such block.
        """
        if block not in ("probe", "positions", "tilt", "background"):
            raise ValueError(f"free are probe, positions, tilt and background; got {block!r}")
        switch = block in ("tilt", "background")
        fields: dict[str, Any] = {block: free if switch else ("free" if free else "fixed")}
        self.session.change_settings("refine", **fields)

    # ---- estimate --------------------------------------------------------------------------
    def estimate(self, progress: Progress | None = None) -> Estimate:
        """Estimate by the patterns alone, within seconds; may be called in a worker.

        Raises
        ------
        DataError, ValueError
            If there are no data, or they cannot be used.
        """
        if self.session.data is None:
            raise ValueError("open 4D-STEM data first")
        return estimate(self.session.data, progress)

    def take_estimate(self, found: Estimate) -> None:
        """Show an estimate of the measurement that is open."""
        self.estimated = found
        self.changed.emit()

    # ---- what a user does ------------------------------------------------------------------
    def take_over(self, chosen: Mapping[str, Source], rows: tuple[Row, ...] | None = None) -> str:
        """Chosen values, by name, into the preparation, as one step of undo.

        Raises
        ------
        ValueError, Unseen
            As :func:`~.takeover.take_over` and :func:`~.takeover.taken_fields`.
        """
        self.session.require_free()
        table = {row.name: row for row in (self.rows() if rows is None else rows)}
        data = self.session.data
        energy = None if data is None else data.calibration.energy
        preparation = self.session.choices.preparation
        fields = taken_fields(table, chosen, preparation, energy, self.estimated)
        return take_over(self.session, fields)

    def use_in_next_run(self, path: str | Path | None = None, found: Found | None = None) -> Path:
        """Let the next runs begin with what is shown as refined; undoable.

        Parameters
        ----------
        path : path, optional
            Where it is written, unless a file holds it already.
        found : Found, optional
            What was read off before, where it is not what is shown now.

        Raises
        ------
        ValueError
            If nothing is refined, it does not fit, or it is in no file and no path is given.
        OSError
            If it cannot be written.
        """
        found = found or self._shown()
        if found.path is not None and found.path.exists():
            return use_in_next_run(self.session, found.state, found.path, save=False)
        if path is None:
            raise ValueError(f"{found.name} is in no file yet: say where to keep it")
        written = use_in_next_run(self.session, found.state, path)
        self._kept[found.name, found.step] = written
        return written

    def save(self, path: str | Path, format: Format = "own", found: Found | None = None) -> Found:
        """Write what is shown as refined, as `own`, `ptyrad` or `py4dstem`.

        Returns
        -------
        Found
            With the file, where that holds all of it.

        Raises
        ------
        ValueError, OSError
            As :func:`~napari_mepdiff.microscope.files.save_microscope`.
        """
        found = found or self._shown()
        save_microscope(found.state, path, format)
        if format != "own":
            return found
        whole = replace(found, path=Path(path).absolute())
        assert whole.path is not None
        self._kept[found.name, found.step] = whole.path
        return whole

    def load(self, path: str | Path) -> Found:
        """Show what a file holds: ours, a result of PtyRAD, or py4DSTEM's ptychography.

        Raises
        ------
        FileNotFoundError, ValueError
            If it holds no refined microscope, or not of the measurement that is open.
        """
        found = self.read(path)
        self.show_file(found)
        return found

    def read(self, path: str | Path) -> Found:
        """What a file holds, not yet shown; may be called in a worker. Raises as :meth:`load`."""
        path = Path(path).absolute()
        data = self.session.data
        if data is None:
            raise ValueError(
                "open 4D-STEM data first: a refined microscope belongs to a measurement"
            )
        kind = format_of(path)
        state = load_microscope(path, data.scan_positions())
        require_same_scan(self.session, state)
        return Found(path.name if kind == "own" else f"{path.name} ({TITLES[kind]})", state, path)

    def show_file(self, found: Found) -> None:
        """Show what was read of a file."""
        self.files = [f for f in self.files if f.name != found.name] + [found]
        self.choose(found.name)

    def _shown(self) -> Found:
        found = self.found()
        if found is None:
            raise ValueError(
                "nothing is refined yet: run the solver refine, or load the file of an earlier run"
            )
        return found
