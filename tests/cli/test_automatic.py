"""`mepdiff auto`, and the same by single commands, on a measurement with errors."""

from __future__ import annotations

import pytest

from napari_mepdiff.export.volumes import load_volume
from napari_mepdiff.measurement.formats.own import save
from napari_mepdiff.measurement.instrument import Instrument
from napari_mepdiff.measurement.simulate import Conditions, simulate
from napari_mepdiff.microscope.state import MicroscopeState
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.session.replay import read_record
from napari_mepdiff.specimen.crystals import srtio3

from ..needs import needs
from .terminal import mepdiff

pytestmark = needs("abtem")
QUICK = ("--set", "steps=2", "--set", "evaluations=5", "--set", "guidance=newton")
LITTLE = ("--refine", "iterations=2", "--refine", "modes=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("automatic")
    errors = Instrument(overfocus_error=-10, soft_aperture=True, jitter=0.05, gain=12.0)
    conditions = Conditions(
        optics=Optics(overfocus=60), scan=Raster(shape=(9, 9), step=(0.4, 0.4)), slices=3,
        voxel_size=(9.6, 0.2, 0.2), detector=48, geometry="extended", dose=1e5, instrument=errors,
    )  # fmt: skip
    save(simulate(srtio3(), conditions), folder / "scan.h5")
    return folder


def test_one_command_estimates_refines_and_samples(folder):
    twice = ("--rounds", "2")
    code, said = mepdiff("auto", "scan.h5", "-o", "out.h5", *QUICK, *LITTLE, *twice, cwd=folder)
    assert code == 0, said
    for word in (
        "1. what the patterns say", "gain 1", "2. volume and microscope", "3. with what",
        "4. the microscope again", "5. the volume with that microscope",
    ):  # fmt: skip
        assert word in said
    # the second refinement held the volume that was sampled
    held, sampled = (load_volume(folder / f"out_{n}.h5").array for n in ("refined2", "sampled"))
    assert (held == sampled).all()
    assert read_record(folder / "out_refined2.h5").recipe.start.name == "out_sampled.h5"
    state = MicroscopeState.load(folder / "out_refined_microscope.h5")
    assert len(state.positions) == 81
    assert load_volume(folder / "out_refined.h5").shape[0] == 3  # of about 10 Å
    volume = load_volume(folder / "out.h5")
    assert volume.shape[0] == 18
    assert volume.voxel_size[0] == pytest.approx(1.6)
    recipe = read_record(folder / "out.h5").recipe
    assert recipe.together == 6
    assert recipe.microscope.path.endswith("out_refined2_microscope.h5")
    assert recipe.preparation.gain == pytest.approx(12, rel=0.1)
    code, said = mepdiff("auto", "scan.h5", "-o", "out.h5", *QUICK, *LITTLE, cwd=folder)
    assert code != 0
    assert "--overwrite" in said


def test_the_last_step_can_be_played_again(folder):
    code, said = mepdiff("replay", "out.h5", "-o", "again.h5", cwd=folder)
    assert code == 0, said
    first, again = (load_volume(folder / f"{name}.h5").array for name in ("out", "again"))
    assert (first == again).all()


def test_a_simulation_with_a_known_probe_is_not_refined(folder):
    code, said = mepdiff(
        "auto", "srtio3", "-o", "known.h5", *QUICK, "--set", "samples=1", cwd=folder
    )
    assert code == 0, said
    assert "nothing to refine" in said
    assert not (folder / "known_refined.h5").exists()
