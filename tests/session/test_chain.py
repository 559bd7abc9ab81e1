"""The steps from a measurement to a volume, one after another, without a window."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mepdiff.measurement.dataset import Calibration, FourDSTEM
from napari_mepdiff.session.chain import Chain
from napari_mepdiff.session.jobs import Jobs
from napari_mepdiff.session.microscopes import Microscopes
from napari_mepdiff.session.plan import LookStep
from napari_mepdiff.session.replay import play
from napari_mepdiff.session.runner import Runner
from napari_mepdiff.session.session import Session
from tests.reconstruction.small import crystal_problem

SCAN, STEP = 6, 6.4 / 9


class Desk:
    """A session with everything that a chain takes, and ears for its messages."""

    def __init__(self, prior: str) -> None:
        self.session = Session(wait=False)
        self.runner = Runner(self.session)
        self.jobs = Jobs(self.session.report)
        self.microscopes = Microscopes(self.session)
        self.chain = Chain(self.session, self.runner, self.jobs, self.microscopes)
        self.said: list[tuple[str, str]] = []
        self.session.message.connect(lambda level, text, _details: self.said.append((level, text)))
        self.session.change_settings(
            "refine", iterations=2, probe_start=1, position_start=1, batch=8, modes=1, held_out=0.1
        )
        self.session.change_settings(
            "dps", prior=prior, guidance="newton", steps=4, evaluations=5, samples=1
        )

    def open(self, path, **options):
        from napari_mepdiff.measurement.formats import open_4dstem

        self.session.take(open_4dstem(path, **options), str(path), **options)
        assert self.session.data is not None
        return self.session.data

    def until(self, condition, turns=20000):
        import time

        for _ in range(turns):
            if condition():
                return
            self.jobs.poll()
            self.runner.poll()
            time.sleep(0.002)
        raise AssertionError("it did not happen")


@pytest.fixture
def desk(prior):
    return Desk(prior)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Patterns of an extended crystal, and nothing else."""
    problem, _ = crystal_problem(boundary="extended", scan=9)
    path = tmp_path_factory.mktemp("bare") / "patterns.npy"
    np.save(path, np.asarray(problem.patterns))
    return path


def told(desk, bare, **more):
    desk.open(bare, scan_shape=(9, 9))
    fields = {"energy": 300.0, "semi_angle": 20.0, "scan_step_y": STEP, "scan_step_x": STEP}
    desk.session.change("preparation", **{**fields, **more})


def test_from_bare_patterns_to_a_volume(desk, bare, tmp_path):
    told(desk, bare)
    desk.chain.start(tmp_path)
    assert desk.chain.line == "step 1 of 3: what the patterns say"
    assert desk.chain.run_to_end(), desk.chain.reason
    look, refine, sample = desk.chain.stages
    assert [s.state for s in desk.chain.stages] == ["done"] * 3
    assert any("detector pixel" in note for note in look.notes)
    first, last = desk.session.runs
    assert (refine.run, sample.run) == (first.name, last.name)
    assert (first.solver, last.solver) == ("refine", "dps")
    assert refine.cost.seconds > 0
    path = tmp_path / f"{first.file_stem}_microscope.h5"
    assert last.recipe.microscope.path == str(path)
    np.testing.assert_allclose(
        last.problem.positions + last.problem.origin[1:],
        first.microscope().positions,
        atol=1e-6,
    )
    assert last.frame.volume.shape[0] == 8  # the thickness is not told
    assert any("8 slices of 1.6 Å" in note for note in desk.chain.notes)
