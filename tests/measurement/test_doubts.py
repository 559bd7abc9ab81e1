"""What a reader could not take over, or had to assume, is said; it is never dropped in silence."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from napari_mepdiff.measurement.checks import validate
from napari_mepdiff.measurement.formats import ReadError, open_4dstem

from ..needs import needs


def frame(number: int, ns: int = 905800928) -> bytes:
    """One Merlin frame of 64 × 64 bytes, its number in its pixels, taken at `ns`."""
    head = (
        f"MQ1,{number + 1:06d},00384,01,0064,0064,U08,   1x1,01,2021-05-07 18:51:10.905800,0.1,"
        "0,0,0,"
        + ",".join(["0.0"] * 8)
        + ",3RX,"
        + ",".join(["000"] * 27)
        + f",MQ1A,2021-05-07T16:51:10.{ns:09d}Z,100000000ns,6,"
    )
    return head.encode().ljust(384) + bytes([number + 1]) * (64 * 64)


def said(data) -> str:
    return " ".join(f.message for f in validate(data) if f.code == "file")


def numbers(data) -> list[list[int]]:
    """Which frame stands at which position."""
    return (np.asarray(data.data)[:, :, 0, 0].astype(int) - 1).tolist()


def merlin(path: Path, count: int, cut: int = 0, header: str | None = None) -> Path:
    content = b"".join(map(frame, range(count)))
    path.write_bytes(content[: len(content) - cut])
    if header is not None:
        path.with_suffix(".hdr").write_text(header)
    return path


@needs("rsciio")
def test_frames_of_the_way_back_do_not_shear_a_scan(tmp_path):
    """25 frames opened as 5 × 4 were rows of frames 0–3, 4–7, 8–11 …, without a word."""
    data = open_4dstem(merlin(tmp_path / "fly.mib", 25), scan_shape=(5, 4))
    assert numbers(data) == [[5 * row + column for column in range(4)] for row in range(5)]
    assert "25 frames" in said(data)
    assert "flyback" in said(data)
    whole = open_4dstem(tmp_path / "fly.mib", scan_shape=(5, 5))
    assert numbers(whole) == [[5 * row + column for column in range(5)] for row in range(5)]
    assert said(whole) == ""


@needs("rsciio")
def test_frames_beyond_the_scan_are_said(tmp_path):
    data = open_4dstem(merlin(tmp_path / "more.mib", 8), scan_shape=(2, 3))
    # two more than 2 × 3, one a row: as flyback
    assert numbers(data) == [[0, 1, 2], [4, 5, 6]]
    assert "8 frames" in said(data)
    data = open_4dstem(merlin(tmp_path / "one.mib", 13), scan_shape=(3, 4))
    assert numbers(data)[2] == [8, 9, 10, 11]
    assert "1 more than 3 × 4" in said(data)
    data = open_4dstem(merlin(tmp_path / "cut.mib", 13, cut=1000), scan_shape=(3, 4))
    assert "cut short" in said(data)
    with pytest.raises(ReadError, match="19 frames, not 5 × 4 = 20"):
        open_4dstem(merlin(tmp_path / "less.mib", 19), scan_shape=(5, 4))


@needs("rsciio")
def test_an_unfinished_row_is_said(tmp_path):
    """A header of 20 frames, a file of 19: opened as 4 × 4, three frames gone."""
    header = "HDR,\nFrames in Acquisition (Number):\t20\nFrames per Trigger (Number):\t4\nEnd\t"
    data = open_4dstem(merlin(tmp_path / "less.mib", 19, header=header))
    assert data.scan_shape == (4, 4)
    assert "19 frames, 3 more than 4 × 4" in said(data)


@needs("rsciio")
def test_a_guessed_scan_shape_is_said(tmp_path):
    """36 frames of a 6 × 6 scan with one longer dwell opened as 12 × 3."""
    times = [10**8 + k * 10**6 + 20000 * (k >= 3) for k in range(36)]
    path = tmp_path / "jitter.mib"
    path.write_bytes(b"".join(frame(k, ns) for k, ns in enumerate(times)))
    data = open_4dstem(path)
    assert "guessed" in said(data)
    asked = open_4dstem(path, scan_shape=(6, 6))
    assert asked.scan_shape == (6, 6)
    assert said(asked) == ""


def py4dstem(path: Path, counts: np.ndarray, cubes: tuple[str, ...] = ("datacube",), **values):
    with h5py.File(path, "w") as file:
        root = file.create_group("r")
        for name in cubes:
            group = root.create_group(name)
            group.attrs["emd_group_type"], group.attrs["python_class"] = "array", "DataCube"
            group["data"] = counts
        store = root.create_group("metadatabundle/calibration")
        for key, value in values.items():
            store[key] = value
    return path


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(5, (4, 5, 64, 64)).astype("u2")


def test_what_py4dstem_found_is_not_dropped(tmp_path, counts):
    """Flip, rotation, origin and semi-angle of the file were ignored and not mentioned."""
    data = open_4dstem(
        py4dstem(
            tmp_path / "g.h5",
            counts,
            QR_flip=True,
            QR_rotation=0.52,
            probe_semiangle=14.0,
            qx0_mean=29.0,
            qy0_mean=36.0,
        )
    )
    text = said(data)
    assert "turned by 29.8° and mirrored" in text
    assert "estimate the rotation" in text
    assert "centred on (29.0, 36.0)" in text
    assert "radius of 14 px" in text


def test_a_disk_radius_is_a_semi_angle_where_the_pixel_is_known(tmp_path, counts):
    data = open_4dstem(
        py4dstem(
            tmp_path / "g.h5",
            counts,
            probe_semiangle=14.0,
            Q_pixel_size=0.5,
            Q_pixel_units="1/nm",
            accelerating_voltage=300e3,
        )
    )
    c = data.calibration
    assert c.pixel_size == pytest.approx(0.05)
    assert c.semi_angle == pytest.approx(14 * c.pixel_mrad)
    assert said(data) == ""


def test_units_that_are_not_known_are_named(tmp_path, counts):
    data = open_4dstem(
        py4dstem(
            tmp_path / "g.h5",
            counts,
            Q_pixel_size=0.05,
            Q_pixel_units="1/furlong",
            R_pixel_size=3.0,
            R_pixel_units="hand",
        )
    )
    assert "0.05 '1/furlong'" in said(data)
    assert "3 'hand'" in said(data)
    data = open_4dstem(py4dstem(tmp_path / "h.h5", counts, Q_pixel_size=0.8, Q_pixel_units="mrad"))
    assert "0.8 mrad and no beam energy" in said(data)


def test_a_moving_origin_is_said(tmp_path, counts):
    moving = np.linspace(30, 34, 20).reshape(4, 5)
    data = open_4dstem(py4dstem(tmp_path / "g.h5", counts, qx0=moving, qy0=np.full((4, 5), 32.0)))
    assert "move by 4.0 px" in said(data)


def test_one_of_several_data_cubes_must_be_named(tmp_path, counts):
    """The first, a binned copy, was taken without a word."""
    path = py4dstem(tmp_path / "two.h5", counts, ("binned", "datacube"), accelerating_voltage=2e5)
    with pytest.raises(ReadError, match="r/binned, r/datacube"):
        open_4dstem(path)
    assert open_4dstem(path, dataset="r/datacube").calibration.energy == 200
