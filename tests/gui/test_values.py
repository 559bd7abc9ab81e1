"""Rows of the Data dock for gain, negative values and faulty pixels; the pass for them is a job."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mepdiff.measurement.reading import Reading
from napari_mepdiff.session import preferences as memory

from .conftest import small_data

PLACE = (20, 9)


def flawed():
    """The small measurement, in units of 7 per electron, with a hot pixel."""
    data = small_data()
    values = np.array(data.data) * np.float32(7)
    values[:, :, PLACE[0], PLACE[1]] = 40 * values.max()
    return replace(data, data=values)


def test_gain_and_clipping_have_rows_that_act_are_undone_and_remembered(desk):
    desk.take(flawed(), "flawed.h5")
    rows, session = desk.data.values.form.rows, desk.session
    assert rows["gain"].placeholderText() == "1"
    assert "detector gives for an electron" in rows["gain"].toolTip()
    assert "per electron" in desk.data.values.form.layout_.labelForField(rows["gain"]).text()
    before = np.array(session.data.data)
    rows["gain"].setFocus()
    desk.qtbot.keyClicks(rows["gain"], "7")
    desk.qtbot.keyClick(rows["gain"], Qt.Key.Key_Return)
    assert session.choices.preparation.gain == 7
    np.testing.assert_allclose(np.asarray(session.data.data), before / 7, rtol=1e-6)
    rows["clip_negative"].setFocus()
    rows["clip_negative"].click()
    assert session.choices.preparation.clip_negative
    desk.workspace.remember()
    kept = memory.load()[0].preparation
    assert kept.gain == 7
    assert kept.clip_negative
    desk.workspace.do_undo()
    assert not rows["clip_negative"].isChecked()
    desk.workspace.do_undo()
    assert rows["gain"].text() == ""
    np.testing.assert_array_equal(np.asarray(session.data.data), before)
    rows["gain"].setFocus()
    desk.qtbot.keyClicks(rows["gain"], "-7")
    desk.qtbot.keyClick(rows["gain"], Qt.Key.Key_Return)
    assert "greater than 0" in rows["gain"].toolTip()
    assert session.choices.preparation.gain is None
    desk.idle()


@pytest.fixture
def passes(monkeypatch):
    """Passes over the patterns: by whom they were asked for; slow ones while `slow` is set."""
    asked, slow, real = [], threading.Event(), Reading.summary

    def summary(reading, progress=None):
        asked.append(threading.current_thread())
        while slow.is_set():
            if progress is not None:
                progress(0.3)
            time.sleep(0.01)
        return real(reading, progress)

    monkeypatch.setattr(Reading, "summary", summary)
    yield asked, slow
    slow.clear()


def test_pixels_are_repaired_after_a_job_that_can_be_cancelled(desk, passes):
    """All patterns were looked through in the thread of the window."""
    asked, slow = passes
    desk.take(flawed(), "flawed.h5")
    box, session = desk.data.values.form.rows["repair_pixels"], desk.session
    slow.set()
    box.click()
    assert not session.choices.preparation.repair_pixels  # what is not made is not shown
    assert not box.isChecked()
    desk.until(lambda: desk.data.busy.bar.value() == 300)
    assert "faulty pixels" in desk.data.busy.bar.format()
    desk.click(desk.data.busy.cancel)
    desk.idle()
    assert not session.choices.preparation.repair_pixels
    assert session.data.mask is None
    slow.clear()
    box.click()
    desk.until(lambda: session.choices.preparation.repair_pixels)
    assert box.isChecked()
    assert session.data.mask[PLACE] == 0
    assert desk.data.values.repaired.text().startswith("1 pixel is filled")
    desk.idle()
    desk.workspace.do_undo()
    assert session.data.mask is None
    assert not box.isChecked()
    assert desk.data.values.repaired.isHidden()
    desk.workspace.do_redo()  # it is known by now
    assert session.data.mask[PLACE] == 0
    desk.idle()
    assert threading.main_thread() not in asked
    assert not desk.errors


def test_repaired_pixels_come_back_with_the_last_file(desk, tmp_path, passes):
    from napari_mepdiff.measurement.formats import own

    path = tmp_path / "flawed.h5"
    own.save(flawed(), path)
    desk.session.change("preparation", repair_pixels=True)  # as it is remembered
    desk.workspace.last_path, desk.workspace.last_options = str(path), {}
    desk.workspace.files.restore()
    desk.until(lambda: desk.session.findings is not None)
    desk.idle()
    assert desk.session.data.mask[PLACE] == 0
    assert threading.main_thread() not in passes[0]
    assert not desk.errors
