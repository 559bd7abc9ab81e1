"""Solvers on a small real problem.

An atomic specimen of 4 slices, 32² px, made by our own forward model.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from napari_mepdiff.physics.likelihood import Likelihood
from napari_mepdiff.physics.optics import Optics, probe_from_parameters
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.reconstruction.change import Change
from napari_mepdiff.reconstruction.checkpoint import load_checkpoint
from napari_mepdiff.reconstruction.control import Control
from napari_mepdiff.reconstruction.optimisers import LBFGS
from napari_mepdiff.reconstruction.ordinary.adam import AdamSettings
from napari_mepdiff.reconstruction.ordinary.lbfgs import LBFGSSettings
from napari_mepdiff.reconstruction.ordinary.objective import Objective
from napari_mepdiff.reconstruction.ordinary.probe import ProbeFitSettings, fit_probe, probe_error
from napari_mepdiff.reconstruction.ordinary.refine import RefineSettings
from napari_mepdiff.reconstruction.problem import Problem
from napari_mepdiff.reconstruction.registry import SOLVERS, SolverError, solve, solver_of

from ..needs import needs

OPTICS = Optics(semi_angle=20, overfocus=60, C30=5000)


def make_problem(seed=0, electrons=2e5, optics=OPTICS, noise=True, positions_error=0.0):
    """A problem and its truth: atoms of 0.25 Å radius in 4 slices, periodic field of 6.4 Å."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32] * 0.2
    truth = np.zeros((4, 32, 32), np.float32)
    for _ in range(14):
        s, cy, cx = rng.integers(4), *rng.uniform(0, 6.4, 2)
        dy, dx = (np.minimum(abs(v - c), 6.4 - abs(v - c)) for v, c in ((y, cy), (x, cx)))
        truth[s] += 0.5 * np.exp(-(dy**2 + dx**2) / (2 * 0.25**2))
    probe = probe_from_parameters(optics, (32, 32), (0.2, 0.2)) * electrons**0.5
    positions = Raster(shape=(9, 9), step=(0.711, 0.711)).positions()
    true = (
        positions + rng.normal(0, positions_error, positions.shape)
        if positions_error
        else positions
    )
    like = Likelihood(
        np.zeros((81, 32, 32)),
        probe,
        true,
        truth.shape,
        pixel_size=(0.2, 0.2),
        slice_thickness=2.0,
        energy=300.0,
    )
    clean = like.patterns(torch.from_numpy(truth)).numpy()
    counts = rng.poisson(clean).astype(np.float32) if noise else clean
    problem = Problem(
        patterns=counts,
        probe=probe,
        positions=positions,
        shape=truth.shape,
        voxel_size=(2.0, 0.2, 0.2),
        slice_thickness=(2.0,) * 4,
        energy=300.0,
        boundary="periodic",
    )
    return problem, truth, true


def last(frames):
    frame = None
    for frame in frames:  # noqa: B007
        pass
    return frame


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


QUICK = {
    "adam": AdamSettings(iterations=12, learning_rate=0.02, batch=16),
    "lbfgs": LBFGSSettings(iterations=3, batch=None, learning_rates=(1.0,)),
    "ptyrad-adam": AdamSettings(iterations=10, learning_rate=0.02, batch=27, engine="ptyrad"),
    "ptyrad-lbfgs": LBFGSSettings(iterations=3, batch=None, learning_rates=(1.0,), engine="ptyrad"),
    "atomic": SOLVERS["atomic"].default(iterations=25),
    "refine": RefineSettings(iterations=12, volume_step=4.0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=needs("ptyrad")) if n.startswith("ptyrad") else n for n in QUICK]
)
def test_every_solver_finds_the_depth_sum(name):
    problem, truth, _ = make_problem()
    frames = list(solve(problem, QUICK[name]))
    empty = Objective(problem, AdamSettings(misfit=QUICK[name].misfit)).misfit(
        torch.zeros(problem.shape)
    )[0]
    assert frames[-1].loss < min(0.2 * empty, 2.5)
    assert correlation(frames[-1].volume.sum(0), truth.sum(0)) > 0.85
    assert [f.step for f in frames] == sorted({f.step for f in frames})
    assert frames[-1].volume.dtype == np.float32
    assert frames[0].volume is not frames[-1].volume


