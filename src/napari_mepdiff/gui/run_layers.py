"""RunLayers: what a run shows in the viewer, found by the run and not by a layer's name."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from .layer_data import AXES, COLORMAP, KEY, Taken, describe, span
from .snapshot import Snapshot

if TYPE_CHECKING:
    from ..reconstruction.frame import Frame
    from ..session.runs import RunRecord
    from ..specimen.volume import Volume
    from .layers import LayerBook

TITLES = {"x_theta": "prediction before guidance", "std": "spread", "agreement": "agreement"}
COLOURS = {"std": "viridis", "agreement": "cividis"}
HIDE = (
    "virtual image",
    "scan position",
    "run",
    "truth",
    "depth sum",
    "difference",
    "comparison",
    "frames",
)
OUTGROWN = 1.3  # a picture brighter than its contrast by that much gets a new one
FADED = 0.33  # or darker


class RunLayers:
    """Layers of the runs of a session.

    Parameters
    ----------
    book : LayerBook
    """

    def __init__(self, book: LayerBook) -> None:
        self.book, self.viewer = book, book.viewer
        self._layers: dict[tuple[str, str], Any] = {}  # (id of the run, array) to layer
        self._removed: set[tuple[str, str]] = set()
        self._runs: dict[str, RunRecord] = {}
        self._limits: dict[tuple[str, str], tuple[float, float]] = {}  # contrast that we chose
        self._sweep = 0
        self.viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Let the viewer go."""
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        for run in list(self._runs.values()):
            self._remove_frames(run)
        self._layers.clear()
        self._runs.clear()

    def _on_removed(self, event: Any) -> None:
        for key, layer in list(self._layers.items()):
            if layer is event.value:
                del self._layers[key]
                self._removed.add(key)

    # ---- which is which ---------------------------------------------------------------------
    def id_of(self, run: RunRecord) -> str:
        """What the metadata of a run's layers call it; no two runs share it."""
        for key, known in self._runs.items():
            if known is run:
                return key
        key = uuid.uuid4().hex
        self._runs[key] = run
        return key

    def layer_of(self, run: RunRecord, array: str = "") -> Any:
        """The layer of a run, or None."""
        return self._layers.get((self.id_of(run), array))

    def run_of(self, layer: Any) -> RunRecord | None:
        """The run that a layer shows, whatever the layer is called; None if it shows none."""
        return self.run_by(layer.metadata)

    def run_by(self, metadata: dict[str, Any]) -> RunRecord | None:
        """The run that a layer's metadata speak of."""
        entry = metadata.get(KEY, {})
        return self._runs.get(entry.get("run_id", "")) if entry.get("role") == "run" else None

    def snapshot(self, layer: Any) -> Snapshot:
        """What a layer shows now."""
        return Snapshot(Taken.of(layer), self.run_of(layer))

    # ---- a run that goes on -----------------------------------------------------------------
    def show(
        self, run: RunRecord, frame: Frame, *, prediction: bool = False, sweep: bool = False
    ) -> None:
        """Bring the layers of a run up to a frame."""
        self._put(run, "", frame.volume)
        self.caption("preview, not a result" if run.preview else "")
        if prediction and "x_theta" in frame.arrays:
            self._put(run, "x_theta", frame.arrays["x_theta"])
        if sweep and self.viewer.dims.ndim >= 3 and self.viewer.dims.ndisplay == 2:
            self._sweep = (self._sweep + 1) % frame.volume.shape[0]
            self.show_slice(self._sweep, run)

    def caption(self, text: str) -> None:
        """A line in the corner of the picture; empty takes it away."""
        overlay = self.viewer.canvas.overlays.text
        if overlay.text != text or overlay.visible != bool(text):
            overlay.text, overlay.visible = text, bool(text)

    def show_slice(self, number: int, run: RunRecord) -> None:
        """Set the viewer to a slice of a run's layer."""
        layer = self.layer_of(run)
        if layer is not None:
            axis = self.viewer.dims.ndim - 3
            self.viewer.dims.set_point(axis, layer.translate[-3] + number * layer.scale[-3])

    def bring_back(self, run: RunRecord) -> Any:
        """The layer of a run, made anew if it was removed."""
        self._removed.discard((self.id_of(run), ""))
        frame = run.frame
        if frame is None:
            return None
        self._put(run, "", frame.volume)
        return self.layer_of(run)

    def scrub(self, run: RunRecord, array: NDArray[np.float32]) -> None:
        """Show a kept frame in the run's layer."""
        self._put(run, "", array)

    # ---- a run that has ended ---------------------------------------------------------------
    def finish(self, run: RunRecord) -> None:
        """At the end: provenance, and what else the last frame holds (spread, agreement)."""
        frame = run.frame
        if frame is None or run.problem is None:
            return
        self._put(run, "", frame.volume)
        self.caption("preview, not a result" if run.preview else "")
        key = self.id_of(run)
        if (key, "") in self._layers:
            self._adjust((key, ""), self._layers[key, ""], frame.volume, always=True)
        for name in COLOURS:
            if name in frame.arrays and (key, name) not in self._removed:
                self._put(run, name, frame.arrays[name], visible=False)
        for (owner, name), layer in self._layers.items():
            if owner == key:
                volume = run.volume(array=name if name in frame.arrays else "")
                layer.metadata[KEY] = self._entry(run, name, volume)
                layer.refresh()

    def remove(self, run: RunRecord) -> None:
        """Take the layers of a run away, those of its frames and their copies too.

        Copies that the user made of its volume stay, and say what they are.
        """
        self._remove_frames(run)
        key = self.id_of(run)
        for (owner, _), layer in list(self._layers.items()):
            if owner == key and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        for layer in self.viewer.layers:
            if self.run_of(layer) is run:
                volume = self.snapshot(layer).volume()
                array = layer.metadata[KEY].get("array", "")
                layer.metadata[KEY] = describe(volume, "volume", run=run.name, array=array)
        del self._runs[key]

    def _remove_frames(self, run: RunRecord) -> None:
        key = self.id_of(run)
        for layer in list(self.viewer.layers):
            entry = layer.metadata.get(KEY, {})
            if entry.get("role") == "frames" and entry.get("run_id") == key:
                self.viewer.layers.remove(layer)

    # ---- its frames -------------------------------------------------------------------------
    def add_frames(self, run: RunRecord) -> Any:
        """All kept frames as one lazy layer (frame, z, y, x); in place of an earlier one."""
        assert run.problem is not None
        self._remove_frames(run)
        live, voxels = self.layer_of(run), run.problem.volume(run.frames.volume(-1))
        limits = span(voxels.array) if live is None else tuple(live.contrast_limits)
        for other in self.viewer.layers:
            if other.metadata.get(KEY, {}).get("role") in ("run", "truth"):
                other.visible = False
        layer = self.viewer.add_image(
            run.frames.array(),
            name=self.book.free_name(f"{run.name} · frames"),
            scale=(1.0, *voxels.voxel_size),
            translate=(0.0, *voxels.origin),
            units=("pixel", *("angstrom",) * 3),
            axis_labels=("frame", *AXES),
            colormap=COLORMAP,
            contrast_limits=limits,
            interpolation2d="nearest",
            metadata={
                KEY: {
                    "role": "frames",
                    "run": run.name,
                    "run_id": self.id_of(run),
                    "steps": [r["step"] for r in run.frames.kept],
                }
            },
        )
        self.viewer.dims.set_point(0, len(run.frames) - 1)
        return layer

    # ---- one layer --------------------------------------------------------------------------
    def _put(
        self, run: RunRecord, name: str, array: NDArray[np.float32], *, visible: bool = True
    ) -> None:
        assert run.problem is not None
        key = (self.id_of(run), name)
        layer = self._layers.get(key)
        if layer is not None:
            if layer.data.shape != array.shape:  # the user put something else into it
                layer.data = np.array(array)
            else:
                np.copyto(layer.data, array)
            self._adjust(key, layer, array)
            if layer.visible:
                layer.refresh(thumbnail=False, highlight=False, extent=False)
            return
        if key in self._removed:
            return  # the user took it away; the run keeps its volume
        first = name == "" and not any(owner == key[0] for owner, _ in self._layers)
        limits = (0.5, 1.0) if name == "agreement" else span(array)
        title = f"{run.name} · {TITLES[name]}" if name else run.name
        volume = run.problem.volume(array)
        layer = self.book.add_volume(
            volume,
            title,
            "run",
            limits=limits,
            visible=visible,
            colormap=COLOURS.get(name, COLORMAP),
            select=first,
        )
        layer.metadata[KEY] = self._entry(run, name, volume)
        self._layers[key] = layer
        self._limits[key] = tuple(layer.contrast_limits)
        if first:
            QTimer.singleShot(0, lambda: self._present(layer))  # napari takes long for each

    def _entry(self, run: RunRecord, name: str, volume: Volume) -> dict[str, Any]:
        return describe(volume, "run", run=run.name, run_id=self.id_of(run), array=name)

    def _adjust(
        self, key: tuple[str, str], layer: Any, array: NDArray[np.float32], always: bool = False
    ) -> None:
        """Contrast follows a picture that has outgrown it, unless the user has set it."""
        if key[1] in COLOURS or tuple(layer.contrast_limits) != self._limits.get(key):
            return
        low, high = span(array)
        if always or not FADED < (high - low) / (layer.contrast_limits[1] - low + 1e-30) < OUTGROWN:
            layer.contrast_limits = (low, high)
            self._limits[key] = tuple(layer.contrast_limits)

    def _present(self, layer: Any) -> None:
        """The first picture of a run: on top, alone where a measurement was shown, at mid-depth."""
        if layer not in self.viewer.layers:  # taken away meanwhile
            return
        for other in self.viewer.layers:
            role = other.metadata.get(KEY, {}).get("role")
            if other is not layer and other.visible and role in HIDE:
                other.visible = False
        self.viewer.reset_view()
        axis = self.viewer.dims.ndim - 3
        if axis >= 0:
            middle = layer.translate[0] + layer.data.shape[0] // 2 * layer.scale[0]
            self.viewer.dims.set_point(axis, middle)
