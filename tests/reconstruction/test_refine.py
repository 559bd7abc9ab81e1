"""Refinement of probe and positions.

It stays on the canvas, and what it finds serves the next run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mepdiff.evaluation.registration import beyond_affine
from napari_mepdiff.microscope.state import MicroscopeState
from napari_mepdiff.physics.illumination import Illumination
from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.misfit import shot_noise
from napari_mepdiff.physics.optics import Optics, probe_from_parameters
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.reconstruction.control import Control
from napari_mepdiff.reconstruction.ordinary.grid_window import GridWindow, radius_for
from napari_mepdiff.reconstruction.ordinary.positions_block import PositionsBlock
from napari_mepdiff.reconstruction.ordinary.refine import RefineSettings, refined
from napari_mepdiff.reconstruction.preview import preview
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.reconstruction.registry import SOLVERS, solve
from napari_mepdiff.specimen.render import render_batch

from ..gui.conftest import small_data
from .small import crystal_problem


def at_the_rim(seed=1):
    """A canvas that ends a pixel beyond the outermost windows; positions that are wrong."""
    problem, _ = crystal_problem(boundary="extended", scan=6)
    low = np.floor(problem.positions / 0.2 + 0.5).min(axis=0).astype(int) - 16 - 1
    high = np.floor(problem.positions / 0.2 + 0.5).max(axis=0).astype(int) + 16 + 1
    shift = np.random.default_rng(seed).normal(0, 0.1, problem.positions.shape)
    positions = problem.positions - low * 0.2 + shift.clip(-0.09, 0.09)
    return replace(problem, positions=positions, shape=(4, *(high - low)))


def test_positions_are_held_on_the_canvas():
    """Positions wandered off a canvas with a rim of one pixel, and the run died in the middle."""
    problem, control = at_the_rim(), Control()
    settings = RefineSettings(iterations=12, position_start=1, position_step=100.0, batch=12)
    frames = list(solve(problem, settings, control))
    assert frames[-1].step == 12
    low, high = problem.position_bounds()
    places = frames[-1].info.positions
    assert (places >= low).all()
    assert (places <= high).all()
    assert (np.abs(places - problem.positions).max(axis=0) > 0.2).any()  # they did want to go
    told = [note for note in control.notes if "are held there" in note]
    assert len(told) == 1


def test_room_is_asked_for_where_positions_move():
    assert RefineSettings(positions="affine", max_shift=0.7).position_room() == 0.7
    assert RefineSettings(positions="fixed", max_shift=0.7).position_room() == 0.0
    assert SOLVERS["adam"].default().position_room() == 0.0


def test_what_was_refined_is_kept_and_used_by_the_next_run(tmp_path):
    """Refined probe and positions were shown while the run lasted, and then lost."""
    data = small_data(truth=False)
    wrong = data.optics.model_copy(update={"overfocus": 80.0})
    first = Problem.from_data(data, slices=4, slice_thickness=1.6, optics=wrong)
    settings = RefineSettings(iterations=25, volume_step=4.0, positions="fixed")
    frames = list(solve(first, settings))
    state = refined(frames[-1], first, run="a night's run")
    assert state is not None
    state.save(tmp_path / "microscope.h5")
    again = MicroscopeState.load(tmp_path / "microscope.h5")
    assert np.array_equal(again.probe, frames[-1].info.probe)
    np.testing.assert_allclose(again.positions, data.scan_positions(), atol=1e-6)
    assert again.provenance["run"] == "a night's run"
    second = Problem.from_data(data, slices=4, slice_thickness=1.6, microscope=again)
    torch.testing.assert_close(second.probe, torch.from_numpy(again.probe), rtol=1e-3, atol=1e-3)
    fixed = RefineSettings(iterations=8, volume_step=4.0, probe="fixed", positions="fixed")
    with_it, without = (list(solve(p, fixed))[-1].loss for p in (second, first))
    assert with_it < 0.8 * without
    quick = SOLVERS["adam"].default(iterations=1)
    assert refined(list(solve(second, quick))[-1], second) is None


def test_a_preview_of_a_refinement_is_less_work():
    """It used to set a detector stride that the solver did not look at."""
    settings = RefineSettings(iterations=50)
    less = preview(settings)
    problem = crystal_problem(scan=5)[0]
    assert list(solve(problem, less))[-1].step == less.iterations < settings.iterations / 3


def test_what_is_fixed_has_no_effect_and_says_so():
    still = RefineSettings(probe="fixed", positions="fixed")
    assert {"max_shift", "probe_start"} <= still.idle().keys()
    assert RefineSettings().idle() == {}
    with pytest.raises(ValueError, match="max_shift cannot change now: the positions are fixed"):
        next_step_changes(RefineSettings(iterations=2, positions="fixed"), max_shift=0.2)


def next_step_changes(settings, **fields):
    control = Control()
    for frame in solve(crystal_problem(scan=5)[0], settings, control):
        if frame.step == 1:
            control.change(**fields)


# ---- what is refined, and on what evidence ----------------------------------------------------
def measurement(tilt=(0.0, 0.0), background=0.0, source=0.0, told=60.0, shift=0.0, seed=0):
    """A crystal of 6 slices of 6 Å in an extended field, and what was told of the microscope."""
    rng = np.random.default_rng(seed)
    numbers, places = [], []
    for y in np.arange(0.9, 13, 2.0):
        for x in np.arange(0.7, 13, 2.0):
            for s in range(6):
                numbers.append((22, 38)[(round(y / 2) + round(x / 2)) % 2])
                places.append((6 * s + 3.0, y, x))
    volume = render_batch([(np.array(numbers), np.array(places))], (6, 64, 64), (6.0, 0.2, 0.2))[0]
    optics = Optics(semi_angle=20, overfocus=60, C30=5000)
    light = Illumination(optics, source, 0.0, 3 if source else 1, (32, 32), (0.2, 0.2))
    scan = Raster(shape=(14, 14), step=(0.4, 0.4), origin=(3.7, 3.7))
    true = scan.positions() + rng.normal(0, shift, (196, 2)).clip(-0.4, 0.4)
    known = {"pixel_size": (0.2, 0.2), "slice_thickness": 6.0, "energy": 300.0}
    like = Likelihood(
        np.zeros((196, 32, 32)),
        (light.probe() * 1e5**0.5).to(torch.complex64),
        true,
        (6, 64, 64),
        boundary="extended",
        **known,
    )
    like.set_gaps(tilt=tilt)
    like.set_detector(background=background)
    counts = rng.poisson(like.patterns(volume).numpy()).astype(np.float32)
    wrong = optics.model_copy(update={"overfocus": told})
    problem = Problem(
        patterns=counts,
        probe=probe_from_parameters(wrong, (32, 32), (0.2, 0.2)) * float(counts.sum() / 196) ** 0.5,
        positions=scan.positions(),
        shape=(6, 64, 64),
        voxel_size=(6.0, 0.2, 0.2),
        slice_thickness=(6.0,) * 6,
        energy=300.0,
        boundary="extended",
        optics=wrong,
        told=wrong,
    )
    return problem, true, volume.numpy()


def found(problem, control=None, **fields):
    settings = RefineSettings(**{"iterations": 12, "held_out": 0.1, "modes": 1, **fields})
    return list(solve(problem, settings, control))[-1]


@pytest.fixture(scope="module")
def all_wrong():
    problem, true, volume = measurement((3.0, -4.0), 0.4, 0.25, 75.0, 0.1)
    return found(problem, iterations=20, modes=3), problem, true, volume


def test_a_measurement_with_every_error_at_once_is_explained(all_wrong):
    """Defocus told 15 Å off, tilt, background, source size and jitter not told at all."""
    frame, problem, true, volume = all_wrong
    assert frame.loss < 1.15
    sums = (frame.volume.sum(0)[18:46, 18:46], volume.sum(0)[18:46, 18:46])
    assert np.corrcoef(sums[0].ravel(), sums[1].ravel())[0, 1] > 0.9
    np.testing.assert_allclose(frame.info.tilt, (3.0, -4.0), atol=1.0)
    assert 0.15 < frame.info.background < 0.45  # free voxels explain some of it
    assert beyond_affine(frame.info.positions, true) < 0.4 * beyond_affine(problem.positions, true)
    # the defocus at the entrance surface, as the probe was told for slices of 1.6 Å
    away = frame.info.optics.overfocus + problem.plane - 0.8 - 60.0
    assert abs(away) < 3 * frame.info.errors["C10"] < 15.0
    assert abs(frame.info.source_size - 0.25) < 3 * frame.info.errors["source_size"] < 0.5


def test_positions_that_only_judged_are_found_too(all_wrong):
    """They had no part in the fit, and stood where they were told to the end."""
    frame, problem, true, _ = all_wrong
    judges = np.random.default_rng(0).permutation(196)[:20]
    places = np.hstack([true, np.ones((196, 1))])
    others = np.setdiff1d(np.arange(196), judges)
    away = []
    for found in (problem.positions, frame.info.positions):
        affine = np.linalg.lstsq(places[others], found[others], rcond=None)[0]
        away.append(np.sqrt(np.square(found - places @ affine)[judges].mean()))
    assert away[1] < 0.5 * away[0]


def test_what_repeats_with_the_raster_is_not_refined():
    """A probe times a pattern of the scan's period explains the data of another specimen alike."""
    problem, _, _ = measurement()
    optics = problem.optics.model_copy(update={"overfocus": 300.0})
    radius = radius_for(optics, torch.from_numpy(problem.positions))
    ripple = optics.wavelength * 300.0 / 0.4  # Å from the middle of the refocused probe
    assert radius == pytest.approx(0.5 * ripple)
    window = GridWindow(optics, (128, 128), (0.2, 0.2), radius)
    spectrum = torch.fft.fft2(Illumination(optics, 0.0, 0.0, 1, (128, 128), (0.2, 0.2)).probe())
    spectrum = spectrum.to(torch.complex64)
    kx = torch.fft.fftfreq(128, 0.2)
    ky = kx[:, None]
    inner = ((ky**2 + kx**2).sqrt() < 0.7 * optics.k_max).float()
    for away, low, high in ((0.2 * ripple, 0.9, 1.0), (ripple, 0.0, 0.15)):
        change = spectrum * torch.cos(2 * torch.pi * kx * away) * inner
        left = float((window(change) * inner).abs().square().sum() / change.abs().square().sum())
        assert low <= left <= high + 1e-5
    # a gradient becomes a way down, whatever it is
    any_ = torch.randn(2, 128, 128, generator=torch.Generator().manual_seed(0)) + 0j
    assert float((any_.conj() * window(any_)).sum().real) > 0
    rim = spectrum * (ky**2 + kx**2 > optics.k_max**2)  # sharp, and refined as it is
    torch.testing.assert_close(window(rim), rim)
    jittered = problem.positions + np.random.default_rng(0).normal(0, 0.15, (196, 2))
    assert radius_for(optics, torch.from_numpy(jittered)) is None  # no raster


