"""What napari calls by the manifest: readers, writers, samples, commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari

    from .panels import Panel
    from .workspace import Workspace

PLUGIN = "napari-mepdiff"
VIRTUAL = "virtual image"
DOCKS = ("Data", "Microscope", "Reconstruct", "Guidance", "Compare", "Export")
NOTHING = [(None,)]  # napari's word for: read, but there is no layer to add


# ---- reading -------------------------------------------------------------------------------
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
    """4D-STEM data into the Data dock, volumes into layers; in the background with a viewer."""
    import napari

    paths = [path] if isinstance(path, str) else list(path)
    viewer = napari.current_viewer()
    if viewer is None:
        return [_layer_data(each) for each in paths] or NOTHING
    show_docks(viewer)
    for each in paths:
        when_ready(viewer, lambda workspace, each=each: workspace.files.open_any(str(each)))
    return NOTHING


def _layer_data(path: str) -> tuple[Any, dict[str, Any], str]:
    """Without a viewer: a volume, or the bright field of 4D-STEM data, as a layer-data tuple."""
    from .kinds import is_volume

    if is_volume(Path(path)):
        from ..export.volumes import load_volume
        from .layer_data import AXES, COLORMAP, KEY, describe, span

        volume = load_volume(path)
        return (
            volume.array,
            {
                "name": Path(path).stem,
                "scale": volume.voxel_size,
                "translate": volume.origin,
                "axis_labels": AXES,
                "units": ("angstrom",) * 3,
                "colormap": COLORMAP,
                "contrast_limits": span(volume.array),
                "metadata": {KEY: describe(volume, "volume", file=str(path))},
            },
            "image",
        )
    from ..measurement.formats import open_4dstem

    return _virtual(open_4dstem(path), Path(path).stem, "4D-STEM")


def _virtual(data: Any, name: str, role: str) -> tuple[Any, dict[str, Any], str]:
    """The sum of each pattern, where it was recorded, as a layer-data tuple."""
    import numpy as np

    from .layer_data import AXES, KEY, scan_affine

    image = np.asarray(data.data.sum(axis=(2, 3)))
    return (
        image,
        {
            "name": name,
            "affine": scan_affine(data),
            "axis_labels": AXES[1:],
            "units": ("angstrom",) * 2,
            "interpolation2d": "nearest",
            "metadata": {KEY: {"role": role}},
        },
        "image",
    )


def _npy_axes(path: Path) -> int:
    import numpy as np

    try:
        return int(np.load(path, mmap_mode="r", allow_pickle=False).ndim)
    except (OSError, ValueError, EOFError):
        return 4  # damaged: our reader will say so


# ---- writing -------------------------------------------------------------------------------
def write_volume(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """File ▸ Save of an image layer: the volume with its provenance."""
    from ..export.volumes import save_volume
    from .layer_data import Taken
    from .snapshot import Snapshot
    from .workspace import workspaces

    ndim = len(getattr(data, "shape", (0, 0, 0)))
    taken = Taken(
        str(meta.get("name", "")),
        data,
        meta.get("scale"),
        meta.get("translate"),
        meta.get("units") or ("angstrom",) * ndim,
        meta.get("metadata", {}),
    )
    run = next((r for w in workspaces() if (r := w.run_layers.run_by(taken.metadata))), None)
    volume = Snapshot(taken, run).volume()
    return [
        str(p) for p in save_volume(volume, path, overwrite=True)[:1]
    ]  # napari has asked already


# ---- samples -------------------------------------------------------------------------------
def _sample(name: str) -> list[Any]:
    """A sample into the Data dock, in the background; napari wants a layer at once, which the
    virtual image then takes the place of."""
    import napari
    import numpy as np

    viewer = napari.current_viewer()
    if viewer is None:
        from ..measurement.samples import open_sample

        return [_virtual(open_sample(name), "virtual image", "virtual image")]
    show_docks(viewer)
    when_ready(viewer, lambda workspace: workspace.files.open(name))
    if VIRTUAL in viewer.layers:
        viewer.layers.remove(VIRTUAL)
    options = {
        "name": VIRTUAL,
        "visible": False,
        "units": ("angstrom",) * 2,
        "axis_labels": ("y", "x"),
        "metadata": {"mepdiff": {"role": VIRTUAL}},
    }
    return [(np.zeros((1, 1), np.float32), options, "image")]


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


# ---- commands ------------------------------------------------------------------------------
def show_docks(viewer: napari.Viewer, names: Sequence[str] = DOCKS) -> list[Panel]:
    """Open docks, as tabs beside each other, the first in front; open ones are left as they are.

    Each is filled when PyTorch is loaded.
    """
    from .viewers import in_front, itself

    real = itself(viewer)
    out = []
    with in_front(real):
        open_ = dict(real.window.dock_widgets)
        for name in names:
            known = next(
                (w for key, w in open_.items() if key.startswith(name) and PLUGIN in key), None
            )
            if known is None:
                _dock, known = real.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
            out.append(known)
    if out:
        raise_dock(out[0])
    return out


def when_ready(viewer: Any, action: Callable[[Workspace], Any]) -> None:
    """Do something with a viewer's workspace as soon as PyTorch is loaded."""
    from .loading import loading
    from .viewers import itself

    real = itself(viewer)

    def act() -> None:
        if loading().error is None:
            from .workspace import workspace_of

            action(workspace_of(real))

    loading().then(act)


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
    """All docks."""
    show_docks(viewer)


def _do(viewer: Any, name: str) -> None:
    when_ready(viewer, lambda workspace: getattr(workspace, f"do_{name}")())


def start(viewer: napari.Viewer) -> None:
    """Start a run, or go on with a paused one."""
    _do(viewer, "toggle")


def automatic(viewer: napari.Viewer) -> None:
    """From what the patterns say to a volume, step by step."""
    _do(viewer, "automatic")


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
