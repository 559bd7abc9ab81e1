"""The Reconstruct dock says why a misfit is large, and offers what helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .conftest import small_data


def scaled(gain):
    data = small_data(truth=False)
    return replace(data, data=(np.asarray(data.data) * gain).astype(np.float32))


def reconstruct(desk):
    desk.session.change("setup", solver="lbfgs")
    desk.session.change_settings("lbfgs", iterations=4, learning_rates=(0.5,))
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: not run.going_on, 60)
    desk.idle()
    return run


def test_a_gain_is_named_shown_and_set(desk):
    desk.take(scaled(20.7))
    section = desk.reconstruct.diagnosis
    assert section.isHidden()
    run = reconstruct(desk)
    desk.until(lambda: run.diagnosis is not None)
    assert run.diagnosis.causes[0].name == "gain"
    assert not section.isHidden()
    assert "not in electrons" in section.said.text()
    assert "not in electrons" in run.record().outcome.verdict
    assert section.detector.image.image.shape == (32, 32)
    button = section.buttons.layout().itemAt(0).widget()
    assert button.text() == "Set the gain to 20.7"
    desk.raise_dock(desk.reconstruct)
    desk.click(button)
    assert desk.session.choices.preparation.gain == 20.7
    desk.idle()
    desk.workspace.do_undo()
    assert desk.session.choices.preparation.gain is None


def test_nothing_is_said_of_a_run_that_explains_its_data(desk):
    desk.take(small_data(truth=False))
    desk.session.change("setup", solver="lbfgs")
    desk.session.change_settings("lbfgs", iterations=30)
    desk.click(desk.reconstruct.start_button)
    run = desk.session.runs[-1]
    desk.until(lambda: not run.going_on, 60)
    desk.idle()
    assert run.outcome.loss < 1.3
    assert run.diagnosis is None
    assert desk.reconstruct.diagnosis.isHidden()
