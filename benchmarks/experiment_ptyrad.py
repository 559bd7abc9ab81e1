"""PtyRAD 1.0 on patterns from a file, in a Python where its solver runs (3.12 or newer).

    PYTHON benchmarks/experiment_ptyrad.py FOLDER

Needs nothing of this project. FOLDER holds ``patterns.npy`` (N, K, K), float32, and ``asked.json``;
``found.npz`` is written there: phase (D, H, W) in rad, positions (N, 2) in Å from the corner of the
phase, seconds of the reconstruction alone.
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
    import h5py
    import numpy as np
    import ptyrad
    import yaml
    from ptyrad.params import load_params
    from ptyrad.solver import PtyRADSolver

    # its own template, so that whatever is not named here is what its users get
    template = Path(ptyrad.__file__).parent / "starter/params/templates/standard.yaml"
    params = yaml.safe_load(template.read_text())
    params["init_params"].update(
        probe_kv=asked["energy"],
        probe_conv_angle=asked["semi_angle"],
        probe_aberrations={"C10": asked["overfocus"], "C30": asked["C30"]},
        meas_Npix=asked["pixels"],
        pos_N_scan_slow=asked["scan"][0],
        pos_N_scan_fast=asked["scan"][1],
        pos_scan_step_size=asked["step"],
        probe_pmode_max=asked["modes"],
        obj_Nlayer=asked["slices"],
        obj_slice_thickness=asked["slice_thickness"],
        meas_flipT=[0, 0, 0],
        meas_params={"path": str(folder / "patterns.npy")},
    )
    params["constraint_params"]["objp_postiv"]["start_iter"] = 1
    params["recon_params"].update(
        NITER=asked["iterations"],
        SAVE_ITERS=asked["iterations"],
        output_dir=str(folder / "output") + "/",
        save_result=["model"],
    )
    written = folder / "params.yaml"
    written.write_text(yaml.safe_dump(params))
    solver = PtyRADSolver(load_params(str(written)), device="cpu", seed=0)
    start = time.perf_counter()
    solver.reconstruct()
    seconds = time.perf_counter() - start
    result = max(
        (folder / "output").rglob("model_iter*.hdf5"), key=lambda path: path.stat().st_mtime
    )
    with h5py.File(result) as file:
        phase = file["optimizable_tensors/objp"][0]
        shifts = file["optimizable_tensors/probe_pos_shifts"][...]
        corner = file["model_attributes/crop_pos"][...]
    pixel = asked["pixel_size"]
    np.savez(
        folder / "found.npz",
        phase=phase,
        positions=(corner + shifts + asked["pixels"] // 2) * pixel,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
