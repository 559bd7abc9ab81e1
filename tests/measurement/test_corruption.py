"""Damaged files: hundreds of variants of every format; none may crash, hang, or load wrong unsaid.

Each variant is opened and read in another process, so that a crash or a hang of a native
library is noticed. What may come back: a ReadError; or, where only pattern values were hit (no
format but our own carries checksums), the right shape, type and calibration with values that differ
in no more places than the damage can explain.
"""

from __future__ import annotations

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from .files import FORMATS, KINDS, expected

HDF5_KINDS = (
    "hdf5",
    "ptyrad",
    "py4dstem",
    "mat73",
    "hspy",
)  # opened through a guarding process: slower
BATCH_SECONDS = 240


COMPRESSED = ("mat5", "zarr", "hspy")  # as these test files are written


def _damage(path: Path, n: int) -> str:
    """Damage a file in place, the n-th way; says how."""
    rng = np.random.default_rng(n)
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*") if p.is_file())
        path = parts[rng.integers(len(parts))]
    raw = bytearray(path.read_bytes())
    how = ("cut", "flip", "head", "zero", "insert", "empty")[n % 6]
    if how == "cut":
        raw = raw[: rng.integers(len(raw))]
    elif how == "flip":
        for at in rng.integers(0, len(raw), rng.integers(1, 20)):
            raw[at] ^= 1 << int(rng.integers(8))
    elif how == "head":
        for at in rng.integers(0, min(len(raw), 2048), rng.integers(1, 6)):
            raw[at] = int(rng.integers(256))
    elif how == "zero":
        at = int(rng.integers(len(raw)))
        raw[at : at + 64] = bytes(len(raw[at : at + 64]))
    elif how == "insert":
        at = int(rng.integers(len(raw)))
        raw[at:at] = rng.bytes(int(rng.integers(1, 40)))
    elif n % 12 == 5:
        raw = bytearray()
    else:
        raw = raw[:-1]
    path.write_bytes(raw)
    return how


def _try(source: str, options: dict, work: str, numbers: list[int]) -> list[tuple[int, str, str]]:
    """Open damaged copies; returns (variant, damage, outcome)."""
    from napari_mepdiff.measurement.dataset import DataError
    from napari_mepdiff.measurement.formats import open_4dstem

    kind, name = source.split("|")
    reference = expected(kind)
    out = []
    for n in numbers:
        folder = Path(work) / f"{kind}{n}"
        folder.mkdir()
        path = folder / Path(name).name
        (shutil.copytree if Path(name).is_dir() else shutil.copy)(name, path)
        how = _damage(path, n)
        try:
            data = open_4dstem(path, **options, hash_input=False)
            if data.nbytes > 1 << 30:
                raise AssertionError(f"claims {data.nbytes} bytes")
            values = np.asarray(data.data)
            if kind == "own":
                assert data.calibration.model_dump() == {
                    "pixel_size": 0.08,
                    "energy": 300.0,
                    "semi_angle": 21.4,
                    "scan_step": (0.5, 0.5),
                    "rotation": 0.0,
                    "dose": None,
                    "thickness": None,
                }, "calibration"
        except (DataError, FileNotFoundError):
            out.append((n, how, "refused"))
        except OSError as error:  # a block that fails when it is read: nothing wrong was given
            out.append(
                (n, how, "refused" if kind in (*HDF5_KINDS, "own", "zarr") else f"OSError {error}")
            )
        except Exception as error:
            out.append((n, how, "refused" if kind == "zarr" else f"{type(error).__name__} {error}"))
        else:
            if values.shape != reference.shape:
                out.append((n, how, f"shape {values.shape}"))
            elif (
                values.dtype.kind != "f"
                and values.dtype.itemsize != reference.dtype.itemsize
                and kind != "ptyrad"
            ):
                out.append((n, how, f"type {values.dtype}"))
            else:
                differ = int((values != reference).sum())
                out.append((n, how, f"values {differ}" if differ else "same"))
        shutil.rmtree(folder, ignore_errors=True)
    return out


class Readers:
    """Two processes that read, begun once; new ones after they had to be ended."""

    def __init__(self):
        self.pool = None

    def run(self, *jobs):
        if self.pool is None:
            context = multiprocessing.get_context("forkserver")
            self.pool = ProcessPoolExecutor(2, mp_context=context)
        given = [self.pool.submit(*job) for job in jobs]
        try:
            return [r for job in given for r in job.result(timeout=BATCH_SECONDS)]
        except BaseException:  # a hang, or a process that crashed
            self.end()
            raise

    def end(self):
        if self.pool is not None:
            for process in list((self.pool._processes or {}).values()):
                process.kill()
            self.pool.shutdown()
            self.pool = None


@pytest.fixture(scope="module")
def readers():
    made = Readers()
    yield made
    made.end()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused(kind, tmp_path, readers):
    _check(kind, tmp_path, 36 if kind in (*HDF5_KINDS, "own") else 150, readers)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", KINDS)
def test_hundreds_of_damaged_files_are_refused(kind, tmp_path, readers):
    _check(kind, tmp_path, 400, readers)


def _check(kind, tmp_path, variants, readers):
    name, writer, options, _ = FORMATS[kind]
    source = tmp_path / name
    writer(source)
    (tmp_path / "work").mkdir()
    numbers = list(range(variants))
    jobs = [
        (_try, f"{kind}|{source}", options, str(tmp_path / "work"), numbers[i::2]) for i in range(2)
    ]
    try:
        results = readers.run(*jobs)
    except TimeoutError:
        pytest.fail("a damaged file made its reader hang")
    assert len(results) == variants
    size = int(np.prod(FORMATS[kind][3]))
    wrong = []
    for n, how, outcome in results:
        if outcome in ("refused", "same"):
            continue
        if outcome.startswith("values") and kind != "own":
            # values that sit in the damaged bytes: flips touch up to 20, a zeroed run 64 bytes; an
            # inserted or lost byte may move all behind it, and in a compressed stream any byte
            # may, which only a checksum could tell
            limit = {"flip": 20, "head": 6, "zero": 64}.get(how, size)
            if int(outcome.split()[1]) <= (size if kind in COMPRESSED else limit):
                continue
        wrong.append((n, how, outcome))
    assert not wrong, wrong
    assert sum(r[2] == "refused" for r in results) > variants // 8
