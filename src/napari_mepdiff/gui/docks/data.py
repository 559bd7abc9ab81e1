"""The Data dock: open, look, calibrate, orient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtWidgets import QLineEdit, QMenu, QToolButton

from ...measurement.preparation import Preparation
from ...measurement.readers import EXTENSIONS
from ...measurement.samples import NAMES
from ..dock import Dock
from ..explorer import Explorer
from ..forms import Form
from ..memory import preference
from ..plots import Picture, Plot
from ..widgets import COLOURS, Section, button, row, words

CALIBRATION = ("energy", "semi_angle", "pixel_mrad", "scan_step_y", "scan_step_x", "rotation")
ABERRATIONS = ("C12", "phi12", "C21", "phi21", "C23", "phi23")
ABOUT = {"srtio3": "SrTiO₃", "mos2": "MoS₂", "litao3": "LiTaO₃", "cuwo4": "CuWO₄", "cuwo4_low_dose": "CuWO₄, low dose",
         "cuwo4_extended": "CuWO₄, wide field"}


class DataDock(Dock):
    """4D-STEM data: what the file holds, what is missing, what is wrong, and how it is turned to fit."""

    title = "Data"

    def build(self) -> None:
        """Make the sections."""
        self._position = (0, 0)
        self._fit: Any = None
        self._rotation: Any = None
        self.setAcceptDrops(True)
        self._build_measurement()
        self._build_look()
        self._build_calibration()
        self._build_orientation()
        self._build_probe()
        self.listen(self.session.measurement_changed, self._measured)
        self.listen(self.session.summary_changed, self._looked)
        self.listen(self.session.choices_changed, self._chosen)
        self._measured(self.session.data)
        if self.session.summary is not None:
            self._looked()
        if self.session.raw is None and preference("restore", False):
            self.workspace.restore()

    # ---- measurement -------------------------------------------------------------------------------------------
    def _build_measurement(self) -> None:
        self.open_button = button("Open…", "Open 4D-STEM data: HDF5, EMD, dm3, dm4, mib, EMPAD raw, npy, mat, zarr, hspy, blo, "
                                           "tvips. "
                                  "Files can also be dropped here or on the picture.", self.open_dialog, primary=True)
        self.samples = QToolButton()
        self.samples.setText("Sample ▾")
        self.samples.setToolTip("Small simulated measurements with ground truth, which travel with the plugin")
        self.samples.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.samples)
        for name in NAMES:
            menu.addAction(ABOUT[name], lambda n=name: self.workspace.open(n))
        self.samples.setMenu(menu)
        self.again = button("Last", "Open the file of the last session again, with its calibration and the volumes exported then",
                            self.workspace.restore)
        self.again.setEnabled(bool(self.workspace.last_path))
        if self.workspace.last_path:
            self.again.setToolTip(f"{self.again.toolTip()}\n{self.workspace.last_path}")
        self.about = words("Open 4D-STEM data to begin: a file of your own, or a sample.")
        self.findings = words()
        self.scan_shape = QLineEdit()
        self.scan_shape.setPlaceholderText("scan shape of a list of patterns, e.g. 128 × 128")
        self.scan_shape.setToolTip("For files that hold patterns one after the other and do not say how the scan was laid out: "
                                   "rows × "
                                   "columns. Press Enter to open the file again.")
        self.scan_shape.returnPressed.connect(self._reopen)
        self.truth_button = button("Show ground truth", "The specimen that was simulated, as a layer", self.workspace.show_truth)
        self.add(Section("Measurement").add(row(self.open_button, self.samples, self.again, stretch=True), self.about,
                                            self.scan_shape,
                                            self.findings, self.truth_button))

    def open_dialog(self) -> None:
        """Ask for a file and open it."""
        pattern = "4D-STEM data (" + " ".join(f"*{s}" for s in sorted(EXTENSIONS)) + ");;All files (*)"
        path = self.workspace.ask_file(self, "Open 4D-STEM data", pattern)
        if path:
            self.workspace.open(path)

    def _reopen(self) -> None:
        text = self.scan_shape.text().replace("×", ",").replace("x", ",")
        try:
            ny, nx = (int(p) for p in text.split(","))
        except ValueError:
            self.notice.say("error", f"the scan shape is two numbers, like 128 × 128; got {self.scan_shape.text()!r}")
            return
        path = self.session.path or self._asked
        if path:
            self.workspace.open(path, scan_shape=(ny, nx))

    _asked = ""

    def dragEnterEvent(self, event: Any) -> None:
        """A file is brought."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open it."""
        self._asked = event.mimeData().urls()[0].toLocalFile()
        event.acceptProposedAction()
        self.workspace.open(self._asked)

    def _measured(self, data: Any) -> None:
        there = data is not None
        for section in (self.look, self.calibration, self.orientation, self.probe):
            section.setEnabled(there)
        self.truth_button.setVisible(there and data.truth is not None)
        self.scan_shape.setVisible(not there or 1 in data.scan_shape)
        self.findings.setText("")
        if not there:
            return
        self._fit = self._rotation = None
        ny, nx, ky, kx = data.shape
        c = data.calibration
        size = data.nbytes / 1e6
        missing = [what for what, value in (
            ("beam energy", c.energy), ("semi-angle", c.semi_angle), ("detector pixel", c.pixel_size),
            ("scan step", c.scan_step if data.positions is None else 1)) if value is None]
        field = ""
        if c.scan_step is not None:
            field = f", {ny * c.scan_step[0]:.1f} × {nx * c.scan_step[1]:.1f} Å"
        source = data.provenance.get("source", {})
        formula = data.provenance.get("crystal", {}).get("formula") if isinstance(data.provenance.get("crystal"), dict) else None
        lines = [f"<b>{Path(self.session.path).name}</b> ({source.get('format', 'data')}, {size:.0f} MB)",
                 f"scan {ny} × {nx}{field}, patterns {ky} × {kx} px"]
        if formula or data.truth is not None:
            lines.append(f"{formula or 'simulation'}, with ground truth" if data.truth is not None else str(formula))
        if c.dose:
            lines.append(f"dose {c.dose:.3g} e/Å²")
        if missing:
            lines.append(f"<span style='color:{COLOURS['warning']}'>not in the file: {', '.join(missing)}; fill in below</span>")
        self.about.setText("<br>".join(lines))
        self._show_calibration()
        semi = c.semi_angle
        self.explorer.set_detector(data.detector_shape, c.pixel_mrad, semi)
        self.pick(min(self._position[0], ny - 1), min(self._position[1], nx - 1))
        self.virtual(*self.explorer.radii)
        self._show_probe()

    def _looked(self) -> None:
        findings = self.session.findings or []
        if findings:
            text = "<br>".join(f"<span style='color:{COLOURS[f.level]}'>● {f.level}</span>: {f.message}" for f in findings)
        else:
            text = f"<span style='color:{COLOURS['good']}'>● nothing wrong was found</span>"
        self.findings.setText(text)
        if self.explorer.show_choice.currentIndex() == 1:
            self._show_pattern()
        self._fit_disk()

    # ---- look --------------------------------------------------------------------------------------------------
    def _build_look(self) -> None:
        self.explorer = Explorer(self.pick, self.virtual)
        self.explorer.show_choice.activated.connect(lambda _i: self._show_pattern())
        self.look = Section("Look").add(self.explorer)
        self.add(self.look)
        self._marked: Any = None

    def pick(self, y: int, x: int) -> None:
        """Show the pattern of a scan position (row, column)."""
        data = self.session.data
        if data is None:
            return
        ny, nx = data.scan_shape
        y, x = int(np.clip(y, 0, ny - 1)), int(np.clip(x, 0, nx - 1))
        self._position = (y, x)
        self._show_pattern()

    def _show_pattern(self) -> None:
        data = self.session.data
        if data is None:
            return
        y, x = self._position
        place = ""
        try:
            py, px = data.scan_positions().reshape(*data.scan_shape, 2)[y, x]
            place = f", at ({py:.2f}, {px:.2f}) Å"
        except ValueError:
            pass

        self._show_mark()

        def work(_report: Any) -> Any:
            return np.asarray(data.pattern(y, x), dtype=np.float64)

        def done(pattern: Any) -> None:
            self.explorer.show_position(y, x, f"position ({y}, {x}){place}: {pattern.sum():.4g} electrons, at most "
                                              f"{pattern.max():.3g} "
                                              "in a pixel")
            if self.explorer.show_choice.currentIndex() == 1 and self.session.summary is not None:
                self.explorer.show_pattern(self.session.summary.pacbed, "average (PACBED)")
            else:
                self.explorer.show_pattern(pattern, "pattern here")

        self.workspace.jobs.run("pattern", "reading a pattern", work, done)

    def _show_mark(self) -> None:
        """The cross in the picture, at the position that is looked at."""
        data = self.session.data
        if data is not None:
            try:
                place = data.scan_positions().reshape(*data.scan_shape, 2)[self._position]
            except ValueError:
                place = np.array(self._position, dtype=float)
            self.workspace.mark_position(float(place[0]), float(place[1]))

    def virtual(self, inner: float, outer: float) -> None:
        """Virtual image of an annulus, here and as a layer."""
        data = self.session.data
        if data is None:
            return
        calibrated = data.calibration.pixel_mrad is not None
        name = self.explorer.choice.currentText()
        label = name if name != "own" else f"detector {inner:.3g} to {outer:.3g} {self.explorer.unit}"

        def work(report: Any) -> Any:
            from dataclasses import replace

            from ...measurement.dataset import Calibration
            from ...measurement.virtual import virtual_image

            source = data
            if not calibrated:  # radii in pixels: a calibration in which a pixel is 1 mrad
                unit = Calibration(energy=data.calibration.energy or 300.0).with_pixel_mrad(1.0)
                source = replace(data, calibration=unit, optics=None)
            return virtual_image(source, inner, outer, progress=report)

        def done(image: Any) -> None:
            if self.session.data is data:
                self.explorer.show_scan(image, label)
                layer = self.workspace.book.show_virtual(data, image, "virtual image")
                self.workspace.pick_on(layer, data, self.pick)
                self._show_mark()

        self.workspace.jobs.run("virtual", "virtual image", work, done)

    # ---- calibration -------------------------------------------------------------------------------------------
    def _build_calibration(self) -> None:
        self.form = Form(Preparation, CALIBRATION, self._change)
        self.disk = words("", small=True)
        self.use_pixel = button("→ pixel", "Take the detector pixel from the radius of the bright disk and the semi-angle",
                                lambda: self._use_disk("pixel"))
        self.use_angle = button("→ semi-angle", "Take the semi-angle from the radius of the bright disk and the detector pixel",
                                lambda: self._use_disk("angle"))
        self.use_centre = button("→ centre", "Shift the patterns by whole pixels so that the bright disk lies in the middle",
                                 lambda: self._use_disk("centre"))
        self.size_form = Form(Preparation, ("crop", "bin"), self._change)
        self.calibration = Section("Calibration").add(self.form, words("Bright disk in the average pattern (PACBED):"), self.disk,
                                                      row(self.use_pixel, self.use_angle, self.use_centre, stretch=True),
                                                      self.size_form)
        self.add(self.calibration)

    def _change(self, name: str, value: Any) -> None:
        self.session.change("preparation", **{name: value})

    def _chosen(self, old: Any, new: Any) -> None:
        if old.preparation != new.preparation:
            self._show_calibration()

    def _show_calibration(self) -> None:
        preparation = self.session.choices.preparation
        raw = self.session.raw
        here: dict[str, Any] = {}
        if raw is not None:
            c = raw.calibration
            here = {"energy": c.energy, "semi_angle": c.semi_angle, "pixel_mrad": c.pixel_mrad, "rotation": c.rotation,
                    "scan_step_y": c.scan_step[0] if c.scan_step else None, "scan_step_x": c.scan_step[1] if c.scan_step else None,
                    "crop": min(raw.detector_shape)}
            if raw.optics is not None:
                here |= {n: getattr(raw.optics, n) for n in ("overfocus", "C30", *ABERRATIONS)}
        for form in (self.form, self.size_form, self.orientation_form, self.focus_form, self.aberration_form):
            form.show_values(preparation, here)

    def _fit_disk(self) -> None:
        from ...measurement.virtual import find_disk

        data, seen = self.session.data, self.session.summary
        self._fit = None
        if data is not None and seen is not None:
            try:
                self._fit = find_disk(seen.pacbed)
            except ValueError as error:
                self.disk.setText(str(error))
        for widget in (self.use_pixel, self.use_angle, self.use_centre):
            widget.setEnabled(self._fit is not None)
        if self._fit is None or data is None:
            return
        c = data.calibration
        ky, kx = data.detector_shape
        text = f"radius {self._fit.radius:.1f} px, centre ({self._fit.centre[0]:.1f}, {self._fit.centre[1]:.1f}) px, middle " \
               f"({ky // 2}, {kx // 2})"
        if c.disk_radius is not None:
            text += f"; by the calibration {c.disk_radius:.1f} px ({100 * (self._fit.radius / c.disk_radius - 1):+.0f} %)"
        if c.pixel_mrad is not None:
            text += f"; {self._fit.radius * c.pixel_mrad:.2f} mrad"
        self.disk.setText(text)
        self.use_pixel.setEnabled(c.semi_angle is not None)
        self.use_angle.setEnabled(c.pixel_mrad is not None)

    def _use_disk(self, what: str) -> None:
        data, fit = self.session.data, self._fit
        if data is None or fit is None:
            return
        c, p = data.calibration, self.session.choices.preparation
        if what == "pixel" and c.semi_angle is not None:
            self._safely(pixel_mrad=round(c.semi_angle / fit.radius / p.bin, 6))
        elif what == "angle" and c.pixel_mrad is not None:
            self._safely(semi_angle=round(fit.radius * c.pixel_mrad, 4))
        elif what == "centre":
            ky, kx = data.detector_shape
            dy, dx = fit.centre[0] - ky // 2, fit.centre[1] - kx // 2
            raw = self.session.raw
            assert raw is not None
            base = (p.centre_y, p.centre_x) if p.centre_y is not None and p.centre_x is not None else (
                raw.detector_shape[p.transpose] // 2, raw.detector_shape[not p.transpose] // 2)
            self._safely(centre_y=round(base[0] + dy * p.bin, 2), centre_x=round(base[1] + dx * p.bin, 2))

    def _safely(self, **fields: Any) -> None:
        try:
            self.session.change("preparation", **fields)
        except ValueError as error:
            self.session.report(error, "not taken")

    # ---- orientation -------------------------------------------------------------------------------------------
    def _build_orientation(self) -> None:
        self.orientation_form = Form(Preparation, ("transpose", "flip_y", "flip_x"), self._change)
        self.estimate_button = button("Estimate rotation", "From the centre of mass of the patterns: the rotation at which its "
                                                           "field has "
                                      "no curl, as the gradient of a phase has none", self.estimate_rotation)
        self.use_rotation = button("Use", "Take the estimated rotation (and transposition) over", self._use_rotation)
        self.use_rotation.setEnabled(False)
        self.turned = words("Curl leaves θ and θ + 180° open; the sign of the defocus tells them apart.", small=True)
        self.curl = Plot("rotation (°)", "curl²", 90)
        self.curl_line = self.curl.plot(pen="#4c9be8")
        self.curl.hide()
        self.orientation = Section("Orientation").add(self.orientation_form, row(self.estimate_button, self.use_rotation,
                                                                                 stretch=True),
                                                      self.turned, self.curl)
        self.add(self.orientation)

    def estimate_rotation(self) -> None:
        """Estimate the scan rotation in the background."""
        data = self.session.data
        if data is None:
            return

        def work(report: Any) -> Any:
            from ...measurement.virtual import centre_of_mass, estimate_rotation

            return estimate_rotation(data, centre_of_mass(data, lambda f: report(0.9 * f)))

        self.workspace.jobs.run("rotation", "estimating the rotation", work, self._estimated)

    def _estimated(self, found: Any) -> None:
        self._rotation = found
        contrast = float(found.curl.min() / max(found.curl.max(), 1e-300))
        doubt = "" if contrast < 0.5 else " The minimum is shallow: do not rely on it."
        self.turned.setText(f"rotation {found.angle:.0f}° or {found.angle - 180 if found.angle > 0 else found.angle + 180:.0f}°"
                            f"{', detector axes to be swapped' if found.transpose else ''}.{doubt}")
        self.curl.show()
        self.curl_line.setData(found.angles, found.curl / max(found.curl.max(), 1e-300))
        self.use_rotation.setEnabled(True)

    def _use_rotation(self) -> None:
        found, p = self._rotation, self.session.choices.preparation
        if found is not None:
            self._safely(rotation=found.angle, transpose=p.transpose != found.transpose)
            self.use_rotation.setEnabled(False)

    # ---- probe -------------------------------------------------------------------------------------------------
    def _build_probe(self) -> None:
        self.focus_form = Form(Preparation, ("overfocus", "C30"), self._change)
        self.aberration_form = Form(Preparation, ABERRATIONS, self._change)
        self.real, self.reciprocal = Picture("on the specimen", "Å", 160), Picture("aperture phase", "mrad", 160, "twilight")
        self.extent = words("", small=True)
        more = Section("More aberrations", folded=True).add(self.aberration_form)
        self.probe = Section("Probe", folded=False).add(self.focus_form, row(self.real, self.reciprocal), self.extent, more)
        self.add(self.probe)

    def _show_probe(self) -> None:
        data = self.session.data
        if data is None:
            return

        def work(_report: Any) -> Any:
            import torch

            from ...measurement.validation import probe_size
            from ...physics.optics import probe_from_parameters

            wave = data.probe
            if wave is None:
                wave = probe_from_parameters(data.illumination(), data.detector_shape, data.real_pixel,
                                             dtype=torch.complex128).numpy()
            first = np.asarray(wave).reshape(-1, *data.detector_shape)[0]
            spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(first)))
            size = probe_size(data) if data.probe is None else None
            return np.abs(first) ** 2, spectrum, data.real_pixel, size

        def done(result: Any) -> None:
            intensity, spectrum, pixel, size = result
            if self.session.data is not data:
                return
            self.real.show_image(intensity / intensity.max(), pixel, unit="Å")
            mrad = data.calibration.pixel_mrad or 1.0
            bright = np.abs(spectrum) > 0.1 * np.abs(spectrum).max()
            self.reciprocal.show_image(np.where(bright, np.angle(spectrum), 0), (mrad, mrad), levels=(-np.pi, np.pi), unit="mrad")
            self.extent.setText("as the file has it" if size is None else f"90 % of the intensity within {size:.1f} Å")

        def failed(error: BaseException) -> None:
            self.extent.setText(f"no preview: {error}")

        self.workspace.jobs.run("probe", "probe", work, done, failed)
