"""Recipe: how a run is begun: measurement, preparation, geometry, start and solver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
)

from ..base.records import fingerprint
from ..measurement.preparation import Preparation

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..reconstruction.problem import Problem


class Part(BaseModel):
    """A part of a record: frozen, and nothing else than its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Opening(Part):
    """How a measurement was opened: the file and every option that matters.

    Attributes
    ----------
    path : str
        Of the file, or the name of a sample; empty where the data were made in memory.
    fingerprint : str or None
        Of the file, see :func:`napari_mepdiff.base.records.fingerprint`.
    dataset, scan_shape, axes, calibration
        As :func:`napari_mepdiff.measurement.formats.open_4dstem` takes them.
    from_file : bool
        False for data that were made in memory.
    unknown_steps : tuple of str
        What had been done to the data before, outside of this record.
    """

    path: str
    fingerprint: str | None = None
    dataset: str | None = None
    scan_shape: tuple[int, int] | None = None
    axes: str | None = None
    calibration: dict[str, Any] = {}
    from_file: bool = True
    unknown_steps: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: FourDSTEM, path: str, **options: Any) -> Opening:
        """Of a measurement as it was opened, before any preparation."""
        known = {k: v for k, v in options.items() if k in cls.model_fields and v is not None}
        steps = data.provenance.get("steps") or ()
        file = Path(path)
        mark = data.provenance.get("source", {}).get("hash")
        return cls(
            path=str(file.resolve()) if path and file.exists() else path,
            fingerprint=mark,
            from_file=bool(path) and mark is not None,
            unknown_steps=tuple(map(str, [steps] if isinstance(steps, str) else steps)),
            **known,
        )

    def open(self, path: str | Path | None = None, beside: Path | None = None) -> FourDSTEM:
        """The measurement, lazy.

        Parameters
        ----------
        path : path, optional
            Where the file is now, if it was moved.
        beside : Path, optional
            Folder of the record: where the file is looked for if it is no longer where it was.

        Raises
        ------
        FileNotFoundError, ReadError
            As :func:`napari_mepdiff.measurement.formats.open_4dstem` raises them.
        """
        from ..measurement.formats import open_4dstem
        from ..measurement.samples import NAMES, sample_path

        place = Path(self.path if path is None else path)
        if not place.exists():
            if str(place) in NAMES:
                place = Path(sample_path(str(place)))
            elif path is None and beside is not None and (beside / place.name).exists():
                place = beside / place.name
        return open_4dstem(
            place,
            dataset=self.dataset,
            scan_shape=self.scan_shape,
            axes=self.axes,
            calibration=self.calibration or None,
        )

    @property
    def name(self) -> str:
        """Of the measurement, for file names and titles."""
        return Path(self.path).stem or "measurement"


class Start(Part):
    """The volume that a run began from.

    Attributes
    ----------
    sha256 : str
        Of its values (float32, rad) and shape; empty in records of earlier versions.
    file : str or None
        Where it is kept; a name without folder lies beside the record.
    name : str
        Of the layer, where it was one.
    """

    sha256: str
    file: str | None = None
    name: str = ""


class Attached(Part):
    """A file that a run needs beside its measurement (a probe, a refined microscope).

    Attributes
    ----------
    path : str
    fingerprint : str or None
        None in records of earlier versions.
    """

    path: str
    fingerprint: str | None = None

    @classmethod
    def of(cls, path: str | Path) -> Attached:
        """A file that is there.

        Raises
        ------
        FileNotFoundError
            If it is not.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"no such file: {path}")
        return cls(path=str(Path(path).resolve()), fingerprint=fingerprint(path))


GEOMETRY = ("solver", "slices", "slice_thickness", "together", "modes", "device", "preview")
"""What a recipe has in common with the setup of a session."""


class Recipe(Part):
    """All that is needed to begin a run: measurement, preparation, geometry, start, solver."""

    opening: Opening
    preparation: Preparation = Preparation()
    solver: str
    slices: int | None = None
    slice_thickness: float | None = None
    together: int = Field(1, ge=1, description="slices that the physics takes as one")
    margin: float = Field(0.0, description="Å that positions may move beyond the canvas")
    modes: int = 1
    probe: Attached | None = None
    microscope: Attached | None = None
    optics: dict[str, float] = Field({}, description="only in records of earlier versions")
    start: Start | None = None
    prior_fingerprint: str | None = None
    device: str = "cpu"
    preview: bool = False

    @field_serializer("preparation")
    def _differing(self, value: Preparation) -> dict[str, Any]:
        return value.changed

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        out: dict[str, Any] = handler(self)
        if not self.optics:
            out.pop("optics", None)
        if self.together == 1:
            out.pop("together", None)
        return out

    def problem(self, data: FourDSTEM) -> Problem:
        """The problem of this measurement.

        Parameters
        ----------
        data : FourDSTEM
            Opened and prepared.

        Raises
        ------
        DataError, MemoryError
            As :meth:`napari_mepdiff.reconstruction.problem.Problem.from_data` raises them.
        """
        from ..measurement.formats import load_probe
        from ..microscope.files import load_microscope
        from ..reconstruction.problem import Problem

        optics = data.illumination().model_copy(update=self.optics) if self.optics else None
        attached, known = self.microscope, data.positions is not None or data.calibration.scan_step
        scan = data.scan_positions() if attached is not None and known else None
        return Problem.from_data(
            data,
            slices=self.slices,
            slice_thickness=self.slice_thickness,
            together=self.together,
            probe=None if self.probe is None else load_probe(self.probe.path),
            microscope=None if attached is None else load_microscope(attached.path, scan),
            optics=optics,
            modes=self.modes,
            margin=self.margin,
            device=self.device,
        )
