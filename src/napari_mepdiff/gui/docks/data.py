"""The Data dock: open, look, calibrate, orient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QLineEdit, QMenu, QToolButton

from ...measurement.formats import EXTENSIONS
from ...measurement.samples import NAMES
from ..dock import Dock
from ..preferences import preference
from ..widgets.basic import COLOURS, Section, button, row, words
from .calibration import CalibrationSection
from .look import LookSection
from .orientation import OrientationSection
from .probe import ABERRATIONS, ProbeSection
from .values import ValuesSection

if TYPE_CHECKING:
    from ...measurement.dataset import FourDSTEM

ABOUT = {
    "srtio3": "SrTiO₃",
    "mos2": "MoS₂",
    "litao3": "LiTaO₃",
    "cuwo4": "CuWO₄",
    "cuwo4_low_dose": "CuWO₄, low dose",
    "cuwo4_extended": "CuWO₄, wide field",
}


class DataDock(Dock):
    """4D-STEM data: what the file holds, what is missing or wrong, and how it is turned to fit."""

    title = "Data"

    def build(self) -> Iterator[None]:
        """Make the sections."""
        self.setAcceptDrops(True)
        self._build_measurement()
        yield
        self.look = LookSection(self.workspace)
        self.add(self.look)
        yield
        self.calibration = CalibrationSection(self.session, self._change, self._take)
        self.values = ValuesSection(self._change)
        self.add(self.calibration, self.values)
        yield
        self.orientation = OrientationSection(self.workspace, self._change, self._take)
        self.add(self.orientation)
        yield
        self.probe = ProbeSection(self.workspace, self._change)
        self.add(self.probe)
        self._parts = (self.look, self.calibration, self.values, self.orientation, self.probe)
        yield
        self.listen(self.session.measurement_changed, self._measured)
        self.listen(self.session.summary_changed, self._looked)
        self.listen(self.session.choices_changed, self._chosen)
        self.listen(self.workspace.files.refused, self._refused)
        self._measured(self.session.data)
        if self.session.summary is not None:
            self._looked()
        last = self.workspace.last_path or self.session.exported
        if self.session.raw is None and last and preference("restore", False):
            self.workspace.files.restore()

    # ---- measurement ------------------------------------------------------------------------
    def _build_measurement(self) -> None:
        self.open_button = button(
            "Open…",
            "Open 4D-STEM data: HDF5, EMD, dm3, dm4, mib, EMPAD raw, npy, mat, zarr, hspy, blo, "
            "tvips. Files can also be dropped here or on the picture.",
            self.open_dialog,
            primary=True,
        )
        self.samples = QToolButton()
        self.samples.setText("Sample ▾")
        self.samples.setToolTip(
            "Small simulated measurements with ground truth, which travel with the plugin"
        )
        self.samples.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.samples)
        for name in NAMES:
            menu.addAction(ABOUT[name], lambda n=name: self.workspace.files.open(n))
        self.samples.setMenu(menu)
        self.again = button(
            "Last",
            "Open the file of the last session again, with its calibration and the volumes "
            "exported then",
            self.workspace.files.restore,
        )
        self.again.setEnabled(bool(self.workspace.last_path))
        if self.workspace.last_path:
            self.again.setToolTip(f"{self.again.toolTip()}\n{self.workspace.last_path}")
        self.about = words("Open 4D-STEM data to begin: a file of your own, or a sample.")
        self.findings = words()
        self.scan_shape = QLineEdit()
        self.scan_shape.setPlaceholderText("scan shape of a list of patterns, e.g. 128 × 128")
        self.scan_shape.setToolTip(
            "For files that hold patterns one after the other and do not say how the scan was laid "
            "out: rows × columns. Press Enter to open the file again."
        )
        self.scan_shape.returnPressed.connect(self._reopen)
        self.truth_button = button(
            "Show ground truth",
            "The specimen that was simulated, as a layer",
            lambda: self.workspace.measurement_layers.show_truth(),
        )
        self.add(
            Section("Measurement").add(
                row(self.open_button, self.samples, self.again, stretch=True),
                self.about,
                self.scan_shape,
                self.findings,
                self.truth_button,
            )
        )

    def open_dialog(self) -> None:
        """Ask for a file and open it."""
        pattern = (
            "4D-STEM data (" + " ".join(f"*{s}" for s in sorted(EXTENSIONS)) + ");;All files (*)"
        )
        path = self.workspace.ask_file(self, "Open 4D-STEM data", pattern)
        if path:
            self.workspace.files.open(path)

    def _reopen(self) -> None:
        text = self.scan_shape.text().replace("×", ",").replace("x", ",")
        try:
            ny, nx = (int(p) for p in text.split(","))
        except ValueError:
            self.notice.say(
                "error",
                f"the scan shape is two numbers, like 128 × 128; got {self.scan_shape.text()!r}",
            )
            return
        path = self.workspace.files.asked or self.session.path
        if path:
            self.workspace.files.open(path, scan_shape=(ny, nx))

    def _refused(self, _path: str) -> None:
        """A list of patterns is refused until its scan shape is said, whatever else is open."""
        self.scan_shape.show()

    def dragEnterEvent(self, event: Any) -> None:
        """A file is brought."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open it."""
        event.acceptProposedAction()
        self.workspace.files.open(event.mimeData().urls()[0].toLocalFile())

    def _measured(self, data: FourDSTEM | None) -> None:
        there = data is not None
        for section in self._parts:
            section.setEnabled(there)
        self.truth_button.setVisible(there and data.truth is not None)
        self.scan_shape.setVisible(not there or 1 in data.scan_shape)
        self.findings.setText("")
        if not there:
            return
        self.calibration.forget()
        self.orientation.forget()
        ny, nx, ky, kx = data.shape
        c = data.calibration
        size = data.nbytes / 1e6
        missing = [
            what
            for what, value in (
                ("beam energy", c.energy),
                ("semi-angle", c.semi_angle),
                ("detector pixel", c.pixel_size),
                ("scan step", c.scan_step if data.positions is None else 1),
            )
            if value is None
        ]
        field = ""
        if c.scan_step is not None:
            field = f", {ny * c.scan_step[0]:.1f} × {nx * c.scan_step[1]:.1f} Å"
        source = data.provenance.get("source", {})
        formula = (
            data.provenance.get("crystal", {}).get("formula")
            if isinstance(data.provenance.get("crystal"), dict)
            else None
        )
        lines = [
            f"<b>{Path(self.session.path).name}</b> "
            f"({source.get('format', 'data')}, {size:.0f} MB)",
            f"scan {ny} × {nx}{field}, patterns {ky} × {kx} px",
        ]
        if formula or data.truth is not None:
            lines.append(
                f"{formula or 'simulation'}, with ground truth"
                if data.truth is not None
                else str(formula)
            )
        if c.dose:
            lines.append(f"dose {c.dose:.3g} e/Å²")
        if missing:
            lines.append(
                f"<span style='color:{COLOURS['warning']}'>not in the file: {', '.join(missing)}; "
                "fill in below</span>"
            )
        self.about.setText("<br>".join(lines))
        self._show_calibration()
        self.values.measured(self.session.raw, self.session.choices.preparation)
        self.look.measured()
        self.probe.show_probe()

    def _looked(self) -> None:
        findings = self.session.findings or []
        if findings:
            text = "<br>".join(
                f"<span style='color:{COLOURS[f.level]}'>● {f.level}</span>: {f.message}"
                for f in findings
            )
        else:
            text = f"<span style='color:{COLOURS['good']}'>● nothing wrong was found</span>"
        self.findings.setText(text)
        self.look.looked()
        self.calibration.fit_disk()

    # ---- preparation -----------------------------------------------------------------------
    def _change(self, name: str, value: Any) -> None:
        change = partial(self.session.change, "preparation", **{name: value})
        if not self.workspace.when_looked(change, "not taken"):
            self._show_calibration()  # until then the row says what holds

    def _chosen(self, old: Any, new: Any) -> None:
        if old.preparation != new.preparation:
            self._show_calibration()

    def _show_calibration(self) -> None:
        preparation = self.session.choices.preparation
        raw = self.session.raw
        here: dict[str, Any] = {}
        if raw is not None:
            c = raw.calibration
            here = {
                "energy": c.energy,
                "semi_angle": c.semi_angle,
                "pixel_mrad": c.pixel_mrad,
                "rotation": c.rotation,
                "scan_step_y": c.scan_step[0] if c.scan_step else None,
                "scan_step_x": c.scan_step[1] if c.scan_step else None,
                "crop": min(raw.detector_shape),
                "gain": 1.0,
            }
            if raw.optics is not None:
                here |= {n: getattr(raw.optics, n) for n in ("overfocus", "C30", *ABERRATIONS)}
        for form in (
            self.calibration.form,
            self.calibration.size_form,
            self.values.form,
            self.orientation.orientation_form,
            self.probe.focus_form,
            self.probe.aberration_form,
        ):
            form.show_values(preparation, here)

    def _take(self, **fields: Any) -> None:
        """Take fields over; where they do not fit, that is said."""
        try:
            self.workspace.when_looked(
                lambda: self.session.change("preparation", **fields), "not taken"
            )
        except ValueError as error:
            self.session.report(error, "not taken")
