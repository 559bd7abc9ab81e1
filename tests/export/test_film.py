"""Films: readable again, right size, nothing left behind when cancelled."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from napari_mepdiff.export.film import arrange, save_film

from ..needs import needs

FRAMES = np.random.default_rng(0).random((6, 5, 16, 16)).astype(np.float32)
VOXEL = (1.6, 0.2, 0.2)


def test_slices_stand_in_order():
    out = arrange(FRAMES[0], "slices")
    np.testing.assert_array_equal(out[:16, :16], FRAMES[0, 0])
    np.testing.assert_array_equal(out[:16, 17:33], FRAMES[0, 1])
    np.testing.assert_array_equal(out[17:33, :16], FRAMES[0, 4])
    np.testing.assert_allclose(arrange(FRAMES[0], "sum"), FRAMES[0].sum(axis=0))
    np.testing.assert_array_equal(arrange(FRAMES[0], "slice", 3), FRAMES[0, 3])
    with pytest.raises(ValueError, match="slices"):
        arrange(FRAMES[0], "sideways")


@pytest.mark.parametrize("suffix", [".gif", pytest.param(".mp4", marks=needs("imageio_ffmpeg"))])
def test_a_film_can_be_read_again(tmp_path, suffix):
    seen: list[float] = []
    labels = [f"step {n}" for n in range(6)]
    path = save_film(
        FRAMES, tmp_path / f"run{suffix}", voxel_size=VOXEL, labels=labels, progress=seen.append
    )
    frames = iio.imread(path)
    assert len(frames) == 6
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert frames[:, :64, :64].std() > 10  # there is something to see


def test_cancelling_leaves_no_file(tmp_path):
    class Enough(Exception):
        pass

    def stop(part: float) -> None:
        if part > 0.4:
            raise Enough

    with pytest.raises(Enough):
        save_film(FRAMES, tmp_path / "run.gif", voxel_size=VOXEL, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_said(tmp_path):
    with pytest.raises(ValueError, match="gif"):
        save_film(FRAMES, tmp_path / "run.avi", voxel_size=VOXEL)
    with pytest.raises(ValueError, match="no kept frames"):
        save_film(FRAMES[:0], tmp_path / "run.gif", voxel_size=VOXEL)
    (tmp_path / "there.gif").write_text("x")
    with pytest.raises(FileExistsError):
        save_film(FRAMES, tmp_path / "there.gif", voxel_size=VOXEL)
