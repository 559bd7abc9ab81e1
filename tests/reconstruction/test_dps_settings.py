"""What the settings of diffusion posterior sampling say they do, they do; what has no effect is
refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mepdiff.reconstruction.change import Change
from napari_mepdiff.reconstruction.control import Control, Refused
from napari_mepdiff.reconstruction.diffusion import begin
from napari_mepdiff.reconstruction.diffusion.dps import DPSSettings
from napari_mepdiff.reconstruction.diffusion.settings import of_earlier_version
from napari_mepdiff.reconstruction.registry import SolverError, solve
from napari_mepdiff.reconstruction.script import Script

from ..prior.nets import tiny
from .small import ELEMENTS, crystal_problem
from .test_capabilities import another, same

pytestmark = pytest.mark.usefixtures("short_sampling")
KINDS = ("atoms", "newton", "decoupled", "adam", "paper")
STEPS, AT = 6, 2
# values that must tell; beside a step that has gone before
TELL = {
    "weight": 0.3,
    "schedule": "alpha",
    "misfit": "amplitude",
    "fraction": 0.5,
    "inner": 1,
    "adam_strength": 0.5,
    "steps": STEPS + 1,
    "noise_schedule": "karras",
    "sigma_max": 80.0,
    "sigma_min": 0.5,
    "rho": 3.0,
    "eta": 0.5,
    "trust": 0.1,
    "odds": 20.0,
    "non_negative": True,
    "curve": ((-20.0, 0.0), (10.0, 2.0)),
}
OTHER = {"condition": "sum", "precision": "bf16", "prior": "compact", "start_log_snr": 1.0}


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    tiny().save(path, torch.float32)
    return str(path)


@pytest.fixture(scope="module")
def problem():
    return crystal_problem(scan=4, columns=3)[0]


def settings(prior, kind, **fields):
    given = {"guidance": kind, "steps": STEPS, "evaluations": 5, "precision": "float32"}
    if kind == "atoms":
        # one chain, so that what the samples say is not lost among the others
        given |= {"elements": ELEMENTS, "passes": 1, "samples": 2}
    if kind == "paper":
        given["weight"] = 1e-6
    return DPSSettings(**{**given, "prior": prior, **fields})


@pytest.fixture(scope="module")
def undisturbed(problem):
    """The volumes of a run in which nobody changes anything, once for each settings."""
    played = {}

    def volumes(s):
        key = s.model_dump_json()
        if key not in played:
            played[key], _ = play(problem, s)
        return played[key]

    return volumes


def play(problem, s, control=None, act=None):
    control, volumes = control or Control(), []
    for frame in solve(problem, s, control):
        volumes.append(frame.volume)
        if act is not None and frame.step == AT:
            act(control)
    return volumes, control


@pytest.mark.parametrize("kind", KINDS)
def test_every_live_setting_changes_the_volume_or_is_refused(prior, problem, undisturbed, kind):
    """With whole atoms, a drag of the schedule was recorded and marked, and did nothing."""
    together = {}
    for name, value in {"curve": TELL["curve"], **TELL}.items():
        base = (
            {"schedule": "curve", "curve": ((-20.0, 1.0), (10.0, 1.0))} if name == "curve" else {}
        )
        if kind == "paper" and name == "weight":
            value = 2e-5  # far less is far too strong for a network of random weights
        s = settings(prior, kind, **({} if kind in ("atoms", "adam") else base))
        if name not in s.changeable():

            def act(control, name=name, value=value, s=s):
                assert name in s.idle()
                with pytest.raises(Refused, match=f"{name} cannot change now"):
                    control.change(**{name: value})

            _, control = play(problem, s, act=act)
            assert control.changes == []
            continue
        plain = undisturbed(s)
        changed, control = play(
            problem, s, act=lambda c, name=name, value=value: c.change(**{name: value})
        )
        assert not same(plain, changed), f"{name} has no effect with {kind}"
        stored = s.model_copy(update={name: value}).model_dump(mode="json")[name]
        assert control.changes == [Change(AT, {name: stored})]
        if name != "curve":  # which has no effect beside another schedule
            together[name] = value
    changed, control = play(problem, settings(prior, kind), act=lambda c: c.change(**together))
    assert control.changes[0].settings.keys() == together.keys()
    again, _ = play(problem, settings(prior, kind), Script(control.changes))
    assert same(changed, again)


def test_every_live_setting_is_among_those_that_must_tell():
    assert set(TELL) | {"recover"} == DPSSettings.live  # which acts only after a divergence


def test_recovery_can_be_given_up_in_mid_run(prior, problem):
    """The weight would be halved on and on although the user had asked for an end."""
    s = settings(prior, "newton", weight=1e-3, schedule="constant")
    control = Control()

    def act(c):
        c.change(recover=False)
        c.change(weight=1e4)

    with pytest.raises(SolverError, match="lower the guidance weight"):
        play(problem, s, control, act)
    assert control.changes == [Change(AT, {"weight": 1e4, "recover": False})]


def test_a_detector_stride_acts_or_is_said_not_to(prior, problem):
    """The record said every second pixel where every one had been used."""
    strides = {1: [], 2: []}
    for data, fits in ((problem, False), (replace(problem, shape=(4, 16, 16)), True)):
        for stride, volumes in strides.items():
            found, control = play(data, settings(prior, "decoupled", detector_stride=stride))
            said = [note for note in control.notes if "every detector pixel is used" in note]
            assert bool(said) == (stride == 2 and not fits)
            volumes.append(found)
    assert same(strides[1][0], strides[2][0])
    assert not same(strides[1][1], strides[2][1])


@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_setting_makes_no_difference_from_the_start(prior, problem, undisturbed, kind):
    """What a record leaves out as without effect must have had none."""
    s = settings(prior, kind)
    plain = undisturbed(s)
    for name in sorted(set(s.idle()) - {"elements", "curve", "detector_stride"}):
        value = TELL[name] if name in TELL else OTHER.get(name) or another(s, name)
        other = s.model_copy(update={name: value})
        assert same(plain, play(problem, other)[0]), f"{name} acts with {kind}"
        assert name not in s.acting()
    assert "weight" in s.acting()


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_for_the_whole_run_is_refused(prior, problem, kind):
    s = settings(prior, kind)
    fixed = set(DPSSettings.model_fields) - DPSSettings.live - {"solver", "elements", "guidance"}

    def act(control):
        for name in sorted(fixed):
            with pytest.raises(Refused, match=name):
                control.change(**{name: OTHER.get(name) or another(s, name)})

    assert play(problem, s, act=act)[1].changes == []


def test_auto_says_what_has_no_effect_once_it_has_chosen(prior, problem, monkeypatch):
    s = settings(prior, "atoms", guidance="auto")
    assert "schedule" not in s.idle()  # it is not known yet
    assert {"inner", "adam_strength"} <= set(s.idle())
    found = {}

    def act(control):
        found.update(control.idle)
        with pytest.raises(Refused, match="moved between passes"):
            control.change(schedule="alpha")
        control.change(weight=2.0)

    assert play(problem, s, act=act)[1].changes == [Change(AT, {"weight": 2.0})]
    assert "schedule" in found
    assert "schedule" not in s.acting("atoms")

    # a field that is too wide for whole atoms is sampled by free voxels, and then the schedule acts
    monkeypatch.setattr(begin, "WIDE", 10)
    plain, control = play(problem, s)
    assert any("guidance newton, not by atoms" in note for note in control.notes)
    changed, control = play(problem, s, act=lambda c: c.change(schedule="alpha"))
    assert not same(plain, changed)
    assert same(changed, play(problem, s, Script(control.changes))[0])
    with pytest.raises(Refused, match="whole atoms"):
        play(problem, s, act=lambda c: c.change(odds=3.0))


def test_a_curve_that_is_drawn_in_mid_run_acts_with_its_schedule(prior, problem):
    s = settings(prior, "newton")
    with pytest.raises(Refused, match="curve cannot change now"):
        play(problem, s, act=lambda c: c.change(curve=TELL["curve"]))
    plain, _ = play(problem, s)
    changed, _ = play(problem, s, act=lambda c: c.change(curve=TELL["curve"], schedule="curve"))
    assert not same(plain, changed)


def test_a_weight_that_was_halved_stays_when_something_else_is_changed(prior, problem):
    """After divergence the solver halves its weight; the next change in the dock sent the old one
    back, and the run diverged again."""
    s = settings(prior, "newton", weight=1e3, schedule="constant", steps=8)
    control, weights, changed = Control(), [], False
    last = None
    for frame in solve(problem, s, control):
        last = frame
        weights.append(control.settings.weight)
        if control.changes and not changed:
            changed = True
            control.change(eta=0.5)
    assert changed
    halved = [c.settings["weight"] for c in control.changes if c.by == "solver"]
    assert halved
    assert {"eta": 0.5} in [dict(c.settings) for c in control.changes]
    assert weights[-1] == halved[-1] < 1e3
    assert np.isfinite(last.volume).all()


def test_records_of_earlier_versions_say_what_acted_then():
    old = DPSSettings(guidance="newton").model_dump(mode="json")
    assert of_earlier_version({**old, "guidance": "paper"}) == old
    assert of_earlier_version({"weight": 2.0}) == {"weight": 2.0}
    with pytest.raises(ValueError, match="earlier rule of Adam-guidance"):
        of_earlier_version({**old, "guidance": "adam"})
