"""A disk that is full, or a limit on the size of files, costs nothing that was there before."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from napari_mepdiff.base.files import NoRoom
from napari_mepdiff.export.film import save_film
from napari_mepdiff.export.volumes import load_volume, save_volume
from napari_mepdiff.specimen.volume import Volume

from ..needs import needs
from .test_export import SUFFIXES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind")

RNG = np.random.default_rng(0)
BIG = Volume(RNG.random((8, 256, 256)).astype(np.float32))
SMALL = Volume(RNG.random((2, 8, 8)).astype(np.float32))


@contextmanager
def limited(size=1 << 16):
    """The system refuses to make any file larger than this."""
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_volume_that_does_not_fit_leaves_nothing_under_its_name(tmp_path, suffix):
    """Half a volume would pass for a result."""
    path = tmp_path / f"v{suffix}"
    with limited():
        with pytest.raises(NoRoom, match=r"was not written.*choose another folder"):
            save_volume(BIG, path)
        gc.collect()  # a file left open would be a warning here
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_volume_that_does_not_fit_leaves_the_one_before(tmp_path, suffix):
    """An export over an earlier one would cost both."""
    path = tmp_path / f"v{suffix}"
    save_volume(SMALL, path)
    before = sorted(p.name for p in tmp_path.iterdir())
    with limited(), pytest.raises(NoRoom, match=r"was not written.*free some space"):
        save_volume(BIG, path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert np.array_equal(load_volume(path).array, SMALL.array)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_volume_whose_sidecar_does_not_fit_is_not_left_without_it(tmp_path, suffix, overwrite):
    """A volume without voxel size, unit and history would pass for an export."""
    path = tmp_path / f"v{suffix}"
    if overwrite:
        save_volume(SMALL, path)
    before = contents(tmp_path)
    long = {"note": "x" * (1 << 17)}
    other = Volume(RNG.random((2, 8, 8)).astype(np.float32))
    with limited(), pytest.raises(NoRoom, match=rf"v{suffix} was not written.*free some space"):
        save_volume(other, path, overwrite=overwrite, provenance=long)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_volume_whose_sidecar_cannot_take_its_place_is_not_left_without_it(tmp_path, suffix):
    """A folder, or a file that another program holds, may stand where the sidecar belongs."""
    path = tmp_path / f"v{suffix}"
    path.with_name(path.name + ".json").mkdir()
    before = contents(tmp_path)
    with pytest.raises(OSError, match="json"):
        save_volume(SMALL, path)
    assert contents(tmp_path) == before


def contents(folder):
    """Everything below a folder."""
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("suffix", [".gif", pytest.param(".mp4", marks=needs("imageio_ffmpeg"))])
def test_a_film_that_does_not_fit_leaves_nothing_under_its_name(tmp_path, suffix):
    """A film that breaks off would look like a run that did."""
    frames = RNG.random((12, 2, 128, 128)).astype(np.float32)
    with limited(1 << 13), pytest.raises(OSError, match=r"was not written.*free some space"):
        save_film(frames, tmp_path / f"run{suffix}", voxel_size=(1.6, 0.2, 0.2))
    assert list(tmp_path.iterdir()) == []
