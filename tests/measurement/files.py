"""Small real files of every format: by the original library, or by the published layout."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from ..needs import needs

SHAPE = (4, 5, 16, 12)


def patterns(dtype=np.uint16, shape=SHAPE):
    """Counts with a bright disk; every axis different, so that a swap is seen."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: shape[2], : shape[3]]
    disk = 40.0 * (np.hypot(y - shape[2] // 2, x - shape[3] // 2) < 4) + 1
    return rng.poisson(
        disk[None, None] * np.linspace(0.8, 1.2, shape[0])[:, None, None, None], shape
    ).astype(dtype)


def npy(path: Path):
    np.save(path, patterns())


def hdf5_plain(path: Path):
    with h5py.File(path, "w") as file:
        file["entry/data"] = patterns()


def hdf5_ptyrad_input(path: Path):
    with h5py.File(path, "w") as file:
        file["dp"] = patterns(np.float32).reshape(-1, *SHAPE[2:])


def own(path: Path):
    from napari_mepdiff.measurement.dataset import Calibration, FourDSTEM
    from napari_mepdiff.measurement.formats.own import save
    from napari_mepdiff.physics.optics import Optics

    save(
        FourDSTEM(
            patterns(),
            Calibration(pixel_size=0.08, energy=300, semi_angle=21.4, scan_step=(0.5, 0.5)),
            optics=Optics(),
            mask=np.ones(SHAPE[2:], np.float32),
            provenance={"from": "a test"},
        ),
        path,
    )


def mat5(path: Path):
    import scipy.io

    scipy.io.savemat(path, {"dp": patterns()})


def mat73(path: Path):
    """MATLAB v7.3: a 512-byte user block before an HDF5 file, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        data = file.create_dataset("dp", data=patterns().transpose())
        data.attrs["MATLAB_class"] = np.bytes_("uint16")
    with open(path, "r+b") as handle:
        head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, "
        head += b"Created on: Mon Nov 23 2026 HDF5 schema 1.00 ."
        handle.write(head.ljust(116) + bytes(8) + b"\x00\x02IM")


def empad(path: Path):
    frames = np.zeros((4, 5, 130, 128), np.float32)
    frames[:, :, :128] = patterns(np.float32, (4, 5, 128, 128))
    frames.tofile(path)


def zarr(path: Path):
    import zarr as z

    array = z.create_array(str(path), shape=SHAPE, chunks=(2, 5, 16, 12), dtype="uint16")
    array[...] = patterns()


def py4dstem(path: Path):
    """An EMD 1.0 tree as py4DSTEM stores a datacube, written by its own emdfile."""
    import emdfile

    root = emdfile.Root(name="datacube_root")
    calibration = emdfile.Metadata(name="calibration")
    calibration["Q_pixel_size"], calibration["Q_pixel_units"] = 0.08, "A^-1"
    calibration["R_pixel_size"], calibration["R_pixel_units"] = 0.05, "nm"
    root.metadata = calibration
    root.tree(emdfile.Array(name="datacube", data=patterns()))
    emdfile.save(str(path), root, mode="o")


def _axes():
    names = [
        ("y", 0.05, "nm", True),
        ("x", 0.05, "nm", True),
        ("ky", 0.8, "1/nm", False),
        ("kx", 0.8, "1/nm", False),
    ]
    return [
        {
            "name": n,
            "scale": s,
            "units": u,
            "offset": 0.0,
            "size": SHAPE[i],
            "navigate": nav,
            "index_in_array": i,
            "_type": "UniformDataAxis",
            "is_binned": False,
        }
        for i, (n, s, u, nav) in enumerate(names)
    ]


def _signal():
    return {
        "data": patterns(),
        "axes": _axes(),
        "attributes": {"_lazy": False},
        "original_metadata": {},
        "metadata": {
            "General": {"title": "test"},
            "Signal": {"signal_type": ""},
            "Acquisition_instrument": {"TEM": {"beam_energy": 200.0}},
        },
        "package_info": {"package": "test", "package_version": "0"},
        "package": "test",
        "package_version": "0",
        "learning_results": {},
        "models": {},
        "tmp_parameters": {},
    }


def hspy(path: Path):
    from rsciio.hspy import file_writer

    file_writer(str(path), _signal())


def blo(path: Path):
    from rsciio.blockfile import file_writer

    signal = _signal()
    signal["data"] = patterns(np.uint8, (4, 5, 16, 16))
    for i, axis in enumerate(signal["axes"]):
        axis["size"] = signal["data"].shape[i]
        axis["units"] = "nm" if i < 2 else "cm"
    file_writer(str(path), signal)


def mib(path: Path):
    """Merlin: a 384-byte text header before every frame (single chip, 16 bit, big-endian)."""
    frames = patterns(np.uint16, (4, 5, 256, 256)).reshape(-1, 256, 256)
    with open(path, "wb") as handle:
        for i, frame in enumerate(frames):
            head = (
                f"MQ1,{i + 1:06d},00384,01,0256,0256,U16,   1x1,01,"
                f"2026-11-23 12:00:00.{i:06d},0.001000,0,0,0,"
                "1.200000E+2,5.110000E+2,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,"
                "3RX,175,511,000,000,000,000,000,000,125,255,125,125,100,100,082,100,087,030,128,004,255,129,128,"
                "176,168,511,511,MQ1A,2026-11-23T12:00:00.000000000Z,1000000ns,12,"
            )
            handle.write(head.encode().ljust(384, b"\0")[:384])
            handle.write(frame[::-1].astype(">u2").tobytes())


def dm4(path: Path):
    """DigitalMicrograph 4, by its published tag layout: one calibrated image of four axes."""
    data = patterns(np.uint16)

    def name(text):
        raw = text.encode()
        return struct.pack(">H", len(raw)) + raw

    def info(values):
        return (
            b"%%%%"
            + struct.pack(">Q", len(values))
            + b"".join(struct.pack(">Q", v) for v in values)
        )

    def leaf(text, values, payload):
        body = info(values) + payload
        return b"\x15" + name(text) + struct.pack(">Q", len(body)) + body

    def number(text, kind, fmt, value):
        return leaf(text, [kind], struct.pack("<" + fmt, value))

    def string(text, value):
        raw = value.encode("utf-16-le")
        return leaf(text, [20, 4, len(raw) // 2], raw)

    def group(text, entries):
        body = b"\x00\x00" + struct.pack(">Q", len(entries)) + b"".join(entries)
        return b"\x14" + name(text) + struct.pack(">Q", len(body)) + body

    def dimension(scale, units):
        return group(
            "",
            [number("Origin", 6, "f", 0.0), number("Scale", 6, "f", scale), string("Units", units)],
        )

    image = group(
        "",
        [
            group(
                "ImageData",
                [
                    group(
                        "Calibrations",
                        [
                            group(
                                "Brightness",
                                [
                                    number("Origin", 6, "f", 0.0),
                                    number("Scale", 6, "f", 1.0),
                                    string("Units", ""),
                                ],
                            ),
                            group(
                                "Dimension",
                                [
                                    dimension(0.08, "1/nm"),
                                    dimension(0.08, "1/nm"),
                                    dimension(0.5, "nm"),
                                    dimension(0.5, "nm"),
                                ],
                            ),
                            number("DisplayCalibratedUnits", 8, "B", 1),
                        ],
                    ),
                    leaf("Data", [20, 4, data.size], data.astype("<u2").tobytes()),
                    number("DataType", 5, "I", 10),
                    group("Dimensions", [number("", 5, "I", n) for n in data.shape[::-1]]),
                    number("PixelDepth", 5, "I", 2),
                ],
            ),
            group(
                "ImageTags",
                [
                    group(
                        "Meta Data", [string("Format", "Diffraction image"), string("Signal", "")]
                    ),
                    group("Microscope Info", [number("Voltage", 6, "f", 200000.0)]),
                ],
            ),
            string("Name", "test"),
            group("UniqueID", [number("", 5, "I", 1)]),
        ],
    )
    entries = [
        group("DocumentObjectList", []),
        group("ImageList", [image]),
        number("InImageMode", 8, "B", 1),
    ]
    body = b"\x00\x00" + struct.pack(">Q", len(entries)) + b"".join(entries)
    with open(path, "wb") as handle:
        handle.write(struct.pack(">IQI", 4, len(body), 1) + body + bytes(8))


# format: (file name, writer, reader options, shape)
FORMATS = {
    "own": ("data.h5", own, {}, SHAPE),
    "hdf5": ("plain.h5", hdf5_plain, {}, SHAPE),
    "ptyrad": ("input.hdf5", hdf5_ptyrad_input, {"scan_shape": (4, 5)}, SHAPE),
    "py4dstem": ("cube.emd", py4dstem, {}, SHAPE),
    "npy": ("data.npy", npy, {}, SHAPE),
    "mat5": ("v5.mat", mat5, {}, SHAPE),
    "mat73": ("v73.mat", mat73, {}, SHAPE),
    "empad": ("scan_x5_y4.raw", empad, {}, (4, 5, 128, 128)),
    "zarr": ("data.zarr", zarr, {}, SHAPE),
    "hspy": ("data.hspy", hspy, {}, SHAPE),
    "blo": ("data.blo", blo, {}, (4, 5, 16, 16)),
    "mib": ("data.mib", mib, {"scan_shape": (4, 5)}, (4, 5, 256, 256)),
    "dm4": ("data.dm4", dm4, {}, SHAPE),
}

NEEDED = {
    "py4dstem": "emdfile",
    "zarr": "zarr",
    "hspy": "rsciio",
    "blo": "rsciio",
    "mib": "rsciio",
    "dm4": "rsciio",
}
KINDS = [pytest.param(k, marks=needs(NEEDED[k])) if k in NEEDED else k for k in FORMATS]


def expected(kind):
    shape = FORMATS[kind][3]
    return patterns(np.uint8 if kind == "blo" else np.uint16, shape)
