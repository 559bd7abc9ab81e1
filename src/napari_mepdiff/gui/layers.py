"""LayerBook: makes layers, each with physical scale, Å, axis names and provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ..specimen.volume import Volume
from .depth import reach
from .layer_data import AXES, COLORMAP, KEY, describe, span

if TYPE_CHECKING:
    pass


class LayerBook:
    """Layers of one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    layers_changed = Signal()  # a layer has come, gone, or has another name
    renamed = Signal(str, str)  # before, after

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self._names: dict[Any, str] = {}
        for layer in viewer.layers:
            self._know(layer)
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._removed)
        viewer.canvas.overlays.scale_bar.visible = True

    def close(self) -> None:
        """Let the viewer go."""
        events = self.viewer.layers.events
        events.inserted.disconnect(self._inserted)
        events.removed.disconnect(self._removed)
        for layer in list(self._names):
            layer.events.name.disconnect(self._named)
        self._names.clear()
        self.layers_changed.disconnect()
        self.renamed.disconnect()

    # ---- who is there -----------------------------------------------------------------------
    def _know(self, layer: Any) -> None:
        self._names[layer] = layer.name
        layer.events.name.connect(self._named)

    def _inserted(self, event: Any) -> None:
        self._know(event.value)
        self.layers_changed.emit()

    def _removed(self, event: Any) -> None:
        if self._names.pop(event.value, None) is not None:
            event.value.events.name.disconnect(self._named)
        self.layers_changed.emit()

    def _named(self, event: Any) -> None:
        layer = event.source
        before = self._names.get(layer, layer.name)
        self._names[layer] = layer.name
        if before != layer.name:
            self.renamed.emit(before, layer.name)
            self.layers_changed.emit()

    # ---- making -----------------------------------------------------------------------------
    def free_name(self, name: str) -> str:
        """The name, or one with a number if there is such a layer."""
        taken = {layer.name for layer in self.viewer.layers}
        if name not in taken:
            return name
        return next(f"{name} [{n}]" for n in range(2, 10_000) if f"{name} [{n}]" not in taken)

    def add_volume(
        self,
        volume: Volume,
        name: str,
        role: str = "volume",
        *,
        limits: tuple[float, float] | None = None,
        visible: bool = True,
        colormap: Any = COLORMAP,
        select: bool = True,
        **extra: Any,
    ) -> Any:
        """A volume as an image layer (D, H, W)."""
        before = list(self.viewer.layers.selection)
        layer = self.viewer.add_image(
            np.array(volume.array),
            name=self.free_name(name),
            scale=volume.voxel_size,
            translate=volume.origin,
            units=("angstrom",) * 3,
            axis_labels=AXES,
            colormap=colormap,
            visible=visible,
            interpolation2d="nearest",
            contrast_limits=limits or span(volume.array),
            rendering="attenuated_mip",
            metadata={KEY: describe(volume, role, **extra)},
        )
        reach(self.viewer, layer)
        if not select:
            self.viewer.layers.selection = set(before)
        return layer

    def add_image(
        self,
        array: NDArray[Any],
        name: str,
        *,
        pixel: tuple[float, float],
        origin: tuple[float, float] = (0.0, 0.0),
        affine: Any = None,
        colormap: Any = "gray",
        visible: bool = True,
        limits: tuple[float, float] | None = None,
        role: str = "image",
        replace: bool = False,
        **extra: Any,
    ) -> Any:
        """A real-space image (H, W) in Å; `replace` updates the one of that name if it is there."""
        if replace and name in self.viewer.layers:
            layer = self.viewer.layers[name]
            if layer.data.shape == array.shape and KEY in layer.metadata:
                layer.data = np.asarray(array)
                layer.contrast_limits = limits or span(array, low=None)
                if affine is None:
                    layer.scale, layer.translate = pixel, origin
                else:
                    layer.affine = affine
                return layer
            self.viewer.layers.remove(layer)
        options: dict[str, Any] = (
            {"affine": affine} if affine is not None else {"scale": pixel, "translate": origin}
        )
        return self.viewer.add_image(
            np.asarray(array),
            name=name if replace else self.free_name(name),
            units=("angstrom",) * 2,
            axis_labels=AXES[1:],
            colormap=colormap,
            visible=visible,
            interpolation2d="nearest",
            contrast_limits=limits or span(array, low=None),
            metadata={KEY: {"role": role, **extra}},
            **options,
        )

    def add_points(self, positions: NDArray[Any], name: str, **options: Any) -> Any:
        """Points (n, 2) or (n, 3) in Å."""
        ndim = positions.shape[1]
        return self.viewer.add_points(
            positions,
            name=self.free_name(name),
            units=("angstrom",) * ndim,
            axis_labels=AXES[-ndim:],
            **options,
        )

    def add_arrows(self, vectors: NDArray[Any], name: str, **options: Any) -> Any:
        """Arrows (n, 2, 2) in Å: where each begins as (y, x), and how far it goes."""
        return self.viewer.add_vectors(
            vectors,
            name=self.free_name(name),
            units=("angstrom",) * 2,
            axis_labels=AXES[1:],
            vector_style="arrow",
            **options,
        )

    def add_region(self) -> Any:
        """A shapes layer in Å, ready for a rectangle."""
        layer = self.viewer.add_shapes(
            name=self.free_name("region"),
            ndim=2,
            units=("angstrom",) * 2,
            axis_labels=AXES[1:],
            face_color="#ffffff20",
            edge_color="#e0a030",
            edge_width=0.1,
        )
        layer.mode = "add_rectangle"
        return layer

    def shown_slice(self, layer: Any) -> int:
        """Which slice of a volume layer the viewer shows."""
        axis = self.viewer.dims.ndim - 3
        if axis < 0:
            return 0
        place = (self.viewer.dims.point[axis] - layer.translate[-3]) / layer.scale[-3]
        return int(np.clip(round(place), 0, layer.data.shape[-3] - 1))
