"""Snapshot: what a layer shows at a moment, for workers, with the run that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .layer_data import KEY, Taken, volume_of

if TYPE_CHECKING:
    from ..session.runs import RunRecord
    from ..specimen.volume import Volume


@dataclass(frozen=True)
class Snapshot:
    """Values of a layer, free of napari and Qt.

    Attributes
    ----------
    taken : Taken
    run : RunRecord or None
        The run that the layer shows, whatever the layer is called.
    """

    taken: Taken
    run: RunRecord | None = None

    @property
    def array(self) -> str:
        """Which array of the run: empty for the volume itself."""
        return str(self.taken.metadata.get(KEY, {}).get("array", ""))

    def volume(self) -> Volume:
        """As a volume whose provenance says what it is.

        Of a run's layer: the frame that has these values, or the run with the remark that they
        were changed afterwards. Reads kept frames, maybe from disk: for workers.

        Raises
        ------
        ValueError
            If it is not a volume, or no longer on its run's grid.
        """
        if self.run is None:
            return volume_of(self.taken)
        self._check_grid()
        return self.run.volume(self._known, data=self.taken.data)

    def save(self, path: Path, **options: Any) -> Path:
        """Write it with its record, and what belongs beside it; options as of ``save_volume``.

        Raises
        ------
        ValueError, OSError
            If there is no such volume or unit, or it cannot be written.
        """
        if self.run is None:
            from ..export.volumes import save_volume

            return save_volume(self.volume(), path, **options)[0]
        from ..session.saving import save_run

        self._check_grid()
        return save_run(self.run, path, array=self._known, data=self.taken.data, **options)[0]

    @property
    def _known(self) -> str:
        frame = None if self.run is None else self.run.frame
        return self.array if frame is not None and self.array in frame.arrays else ""

    def _check_grid(self) -> None:
        frame = None if self.run is None else self.run.frame
        if frame is None or self.taken.data.shape != frame.volume.shape:
            raise ValueError(
                f"the layer {self.taken.name!r} no longer has the grid of its run: put what you "
                "made of it into a layer of its own"
            )