@pytest.mark.parametrize("misfit", ["intensity", "amplitude", "poisson"])
def test_the_loss_is_about_one_at_the_truth(misfit):
    problem, truth, _ = make_problem()
    objective = Objective(problem, AdamSettings(misfit=misfit))
    assert objective.misfit(torch.from_numpy(truth))[0] == pytest.approx(1, abs=0.15)


def test_penalties_have_the_gradient_they_claim(monkeypatch):
    problem, truth, _ = make_problem()
    s = LBFGSSettings(l1=3.0, depth_smoothing=50.0)
    objective = Objective(problem, s)
    monkeypatch.setattr(objective, "misfit", lambda x, batch=None: (0.0, torch.zeros_like(x)))
    x = torch.from_numpy(truth).double() + 0.05
    direction = torch.randn(x.shape, dtype=torch.float64)
    _, gradient, _ = objective(x, s)
    h = 1e-4
    numeric = (objective(x + h * direction, s)[0] - objective(x - h * direction, s)[0]) / (2 * h)
    assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-6)


def test_non_negative_and_smooth_do_what_they_say():
    problem, _, _ = make_problem()
    for settings in (
        AdamSettings(iterations=4, learning_rate=0.02, non_negative=True),
        LBFGSSettings(iterations=1, learning_rates=(1.0,), non_negative=True),
    ):
        assert last(solve(problem, settings)).volume.min() >= 0
    rough = last(solve(problem, AdamSettings(iterations=8, learning_rate=0.02))).volume
    smooth = last(
        solve(problem, AdamSettings(iterations=8, learning_rate=0.02, depth_smoothing=1e3))
    ).volume
    assert (
        np.square(np.diff(smooth, axis=0)).mean() < 0.2 * np.square(np.diff(rough, axis=0)).mean()
    )


@pytest.mark.parametrize("name", ["adam", "lbfgs", "atomic"])
def test_same_seed_same_volume_bit_for_bit(name):
    problem, _, _ = make_problem()
    settings = QUICK[name].model_copy(
        update={"iterations": 3} | ({"batch": 32} if name == "lbfgs" else {})
    )
    a, b = (last(solve(problem, settings)).volume for _ in range(2))
    assert np.array_equal(a, b)
    other = settings.model_copy(update={"seed": 7})
    assert not np.array_equal(a, last(solve(problem, other)).volume)


@pytest.mark.parametrize("name", ["adam", "lbfgs", "atomic", "refine"])
def test_an_interrupted_run_goes_on_to_the_same_volume(name, tmp_path):
    problem, _, _ = make_problem()
    settings = QUICK[name].model_copy(update={"iterations": 6})
    if name == "lbfgs":
        settings = settings.model_copy(update={"learning_rates": (1.0, 0.1), "iterations": 3})
    whole = list(solve(problem, settings))
    control, path = Control(), tmp_path / "run.checkpoint"
    for frame in solve(problem, settings, control, checkpoint=path, every=0):
        if frame.step == 2:
            control.stop()
    assert frame.step == 2
    rest = list(solve(problem, settings, checkpoint=path))
    assert rest[0].step == 3
    assert np.array_equal(rest[-1].volume, whole[-1].volume)
    assert rest[-1].seconds > frame.seconds
    again = list(
        solve(problem, settings, checkpoint=path)
    )  # a finished run gives its result once more
    assert len(again) == 1
    assert np.array_equal(again[0].volume, whole[-1].volume)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    problem, _, _ = make_problem()
    path = tmp_path / "c"
    last(solve(problem, AdamSettings(iterations=1), checkpoint=path))
    with pytest.raises(ValueError, match="another run"):
        last(solve(problem, AdamSettings(iterations=1, seed=3), checkpoint=path))
    with pytest.raises(ValueError, match="another run"):
        last(solve(make_problem(seed=1)[0], AdamSettings(iterations=1), checkpoint=path))
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)


KILLED = """
import sys, time
sys.path.insert(0, {root!r})
from tests.reconstruction.test_solvers import make_problem, AdamSettings, solve
problem, _, _ = make_problem()
settings = AdamSettings(iterations=40, learning_rate=0.02)
for frame in solve(problem, settings, checkpoint={path!r}, every=0):
    print(frame.step, flush=True)
    time.sleep(0.05)
"""


