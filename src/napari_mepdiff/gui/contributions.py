"""What napari calls by the manifest: readers, writers, samples, commands. All else is in the docks and the workspace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari

PLUGIN = "napari-mepdiff"
DOCKS = ("Data", "Reconstruct", "Guidance", "Compare", "Export")
NOTHING = [(None,)]  # napari's word for: read, but there is no layer to add
VOLUMES = (".tif", ".tiff", ".mrc", ".npy", ".zarr", ".h5", ".hdf5")


# ---- reading ----------------------------------------------------------------------------------------------------
def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[Any]] | None:
    """A reader for 4D-STEM data and for volumes; None for what others read better."""
    first = Path(path if isinstance(path, str) else path[0])
    if not first.exists():
        return None
    suffix = first.suffix.lower()
    beside = first.with_name(first.name + ".json").exists()
    if suffix in (".tif", ".tiff") and not beside:
        return None
    if suffix == ".npy" and not beside and _npy_axes(first) not in (3, 4):
        return None
    return read


def read(path: str | Sequence[str]) -> list[Any]:
    """4D-STEM data into the Data dock, volumes into layers; in the background where there is a viewer."""
    import napari

    paths = [path] if isinstance(path, str) else list(path)
    viewer = napari.current_viewer()
    out: list[Any] = []
    for each in paths:
        if viewer is None:
            out.append(_layer_data(each))
        elif is_volume(Path(each)):
            from .workspace import workspace_of

            workspace_of(viewer).open_volume(each)
        else:
            _open(viewer, each)
    return out or NOTHING


def is_volume(path: Path) -> bool:
    """Whether a file is one of our volumes rather than 4D-STEM data; looks at its beginning only."""
    suffix = path.suffix.lower()
    if suffix not in VOLUMES:
        return False
    if suffix in (".tif", ".tiff", ".mrc") or path.with_name(path.name + ".json").exists():
        return True
    if suffix == ".npy":
        return False
    if suffix == ".zarr":
        try:
            import zarr

            attributes = dict(zarr.open_group(str(path), mode="r").attrs)
        except Exception:  # an array, or damaged: the other reader will say
            return False
        return "multiscales" in attributes or "ome" in attributes
    import h5py

    from ..files import guard_hdf5
    from ..specimen.volume import FORMAT

    try:
        guard_hdf5(path, 10)
        with h5py.File(path, "r") as file:
            mark = file.attrs.get("format", b"")
            mark = mark.decode() if isinstance(mark, bytes) else str(mark)
            return mark == FORMAT or "optimizable_tensors" in file
    except (OSError, ValueError):
        return False


def _layer_data(path: str) -> tuple[Any, dict[str, Any], str]:
    """Without a viewer: a volume, or the bright field of 4D-STEM data, as a layer-data tuple."""
    if is_volume(Path(path)):
        from ..export.volumes import load_volume
        from .layers import AXES, COLORMAP, KEY, describe, span

        volume = load_volume(path)
        return volume.array, {"name": Path(path).stem, "scale": volume.voxel_size, "translate": volume.origin, "axis_labels": AXES,
                              "units": ("angstrom",) * 3, "colormap": COLORMAP, "contrast_limits": span(volume.array),
                              "metadata": {KEY: describe(volume, "volume", file=str(path))}}, "image"
    from ..measurement.readers import open_4dstem

    return _virtual(open_4dstem(path), Path(path).stem, "4D-STEM")


def _virtual(data: Any, name: str, role: str) -> tuple[Any, dict[str, Any], str]:
    """The sum of each pattern, where it was recorded, as a layer-data tuple."""
    import numpy as np

    from .layers import AXES, KEY, scan_affine

    image = np.asarray(data.data.sum(axis=(2, 3)))
    return image, {"name": name, "affine": scan_affine(data), "axis_labels": AXES[1:], "units": ("angstrom",) * 2,
                   "interpolation2d": "nearest", "metadata": {KEY: {"role": role}}}, "image"


def _npy_axes(path: Path) -> int:
    import numpy as np

    try:
        return int(np.load(path, mmap_mode="r", allow_pickle=False).ndim)
    except (OSError, ValueError, EOFError):
        return 4  # damaged: our reader will say so


# ---- writing ----------------------------------------------------------------------------------------------------
def write_volume(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """File ▸ Save of an image layer: the volume with its provenance. None of it is lost to the layer's look."""
    from ..export.volumes import save_volume
    from .layers import volume_of

    class Shown:
        name = meta.get("name", "")
        units = meta.get("units") or ("angstrom",) * len(getattr(data, "shape", (0, 0, 0)))
        scale, translate, metadata = meta.get("scale"), meta.get("translate"), meta.get("metadata", {})

    Shown.data = data  # type: ignore[attr-defined]
    volume = volume_of(Shown)
    return [str(p) for p in save_volume(volume, path, overwrite=True)[:1]]  # napari has asked already


