"""The Compare dock: a run against its ground truth, another run or any volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QSlider, QTableWidget, QTableWidgetItem

from ...evaluation.compare import Comparison, compare
from ...session.choices import ComparisonChoices
from ..dock import Dock
from ..layer_data import KEY, images
from ..views import OURS, CompareLayers
from ..widgets.basic import Section, button, row, words
from ..widgets.depth_plots import SliceScores
from ..widgets.forms import Form
from ..widgets.layer_combo import LayerCombo
from .column import ColumnSection
from .patterns import PatternsSection
from .spread import SpreadSection

if TYPE_CHECKING:
    from ...measurement.dataset import FourDSTEM
    from ...session.jobs import Report

ROWS = (
    ("ssim", "SSIM", 3),
    ("psnr", "PSNR (dB)", 2),
    ("ssim_sum", "SSIM of the depth sum", 3),
    ("psnr_sum", "PSNR of the depth sum (dB)", 2),
    ("depth_correlation", "depth correlation", 2),
    ("atoms_in_slice", "atoms in the right slice", 2),
    ("deviance", "misfit ÷ shot noise", 4),
)
TRUTH = "truth"  # the value of the ground truth while it has no layer yet


class CompareDock(Dock):
    """Two volumes against each other, and a volume against the measurement."""

    title = "Compare"

    def build(self) -> Iterator[None]:
        """Make the sections."""
        self.found: Comparison | None = None
        self._names = ("", "")
        self.shown = CompareLayers(self.workspace.book, self)
        self.destroyed.connect(self.shown.close)
        self._build_choice()
        yield
        self._build_scores()
        yield
        self.depth_profile = ColumnSection(self.workspace, self._both)
        self.add(self.depth_profile)
        yield
        self.patterns = PatternsSection(self.workspace, self._judged)
        self.add(self.patterns)
        yield
        self.spread = SpreadSection(self.workspace, self._judged, self.shown)
        self.add(self.spread)
        yield
        s = self.session
        self.listen(self.workspace.book.layers_changed, self._fill)
        self.listen(s.measurement_changed, self._fill)
        self.listen(s.run_changed, self._fill)
        self.listen(s.choices_changed, self._chosen)
        self.form.show_values(s.choices.comparison)
        self.form.set_row_visible("blink", s.choices.comparison.view == "blink")
        self._fill()

    # ---- which ------------------------------------------------------------------------------
    def _build_choice(self) -> None:
        self.reference = LayerCombo(
            "What to compare with: the ground truth, another run, or any volume layer"
        )
        self.test = LayerCombo("The run, or volume layer, that is judged")
        for box in (self.reference, self.test):
            box.activated.connect(lambda _i: self._forget())
        self.form = Form(
            ComparisonChoices,
            ("view", "blink"),
            lambda n, v: self.session.change("comparison", **{n: v}),
        )
        self.form.layout_.insertRow(0, "Reference", self.reference)
        self.form.layout_.insertRow(1, "Against", self.test)
        self.note = words()
        self.compare_button = button(
            "Compare", "Compute the scores and lay both out in the picture", self.run, primary=True
        )
        self.sums_button = button(
            "Depth sums", "Depth sums of both and their difference, side by side", self.show_sums
        )
        self.back_button = button(
            "Back", "Take the comparison away: the layers as they were before", self.clear
        )
        self.swipe = QSlider(Qt.Orientation.Horizontal)
        self.swipe.setRange(0, 100)
        self.swipe.setValue(50)
        self.swipe.setToolTip("Divider: reference at its left, run at its right")
        self.swipe.valueChanged.connect(self._swiped)
        self.add(
            Section("Compare").add(
                self.note,
                self.form,
                row(self.compare_button, self.sums_button, self.back_button),
                self.swipe,
            )
        )
        self.swipe.hide()

    def _candidates(self) -> list[Any]:
        return [x for x in images(self.viewer) if x.metadata.get(KEY, {}).get("role") not in OURS]

    def _judged(self) -> Any:
        return self.test.layer(self._candidates())

    def _both(self) -> list[Any]:
        """The layers that are chosen, reference first."""
        layers = self._candidates()
        chosen = [self._reference_layer(), self.test.layer(layers)]
        return [layer for layer in chosen if layer is not None]

    def _reference_layer(self) -> Any:
        if self.reference.currentData() == TRUTH:
            return self.workspace.measurement_layers.truth_layer(self._measurement())
        return self.reference.layer(self._candidates())

    def _measurement(self) -> Any:
        """The measurement that the judged volume belongs to: its run's, else the open one."""
        layer = self._judged()
        run = None if layer is None else self.workspace.run_layers.run_of(layer)
        return self.session.data if run is None else run.data

    def _fill(self, *_: Any) -> None:
        layers = self._candidates()
        runs = [x for x in layers if x.metadata.get(KEY, {}).get("role") == "run"]
        if not self.test.fill(layers):
            main = [x for x in runs if not x.metadata[KEY].get("array")]
            if main:
                self.test.choose(main[-1])
        data = self._measurement()
        truth = None if data is None else data.truth
        own = self.workspace.measurement_layers.truth_layer(data)
        wanted = self.reference.currentData() in (TRUTH, None)
        virtual = [("ground truth", TRUTH)] if truth is not None and own is None else []
        self.reference.fill(layers, virtual)
        if wanted and own is not None:  # it has become a layer
            self.reference.choose(own)
        self._own_truth(data)
        if self.test.currentData() == self.reference.currentData() and self.test.count() > 1:
            self.test.setCurrentIndex((self.test.currentIndex() + 1) % self.test.count())
        different = self.reference.currentData() != self.test.currentData()
        enough = bool(layers) and self.reference.count() > 0 and different
        self.compare_button.setEnabled(enough)
        self.sums_button.setEnabled(enough)
        if data is not None and truth is None:
            self.note.setText(
                "These data have no ground truth. What can be shown: another run or any volume "
                "layer as the reference, depth profiles, measured against modelled patterns, and "
                "where several samples disagree."
            )
        elif not enough:
            self.note.setText("Nothing to compare yet: start a run, or open a volume.")
        else:
            self.note.setText("")
        self.note.setVisible(bool(self.note.text()))
        self.patterns.set_range()
        self.spread.fill()

    def _own_truth(self, data: FourDSTEM | None) -> None:
        """Where another measurement's ground truth was the reference, the judged run's own is."""
        layer = self.reference.layer(self._candidates())
        foreign = layer is not None and layer.metadata.get(KEY, {}).get("role") == "truth"
        if not foreign or data is None or data.truth is None:
            return
        own = self.workspace.measurement_layers.truth_layer(data)
        if own is not layer:
            if own is not None:
                self.reference.choose(own)
            else:
                self.reference.setCurrentIndex(max(0, self.reference.findData(TRUTH)))

    def _chosen(self, old: Any, new: Any) -> None:
        if old.comparison != new.comparison:
            self.form.show_values(new.comparison)
            self.form.set_row_visible("blink", new.comparison.view == "blink")
            if self.found is not None and self.shown.active and self._other_view(old, new):
                self._lay_out()

    @staticmethod
    def _other_view(old: Any, new: Any) -> bool:
        return bool(old.comparison.view != new.comparison.view)

    def _forget(self) -> None:
        self.found = None
        self._fill()

    # ---- comparing --------------------------------------------------------------------------
    def layers(self) -> tuple[Any, Any]:
        """Reference and run layer; the ground truth becomes a layer when it is first asked for.

        Raises
        ------
        ValueError
            If one of them is gone.
        """
        second = self._judged()
        if self.reference.currentData() == TRUTH:
            first = self.workspace.measurement_layers.show_truth(self._measurement())
        else:
            first = self._reference_layer()
        if first is None or second is None:
            raise ValueError("one of the two layers is gone: choose another one")
        return first, second

    def run(self) -> None:
        """Compare."""
        self._compute(self._lay_out)

    def show_sums(self) -> None:
        """Depth sums side by side."""
        self._compute(lambda: self.shown.sums(self.found, self._names))  # type: ignore[arg-type]

    def _compute(self, then: Callable[[], Any]) -> None:
        try:
            first, second = self.layers()
        except ValueError as error:
            self.session.report(error, "nothing was compared")
            return
        names, data = (first.name, second.name), self._measurement()
        own = data is not None and first is self.workspace.measurement_layers.truth_layer(data)
        if first.metadata.get(KEY, {}).get("role") == "truth" and not own:
            self.session.message.emit(
                "warning",
                f"{first.name} does not belong to the measurement of {second.name}: the scores "
                "say how alike they are, not how right the run is",
                "",
            )
        sources = [self.workspace.run_layers.snapshot(layer) for layer in (first, second)]

        def work(report: Report) -> Comparison:
            report(0.1)
            a, b = (source.volume() for source in sources)
            truth = data.truth if own else None
            unchanged = truth is not None and np.array_equal(a.array, truth.array)
            known = data if unchanged and a.shape == b.shape else None
            return compare(a, b, known, deviance=known is not None)

        def done(found: Comparison) -> None:
            self.found, self._names = found, names
            self._show_scores()
            self.depth_profile.draw()
            then()

        self.workspace.jobs.run("compare", "comparing", work, done)

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

    # ---- scores -----------------------------------------------------------------------------
    def _build_scores(self) -> None:
        self.table = QTableWidget(len(ROWS), 1)
        self.table.setHorizontalHeaderLabels([""])
        self.table.setVerticalHeaderLabels([r[1] for r in ROWS])
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.horizontalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(20)
        self.table.setFixedHeight(20 * len(ROWS) + 4)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setToolTip(
            "The paper's PSNR and SSIM, each volume normalised to 0…1 first. Both are flattered by "
            "a volume without any depth; depth correlation and atoms in the right slice are not."
        )
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
