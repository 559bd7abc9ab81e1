"""The Compare dock: a run against the truth, another run or any volume; depth sums, profiles, patterns, spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QPushButton, QSlider, QTableWidget, QTableWidgetItem

from ...evaluation.compare import Comparison, compare, depth_profile, patterns_at
from ..choices import ComparisonChoices
from ..compare_layers import OURS, CompareLayers
from ..dock import Dock
from ..forms import Form
from ..layers import KEY, images, volume_of
from ..plots import Picture, Profile, SliceScores
from ..widgets import Section, button, combo, row, words

ROWS = (("ssim", "SSIM", 3), ("psnr", "PSNR (dB)", 2), ("ssim_sum", "SSIM of the depth sum", 3), ("psnr_sum", "PSNR of the "
                                                                                                              "depth sum (dB)", 2),
        ("depth_correlation", "depth correlation", 2), ("atoms_in_slice", "atoms in the right slice", 2),
        ("deviance", "misfit ÷ shot noise", 4))
TRUTH = "ground truth"


class CompareDock(Dock):
    """Two volumes against each other, and a volume against the measurement."""

    title = "Compare"

    def build(self) -> None:
        """Make the sections."""
        self.found: Comparison | None = None
        self._names = ("", "")
        self._column: tuple[float, float] | None = None
        self.shown = CompareLayers(self.workspace.book, self)
        self.destroyed.connect(self.shown.close)
        self._build_choice()
        self._build_scores()
        self._build_profile()
        self._build_patterns()
        self._build_spread()
        s = self.session
        self.listen(self.viewer.layers.events.inserted, self._fill)
        self.listen(self.viewer.layers.events.removed, self._fill)
        self.listen(s.measurement_changed, self._fill)
        self.listen(s.run_changed, self._fill)
        self.listen(s.choices_changed, self._chosen)
        self.form.show_values(s.choices.comparison)
        self.form.set_row_visible("blink", s.choices.comparison.view == "blink")
        self._fill()

    # ---- which -------------------------------------------------------------------------------------------------
    def _build_choice(self) -> None:
        self.reference = combo(tip="What to compare with: the ground truth, another run, or any volume layer")
        self.test = combo(tip="The run, or volume layer, that is judged")
        for box in (self.reference, self.test):
            box.activated.connect(lambda _i: self._forget())
        self.form = Form(ComparisonChoices, ("view", "blink"), lambda n, v: self.session.change("comparison", **{n: v}))
        self.form.layout_.insertRow(0, "Reference", self.reference)
        self.form.layout_.insertRow(1, "Against", self.test)
        self.note = words()
        self.compare_button = button("Compare", "Compute the scores and lay both out in the picture", self.run, primary=True)
        self.sums_button = button("Depth sums", "Depth sums of both and their difference, side by side", self.show_sums)
        self.back_button = button("Back", "Take the comparison away: the layers as they were before", self.clear)
        self.swipe = QSlider(Qt.Orientation.Horizontal)
        self.swipe.setRange(0, 100)
        self.swipe.setValue(50)
        self.swipe.setToolTip("Divider: reference at its left, run at its right")
        self.swipe.valueChanged.connect(self._swiped)
        self.add(Section("Compare").add(self.note, self.form, row(self.compare_button, self.sums_button, self.back_button),
                                        self.swipe))
        self.swipe.hide()

    def _fill(self, _event: Any = None) -> None:
        data = self.session.data
        truth = data is not None and data.truth is not None
        candidates = [layer.name for layer in images(self.viewer) if layer.metadata.get(KEY, {}).get("role") not in OURS]
        for box, names in ((self.reference, [TRUTH] * (truth and TRUTH not in candidates) + candidates), (self.test, candidates)):
            kept = box.currentText()
            box.clear()
            box.addItems(names)
            index = box.findText(kept)
            if index < 0:
                runs = [n for n in names if n.startswith("run ") and " · " in n and n.count("·") == 1]
                index = names.index(runs[-1]) if box is self.test and runs else 0 if names else -1
            box.setCurrentIndex(index)
        if self.test.currentText() == self.reference.currentText() and self.test.count() > 1:
            self.test.setCurrentIndex((self.test.currentIndex() + 1) % self.test.count())
        enough = bool(candidates) and self.reference.count() > 0
        different = self.reference.currentText() != self.test.currentText()
        self.compare_button.setEnabled(enough and different)
        self.sums_button.setEnabled(enough and different)
        if data is not None and not truth and TRUTH not in candidates:
            self.note.setText("These data have no ground truth. What can be shown: another run or any volume layer as the "
                              "reference, depth "
                              "profiles, measured against modelled patterns, and where several samples disagree.")
        elif not enough:
            self.note.setText("Nothing to compare yet: start a run, or open a volume.")
        else:
            self.note.setText("")
        self.note.setVisible(bool(self.note.text()))
        self._fill_spread()

    def _chosen(self, old: Any, new: Any) -> None:
        if old.comparison != new.comparison:
            self.form.show_values(new.comparison)
            self.form.set_row_visible("blink", new.comparison.view == "blink")
            if self.found is not None and self.shown.active and old.comparison.view != new.comparison.view:
                self._lay_out()

    def _forget(self) -> None:
        self.found = None
        self._fill()

    # ---- comparing ---------------------------------------------------------------------------------------------
    def layers(self) -> tuple[Any, Any]:
        """Reference and run layer; the ground truth is made a layer when it is first asked for.

        Raises
        ------
        ValueError
            If one of them is gone.
        """
        out = []
        for name in (self.reference.currentText(), self.test.currentText()):
            if name == TRUTH and name not in self.viewer.layers:
                layer = self.workspace.show_truth()
            else:
                layer = next((each for each in self.viewer.layers if each.name == name), None)
            if layer is None:
                raise ValueError(f"the layer {name!r} is gone: choose another one")
            out.append(layer)
        return out[0], out[1]

    def run(self) -> None:
        """Compare."""
        self._compute(self._lay_out)

    def show_sums(self) -> None:
        """Depth sums side by side."""
        self._compute(lambda: self.shown.sums(self.found, self._names))  # type: ignore[arg-type]

    def _compute(self, then: Any) -> None:
        try:
            first, second = self.layers()
            a, b = self._volume(first), self._volume(second)
        except ValueError as error:
            self.session.report(error, "nothing was compared")
            return
        names = (first.name, second.name)
        data = self.session.data
        role = first.metadata.get(KEY, {}).get("role")
        known = data if role == "truth" and data is not None and data.truth is not None and a.shape == data.truth.shape else None

        def work(report: Any) -> Any:
            report(0.1)
            return compare(a, b, known, deviance=known is not None)

        def done(found: Comparison) -> None:
            self.found, self._names = found, names
            self._show_scores()
            self._show_profile()
            then()

        self.workspace.jobs.run("compare", "comparing", work, done)

    def _volume(self, layer: Any) -> Any:
        entry = layer.metadata.get(KEY, {})
        run = self.session.run_named(entry.get("run", ""))
        if run is not None and entry.get("role") == "run" and run.frame is not None and not entry.get("array"):
            from dataclasses import replace

            return replace(run.volume(), array=np.array(layer.data))  # what is shown, an earlier frame included
        return volume_of(layer)

    def _lay_out(self) -> None:
        if self.found is None:
            return
        try:
            first, second = self.layers()
        except ValueError as error:
            self.session.report(error, "nothing was compared")
            return
        choices = self.session.choices.comparison
        self.shown.show(choices.view, first, second, self.found, choices.blink)
        self.swipe.setVisible(choices.view == "swipe")

    def _swiped(self, value: int) -> None:
        if self.found is not None:
            self.shown.swipe(value / 100, self.found)

    def clear(self) -> None:
        """Take the comparison away."""
        self.shown.clear()
        self.swipe.hide()

    # ---- scores ------------------------------------------------------------------------------------------------
    def _build_scores(self) -> None:
        self.table = QTableWidget(len(ROWS), 1)
        self.table.setHorizontalHeaderLabels([""])
        self.table.setVerticalHeaderLabels([r[1] for r in ROWS])
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.horizontalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(20)
        self.table.setFixedHeight(20 * len(ROWS) + 4)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setToolTip("The paper's PSNR and SSIM, each volume normalised to 0…1 first; both are flattered by a volume "
                              "without any "
                              "depth. Depth correlation and atoms in the right slice are not.")
        self.per_slice = SliceScores()
        self.add(Section("Scores").add(self.table, self.per_slice))

    def _show_scores(self) -> None:
        assert self.found is not None
        scores = self.found.scores.as_dict()
        for n, (name, _title, digits) in enumerate(ROWS):
            value = scores[name]
            item = QTableWidgetItem("–" if value is None else f"{value:.{digits}f}")
            item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.table.setItem(n, 0, item)
        dz = self.found.reference.voxel_size[0]
        self.per_slice.show_scores((np.arange(len(self.found.ssim)) + 0.5) * dz, self.found.ssim)

    # ---- profile along depth -----------------------------------------------------------------------------------
    def _build_profile(self) -> None:
        self.pick_button = QPushButton("Pick a column")
        self.pick_button.setCheckable(True)
        self.pick_button.setToolTip("While this is on, a click in the picture chooses the column (atoms one above the other) "
                                    "whose depth "
                                    "profile is drawn")
        self.pick_button.toggled.connect(self._picking)
        self.radius_form = Form(ComparisonChoices, ("radius",), lambda n, v: self._radius(v))
        self.radius_form.show_values(self.session.choices.comparison)
        self.profile = Profile()
        self.where = words("", small=True)
        self.add(Section("Depth profile").add(row(self.pick_button, stretch=True), self.profile, self.where, self.radius_form))

    def _radius(self, value: float) -> None:
        self.session.change("comparison", radius=value)
        self._show_profile()

    def _picking(self, on: bool) -> None:
        if on:
            self.viewer.mouse_drag_callbacks.append(self._clicked)
        elif self._clicked in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._clicked)

    def _clicked(self, _viewer: Any, event: Any) -> None:
        if event.button == 1:
            self.pick(float(event.position[-2]), float(event.position[-1]))

    def pick(self, y: float, x: float) -> None:
        """Draw the profile of the column at (y, x) Å."""
        self._column = (y, x)
        self._show_profile()

    def _show_profile(self) -> None:
        if self._column is None:
            return
        radius = self.session.choices.comparison.radius
        profiles, unit = [], "rad"
        for name in (self.reference.currentText(), self.test.currentText()):
            if name in self.viewer.layers:
                try:
                    volume = volume_of(self.viewer.layers[name])
                    profiles.append((name, *depth_profile(volume, *self._column, radius)))
                    unit = volume.unit
                except ValueError as error:
                    self.where.setText(str(error))
                    return
        self.profile.show_profiles(profiles, unit)
        self.where.setText(f"column at ({self._column[0]:.2f}, {self._column[1]:.2f}) Å, mean within {radius:g} Å")

    # ---- patterns ----------------------------------------------------------------------------------------------
    def _build_patterns(self) -> None:
        from qtpy.QtWidgets import QSpinBox

        self.rows_box, self.columns_box = QSpinBox(), QSpinBox()
        for box, name in ((self.rows_box, "row "), (self.columns_box, "column ")):
            box.setPrefix(name)
            box.setToolTip("Scan position")
        self.patterns_button = button("Show patterns", "Measured and modelled diffraction pattern at this scan position, by "
                                                       "the square root",
                                      self.show_patterns)
        self.measured, self.modelled = Picture("measured", "mrad", 165), Picture("modelled", "mrad", 165)
        self.misfit = words("", small=True)
        self.add(Section("Measured against modelled pattern").add(row(self.rows_box, self.columns_box, self.patterns_button),
                                                                  row(self.measured, self.modelled), self.misfit))

    def show_patterns(self) -> None:
        """Patterns at the chosen position, for the volume that is judged."""
        data = self.session.data
        name = self.test.currentText()
        if data is None or name not in self.viewer.layers:
            self.session.message.emit("warning", "measured and modelled patterns need 4D-STEM data and a volume", "")
            return
        self.rows_box.setMaximum(data.scan_shape[0] - 1)
        self.columns_box.setMaximum(data.scan_shape[1] - 1)
        y, x = self.rows_box.value(), self.columns_box.value()
        run = self.session.run_named(self.viewer.layers[name].metadata.get(KEY, {}).get("run", ""))
        source = run.data if run is not None else data
        try:
            volume = self._volume(self.viewer.layers[name])
        except ValueError as error:
            self.session.report(error, "no pattern was computed")
            return

        def work(report: Any) -> Any:
            report(0.1)
            return patterns_at(volume, source, y, x)

        def done(pair: Any) -> None:
            measured, model = pair
            pixel = source.calibration.pixel_mrad or 1.0
            top = float(np.sqrt(np.percentile(measured, 99.9)))
            for picture, pattern in ((self.measured, measured), (self.modelled, model)):
                picture.show_image(np.sqrt(np.clip(pattern, 0, None)), (pixel, pixel), levels=(0, max(top, 1e-6)))
            from ...evaluation.deviance import relative_deviance

            weight = source.mask
            ratio = relative_deviance(measured, np.maximum(model, 1e-9), weight)
            self.misfit.setText(f"{name} at ({y}, {x}): {measured.sum():.4g} electrons measured, {model.sum():.4g} modelled, "
                                f"misfit "
                                f"{ratio:.3f} × shot noise here")

        self.workspace.jobs.run("patterns", "modelling a pattern", work, done)

    # ---- spread ------------------------------------------------------------------------------------------------
    def _build_spread(self) -> None:
        self.spread_text = words()
        self.spread_button = button("Mean and spread", "The mean of the samples beside their standard deviation: bright in the "
                                                       "right picture "
                                    "is where the samples disagree", self.show_spread)
        self.agreement_button = button("Agreement", "Share of the samples that agree whether there is an atom: dark means that "
                                                    "the depth "
                                       "is not known", lambda: self.show_spread("agreement"))
        self.spread = Section("Several samples").add(self.spread_text, row(self.spread_button, self.agreement_button, stretch=True))
        self.add(self.spread)

    def _run(self) -> Any:
        name = self.test.currentText()
        if name not in self.viewer.layers:
            return None
        return self.session.run_named(self.viewer.layers[name].metadata.get(KEY, {}).get("run", ""))

    def _fill_spread(self) -> None:
        run = self._run()
        arrays = {} if run is None or run.frame is None else run.frame.arrays
        self.spread_button.setEnabled("std" in arrays)
        self.agreement_button.setEnabled("agreement" in arrays)
        if "std" in arrays:
            assert run is not None
            self.spread_text.setText(f"{run.name} holds {run.frame.info.get('samples', '?')} samples; their spread is at most "
                                     f"{arrays['std'].max():.3f} rad. Samples can also agree on what is wrong.")
        else:
            self.spread_text.setText("This volume is one answer. Ask for several samples in a run to see where they disagree.")

    def show_spread(self, what: str = "std") -> None:
        """Mean and spread, or agreement, side by side."""
        run = self._run()
        if run is None:
            return
        book = self.workspace.book
        mean, other = book.bring_back(run), book.layer_of(run, what)
        if mean is None or other is None:
            self.session.message.emit("info", f"the layer is there when {run.name} has ended", "")
            return
        self.shown.beside(mean, other)
