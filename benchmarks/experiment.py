"""Measurements with honest errors: ours, PtyRAD's and LSQ-ML's volume of the same data, judged.

    python benchmarks/experiment.py [--files A.h5 B.h5 | --draw 6 --folder DIR] [--iterations 20]
                                    [--ptyrad PYTHON] [--lsqml PYTHON] [--json FILE]

The measurements are made by abTEM with an instrument drawn at random (``mepdiff simulate
--errors``), or taken from files that it wrote. Solvers see what was told; the truth judges: depth
sum within the scanned field after the best affine map, positions beyond one. PtyRAD runs in the
Python that ``--ptyrad`` names, with its own template's settings, three modes and non-negative
phase; LSQ-ML is Pty-chi's, in the Python that ``--lsqml`` names, with as many modes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output
from benchmarks.experiment_judge import instrument_errors, judged

if TYPE_CHECKING:
    from napari_mepdiff.measurement.dataset import FourDSTEM

MODES = 3
ALIKE = 0.1  # weight of Pty-chi's multislice regularisation


def main() -> None:
    """Make or open the measurements, reconstruct, judge, print."""
    parser = output.parser(__doc__)
    parser.add_argument("--files", nargs="*", type=Path, default=[])
    parser.add_argument("--draw", type=int, default=0, help="measurements to simulate")
    parser.add_argument("--folder", type=Path, help="where drawn measurements are kept")
    parser.add_argument("--ptyrad", help="a Python with PtyRAD 1.0 whose solver runs")
    parser.add_argument("--lsqml", help="a Python with Pty-chi 2")
    parser.add_argument("--no-ours", action="store_true", help="leave our solver out")
    parser.add_argument("--iterations", type=int, default=20, help="passes of our solver")
    parser.add_argument("--lsqml-iterations", type=int, default=30, help="of LSQ-ML")
    parser.add_argument("--ptyrad-iterations", type=int, default=30, help="of PtyRAD's")
    parser.add_argument("--keep", type=Path, help="folder for volumes and refined microscopes")
    args = output.parse(parser)
    folder = args.folder or Path(tempfile.mkdtemp())
    files = list(args.files) + [drawn(seed, folder) for seed in range(args.draw)]
    if not files:
        parser.error("name measurements (--files), or draw some (--draw 6)")
    rows = []
    for path in files:
        row: dict[str, Any] = {"measurement": path.name}
        if not args.no_ours:
            row["ours"] = ours(path, args.iterations, args.keep)
        if args.ptyrad:
            row["ptyrad"] = ptyrad(path, args.ptyrad_iterations, args.ptyrad, args.keep)
        rows.append(row)
        if args.lsqml:
            row["lsqml"] = lsqml(path, args.lsqml_iterations, args.lsqml, args.keep)
        for name in ("ours", "ptyrad", "lsqml"):
            if name in row:
                print(f"{path.name:24s} {name:7s}", row[name], flush=True)
    output.write(rows, args.json)


def drawn(seed: int, folder: Path) -> Path:
    """A measurement of one of four specimens with everything drawn from the seed; made once."""
    import numpy as np

    from napari_mepdiff.measurement.formats.own import save
    from napari_mepdiff.measurement.instrument import Instrument
    from napari_mepdiff.measurement.simulate import Conditions, simulate
    from napari_mepdiff.physics.optics import Optics
    from napari_mepdiff.physics.scan import Raster
    from napari_mepdiff.specimen import crystals

    path = folder / f"drawn_{seed}.h5"
    if path.exists():
        return path
    rng = np.random.default_rng([seed, 11])
    thickness = float(rng.uniform(10, 120))
    kind = ("srtio3", "doped", "interface", "bilayer")[seed % 4]
    energy, angle = (80.0, 24.0) if kind == "bilayer" else (300.0, 21.4)
    thickness = 12.8 if kind == "bilayer" else thickness
    crystal = {
        "srtio3": lambda: crystals.srtio3(),
        "doped": lambda: crystals.doped_srtio3((40, 8, 8), "La", thickness / 2)[0],
        "interface": lambda: crystals.interface(crystals.srtio3(), crystals.srtio3()),
        "bilayer": lambda: crystals.bilayer(),
    }[kind]()
    slices = max(1, round(thickness / 9.6)) if thickness > 20 else 8
    conditions = Conditions(
        optics=Optics(energy=energy, semi_angle=angle),
        scan=Raster(shape=(32, 32), step=(0.4, 0.4)),
        geometry="extended",
        slices=slices,
        voxel_size=(thickness / slices, 0.2, 0.2),
        dose=float(10 ** rng.uniform(4.5, 6)),
        seed=seed,
        vacancies=0.0,
        instrument=Instrument.drawn(seed, configurations=6, vibration=0.08, fine_slice=2.0),
    )
    folder.mkdir(parents=True, exist_ok=True)
    save(simulate(crystal, conditions), path)
    return path


def ours(path: Path, iterations: int, keep: Path | None = None) -> dict[str, Any]:
    """The solver `refine` with its own settings, from what the file tells."""
    from napari_mepdiff.reconstruction.frame import RefineInfo
    from napari_mepdiff.reconstruction.ordinary.refine import RefineSettings
    from napari_mepdiff.reconstruction.problem import Problem
    from napari_mepdiff.reconstruction.registry import solve

    data = measured(path)
    slices, thickness = told(data)
    settings = RefineSettings(iterations=iterations)
    problem = Problem.from_data(
        data, slices=slices, slice_thickness=thickness, margin=settings.position_room()
    )
    start = time.perf_counter()
    frames = list(solve(problem, settings))[-1:]
    seconds = time.perf_counter() - start
    info = frames[-1].info
    assert isinstance(info, RefineInfo)
    state = problem.microscope(info)
    if keep is not None:
        kept(keep, path, "ours", frames[-1].volume, problem.origin[1:], state.positions)
        state.save(keep / f"{path.stem}_microscope.h5")
    found = judged(path, frames[-1].volume, problem.origin[1:], state.positions, thickness)
    return {
        **found,
        "misfit": round(frames[-1].loss, 3),
        "held_out": info.held_out,
        **instrument_errors(path, state),
        "seconds": round(seconds, 1),
    }


def ptyrad(path: Path, iterations: int, python: str, keep: Path | None = None) -> dict[str, Any]:
    """PtyRAD from the same, in its own Python."""
    import numpy as np

    data = measured(path)
    slices, thickness = told(data)
    optics = data.illumination()
    given = {"patterns": data.counts(8 << 30).astype(np.float32)}
    asked = {
        "energy": optics.energy,
        "semi_angle": optics.semi_angle,
        "overfocus": optics.overfocus,
        "C30": optics.C30,
        "pixels": data.detector_shape[0],
        "pixel_size": data.real_pixel[0],
        "scan": data.scan_shape,
        "step": data.calibration.scan_step[0],  # type: ignore[index]
        "modes": MODES,
        "slices": slices,
        "slice_thickness": thickness,
        "iterations": iterations,
    }
    found = elsewhere(python, "ptyrad", given, asked)
    if "failed" in found:
        return found
    # its canvas begins elsewhere; the middles of the told and the found scan agree
    origin = data.scan_positions().mean(axis=0) - found["positions"].mean(axis=0)
    return weighed(path, "ptyrad", found, origin, thickness, keep)


def lsqml(path: Path, iterations: int, python: str, keep: Path | None = None) -> dict[str, Any]:
    """LSQ-ML of Pty-chi from the same, in its own Python."""
    import numpy as np

    from napari_mepdiff.physics.optics import wavelength
    from napari_mepdiff.reconstruction.ordinary.probe_block import with_modes
    from napari_mepdiff.reconstruction.problem import Problem

    data = measured(path)
    slices, thickness = told(data)
    problem = Problem.from_data(data, slices=slices, slice_thickness=thickness, margin=1.0)
    given = {
        "patterns": np.asarray(problem.patterns, np.float32),
        "probe": with_modes(problem.probe, MODES).numpy(),
        "places": problem.positions / np.array(problem.voxel_size[1:]),
    }
    asked = {
        "wavelength": wavelength(problem.energy),
        "pixel_size": problem.voxel_size[1],
        "slices": slices,
        "slice_thickness": thickness,
        "iterations": iterations,
        "canvas": problem.shape[1:],
        "alike": ALIKE,
    }
    found = elsewhere(python, "lsqml", given, asked)
    if "failed" in found:
        return found
    return weighed(path, "lsqml", found, np.array(problem.origin[1:]), thickness, keep)


def elsewhere(
    python: str, name: str, given: dict[str, Any], asked: dict[str, Any]
) -> dict[str, Any]:
    """What ``experiment_NAME.py`` found in another Python, or why it failed."""
    import numpy as np

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for array, values in given.items():
            np.save(folder / f"{array}.npy", values)
        (folder / "asked.json").write_text(json.dumps(asked))
        script = Path(__file__).with_name(f"experiment_{name}.py")
        done = subprocess.run([python, str(script), place], capture_output=True, text=True)
        if done.returncode:
            return {"failed": done.stderr[-400:]}
        with np.load(folder / "found.npz") as found:
            return {n: found[n] for n in ("phase", "positions", "seconds")}


def weighed(
    path: Path, name: str, found: dict[str, Any], origin: Any, thickness: float, keep: Path | None
) -> dict[str, Any]:
    """The judgement of what another program found."""
    phase, places = found["phase"], found["positions"] + origin
    if keep is not None:
        kept(keep, path, name, phase, origin, places)
    judgement = judged(path, phase, origin, places, thickness)
    return judgement | {"seconds": round(float(found["seconds"]), 1)}


def kept(folder: Path, path: Path, name: str, volume: Any, origin: Any, positions: Any) -> None:
    """A result in a file, to look at or to judge anew."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{path.stem}_{name}.npz", volume=volume, origin=origin, positions=positions)


def measured(path: Path) -> FourDSTEM:
    """What the file tells, in electrons by the gain that the patterns themselves show."""
    from napari_mepdiff.measurement.formats import open_4dstem
    from napari_mepdiff.microscope.counts import estimate_counts

    data = open_4dstem(path, truth=False)
    gain = estimate_counts(data).gain
    return data if gain is None or abs(gain - 1) < 0.05 else data.to_electrons(gain)


def told(data: FourDSTEM) -> tuple[int, float]:
    """Slices and their thickness in Å for a specimen of the told thickness."""
    thickness = data.calibration.thickness
    assert thickness is not None
    slices = max(1, round(thickness / (9.6 if thickness > 20 else 1.6)))
    return slices, thickness / slices


if __name__ == "__main__":
    main()
