"""Write the sample files of this folder anew from the crystals beside it (see README.md).

python sample_data/make_samples.py [name …]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from napari_mepdiff.measurement.readers.hdf5 import save

from napari_mepdiff.measurement.simulate import Conditions, simulate
from napari_mepdiff.specimen.cif import load_crystal

HERE = Path(__file__).parent

SAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "srtio3": ("SrTiO3", {"zone_axis": "c", "rotation": 12.0, "shift": (0.8, 0.3, 0.7), "seed": 1}),
    "mos2": ("MoS2", {"zone_axis": "a", "rotation": 20.0, "shift": (0.5, 0.0, 0.0), "seed": 2}),
    "litao3": ("LiTaO3", {"zone_axis": "a", "rotation": 0.0, "shift": (0.2, 0.5, 0.1), "seed": 3}),
    "cuwo4": ("CuWO4", {"zone_axis": "a", "rotation": 5.0, "shift": (0.4, 0.0, 0.0), "seed": 4}),
    "cuwo4_low_dose": (
        "CuWO4",
        {"zone_axis": "a", "rotation": 5.0, "shift": (0.4, 0.0, 0.0), "seed": 4, "dose": 1e3},
    ),
    "cuwo4_extended": (
        "CuWO4",
        {
            "zone_axis": "a",
            "rotation": 5.0,
            "shift": (0.4, 0.0, 0.0),
            "seed": 4,
            "geometry": "extended",
        },
    ),
}


def main() -> None:
    for name in sys.argv[1:] or SAMPLES:
        crystal, settings = SAMPLES[name]
        start = time.perf_counter()
        cell = load_crystal(HERE / "crystals" / f"{crystal}.cif")
        cell.info["source"] = f"crystals/{crystal}.cif"
        path = HERE / f"{name}.h5"
        save(simulate(cell, Conditions(**settings)), path, compression=9)
        print(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.0f} s"
        )


if __name__ == "__main__":
    main()
