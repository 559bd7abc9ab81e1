"""Files: what opens measurements and volumes in a viewer, in jobs beside the window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from .layer_data import checksum

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..session.jobs import Report
    from ..specimen.volume import Volume

LOADED = 2 * 1024**3  # bytes of patterns that are held in memory, so that looking is quick


class Files:
    """Opens what a user brings: 4D-STEM data, volumes, the files of the last session.

    Parameters
    ----------
    workspace : Workspace
        Whose session takes the data, and whose viewer the volumes.

    Attributes
    ----------
    asked : str
        The file that was last asked for, opened or not.
    """

    refused = Signal(str)  # path of 4D-STEM data that could not be opened

    def __init__(self, workspace: Any) -> None:
        self._workspace, self._session = workspace, workspace.session
        self.asked = ""

    def restore(self) -> None:
        """Open the last file again, with the layers that were exported."""
        if self._workspace.last_path:
            self.open(self._workspace.last_path, keep=True, **self._workspace.last_options)
        for path in self._session.exported[-4:]:
            self.open_volume(path)

    def open(self, path: str, *, keep: bool = False, **options: Any) -> None:
        """Open 4D-STEM data (a file or the name of a sample) in the background.

        Parameters
        ----------
        keep : bool
            Keep the present preparation (restoring), else it is forgotten.
        """
        self.asked = str(path)
        if self._session.active is not None:
            self._session.message.emit(
                "warning",
                f"{self._session.active.name} is going on; the new data are for the next run",
                "",
            )

        preparation = self._session.choices.preparation

        def work(report: Report) -> FourDSTEM:
            from ..session.recipe import Opening

            report(0.05)
            data = Opening(path=str(path), **options).open()
            report(0.2)
            data = data.loaded(LOADED)
            kept = keep or str(path) == self._session.path
            if kept:  # the present preparation will be made of it
                report(0.5)
                preparation.look(data, lambda f: report(0.5 + 0.5 * f))
            return data

        def done(data: FourDSTEM) -> None:
            self.take(data, str(path), keep=keep, **options)

        def failed(error: BaseException) -> None:
            self.refused.emit(str(path))
            self._session.report(error, f"{Path(path).name} was not opened")

        self._workspace.jobs.run("open", f"opening {Path(path).name}", work, done, failed)

    def take(self, data: FourDSTEM, path: str, keep: bool = False, **options: Any) -> None:
        """A measurement that is open already."""
        self.asked = path

        def take() -> None:
            if keep:
                self._session.path = path
            self._session.take(data, path, **options)
            self._workspace.remember()

        self._workspace.when_looked(take, f"{Path(path).name} was not opened")

    def open_any(self, path: str) -> None:
        """Open a volume or 4D-STEM data; which of them a file holds is found out in a job."""
        from .kinds import is_volume

        def done(volume: bool) -> None:
            if volume:
                self.open_volume(path)
            else:
                self.open(path)

        self._workspace.jobs.run(
            f"kind of {path}",
            f"looking into {Path(path).name}",
            lambda _report: is_volume(Path(path)),
            done,
            lambda error: self._session.report(error, f"{Path(path).name} was not opened"),
        )

    def open_volume(self, path: str | Path) -> None:
        """A volume file as a layer."""

        def work(report: Report) -> tuple[Volume, int]:
            from ..export.volumes import load_volume

            volume = load_volume(path)
            return volume, checksum(volume.array)

        def done(found: tuple[Volume, int]) -> None:
            volume, check = found
            self._workspace.book.add_volume(
                volume, Path(path).stem, "volume", file=str(path), checksum=check
            )

        self._workspace.jobs.run(
            f"volume {path}",
            f"opening {Path(path).name}",
            work,
            done,
            lambda error: self._session.report(error, f"{Path(path).name} was not opened"),
        )
