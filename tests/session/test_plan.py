"""What is decided of the steps: which, on which slices, in which files, from which volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_mepdiff.measurement.dataset import Calibration
from napari_mepdiff.reconstruction.registry import SOLVERS
from napari_mepdiff.session.automatic import Depth
from napari_mepdiff.session.choices import Setup
from napari_mepdiff.session.depths import depth_for_refine, depth_of
from napari_mepdiff.session.plan import Asked, Plan, RunStep, files_of, plan_of
from napari_mepdiff.session.starting import laid_on
from napari_mepdiff.specimen.volume import Volume

from .small import small_data


def extended(**told):
    data = small_data()
    return replace(
        data, boundary="extended", canvas=None, calibration=data.calibration.model_copy(update=told)
    )


def asked(**setup):
    refine, dps = (SOLVERS[name].default() for name in ("refine", "dps"))
    return Asked(refine, dps, Setup(**setup))


def test_a_thick_specimen_is_refined_in_few_slices_and_sampled_in_thin_ones():
    refine, dps = plan_of(extended(thickness=78.0), asked()).runs
    assert (refine.setup.slices, refine.setup.together) == (8, 1)
    assert (dps.setup.slices, dps.setup.together) == (49, 6)
    for step in (refine, dps):
        assert step.setup.slices * step.setup.slice_thickness == pytest.approx(78)
    assert plan_of(extended(thickness=78.0), asked()).notes == ()


def test_more_rounds_refine_the_microscope_from_the_volume_before():
    plan = plan_of(extended(thickness=78.0), replace(asked(), rounds=2))
    refine, dps, again, last = plan.runs
    assert (refine.settings.volume, again.settings.volume) == ("free", "held")
    assert again.settings.probe == "optics"
    assert (again.start, again.microscope) == ("volume", "refined")
    assert again.setup.slices == dps.setup.slices  # it is the volume's own grid
    assert again.setup.together == dps.setup.together
    assert (last.settings, last.setup) == (dps.settings, dps.setup)
    fixed = replace(asked(), rounds=2)
    fixed = replace(fixed, refine=fixed.refine.with_fields(probe="fixed"))
    assert plan_of(extended(), fixed).runs[2].settings.probe == "fixed"
    assert len(plan_of(small_data(), replace(asked(), rounds=2)).runs) == 1  # its probe is known


def test_slices_that_were_chosen_stay():
    plan = plan_of(extended(), asked(slices=24, slice_thickness=1.5, device="cpu"))
    refine, dps = plan.runs
    assert (dps.setup.slices, dps.setup.slice_thickness, dps.setup.together) == (24, 1.5, 7)
    assert refine.setup.slices == 4
    assert refine.setup.slice_thickness == pytest.approx(9)
    assert plan.notes == ()
    depth, _ = depth_of(Calibration(), Setup(slices=24, slice_thickness=1.5, together=3))
    assert depth.together == 3
    assert depth_for_refine(Depth(8, 1.6)) == Depth(8, 1.6)


def test_start_and_solver_that_are_chosen_do_not_matter():
    for step in plan_of(extended(), asked(solver="adam", start="a layer")).runs:
        assert step.setup.start == ""
        assert step.solver in ("refine", "dps")


def test_a_plan_takes_only_what_a_step_before_leaves():
    step = RunStep("one", Setup(solver="dps"), SOLVERS["dps"].default())
    with pytest.raises(ValueError, match="no step before it refines"):
        Plan((step, replace(step, microscope="refined")))
    with pytest.raises(ValueError, match="no step before it leaves a volume"):
        Plan((replace(step, start="volume"),))


def test_files_of_the_steps():
    refine, dps = plan_of(extended(), asked()).runs
    out = Path("folder/out.tif")
    assert files_of((refine, dps), out) == (Path("folder/out_refined.h5"), out)
    assert files_of((dps,), out) == (out,)
    assert [f.name for f in files_of((refine, dps, refine, dps), out)] == [
        "out_refined.h5", "out_sampled.h5", "out_refined2.h5", "out.tif",
    ]  # fmt: skip


def test_a_volume_is_laid_on_other_slices_and_another_canvas():
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((4, 5, 6)), (1.5, 0.2, 0.2), (0.0, 0.4, -0.2))
    problem = SimpleNamespace(
        shape=(2, 8, 5), voxel_size=(2.5, 0.2, 0.2), slice_thickness=(2.5, 2.5),
        origin=(0.0, 0.0, 0.0),
    )  # fmt: skip
    out = laid_on(problem, volume)
    assert out.shape == (2, 8, 5)
    old = volume.array
    first, second = old[0] + old[1] * 2 / 3, old[1] / 3 + old[2] + old[3] / 3  # of 5 Å in all
    np.testing.assert_allclose(out[0, 2:7], first[:, 1:], rtol=1e-6)
    np.testing.assert_allclose(out[1, 2:7], second[:, 1:], rtol=1e-6)
    assert not out[:, :2].any()
    assert not out[:, 7:].any()
    other = replace(volume, voxel_size=(1.5, 0.2, 0.3))
    with pytest.raises(ValueError, match=r"its voxels are 0.2 × 0.3 Å"):
        laid_on(problem, other)