def test_a_drift_that_slows_down_is_found_with_few_parameters():
    problem, _, volume = measurement()
    time = np.linspace(-1, 1, 196)
    drift = np.stack([0.15 * time**2, -0.1 * time**3], axis=1)
    problem = replace(problem, positions=problem.positions + drift)  # told with that error
    fields = {"volume": "held", "probe": "fixed", "position_start": 0, "background": False}
    settings = RefineSettings(iterations=6, tilt=False, **fields)
    frame = list(solve(problem, settings, start=volume))[-1]
    found = frame.info.positions - problem.positions
    assert np.sqrt(np.square(found + drift).mean()) < 0.01
    block = PositionsBlock(torch.from_numpy(problem.positions), (0, 0), "free", "poisson")
    assert block.courses.shape == (196, 4)
    rest = drift - block.courses.numpy() @ np.linalg.lstsq(block.courses, drift)[0]
    assert np.abs(rest - rest.mean(axis=0)).max() < 1e-6
    alone = PositionsBlock(torch.from_numpy(problem.positions), (0, 0), "affine", "poisson")
    assert alone.courses.shape == (196, 2)


def test_a_volume_that_is_held_sharpens_the_microscope():
    """As a volume of whole atoms does: what free voxels take up is then told apart."""
    problem, true, volume = measurement((3.0, -4.0), 0.0, 0.25, 75.0, 0.1)
    control, asked = Control(), {"volume": "held", "probe": "optics", "position_start": 0}
    settings = RefineSettings(iterations=11, batch=16, modes=3, background=False, **asked)
    frame = list(solve(problem, settings, control, start=volume))[-1]
    assert np.array_equal(frame.volume, volume)
    np.testing.assert_allclose(frame.info.tilt, (3.0, -4.0), atol=0.2)
    assert abs(frame.info.source_size - 0.25) < 0.03
    # its slices act where those of the truth do, so that the probe is meant at the same plane
    assert abs(frame.info.optics.overfocus + problem.plane - 0.8 - 60.0) < 1.0
    assert np.sqrt(np.square(frame.info.positions - true).mean()) < 0.02
    assert frame.loss < 1.05
    # the next one begins with these optics, not with the pixels that they were read off
    state = refined(frame, problem)
    known = replace(
        problem,
        probe=torch.from_numpy(state.probe),
        optics=None,
        told=state.optics,
        source_size=state.source_size,
        tilt=state.tilt,
        positions=frame.info.positions,
    )
    again = next(solve(known, settings.with_fields(iterations=1), start=volume))
    assert abs(again.loss - frame.loss) < 0.05
    assert abs(again.info.optics.overfocus - frame.info.optics.overfocus) < 2.0


