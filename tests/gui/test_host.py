"""napari, Python and Qt are left as they were found: other plugins keep what they had."""

from __future__ import annotations

import gc
import sys
import threading
import time
import warnings

import numpy as np
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QLabel, QTabBar

from .conftest import shut
from .qt_garbage import collected
from .test_compare_export import choose


def settle():
    for _ in range(3):
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QApplication.processEvents()


def test_no_run_and_no_job_touches_python_s_collector_its_modules_or_its_warnings(desk):
    """Whatever another plugin relies on while a reconstruction goes on for hours."""
    desk.take()
    before, frozen = (gc.isenabled(), gc.get_threshold(), list(gc.callbacks)), gc.get_freeze_count()
    filters = list(warnings.filters)
    compiler = "torch._dynamo" in sys.modules  # other tests of this process may have loaded it
    during = []
    desk.session.frame_shown.connect(
        lambda run: during.append(
            (
                gc.isenabled(),
                gc.get_threshold(),
                list(gc.callbacks),
                gc.get_freeze_count() > frozen,  # what the tests froze may be deleted meanwhile
            )
        )
    )
    run = desk.run()
    assert run.state == "done", run.error
    assert during
    assert set(map(repr, during)) == {repr((*before, False))}
    assert set(filters) <= set(warnings.filters)
    assert sys.modules.get("triton", "not loaded") is not None
    assert ("torch._dynamo" in sys.modules) is compiler  # a run has no use for the compiler


def test_nothing_that_qt_must_delete_is_left_to_the_garbage_collector(desk):
    """It may run in a worker's thread, and a widget that is destroyed there ends napari."""
    desk.take()
    with collected() as left:
        for dock in desk.docks.values():
            desk.raise_dock(dock)
            QApplication.processEvents()
        desk.settings(steps=4000)
        desk.click(desk.reconstruct.start_button)
        run = desk.session.runs[-1]
        desk.until(lambda: run.frame is not None and run.frame.step > 3)
        for weight in (2.0, 3.0):
            desk.session.change_settings("dps", weight=weight)
            desk.until(
                lambda w=weight: w in [c.settings.get("weight") for c in run.control.changes]
            )
            desk.reconstruct.curves.show_run(1, run.frames.records, run.control.changes)
        desk.click(desk.guidance.draw)
        desk.guidance._change("curve", ((-10.0, 0.1), (0.0, 0.3)))
        desk.session.change_settings("dps", schedule="shifted-sigmoid", curve=())
        desk.click(desk.reconstruct.stop_button)
        desk.until(lambda: not run.going_on)
        desk.reconstruct.curves.show_run(2, run.frames.records, [])
        desk.raise_dock(desk.compare)
        choose(desk.compare.reference, "ground truth")
        choose(desk.compare.test, run.name)
        desk.click(desk.compare.compare_button)
        desk.until(lambda: desk.compare.found is not None)
        desk.compare.depth_profile.pick(3.0, 3.0)
        desk.compare.depth_profile.pick(3.0, 4.0)
        desk.compare.clear()
        desk.viewer.theme = "light"
        desk.click(desk.reconstruct.runs.remove_button)
        settle()
    assert left == []


def test_a_dock_that_is_taken_out_of_the_window_is_deleted_by_qt(desk):
    desk.take()
    window = desk.viewer.window
    with collected() as left:
        for name in ("Export", "Guidance", "Compare", "Reconstruct"):
            dock = desk.docks.pop(name)
            setattr(desk, name.lower(), None)
            window.remove_dock_widget(dock.parentWidget())  # the panel that holds it
            del dock
            settle()
    assert left == []


def test_workers_that_allocate_beside_widgets_that_come_and_go(desk):
    """The collector runs in the workers, all the time, while docks are closed and opened."""
    from napari_mepdiff.gui.contributions import show_docks

    desk.take()
    stop, rounds = threading.Event(), []

    def allocate():
        while not stop.is_set():
            rounds.append(len([[n] for n in range(5000)]))
            time.sleep(0.001)  # the others' turn

    workers = [threading.Thread(target=allocate) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(2):
            for name in ("Guidance", "Reconstruct", "Compare", "Export"):
                desk.viewer.window.remove_dock_widget(desk.docks.pop(name).parentWidget())
                setattr(desk, name.lower(), None)
            settle()
            names = ("Guidance", "Reconstruct", "Compare", "Export")
            panels = show_docks(desk.viewer, names)
            desk.until(lambda panels=panels: all(panel.dock is not None for panel in panels))
            for name, panel in zip(names, panels, strict=True):
                desk.docks[name] = panel.dock
                setattr(desk, name.lower(), panel.dock)
            del panel, panels
            run = desk.run(steps=10)
            assert run.state == "done", run.error
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert rounds


def test_keys_of_others_stay_theirs(make_napari_viewer, qtbot):
    """Alt+S of another plugin saved its work; with this one loaded it stopped a run instead."""
    from napari_mepdiff.gui.workspace import workspace_of

    viewer = make_napari_viewer()
    pressed = []
    viewer.bind_key("Alt-S", lambda _viewer: pressed.append("theirs"))
    workspace = workspace_of(viewer)
    assert workspace.keys.taken == ("Alt+S",)
    bound = {str(key): function for key, function in viewer.keymap.items()}
    bound["Alt+S"](viewer)
    assert pressed == ["theirs"]
    assert "Alt+R" in bound
    workspace.close()
    assert [str(key) for key in viewer.keymap] == ["Alt+S"]
    shut(viewer)


def test_tab_bars_of_the_window_keep_their_style(make_napari_viewer, qtbot):
    """Tabs of other plugins' docks were no longer shortened, and the window could not shrink."""
    from napari_mepdiff.gui.contributions import DOCKS, show_docks
    from napari_mepdiff.gui.workspace import workspace_of

    viewer = make_napari_viewer(show=True)
    for name in ("a plugin", "another plugin"):
        viewer.window.add_dock_widget(QLabel(name), name=name, area="left", tabify=True)
    settle()

    def styles():
        return {
            tuple(bar.tabText(n) for n in range(bar.count())): (
                bar.elideMode(),
                bar.usesScrollButtons(),
                bar.styleSheet(),
            )
            for bar in viewer.window._qt_window.findChildren(QTabBar)
        }

    theirs = {tabs: style for tabs, style in styles().items() if "another plugin" in tabs}
    assert theirs
    panels = show_docks(viewer)
    qtbot.waitUntil(lambda: all(panel.dock is not None for panel in panels), timeout=60000)
    settle()
    now = styles()
    assert any(set(DOCKS) <= set(tabs) for tabs in now)
    assert theirs.items() <= now.items()
    panels.clear()
    workspace_of(viewer).close()
    shut(viewer)


def test_two_viewers_have_a_workspace_each(make_napari_viewer, qtbot):
    """Docks opened in the window behind must not belong to the one in front."""
    from napari_mepdiff.gui.contributions import show_docks
    from napari_mepdiff.gui.workspace import workspace_of

    first, second = make_napari_viewer(), make_napari_viewer()
    panels = [show_docks(viewer, ("Export",))[0] for viewer in (first, second)]
    qtbot.waitUntil(lambda: all(panel.dock is not None for panel in panels))
    one, two = (panel.dock for panel in panels)
    panels.clear()
    assert one.viewer is first
    assert two.viewer is second
    assert one.workspace is not two.workspace
    first.add_image(np.zeros((3, 4, 4)), name="mine")
    assert one.list.count() == 1
    assert two.list.count() == 0
    for viewer in (first, second):
        workspace_of(viewer).close()
    del one, two
    for viewer in (first, second):
        shut(viewer)