# ---- samples ----------------------------------------------------------------------------------------------------
def _sample(name: str) -> list[Any]:
    import napari

    from ..measurement.samples import open_sample
    from .workspace import workspace_of

    data = open_sample(name)
    image, options, kind = _virtual(data, "virtual image", "virtual image")
    viewer = napari.current_viewer()
    if viewer is not None:
        show_docks(viewer)
        workspace_of(viewer).take(data.loaded(), name)  # small: it is open before a dialog could be
        if "virtual image" in viewer.layers:
            viewer.layers.remove("virtual image")
    return [(image, options, kind)]


def sample_srtio3() -> list[Any]:
    """SrTiO₃ along [001]."""
    return _sample("srtio3")


def sample_mos2() -> list[Any]:
    """MoS₂."""
    return _sample("mos2")


def sample_litao3() -> list[Any]:
    """LiTaO₃."""
    return _sample("litao3")


def sample_cuwo4() -> list[Any]:
    """CuWO₄."""
    return _sample("cuwo4")


def sample_cuwo4_low_dose() -> list[Any]:
    """CuWO₄ at a low dose."""
    return _sample("cuwo4_low_dose")


def sample_cuwo4_extended() -> list[Any]:
    """CuWO₄ on a wide field."""
    return _sample("cuwo4_extended")


def _open(viewer: Any, path: str) -> None:
    from .workspace import workspace_of

    show_docks(viewer)
    workspace_of(viewer).open(str(path))


# ---- commands ---------------------------------------------------------------------------------------------------
def show_docks(viewer: napari.Viewer, names: Sequence[str] = DOCKS) -> list[Any]:
    """Open docks, as tabs beside each other; those that are open already are left where they are. The first is in front."""
    window = getattr(viewer, "__wrapped__", viewer).window
    open_ = dict(window.dock_widgets)
    out = []
    for name in names:
        known = next((w for key, w in open_.items() if key.startswith(name) and PLUGIN in key), None)
        if known is None:
            _dock, known = window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
        out.append(known)
    if out:
        raise_dock(out[0])
    return out


def raise_dock(widget: Any) -> None:
    """Bring a dock's tab to the front."""
    from qtpy.QtWidgets import QDockWidget

    parent = widget
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    if parent is not None:
        parent.show()
        parent.raise_()


def open_all(viewer: napari.Viewer) -> None:
    """All five docks."""
    show_docks(viewer)


def _do(viewer: Any, name: str) -> None:
    from .workspace import workspace_of

    getattr(workspace_of(viewer), f"do_{name}")()


def start(viewer: napari.Viewer) -> None:
    """Start a run, or go on with a paused one."""
    _do(viewer, "toggle")


def pause(viewer: napari.Viewer) -> None:
    """Hold before the next step."""
    _do(viewer, "pause")


def single(viewer: napari.Viewer) -> None:
    """One step."""
    _do(viewer, "single")


def stop(viewer: napari.Viewer) -> None:
    """End after the present step."""
    _do(viewer, "stop")


def undo(viewer: napari.Viewer) -> None:
    """Undo the last change of settings."""
    _do(viewer, "undo")


def redo(viewer: napari.Viewer) -> None:
    """Redo it."""
    _do(viewer, "redo")


def back(viewer: napari.Viewer) -> None:
    """Back ten steps."""
    _do(viewer, "back")
