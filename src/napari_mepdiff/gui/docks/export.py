"""The Export dock: chosen volumes, whole or in part, figures and films, with their provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLineEdit, QListWidget, QListWidgetItem

from ..choices import ExportChoices
from ..dock import Dock
from ..forms import Form
from ..layers import KEY, images, volume_of
from ..widgets import Section, button, combo, row, words


class ExportDock(Dock):
    """Files of what was found."""

    title = "Export"

    def build(self) -> None:
        """Make the sections."""
        self._build_volumes()
        self._build_figure()
        self._build_film()
        self._build_done()
        s = self.session
        self.listen(self.viewer.layers.events.inserted, self._fill)
        self.listen(self.viewer.layers.events.removed, self._fill)
        self.listen(s.run_changed, self._fill)
        self.listen(s.measurement_changed, self._show)
        self.listen(s.choices_changed, self._show)
        self.listen(s.exported_changed, self._show_done)
        self._fill()
        self._show()
        self._show_done()

    # ---- volumes -----------------------------------------------------------------------------------------------
    def _build_volumes(self) -> None:
        self.list = QListWidget()
        self.list.setFixedHeight(110)
        self.list.setToolTip("Tick the volumes to write: layers as they are, runs as they are now")
        self.list.itemChanged.connect(lambda _i: self._summary())
        self.form = Form(ExportChoices, ("format", "unit", "first", "last", "overwrite"), self._change)
        self.region = combo(tip="Export only what lies within the last rectangle drawn in a shapes layer")
        self.region.activated.connect(lambda i: self._change("region", self.region.itemData(i)))
        self.draw_button = button("Draw", "A shapes layer with the rectangle tool: drag over what you want", self.draw_region)
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("where the data are")
        self.folder.setToolTip("The folder that files are written to")
        self.folder.editingFinished.connect(self._folder_typed)
        self.folder_button = button("…", "Choose a folder", self._ask_folder, name="choose folder")
        self.folder_button.setMaximumWidth(30)
        self.what = words("", small=True)
        self.export_button = button("Export", "Write the ticked volumes, each with a .json beside it that says how it was made",
                                    self.export, primary=True)
        self.form.layout_.addRow("Region", row(self.region, self.draw_button))
        self.form.layout_.addRow("Folder", row(self.folder, self.folder_button))
        self.add(Section("Volumes").add(self.list, self.form, self.what, row(self.export_button, stretch=True)))

    def _change(self, name: str, value: Any) -> None:
        self.session.change("export", **{name: value})

    def _fill(self, _event: Any = None) -> None:
        ticked = {self.list.item(i).text() for i in range(self.list.count())
                  if self.list.item(i).checkState() == Qt.CheckState.Checked}
        known = {self.list.item(i).text() for i in range(self.list.count())}
        self.list.blockSignals(True)
        self.list.clear()
        for layer in images(self.viewer):
            item = QListWidgetItem(layer.name)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            role = layer.metadata.get(KEY, {})
            fresh = layer.name not in known and role.get("role") == "run" and not role.get("array")
            item.setCheckState(Qt.CheckState.Checked if layer.name in ticked or fresh else Qt.CheckState.Unchecked)
            self.list.addItem(item)
        self.list.blockSignals(False)
        chosen = self.session.choices.export.region
        self.region.clear()
        self.region.addItem("whole field", "")
        for layer in self.viewer.layers:
            if type(layer).__name__ == "Shapes":
                self.region.addItem(layer.name, layer.name)
        self.region.setCurrentIndex(max(0, self.region.findData(chosen)))
        runs = [r.name for r in self.session.runs if len(r.frames)]
        kept = self.film_run.currentText()
        self.film_run.clear()
        self.film_run.addItems(runs)
        self.film_run.setCurrentIndex(max(0, self.film_run.findText(kept)) if kept in runs else len(runs) - 1)
        self.film_button.setEnabled(bool(runs))
        self._summary()

    def _show(self, *_: Any) -> None:
        choices = self.session.choices.export
        self.form.show_values(choices, {"last": "deepest"})
        if not self.folder.hasFocus():
            self.folder.setText(choices.folder)
        self.folder.setPlaceholderText(str(self.workspace.export_folder()))
        self.region.setCurrentIndex(max(0, self.region.findData(choices.region)))
        self._summary()

    def ticked(self) -> list[str]:
        """Names of the layers to write."""
        items = [self.list.item(i) for i in range(self.list.count())]
        return [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]

    def tick(self, *names: str) -> None:
        """Tick these layers and no others."""
        for i in range(self.list.count()):
            item = self.list.item(i)
            item.setCheckState(Qt.CheckState.Checked if item.text() in names else Qt.CheckState.Unchecked)

    def _summary(self) -> None:
        names = self.ticked()
        self.export_button.setEnabled(bool(names))
        lines = []
        for name in names[:4]:
            try:
                volume = self.part(name)
                size = " × ".join(map(str, volume.shape))
                lines.append(f"{self._path(name).name}: {size} voxels, {volume.array.nbytes / 1e6:.2f} MB, {volume.unit}")
            except (ValueError, KeyError) as error:
                lines.append(f"{name}: {error}")
        self.what.setText("\n".join(lines))

    def draw_region(self) -> None:
        """A shapes layer to draw a rectangle in."""
        layer = self.workspace.book.add_region()
        self._fill()
        self._change("region", layer.name)
        self.session.message.emit("info", "drag a rectangle over what you want to export", "")

    def part(self, name: str) -> Any:
        """The part of a layer that the choices ask for, as a Volume.

        Raises
        ------
        ValueError
            If nothing is left of it, or its unit cannot be had.
        """
        from ..layers import region_of

        layer, choices = self.viewer.layers[name], self.session.choices.export
        entry = layer.metadata.get(KEY, {})
        run = self.session.run_named(entry.get("run", ""))
        if run is not None and entry.get("role") == "run" and run.frame is not None:
            volume = run.volume(array=entry.get("array", ""))
        else:
            volume = volume_of(layer)
        last = volume.shape[0] if choices.last is None else choices.last + 1
        y = x = slice(None)
        if choices.region and choices.region in self.viewer.layers:
            y, x = region_of(self.viewer.layers[choices.region], volume)
        part = volume.crop(slice(choices.first, last), y, x)
        return part.to_unit(choices.unit) if entry.get("array") != "agreement" else part

    def _path(self, name: str, suffix: str | None = None) -> Path:
        clean = "".join(c if c.isalnum() or c in "-_" else "_" for c in name.replace(" · ", "_").replace(" ", "_"))
        while "__" in clean:
            clean = clean.replace("__", "_")
        end = suffix or self.session.choices.export.format
        return self.workspace.export_folder() / f"{self.workspace.data_name()}_{clean.strip('_')}{end}"

    def export(self) -> None:
        """Write the ticked volumes in the background."""
        from ...export.volumes import save_volume

        choices = self.session.choices.export
        todo = []
        try:
            for name in self.ticked():
                path = self._path(name)
                todo.append((self.part(name), path))
                if path.exists() and not choices.overwrite:
                    raise FileExistsError(f"{path} is there already: tick 'Replace files that are there', or choose another folder")
        except (ValueError, OSError) as error:
            self.session.report(error, "nothing was exported")
            return

        def work(report: Any) -> list[Path]:
            written = []
            for n, (volume, path) in enumerate(todo):
                report(n / len(todo))
                written.append(save_volume(volume, path, overwrite=choices.overwrite)[0])
            return written

        def done(written: list[Path]) -> None:
            self.session.note_exported(written)
            self.workspace.remember()
            self.session.message.emit("info", f"written: {', '.join(p.name for p in written)} in {written[0].parent}", "")

        self.workspace.jobs.run("export", "exporting", work, done)

    def _folder_typed(self) -> None:
        text = self.folder.text().strip()
        if text and not Path(text).is_dir():
            self.session.message.emit("error", f"there is no folder {text}", "")
            self.folder.setText(self.session.choices.export.folder)
            return
        if text != self.session.choices.export.folder:
            self._change("folder", text)

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Export to", str(self.workspace.export_folder()))
        if path:
            self._change("folder", path)

    # ---- figure ------------------------------------------------------------------------------------------------
    def _build_figure(self) -> None:
        self.figure_format = combo([".png", ".pdf", ".svg"], "PNG for slides, PDF or SVG for print", 4)
        self.figure_button = button("Figure", "All slices and the depth sum of each, one row a volume, with "
                                                            "scale bar, "
                                    "units and scores against the ground truth", self.export_figure)
        self.window_button = button("Screenshot", "The whole window as it is", self.screenshot)
        self.add(Section("Figure").add(row(self.figure_format, self.figure_button, self.window_button)))

    def export_figure(self) -> None:
        """Write a figure of the ticked volumes, the ground truth first where there is one."""
        names = self.ticked()
        data = self.session.data
        volumes: dict[str, Any] = {}
        try:
            for name in names:
                volumes[name] = volume_of(self.viewer.layers[name])
            if not volumes:
                raise ValueError("tick at least one volume")
            first = next(iter(volumes.values()))
            if data is not None and data.truth is not None and data.truth.shape == first.shape and "ground truth" not in volumes:
                volumes = {"ground truth": data.truth, **volumes}
            if len({v.shape for v in volumes.values()}) > 1:
                raise ValueError("a figure shows volumes of one grid; these differ: tick fewer")
            path = self._free(self._path("comparison", self.figure_format.currentText()))
        except ValueError as error:
            self.session.report(error, "no figure was made")
            return

        def work(report: Any) -> Path:
            from ...evaluation.figures import compare_figure
            from ...evaluation.judge import judge

            truth = volumes.get("ground truth")
            scores = {n: judge(v, truth) for n, v in volumes.items() if n != "ground truth"} if truth is not None else None
            report(0.5)
            return compare_figure(volumes, path, scores, self.workspace.data_name())

        self.workspace.jobs.run("figure", "drawing a figure", work, self._written_one)

    def screenshot(self) -> None:
        """The whole window to a PNG."""
        path = self._free(self._path("window", ".png"))
        try:
            self.viewer.screenshot(str(path), canvas_only=False)
        except OSError as error:
            self.session.report(error, "no screenshot was made")
            return
        self._written_one(path)

    def _free(self, path: Path) -> Path:
        """A path that is not taken, unless replacing is allowed."""
        if self.session.choices.export.overwrite:
            return path
        out, number = path, 2
        while out.exists():
            out, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
        return out

    def _written_one(self, path: Path) -> None:
        self.session.exported_changed.emit([path])
        self.session.message.emit("info", f"written: {path}", "")
        self.last_file = path
        self._show_done([path])

    # ---- film --------------------------------------------------------------------------------------------------
    def _build_film(self) -> None:
        self.film_run = combo(tip="Which run")
        self.film_view = combo([("all slices", "slices"), ("the slice shown", "slice"), ("depth sum", "sum")],
                               "What each picture of the film shows")
        self.film_format = combo([".gif", ".mp4"], "GIF plays everywhere; MP4 is smaller, and needs the package imageio-ffmpeg", 4)
        self.film_button = button("Film of the run", "The kept frames one after the other, with step and scale bar",
                                  self.export_film)
        self.add(Section("Film").add(row(self.film_run, self.film_view), row(self.film_format, self.film_button, stretch=True)))

    def export_film(self) -> None:
        """Write a film of a run's kept frames."""
        run = self.session.run_named(self.film_run.currentText())
        if run is None or run.problem is None:
            return
        view = self.film_view.currentData()
        suffix = self.film_format.currentText()
        path = self._free(self._path(f"{run.name} film", suffix))
        layer = self.workspace.book.layer_of(run)
        number = 0 if layer is None else self.workspace.book.shown_slice(layer)
        limits = None if layer is None or view == "sum" else tuple(layer.contrast_limits)
        kept = run.frames.kept
        voxels = run.problem.voxel_size
        labels = [f"step {r['step']} of {r['total']}" for r in kept]

        def work(report: Any) -> Path:
            from ...export.film import save_film

            return save_film(cast(Any, _Kept(run.frames, len(kept))), path, voxel_size=voxels, view=view, number=number,
                             limits=limits, labels=labels, progress=report, overwrite=True)

        self.workspace.jobs.run("film", "making a film", work, self._written_one)

    # ---- what was written --------------------------------------------------------------------------------------
    def _build_done(self) -> None:
        self.done_list = QListWidget()
        self.done_list.setFixedHeight(90)
        self.done_list.setToolTip("Volumes that were exported; double-click opens one as a layer")
        self.done_list.itemDoubleClicked.connect(lambda item: self.workspace.open_volume(item.data(Qt.ItemDataRole.UserRole)))
        self.reopen_button = button("Open as a layer", "The chosen file, read back from disk", self._reopen)
        self.add(Section("Written").add(self.done_list, row(self.reopen_button, stretch=True)))

    def _show_done(self, _paths: Any = None) -> None:
        self.done_list.clear()
        for path in reversed(self.session.exported):
            item = QListWidgetItem(Path(path).name)
            item.setToolTip(path)
            item.setData(Qt.ItemDataRole.UserRole, path)
            self.done_list.addItem(item)
        if self.done_list.count():
            self.done_list.setCurrentRow(0)
        self.reopen_button.setEnabled(self.done_list.count() > 0)

    def _reopen(self) -> None:
        item = self.done_list.currentItem()
        if item is not None:
            self.workspace.open_volume(item.data(Qt.ItemDataRole.UserRole))


class _Kept:
    """The first n kept frames of a store as a sequence."""

    def __init__(self, frames: Any, count: int) -> None:
        self._frames, self._count = frames, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> np.ndarray:
        return self._frames.volume(number)
