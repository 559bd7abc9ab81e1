"""LSQ-ML by Pty-chi 2 on patterns from a file, in a Python where it runs.

    PYTHON benchmarks/experiment_lsqml.py FOLDER

Needs nothing of this project. FOLDER holds ``patterns.npy`` (N, K, K), float32, ``probe.npy``
(M, K, K), complex, centred, √electrons, ``places.npy`` (N, 2), pixels (y, x) from the corner of the
canvas, and ``asked.json``; ``found.npz`` is written there: phase (D, H, W) in rad, positions (N, 2)
in Å from the corner of the phase, seconds of the reconstruction alone.

Object, probe modes and positions are free (positions from the fifth pass), neighbouring slices are
held alike (Pty-chi's multislice regularisation); the rest is Pty-chi's own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Run what is asked for."""
    folder = Path(sys.argv[1])
    asked = json.loads((folder / "asked.json").read_text())
    import numpy as np
    import ptychi.api as api
    import torch
    from ptychi.api.task import PtychographyTask

    patterns, probe, places = (
        np.load(folder / f"{n}.npy") for n in ("patterns", "probe", "places")
    )
    size, pixel = patterns.shape[-1], asked["pixel_size"]
    o = api.LSQMLOptions()
    o.data_options.wavelength_m = asked["wavelength"] * 1e-10
    o.data_options.fft_shift = True
    r = o.reconstructor_options
    r.num_epochs, r.batch_size, r.default_device = asked["iterations"], 64, api.Devices.CPU
    r.random_seed, r.allow_nondeterministic_algorithms = 0, False
    obj = o.object_options
    obj.pixel_size_m = pixel * 1e-10
    thickness = asked["slice_thickness"] * 1e-10
    obj.slice_spacings_m = np.full(max(0, asked["slices"] - 1), thickness)
    obj.remove_object_probe_ambiguity.enabled = False
    obj.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    obj.position_origin_coords = np.array([-0.5, -0.5])
    if asked["slices"] > 1 and asked["alike"]:
        obj.multislice_regularization.enabled = True
        obj.multislice_regularization.weight = asked["alike"]
    o.probe_options.orthogonalize_incoherent_modes.enabled = len(probe) > 1
    positions = o.probe_position_options
    positions.optimizable = True
    positions.optimization_plan.start = 4
    positions.constrain_position_mean = True
    task = PtychographyTask(
        o,
        diffraction_data=torch.from_numpy(patterns),
        object_data=torch.ones((asked["slices"], *asked["canvas"]), dtype=torch.complex64),
        probe_data=torch.from_numpy((probe / size)[None]).to(torch.complex64),  # its FFT is bare
        probe_position_x_px=torch.from_numpy(places[:, 1]).float(),
        probe_position_y_px=torch.from_numpy(places[:, 0]).float(),
    )
    start = time.perf_counter()
    task.run()
    seconds = time.perf_counter() - start
    phase = np.angle(task.get_data_to_cpu("object", as_numpy=True))
    y, x = (getattr(task, f"get_probe_positions_{axis}")(as_numpy=True) for axis in "yx")
    np.savez(
        folder / "found.npz",
        phase=phase,
        positions=np.stack([y, x], axis=1) * pixel,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
