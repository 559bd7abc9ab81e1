"""From bare patterns to a volume, through the docks alone, as with a microscope of one's own."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from tests.reconstruction.small import crystal_problem

SCAN, STEP = 9, 6.4 / 9


def typed(desk, box, text):
    """Type into a row, and press Enter."""
    box.setFocus()
    box.clear()
    desk.qtbot.keyClicks(box, text)
    desk.qtbot.keyClick(box, Qt.Key.Key_Return)


def test_from_bare_patterns_to_a_volume(desk, tmp_path):
    problem, _ = crystal_problem(boundary="extended", scan=SCAN)
    path = tmp_path / "patterns.npy"
    np.save(path, np.asarray(problem.patterns))  # (81, 32, 32), and nothing else
    session, data, dock = desk.session, desk.data, desk.docks["Microscope"]
    desk.workspace.files.open(str(path))
    desk.until(lambda: bool(desk.errors))
    assert "say how the scan was shaped" in desk.errors.pop()
    desk.messages.clear()

    # Data dock: how the scan was laid out, and what no pattern tells
    data.scan_shape.setText(f"{SCAN} × {SCAN}")
    desk.qtbot.keyClick(data.scan_shape, Qt.Key.Key_Return)
    desk.until(lambda: session.data is not None and session.findings is not None)
    assert session.data.scan_shape == (SCAN, SCAN)
    desk.idle()
    rows = data.calibration.form.rows
    for name, text in (
        ("energy", "300"),
        ("semi_angle", "20"),
        ("scan_step_y", str(STEP)),
        ("scan_step_x", str(STEP)),
    ):
        typed(desk, rows[name], text)
    desk.idle()
    assert session.data.calibration.scan_step == pytest.approx((STEP, STEP))

    # Microscope dock: the detector's pixel and the defocus, by the patterns
    desk.microscope()
    desk.click(dock.values.estimate_button)
    desk.until(lambda: desk.workspace.microscopes.estimated is not None, 60)
    desk.microscope()
    table = dock.values.table
    table.tick("detector pixel", "estimated")
    table.tick("C10", "estimated")
    desk.click(dock.values.take_button)
    desk.idle()
    assert session.data.calibration.pixel_size == pytest.approx(1 / 6.4, rel=0.03)
    guess = session.data.optics.overfocus
    assert guess == pytest.approx(60, abs=25)

    # Reconstruct dock: a refinement, and back: what it found is used by the next run
    session.change("export", folder=str(tmp_path))
    session.change("setup", solver="refine", slices=4)
    session.change_settings(
        "refine", iterations=4, probe_start=3, position_start=2, batch=8, modes=1, volume_step=4.0
    )
    desk.click(desk.reconstruct.start_button)
    refined = session.runs[-1]
    desk.until(lambda: not refined.going_on, 60)
    assert refined.state == "done", refined.error
    desk.microscope()
    table.tick("C10", "refined")
    desk.click(dock.values.take_button)
    optics = refined.frame.info.optics
    assert session.data.optics.overfocus == optics.overfocus
    assert abs(optics.overfocus - 60) < abs(guess - 60)
    desk.microscope()
    desk.click(dock.values.use_button)
    desk.until(lambda: bool(session.choices.setup.microscope))
    desk.idle()

    # a volume by diffusion posterior sampling
    session.change("setup", solver="dps")
    run = desk.run(steps=6, evaluations=5)
    assert run.state == "done", run.error
    assert run.recipe.microscope.path == session.choices.setup.microscope
    layer = desk.viewer.layers[run.name]
    assert layer.data.shape == run.problem.shape
    np.testing.assert_array_equal(layer.data, run.frame.volume)
    assert [str(u) for u in layer.units] == ["angstrom"] * 3
    desk.microscope()
    assert not desk.errors