def test_kill_minus_nine_in_mid_run_then_resume(tmp_path):
    from ..conftest import ROOT

    path = str(tmp_path / "run.checkpoint")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(root=str(ROOT), path=path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 5:
            process.kill()
            break
    process.wait()
    process.stdout.close()
    problem, _, _ = make_problem()
    settings = AdamSettings(iterations=40, learning_rate=0.02)
    frames = list(solve(problem, settings, checkpoint=path))
    assert 4 <= frames[0].step <= 8
    assert frames[-1].step == 40
    assert np.array_equal(frames[-1].volume, last(solve(problem, settings)).volume)


def test_pause_holds_and_resume_goes_on():
    problem, _, _ = make_problem()
    control, seen = Control(), []

    def work():
        for frame in solve(problem, AdamSettings(iterations=60, batch=81), control):
            seen.append(frame.step)

    thread = threading.Thread(target=work)
    thread.start()
    while len(seen) < 3:
        time.sleep(0.01)
    control.pause()
    time.sleep(0.4)
    held = len(seen)
    assert control.paused
    time.sleep(0.4)
    assert len(seen) == held < 60
    control.resume()
    while len(seen) < held + 3:
        time.sleep(0.01)
    control.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert len(seen) < 60


def test_live_changes_take_hold_and_are_recorded():
    problem, _, _ = make_problem()
    control, settings = Control(), AdamSettings(iterations=5, learning_rate=0.02)
    volumes = []
    for frame in solve(problem, settings, control):
        volumes.append(frame.volume)
        if frame.step == 2:
            control.update(settings.model_copy(update={"learning_rate": 1e-9}))
    assert control.changes == [Change(2, {"learning_rate": 1e-9})]
    assert np.abs(volumes[4] - volumes[2]).max() < 1e-6 < np.abs(volumes[1] - volumes[0]).max()


def test_a_diverging_run_says_so_and_keeps_its_last_good_volume(tmp_path, monkeypatch):
    problem, _, _ = make_problem()
    path, settings = tmp_path / "c", AdamSettings(iterations=5, learning_rate=0.01, batch=81)
    calls, original = [], Objective.misfit

    def spoiled(self, volume, batch=None):
        calls.append(1)
        loss, gradient = original(self, volume, batch)
        return (loss, gradient) if len(calls) < 3 else (float("nan"), gradient * float("nan"))

    monkeypatch.setattr(Objective, "misfit", spoiled)
    frames = []
    with pytest.raises(SolverError, match="diverged"):
        frames.extend(_keep(solve(problem, settings, checkpoint=path), frames))
    assert [f.step for f in frames] == [1, 2]
    assert np.array_equal(load_checkpoint(path)["shown"].numpy(), frames[-1].volume)
    assert np.isfinite(load_checkpoint(path)["x"].numpy()).all()
    monkeypatch.undo()
    assert [f.step for f in solve(problem, settings, checkpoint=path)] == [3, 4, 5]


def _keep(frames, into):
    for frame in frames:
        into.append(frame)
    return []


def test_a_given_start_is_used_and_checked():
    problem, truth, _ = make_problem()
    frame = next(iter(solve(problem, AdamSettings(iterations=1, learning_rate=1e-6), start=truth)))
    assert np.abs(frame.volume - truth).max() < 1e-3
    with pytest.raises(ValueError, match="the start is"):
        next(iter(solve(problem, AdamSettings(), start=truth[:2])))


def test_registry_and_settings():
    for solver in SOLVERS.values():
        settings = solver.default()
        assert type(settings).model_validate_json(settings.model_dump_json()) == settings
        assert all(f.title for n, f in type(settings).model_fields.items() if n not in ("solver",))
    assert solver_of(AdamSettings()).title == "Adam"
    paper = AdamSettings()
    assert (paper.batch, paper.learning_rate, paper.iterations) == (32, 5e-4, 200)
    paper = LBFGSSettings()
    assert (paper.learning_rates, paper.evaluations, paper.iterations) == ((1.0, 0.1, 0.01), 20, 5)
    with pytest.raises(ValueError, match="unknown elements"):
        SOLVERS["atomic"].default(elements=("Sr", "Xx"))
    with pytest.raises(ValueError, match="greater than"):
        AdamSettings(learning_rate=-1)


def test_positions_are_refined_together_with_the_volume():
    problem, _, true = make_problem(positions_error=0.12, electrons=2e6)
    settings = RefineSettings(iterations=40, volume_step=4.0, probe="fixed", held_out=0.1)
    frame = last(solve(problem, settings))
    before = problem.positions - true
    after = frame.info.positions - true
    assert np.std(after - after.mean(0)) < 0.5 * np.std(before - before.mean(0))


def test_one_probe_is_fitted_over_several_specimens():
    wrong = OPTICS.model_copy(update={"overfocus": 75.0})
    problems = [make_problem(seed=s, electrons=2e6)[0] for s in range(3)]
    truth = problems[0].probe
    start = probe_from_parameters(wrong, (32, 32), (0.2, 0.2)) * 2e6**0.5
    from dataclasses import replace

    begun = [replace(p, probe=start) for p in problems]
    seen = []
    settings = ProbeFitSettings(
        iterations=30, learning_rate=0.02, probe_rate=5e-3, probe_start=3, batch=27
    )
    fitted = fit_probe(begun, settings, lambda *a: seen.append(a))
    assert len(seen) == 30
    assert seen[-1][2] < seen[5][2]
    assert probe_error(fitted, truth) < 0.6 * probe_error(start, truth)
    with pytest.raises(ValueError, match="at least one"):
        fit_probe([])


def test_atomic_sources_get_over_a_line_search_that_fails(monkeypatch):
    """Every trial overshoots until the steps are smaller.

    The solver must not repeat the same trials to the end.
    """
    original, smaller = LBFGS.step, False

    def step(self, closure):
        nonlocal smaller
        smaller = smaller or self.param_groups[0]["lr"] < 0.05
        if not smaller:
            self.state[self.param_groups[0]["params"][0]]["func_evals"] = 4
            return closure()
        return original(self, closure)

    monkeypatch.setattr(LBFGS, "step", step)
    problem, _, _ = make_problem()
    frames = list(solve(problem, SOLVERS["atomic"].default(iterations=12, patience=8)))
    assert frames[1].loss == frames[0].loss
    assert frames[-1].loss < 0.7 * frames[0].loss


def test_atomic_sources_stop_when_the_held_out_misfit_stops_falling():
    problem, _, _ = make_problem(electrons=3e3)
    settings = SOLVERS["atomic"].default(iterations=60, patience=4)
    frames = list(solve(problem, settings))
    assert len(frames) < 60
    assert frames[-1].loss == pytest.approx(min(f.info.held_out for f in frames), rel=1e-3)


@needs("abtem")
def test_source_kernels_are_one_atom_of_abtem():
    from ase import Atoms

    from napari_mepdiff.reconstruction.ordinary.atomic import Sources
    from napari_mepdiff.specimen.render import render

    problem, _, _ = make_problem()
    sources = Sources(problem, ("W", "O"), 1.6)
    density = torch.zeros(sources.shape)
    density[0, 1, 8 + 10, 8 + 12] = 1
    density[1, 2, 8 + 20, 8 + 5] = 1
    ours = sources.volume(density).numpy()
    atoms = Atoms(
        "WO", positions=[[2.4, 2.0, 3.0], [1.0, 4.0, 5.0]], cell=[6.4, 6.4, 8.0], pbc=True
    )
    theirs = render(atoms, (4, 32, 32), (2.0, 0.2, 0.2)).array
    assert np.abs(ours - theirs).max() < 0.01 * theirs.max()
    a, b = torch.rand(sources.shape), torch.rand(problem.shape)
    assert float((sources.volume(a) * b).sum()) == pytest.approx(
        float((a * sources.adjoint(b)).sum()), rel=1e-4
    )


def test_exclusion_keeps_atoms_apart_where_elements_are_known():
    from napari_mepdiff.reconstruction.ordinary.atomic import Sources, _neighbourhood

    problem, _, _ = make_problem()
    a, b = torch.rand(4, 48, 48), torch.rand(4, 48, 48)
    assert float((_neighbourhood(a) * b).sum()) == pytest.approx(
        float((a * _neighbourhood(b)).sum()), rel=1e-5
    )
    crowd = {}
    for exclusion in (0.0, 300.0):
        settings = SOLVERS["atomic"].default(
            iterations=25, elements=("C",), exclusion=exclusion, patience=25
        )
        state = {}

        def note(snapshot, into=state):
            into.update(snapshot())

        from napari_mepdiff.reconstruction.ordinary.atomic import atomic
        from napari_mepdiff.reconstruction.run import Run

        run = Run(problem, settings, Control(), None)
        run.keep = note
        last(atomic(run))
        assert state["u"].shape == Sources(problem, ("C",), settings.margin).shape
        crowd[exclusion] = float(_neighbourhood(state["u"].square()[0]).max())
    assert crowd[300.0] < 0.8 * crowd[0.0]