def test_what_a_held_volume_lacks_is_said():
    problem = crystal_problem(scan=5)[0]
    with pytest.raises(ValueError, match="begin from an earlier run's volume"):
        next(solve(problem, RefineSettings(volume="held")))
    settings = RefineSettings(volume="held", probe="optics")
    start = np.zeros(problem.shape, np.float32)
    with pytest.raises(ValueError, match="no optics were read off them"):
        next(solve(replace(problem, optics=None, told=None), settings, start=start))
    assert "volume_step" in settings.idle()
    assert settings.position_room() == 0.0


def test_errors_are_known_of_optics_whose_pixels_were_given_up():
    """The probe is put back to what its optics make: that is no exact knowledge of them."""
    problem, _, _ = measurement(told=66.0)
    control = Control()
    frame = found(problem, control, probe_start=3, positions="fixed", iterations=9)
    if not any("the probe is what its optics make it" in note for note in control.notes):
        pytest.fail(f"pixels were kept: {control.notes}")
    errors = frame.info.errors
    assert errors["C10"] >= 6.0 / 12**0.5  # somewhere within a slice of 6 Å
    assert errors["C21a"] > 0


def test_what_was_told_rightly_stays():
    """A scan that was exact is not stretched by fitting noise, and the user is told so."""
    problem, _, _ = measurement()
    control = Control()
    frame = found(problem, control, iterations=30, probe="fixed", positions="affine", narrowest=0)
    assert any("shear and rotation of the scan are as told" in n for n in control.notes)
    assert np.array_equal(frame.info.positions, problem.positions)
    assert frame.loss < 1.15


