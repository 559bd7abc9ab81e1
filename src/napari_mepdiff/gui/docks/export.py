"""The Export dock: chosen volumes, whole or in part, with their provenance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLineEdit, QListWidget, QListWidgetItem

from ...session.choices import ExportChoices
from ..dock import Dock
from ..folders import refusal
from ..layer_data import KEY, corners_of, grid_of, images, region_of
from ..snapshot import Snapshot
from ..widgets.basic import Section, button, combo, row, words
from ..widgets.forms import Form
from .pictures import FigureSection, FilmSection, WrittenSection

if TYPE_CHECKING:
    from ...session.jobs import Report

ID = Qt.ItemDataRole.UserRole


class ExportDock(Dock):
    """Files of what was found."""

    title = "Export"

    def build(self) -> Iterator[None]:
        """Make the sections."""
        self._build_volumes()
        yield
        self.figure = FigureSection(self)
        self.film = FilmSection(self)
        self.add(self.figure, self.film)
        yield
        self.written = WrittenSection(self)
        self.add(self.written)
        yield
        s = self.session
        self.listen(self.workspace.book.layers_changed, self._fill)
        self.listen(s.run_changed, self._fill)
        self.listen(s.measurement_changed, self._show)
        self.listen(s.choices_changed, self._show)
        self.listen(s.exported_changed, self.written.fill)
        self._fill()
        self._show()
        self.written.fill()

    # ---- what -------------------------------------------------------------------------------
    def _build_volumes(self) -> None:
        self.list = QListWidget()
        self.list.setFixedHeight(110)
        self.list.setToolTip("Tick the volumes to write. Each is written as its layer shows it.")
        self.list.itemChanged.connect(lambda _i: self._summary())
        self.form = Form(
            ExportChoices, ("format", "unit", "first", "last", "overwrite"), self._change
        )
        self.region = combo(
            tip="Export only what lies within the last rectangle drawn in a shapes layer"
        )
        self.region.activated.connect(lambda i: self._change("region", self.region.itemData(i)))
        self.draw_button = button(
            "Draw",
            "A shapes layer with the rectangle tool: drag over what you want",
            self.draw_region,
        )
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("where the data are")
        self.folder.setToolTip("The folder that files are written to")
        self.folder.editingFinished.connect(self._folder_typed)
        self.folder_button = button("…", "Choose a folder", self._ask_folder, name="choose folder")
        self.folder_button.setMaximumWidth(30)
        self.what = words("", small=True)
        self.export_button = button(
            "Export",
            "Write the ticked volumes, each with a .json beside it that says how it was made",
            self.export,
            primary=True,
        )
        self.form.layout_.addRow("Region", row(self.region, self.draw_button))
        self.form.layout_.addRow("Folder", row(self.folder, self.folder_button))
        self.add(
            Section("Volumes").add(
                self.list, self.form, self.what, row(self.export_button, stretch=True)
            )
        )

    def _change(self, name: str, value: Any) -> None:
        self.session.change("export", **{name: value})

    def _items(self) -> list[QListWidgetItem]:
        return [self.list.item(i) for i in range(self.list.count())]

    def _fill(self, *_: Any) -> None:
        known = {item.data(ID): item.checkState() for item in self._items()}
        self.list.blockSignals(True)
        self.list.clear()
        for layer in images(self.viewer):
            item = QListWidgetItem(layer.name)
            item.setData(ID, layer.unique_id)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            entry = layer.metadata.get(KEY, {})
            fresh = entry.get("role") == "run" and not entry.get("array")
            default = Qt.CheckState.Checked if fresh else Qt.CheckState.Unchecked
            item.setCheckState(known.get(layer.unique_id, default))
            self.list.addItem(item)
        self.list.blockSignals(False)
        self.region.clear()
        self.region.addItem("whole field", "")
        for layer in self.viewer.layers:
            if type(layer).__name__ == "Shapes":
                self.region.addItem(layer.name, layer.name)
        chosen = self.session.choices.export.region
        self.region.setCurrentIndex(max(0, self.region.findData(chosen)))
        self.film.fill()
        self._summary()

    def _show(self, *_: Any) -> None:
        choices = self.session.choices.export
        self.form.show_values(choices, {"last": "deepest"})
        if not self.folder.hasFocus():
            self.folder.setText(choices.folder)
        self.folder.setPlaceholderText(str(self.workspace.export_folder()))
        self.region.setCurrentIndex(max(0, self.region.findData(choices.region)))
        self._summary()

    def ticked(self) -> list[Any]:
        """The layers to write."""
        wanted = {i.data(ID) for i in self._items() if i.checkState() == Qt.CheckState.Checked}
        return [layer for layer in images(self.viewer) if layer.unique_id in wanted]

    def tick(self, *names: str) -> None:
        """Tick the layers of these names and no others."""
        for item in self._items():
            on = item.text() in names
            item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)

    def _summary(self) -> None:
        layers = self.ticked()
        self.export_button.setEnabled(bool(layers))
        lines = []
        for layer in layers[:4]:
            try:
                spans = [n.stop - n.start for n in self.part(layer)]
                size = " × ".join(map(str, spans))
                megabytes = 4e-6 * spans[0] * spans[1] * spans[2]
                unit = self._unit(layer) or "a share"
                lines.append(
                    f"{self.path_of(layer).name}: {size} voxels, {megabytes:.2f} MB, {unit}"
                )
            except ValueError as error:
                lines.append(f"{layer.name}: {error}")
        self.what.setText("\n".join(lines))

    def draw_region(self) -> None:
        """A shapes layer to draw a rectangle in."""
        layer = self.workspace.book.add_region()
        self._fill()
        self._change("region", layer.name)
        self.session.message.emit("info", "drag a rectangle over what you want to export", "")

    def part(self, layer: Any) -> tuple[slice, slice, slice]:
        """Slices, rows and columns that the choices ask for.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        choices, shape = self.session.choices.export, layer.data.shape
        depth = shape[0] if choices.last is None else min(choices.last + 1, shape[0])
        if choices.first >= depth:
            raise ValueError(f"there are no slices from {choices.first} to {depth - 1}")
        rows, columns = slice(0, shape[1]), slice(0, shape[2])
        if choices.region and choices.region in self.viewer.layers:
            corners = corners_of(self.viewer.layers[choices.region])
            rows, columns = region_of(corners, shape, *grid_of(layer)[:2])
        return slice(choices.first, depth), rows, columns

    def _unit(self, layer: Any) -> Any:
        """The unit that is asked for; None for what is no phase."""
        share = layer.metadata.get(KEY, {}).get("array") == "agreement"
        return None if share else self.session.choices.export.unit

    # ---- where ------------------------------------------------------------------------------
    def path_of(self, layer: Any) -> Path:
        """The file of a layer: named after the measurement it belongs to, not the one now open."""
        run = self.workspace.run_layers.run_of(layer)
        measurement = (
            self.workspace.measurement_layers.measurement_of(layer)
            if run is None
            else run.measurement_name
        )
        return self.path(layer.name, measurement=measurement)

    def path(self, name: str, suffix: str = "", measurement: str = "") -> Path:
        """A file in the chosen folder."""
        words_ = f"{measurement}_{name}" if measurement else name
        clean = re.sub(r"_+", "_", re.sub(r"[^\w.-]", "_", words_)).strip("_")
        return self.workspace.export_folder() / (
            clean + (suffix or self.session.choices.export.format)
        )

    def free(self, path: Path) -> Path:
        """A path that is not taken, unless replacing is allowed."""
        if self.session.choices.export.overwrite:
            return path
        out, number = path, 2
        while out.exists():
            out, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
        return out

    def require_folder(self) -> None:
        """Raises OSError, with what to do, if the chosen folder cannot take files."""
        reason = refusal(self.workspace.export_folder())
        if reason:
            raise OSError(f"{reason}: choose another folder")

    def _folder_typed(self) -> None:
        text = self.folder.text().strip()
        if text == self.session.choices.export.folder:
            return
        reason = refusal(Path(text)) if text else ""
        if reason:
            self.session.message.emit("error", reason, "")
            self.folder.setText(self.session.choices.export.folder)
            return
        self._change("folder", text)

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(
            self, "Export to", str(self.workspace.export_folder())
        )
        if path:
            self.folder.setText(path)
            self._folder_typed()

    # ---- writing ----------------------------------------------------------------------------
    def export(self) -> None:
        """Write the ticked volumes in the background."""
        choices = self.session.choices.export
        todo: list[tuple[Snapshot, Path, dict[str, Any]]] = []
        try:
            self.require_folder()
            for layer in self.ticked():
                path, (slices, y, x) = self.path_of(layer), self.part(layer)
                if path in [other for _, other, _ in todo]:
                    raise ValueError(f"two of the ticked layers would be {path.name}: rename one")
                if path.exists() and not choices.overwrite:
                    raise FileExistsError(
                        f"{path} is there already: tick 'Replace files that are there', or choose "
                        "another folder"
                    )
                part = {"slices": slices, "y": y, "x": x, "unit": self._unit(layer)}
                todo.append((self.workspace.run_layers.snapshot(layer), path, part))
        except (ValueError, OSError) as error:
            self.session.report(error, "nothing was exported")
            return

        def work(report: Report) -> tuple[list[Path], list[str]]:
            written, remarks = [], []
            for n, (snapshot, path, part) in enumerate(todo):
                report(n / len(todo))
                written.append(snapshot.save(path, overwrite=choices.overwrite, **part))
                remarks += remark(snapshot.volume().provenance, path.name)
            return written, remarks

        def done(found: tuple[list[Path], list[str]]) -> None:
            written, remarks = found
            self.session.note_exported(written)
            self.workspace.remember()
            names = ", ".join(p.name for p in written)
            text = "; ".join([f"written: {names} in {written[0].parent}", *remarks])
            self.session.message.emit("info", text, "")

        self.workspace.jobs.run("export", "exporting", work, done)


def remark(provenance: dict[str, Any], name: str) -> list[str]:
    """What a user should know of a volume that is not simply the newest of its run."""
    shown = provenance.get("shown") or {}
    if shown.get("altered") or provenance.get("altered"):
        return [f"the values of {name} were changed after the run, and the file says so"]
    if shown and not shown.get("newest", True):
        return [f"{name} is the frame of step {shown['step']}, as its layer shows it"]
    return []
