"""LayerBook: the only place that makes or updates layers. Physical scale, Å, axis names and provenance on every one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..specimen.volume import Volume
from .record import HOLDS, RunRecord

if TYPE_CHECKING:
    from ..measurement.dataset import FourDSTEM
    from ..reconstruction.stream import Frame

KEY = "mepdiff"  # of our entry in layer.metadata
AXES = ("z", "y", "x")
COLORMAP = "inferno"


class LayerBook:
    """Layers of one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self._runs: dict[tuple[int, str], Any] = {}  # (run number, array) to layer
        self._removed: set[tuple[int, str]] = set()
        self._sweep = 0
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.canvas.overlays.scale_bar.visible = True

    def close(self) -> None:
        """Let the viewer go."""
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self._runs.clear()

    def _on_removed(self, event: Any) -> None:
        for key, layer in list(self._runs.items()):
            if layer is event.value:
                del self._runs[key]
                self._removed.add(key)

    # ---- making ------------------------------------------------------------------------------------------------
    def free_name(self, name: str) -> str:
        """The name, or one with a number if there is such a layer."""
        taken = {layer.name for layer in self.viewer.layers}
        if name not in taken:
            return name
        return next(f"{name} [{n}]" for n in range(2, 10_000) if f"{name} [{n}]" not in taken)

    def add_volume(self, volume: Volume, name: str, role: str = "volume", *, limits: tuple[float, float] | None = None,
                   visible: bool = True, colormap: Any = COLORMAP, select: bool = True, **extra: Any) -> Any:
        """A volume as an image layer (D, H, W)."""
        before = list(self.viewer.layers.selection)
        layer = self.viewer.add_image(
            np.array(volume.array), name=self.free_name(name), scale=volume.voxel_size, translate=volume.origin,
            units=("angstrom",) * 3, axis_labels=AXES, colormap=colormap, visible=visible, interpolation2d="nearest",
            contrast_limits=limits or span(volume.array), rendering="attenuated_mip", metadata={KEY: describe(volume, role,
                                                                                                              **extra)},
        )
        if not select:
            self.viewer.layers.selection = set(before)
        return layer

    def add_image(self, array: NDArray[Any], name: str, *, pixel: tuple[float, float], origin: tuple[float, float] = (0.0, 0.0),
                  affine: Any = None, colormap: Any = "gray", visible: bool = True, limits: tuple[float, float] | None = None,
                  role: str = "image", replace: bool = False, **extra: Any) -> Any:
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
        options: dict[str, Any] = {"affine": affine} if affine is not None else {"scale": pixel, "translate": origin}
        return self.viewer.add_image(
            np.asarray(array), name=name if replace else self.free_name(name), units=("angstrom",) * 2, axis_labels=AXES[1:],
            colormap=colormap, visible=visible, interpolation2d="nearest", contrast_limits=limits or span(array, low=None),
            metadata={KEY: {"role": role, **extra}}, **options,
        )

    def add_points(self, positions: NDArray[Any], name: str, **options: Any) -> Any:
        """Points (n, 2) or (n, 3) in Å."""
        ndim = positions.shape[1]
        return self.viewer.add_points(positions, name=self.free_name(name), units=("angstrom",) * ndim, axis_labels=AXES[-ndim:],
                                      **options)

    def add_region(self) -> Any:
        """A shapes layer in Å, ready for a rectangle."""
        layer = self.viewer.add_shapes(name=self.free_name("region"), ndim=2, units=("angstrom",) * 2, axis_labels=AXES[1:],
                                       face_color="#ffffff20", edge_color="#e0a030", edge_width=0.1)
        layer.mode = "add_rectangle"
        return layer

    def shown_slice(self, layer: Any) -> int:
        """Which slice of a volume layer the viewer shows."""
        axis = self.viewer.dims.ndim - 3
        if axis < 0:
            return 0
        place = (self.viewer.dims.point[axis] - layer.translate[-3]) / layer.scale[-3]
        return int(np.clip(round(place), 0, layer.data.shape[-3] - 1))

    def show_virtual(self, data: FourDSTEM, image: NDArray[Any], name: str) -> Any:
        """A virtual image where the scan was, in Å (in scan positions where the step is not known)."""
        first = name not in self.viewer.layers
        layer = self.add_image(image, name, pixel=(1, 1), affine=scan_affine(data), role="virtual image", replace=True,
                               visible=first and not self._runs)
        if first and not self._runs:
            self.viewer.reset_view()
        return layer

    # ---- runs --------------------------------------------------------------------------------------------------
    def layer_of(self, run: RunRecord, array: str = "") -> Any:
        """The layer of a run, or None."""
        return self._runs.get((run.number, array))

    def show(self, run: RunRecord, frame: Frame, *, prediction: bool = False, sweep: bool = False) -> None:
        """Bring the layers of a run up to a frame; contrast stays as it is."""
        self._put(run, "", frame.volume, run.name)
        self.caption("preview, not a result" if run.preview else "")
        if prediction and "x_theta" in frame.arrays:
            self._put(run, "x_theta", frame.arrays["x_theta"], f"{run.name} · {HOLDS['x_theta']}")
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
        self._removed.discard((run.number, ""))
        frame = run.frame
        if frame is None:
            return None
        self._put(run, "", frame.volume, run.name)
        return self.layer_of(run)

    def finish(self, run: RunRecord) -> None:
        """At the end of a run: thumbnails, provenance, and what else the last frame holds (spread, agreement)."""
        frame = run.frame
        if frame is None or run.problem is None:
            return
        self._put(run, "", frame.volume, run.name)
        self.caption("preview, not a result" if run.preview else "")
        for key, (name, colours) in {"std": ("spread", "viridis"), "agreement": ("agreement", "cividis")}.items():
            if key in frame.arrays and (run.number, key) not in self._removed:
                array = frame.arrays[key]
                limits = (0.5, 1.0) if key == "agreement" else None
                self._put(run, key, array, f"{run.name} · {name}", visible=False, colormap=colours, limits=limits)
        for (number, kind), layer in self._runs.items():
            if number == run.number:
                volume = run.volume(array=kind if kind in frame.arrays else "")
                layer.metadata[KEY] = describe(volume, "run", run=run.name, array=kind)
                layer.refresh()

    def remove(self, run: RunRecord) -> None:
        """Take the layers of a run away."""
        for (number, _), layer in list(self._runs.items()):
            if number == run.number and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def add_frames(self, run: RunRecord) -> Any:
        """All kept frames as one lazy layer (step, z, y, x)."""
        volume = run.volume()
        live = self.layer_of(run)
        limits = span(volume.array) if live is None else tuple(live.contrast_limits)
        for other in self.viewer.layers:
            if other.metadata.get(KEY, {}).get("role") in ("run", "truth"):
                other.visible = False
        layer = self.viewer.add_image(
            run.frames.array(), name=self.free_name(f"{run.name} · frames"), scale=(1.0, *volume.voxel_size),
            translate=(0.0, *volume.origin), units=("pixel", *("angstrom",) * 3), axis_labels=("frame", *AXES), colormap=COLORMAP,
            contrast_limits=limits, interpolation2d="nearest",
            metadata={KEY: {"role": "frames", "run": run.name, "steps": [r["step"] for r in run.frames.kept]}},
        )
        self.viewer.dims.set_point(0, len(run.frames) - 1)
        return layer

    def scrub(self, run: RunRecord, array: NDArray[np.float32]) -> None:
        """Show a kept frame in the run's layer."""
        self._put(run, "", array, run.name)

    def _put(self, run: RunRecord, key: str, array: NDArray[np.float32], name: str, *, visible: bool = True,
             colormap: str = COLORMAP, limits: tuple[float, float] | None = None) -> None:
        assert run.problem is not None
        layer = self._runs.get((run.number, key))
        if layer is not None:
            np.copyto(layer.data, array)
            if layer.visible:
                layer.refresh(thumbnail=False, highlight=False, extent=False)
            return
        if (run.number, key) in self._removed:
            return  # the user took it away; the run keeps its volume
        volume = run.problem.volume(array)
        first = key == "" and not any(n == run.number for n, _ in self._runs)
        if limits is None and key in ("", "x_theta"):
            limits = self._expected(run, array)
        layer = self.add_volume(volume, name, "run", limits=limits, visible=visible, colormap=colormap, select=first, run=run.name,
                                array=key)
        self._runs[run.number, key] = layer
        if first:
            self._present(layer)

    def _expected(self, run: RunRecord, array: NDArray[np.float32]) -> tuple[float, float]:
        """Contrast that will fit the end of the run: that of the truth, or twice what the first picture shows."""
        truth = run.data.truth
        if truth is not None and truth.unit == "rad":
            return span(truth.array)
        low, high = span(array)
        return low, 2 * high

    def _present(self, layer: Any) -> None:
        """The first picture of a run: on top, alone where a measurement was shown, in the middle of the depth."""
        for other in self.viewer.layers:
            role = other.metadata.get(KEY, {}).get("role")
            if role in ("virtual image", "scan position", "run", "truth", "depth sum", "difference",
                        "comparison") and other is not layer:
                other.visible = False
        self.viewer.reset_view()
        axis = self.viewer.dims.ndim - 3
        if axis >= 0:
            self.viewer.dims.set_point(axis, layer.translate[0] + layer.data.shape[0] // 2 * layer.scale[0])


def describe(volume: Volume, role: str, **extra: Any) -> dict[str, Any]:
    """What `layer.metadata` says of a volume: everything that :func:`volume_of` needs to make it again."""
    return {"role": role, "unit": volume.unit, "energy_kV": volume.energy, "voxel_size": volume.voxel_size, "origin": volume.origin,
            "slice_thickness": volume.slice_thickness, "provenance": volume.provenance, **extra}


def volume_of(layer: Any) -> Volume:
    """A layer as a Volume: ours with all it knows, any other image by its scale.

    Raises
    ------
    ValueError
        If it is not a volume, or not in units of length.
    """
    known = layer.metadata.get(KEY, {})
    array = np.asarray(layer.data)
    if array.ndim != 3:
        raise ValueError(f"the layer {layer.name!r} is not a volume of three axes (slices, y, x): its shape is {array.shape}")
    if known.get("voxel_size") is not None:
        thickness = known.get("slice_thickness")
        return Volume(array, tuple(known["voxel_size"]), tuple(known["origin"]), known.get("unit", "rad"), known.get("energy_kV"),
                      None if thickness is None else tuple(thickness), dict(known.get("provenance", {})))
    factors = []
    for unit in layer.units:
        try:
            factors.append(float((1 * unit).to("angstrom").magnitude))
        except Exception:  # pint raises several kinds; pixels are not lengths
            factors.append(1.0)
    size = tuple(float(s) * f for s, f in zip(layer.scale, factors, strict=True))
    origin = tuple(float(t) * f for t, f in zip(layer.translate, factors, strict=True))
    provenance = {"source": f"layer {layer.name}"}
    if any(str(u) == "pixel" for u in layer.units):
        provenance["voxel_size"] = "taken from the layer's scale as Å: the layer is in pixels"
    return Volume(array, size, origin, provenance=provenance)  # type: ignore[arg-type]


def region_of(layer: Any, volume: Volume) -> tuple[slice, slice]:
    """Voxels (y, x) of a volume within the last shape of a shapes layer.

    Raises
    ------
    ValueError
        If there is no shape, or it lies outside the volume.
    """
    if len(layer.data) == 0:
        raise ValueError(f"draw a rectangle in the layer {layer.name!r} first")
    corners = np.array([layer.data_to_world(p) for p in np.asarray(layer.data[-1])])[:, -2:]
    out = []
    for axis in (0, 1):
        pixel, origin, size = volume.voxel_size[1 + axis], volume.origin[1 + axis], volume.shape[1 + axis]
        low = int(np.clip(np.ceil((corners[:, axis].min() - origin) / pixel - 1e-6), 0, size))
        high = int(np.clip(np.floor((corners[:, axis].max() - origin) / pixel + 1e-6) + 1, 0, size))
        if high <= low:
            raise ValueError("the drawn region lies outside the volume")
        out.append(slice(low, high))
    return out[0], out[1]


def span(array: NDArray[Any], low: float | None = 0.0) -> tuple[float, float]:
    """Contrast limits: from zero (or the smallest value, where `low` is None) to the 99.95th percentile."""
    finite = np.asarray(array)[np.isfinite(array)]
    if finite.size == 0:
        return 0.0, 1.0
    high = float(np.percentile(finite, 99.95))
    bottom = float(finite.min()) if low is None else low
    return bottom, max(high, bottom + 1e-6 + 1e-6 * abs(bottom))


def scan_affine(data: FourDSTEM) -> NDArray[np.float64]:
    """Scan indices (row, column) to Å, as a 3 × 3 matrix; the identity where the scan step is not known."""
    from ..measurement.dataset import DataError

    try:
        positions = data.scan_positions()
    except DataError:
        return np.eye(3)
    ny, nx = data.scan_shape
    rows, columns = np.divmod(np.arange(ny * nx), nx)
    design = np.stack([rows, columns, np.ones(ny * nx)], axis=1)
    matrix = np.eye(3)
    matrix[:2] = np.linalg.lstsq(design, positions, rcond=None)[0].T
    if np.linalg.matrix_rank(design) < 3 or abs(np.linalg.det(matrix)) < 1e-12:  # one row or column only
        step = data.calibration.scan_step or (1.0, 1.0)
        matrix = np.diag([step[0], step[1], 1.0])
        matrix[:2, 2] = positions[0]
    return matrix


def images(viewer: Any) -> Sequence[Any]:
    """Image layers of a viewer that are volumes."""
    return [layer for layer in viewer.layers if type(layer).__name__ == "Image" and layer.ndim == 3 and not layer.rgb]
