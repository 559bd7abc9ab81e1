"""A reconstruction as a recipe: what was asked for, run once or again.

The recipe, the settings and every change made on the way are kept in the provenance of the volume, from which
``mepdiff replay`` runs it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from .measurement.dataset import FourDSTEM
    from .reconstruction.problem import Problem
    from .reconstruction.stream import SolverSettings

Changes = list[tuple[int, dict[str, Any]]]
HOLDS = {"std": "standard deviation of the samples, rad", "agreement": "share of the samples that agree whether there is an atom"}


class Recipe(BaseModel):
    """Measurement, calibration and geometry of a reconstruction, as the command line takes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    solver: str
    slices: int | None = None
    slice_thickness: float | None = None
    calibration: dict[str, Any] = {}
    optics: dict[str, float] = {}
    pixel_mrad: float | None = None
    scan: tuple[int, int] | None = None
    dataset: str | None = None
    probe: str | None = None
    modes: int = 1
    start: str | None = None
    device: str = "cpu"
    preparation: dict[str, Any] = {}
    preview: bool = False

    def problem(self) -> Problem:
        """Open the measurement and set the problem up; raises what these raise."""
        from .reconstruction.problem import Problem

        data = open_data(Path(self.file), scan=self.scan, dataset=self.dataset, calibration=self.calibration)
        if self.pixel_mrad is not None:
            data = data.calibrated(pixel_size=data.calibration.with_pixel_mrad(self.pixel_mrad).pixel_size)
        if self.preparation:
            from .measurement.preparation import Preparation

            data = Preparation.model_validate(self.preparation).apply(data)
        optics = data.illumination().model_copy(update=self.optics) if self.optics else None
        wave = None
        if self.probe is not None:
            from .measurement.readers import load_probe

            wave = load_probe(self.probe)
        return Problem.from_data(data, slices=self.slices, slice_thickness=self.slice_thickness, probe=wave, optics=optics,
                                 modes=self.modes, device=self.device)


def open_data(file: Path, *, scan: tuple[int, int] | None = None, dataset: str | None = None,
              calibration: dict[str, Any] | None = None) -> FourDSTEM:
    """A measurement by its path, or a sample by its name."""
    from .measurement.readers import open_4dstem
    from .measurement.samples import NAMES, sample_path

    path = sample_path(str(file)) if not file.exists() and str(file) in NAMES else file
    return open_4dstem(path, scan_shape=scan, dataset=dataset, calibration=calibration)


def parse_steering(items: list[str]) -> tuple[Changes, int | None]:
    """``STEP:setting=value``, ``STEP:back=EARLIER`` and ``STEP:stop`` as changes and the step to stop at.

    Raises
    ------
    ValueError
        If an item is of another form.
    """
    from .terminal import parse_settings

    changes: Changes = []
    stop = None
    for item in items:
        step, sign, rest = item.partition(":")
        if not sign or not step.isdigit():
            raise ValueError(f"--steer wants STEP:setting=value, STEP:back=EARLIER or STEP:stop; got {item!r}")
        if rest == "stop":
            stop = int(step)
        else:
            changes.append((int(step), parse_settings([rest])))
    return changes, stop


def read_provenance(path: Path) -> tuple[Recipe, dict[str, Any], Changes, int, bool]:
    """Recipe, settings, changes, steps done, and whether the run came to its end.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it does not say how to run its reconstruction again.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix == ".json":
        try:
            record = json.loads(path.read_text())
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name} is not readable as JSON: {error}") from error
        history = record.get("provenance", record) if isinstance(record, dict) else {}
    else:
        from .export.volumes import load_volume

        history = load_volume(path).provenance
    missing = [k for k in ("recipe", "settings", "changes", "steps", "complete") if k not in history]
    if missing:
        raise ValueError(f"{path.name} does not say how it was made ({', '.join(missing)} missing): only volumes that mepdiff "
                         "reconstruct wrote can be run again")
    try:
        recipe = Recipe.model_validate(history["recipe"])
    except ValidationError as error:
        raise ValueError(f"{path.name} was written by another version: {error}") from error
    changes = [(int(n), dict(c)) for n, c in history["changes"]]
    return recipe, history["settings"], changes, int(history["steps"]), bool(history["complete"])


def run_recipe(recipe: Recipe, settings: SolverSettings, output: Path, changes: Changes, stop: int | None,
               checkpoint: Path | None, every: float, overwrite: bool, film: Path | None = None) -> None:
    """Run at the terminal: progress, Ctrl-C keeps the partial volume; writes the volume and what goes with it."""
    from .export.film import save_film
    from .export.volumes import load_volume, save_volume
    from .files import versions
    from .reconstruction.history import FrameStore
    from .reconstruction.registry import SOLVERS, SolverError, solve
    from .reconstruction.stream import Control, Script
    from .terminal import free, interruptible, progress

    extras = {name: output.with_name(f"{output.stem}_{name}{output.suffix}") for name in HOLDS}
    if getattr(settings, "solver", "") == "dps":
        for path in extras.values():
            free(path, overwrite)
    problem = recipe.problem()
    control = Script(changes, stop) if changes or stop is not None else Control()
    frame, failure, title = None, None, SOLVERS[recipe.solver].title
    first = None if recipe.start is None else load_volume(recipe.start).to_unit("rad").array
    print(f"{problem.patterns.shape[0]} patterns of {problem.patterns.shape[1]}² px → volume {problem.shape}, voxels "
          f"{' × '.join(f'{v:.3g}' for v in problem.voxel_size)} Å, {title}")
    told, frames = 0, FrameStore()
    with interruptible(control), progress(title) as advance:
        try:
            for frame in solve(problem, settings, control, start=first, checkpoint=checkpoint, every=every):
                if film is not None:
                    frames.append(frame)
                stage = frame.info.get("stage", f"misfit {frame.loss:.4f} × shot noise")
                advance(frame.step, frame.total, stage)
                for note in control.notes[told:]:
                    print(note)
                told = len(control.notes)
        except SolverError as error:
            failure = error
    for note in control.notes[told:]:
        print(note)
    if frame is None:
        raise failure or ValueError("stopped before the first step: there is nothing to save")
    if isinstance(control, Script) and control.unplayed:
        print(f"{control.unplayed} of {len(changes)} changes were not reached")
    history = {
        "made_by": "mepdiff reconstruct", "recipe": recipe.model_dump(mode="json"), "solver": recipe.solver,
        "settings": settings.model_dump(mode="json"), "steps": frame.step, "planned": frame.total, "loss": frame.loss,
        "seconds": round(frame.seconds, 2), "changes": control.changes, "notes": control.notes, "device": recipe.device,
        "complete": failure is None and not control.stopped, "versions": versions(),
    }
    written = save_volume(problem.volume(frame.volume, **history), output, overwrite=overwrite)
    for name, path in extras.items():
        if name in frame.arrays:
            volume = problem.volume(frame.arrays[name], **{**history, "holds": HOLDS[name]})
            written += save_volume(volume, path, overwrite=overwrite)
    if film is not None:
        written.append(save_film(frames.array(), film, voxel_size=problem.voxel_size, overwrite=overwrite,
                                 labels=[f"step {r['step']} of {r['total']}" for r in frames.kept]))
    state = "partial volume, " if control.stopped or failure else ""
    files = ", ".join(str(p) for p in written if p.suffix != ".json")
    print(f"{state}step {frame.step} of {frame.total}, misfit {frame.loss:.4f} × shot noise, {frame.seconds:.1f} s → {files}")
    if failure is not None:
        raise failure
