"""FrameStore: what is kept, where, and what happens when the disk is full."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_mepdiff.reconstruction import history
from napari_mepdiff.reconstruction.diffusion.info import DiffusionInfo
from napari_mepdiff.reconstruction.frame import Frame
from napari_mepdiff.reconstruction.history import FrameStore

SHAPE = (2, 8, 8)
ONE = int(np.prod(SHAPE)) * 4


def frame(step: int) -> Frame:
    return Frame(
        step,
        20,
        np.full(SHAPE, step, np.float32),
        1.0 / (step + 1),
        -2.0,
        0.1 * step,
        DiffusionInfo(guidance_norm=0.1),
    )


def test_all_frames_come_back_from_memory_and_disk(tmp_path):
    store = FrameStore(budget=3 * ONE, folder=tmp_path)
    for step in range(10):
        store.append(frame(step))
    assert len(store) == 10
    assert store.on_disk == 7
    for n in range(10):
        assert (store.volume(n) == n).all()
    assert (store.volume(-1) == 9).all()
    assert [r["step"] for r in store.kept] == list(range(10))
    np.testing.assert_array_equal(np.asarray(store.array()[:, 0, 0, 0]), np.arange(10))


def test_every_third_is_kept_and_the_numbers_of_all():
    store = FrameStore(every=3)
    for step in range(10):
        store.append(frame(step))
    assert [r["step"] for r in store.kept] == [0, 3, 6, 9]
    assert len(store.records) == 10
    assert store.last.step == 9


def test_a_full_disk_loses_old_frames_and_says_so(monkeypatch):
    class Full:
        def seek(self, _n): ...
        def close(self): ...
        def write(self, _data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(history.tempfile, "TemporaryFile", lambda **_: Full())
    store = FrameStore(budget=2 * ONE)
    for step in range(6):
        store.append(frame(step))
    assert [r["step"] for r in store.kept] == [4, 5]
    assert (store.volume(-1) == 5).all()
    assert len(store.notes) == 1
    assert "No space left" in store.notes[0]


def test_another_shape_is_refused():
    store = FrameStore()
    store.append(frame(0))
    with pytest.raises(ValueError, match="one shape"):
        store.append(Frame(1, 2, np.zeros((2, 4, 4), np.float32), 1.0))
    assert [r["step"] for r in store.records] == [0]  # what was refused has left no trace
    assert store.last is not None
    assert store.last.step == 0
    store.append(frame(1))
    assert [r["step"] for r in store.kept] == [0, 1]


def test_a_layer_of_frames_can_be_read_after_the_run_was_removed(tmp_path):
    """napari asks for slices of a layer whenever it likes, also of one whose run is gone."""
    store = FrameStore(budget=2 * ONE, folder=tmp_path)
    for step in range(5):
        store.append(frame(step))
    layer = store.array()
    assert (np.asarray(layer[1]) == 1).all()
    store.close()
    assert (np.asarray(layer[1]) == 4).all()  # the newest, said aloud
    assert sum("no longer kept" in note for note in store.notes) == 1


def test_reading_while_it_is_filled(tmp_path):
    store = FrameStore(budget=4 * ONE, folder=tmp_path)
    store.append(frame(0))
    wrong: list[int] = []

    def read() -> None:
        for _ in range(300):
            kept = store.kept
            n = len(kept) // 2
            if not (store.volume(n) == kept[n]["step"]).all():
                wrong.append(n)

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 200):
        store.append(frame(step))
    reader.join()
    assert not wrong
    store.close()
    assert len(store) == 0
    assert store.last.step == 199