def test_a_run_that_was_interrupted_goes_on_bit_for_bit(tmp_path):
    problem, _, _ = measurement((2.0, 0.0), 0.2, 0.0, 66.0, 0.05)
    settings = RefineSettings(iterations=7, probe_start=2, position_start=1)
    whole = [f.volume for f in solve(problem, settings)]
    control = Control()
    for frame in solve(problem, settings, control, checkpoint=tmp_path / "state", every=0):
        if frame.step == 4:
            control.stop()
    rest = list(solve(problem, settings, checkpoint=tmp_path / "state"))
    assert [f.step for f in rest] == [5, 6, 7]
    assert np.array_equal(rest[-1].volume, whole[-1])
    # a run that had ended tells again what it found of the microscope
    (again,) = solve(problem, settings, checkpoint=tmp_path / "state")
    for name, value in vars(rest[-1].info).items():
        np.testing.assert_array_equal(getattr(again.info, name), value, err_msg=name)


def test_tilt_and_background_are_used_by_the_next_run(all_wrong):
    """They were shown, and the next run's model had neither."""
    frame, problem, _, _ = all_wrong
    state = refined(frame, problem)
    assert state is not None
    assert (state.tilt, state.background) == (frame.info.tilt, frame.info.background)
    probe = torch.from_numpy(state.probe)
    found = {"probe": probe, "positions": frame.info.positions}
    told = {"tilt": state.tilt, "background": state.background}
    volume = torch.from_numpy(frame.volume)
    with_it, without = (
        replace(problem, **found, **more).likelihood("poisson") for more in (told, {})
    )
    assert with_it.tilt == state.tilt
    assert with_it.loss(volume) < 0.95 * without.loss(volume)
    assert with_it.loss(volume) / shot_noise(with_it, "poisson") / 196 < 1.2
