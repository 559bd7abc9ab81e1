"""What to reconstruct: solver, slices, device, start; a part of the Reconstruct dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit

from ...measurement.dataset import Calibration
from ...reconstruction.assumptions import slicing
from ...reconstruction.preview import NOTICE
from ...reconstruction.registry import SOLVERS
from ...session.choices import Setup
from ..layer_data import images
from ..widgets.basic import Section, button, combo, row, words
from ..widgets.forms import Form

if TYPE_CHECKING:
    from ..workspace import Workspace


class SetupSection(Section):
    """Solver, slices, modes, device and start, and the volume that follows from them.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("What to reconstruct")
        self.workspace, self.session = workspace, workspace.session
        self.solver = combo(
            [(entry.title, name) for name, entry in SOLVERS.items()],
            "Diffusion posterior sampling finds depth; the ordinary solvers are there to compare "
            "with",
        )
        self.solver.activated.connect(lambda i: self._change("solver", self.solver.itemData(i)))
        self.device = combo(tip="Where the work is done. A GPU is many times faster.")
        self.device.activated.connect(lambda i: self._change("device", self.device.itemData(i)))
        self.start_from = combo(
            tip="A volume to begin from: a layer of the same grid. Diffusion sampling adds noise "
            "to it first."
        )
        self.start_from.activated.connect(
            lambda i: self._change("start", self.start_from.itemData(i))
        )
        self.microscope = QLineEdit()
        self.microscope.setPlaceholderText("as the data have it")
        self.microscope.setToolTip(
            "Probe and positions that an earlier run refined on the same scan: the file "
            "NAME_microscope.h5 beside its exported volume, or a result of PtyRAD or py4DSTEM"
        )
        self.microscope.editingFinished.connect(
            lambda: self._take_microscope(self.microscope.text().strip())
        )
        self.microscope_button = button(
            "…", "Choose such a file", self._ask_microscope, name="choose microscope"
        )
        self.microscope_button.setMaximumWidth(30)
        self.preview = QCheckBox("Preview")
        self.preview.setToolTip(
            "A first look within seconds on a machine without a GPU: every second detector pixel, "
            "a part of the positions, few steps, the compact prior. Not a result."
        )
        self.preview.toggled.connect(lambda on: self._change("preview", on))
        self.preview_text = words(NOTICE, small=True)
        self.form = Form(Setup, ("slices", "slice_thickness", "together", "modes"), self._change)
        self.form.layout_.insertRow(0, "Solver", self.solver)
        self.form.layout_.addRow("Device", self.device)
        self.form.layout_.addRow("Start from", self.start_from)
        self.form.layout_.addRow("Refined", row(self.microscope, self.microscope_button))
        self.canvas = words("", small=True)
        self.add(self.form, self.canvas, row(self.preview, stretch=True), self.preview_text)

    def show_choices(self) -> None:
        """Show what is chosen."""
        setup = self.session.choices.setup
        self.solver.setCurrentIndex(self.solver.findData(setup.solver))
        self.device.setCurrentIndex(max(0, self.device.findData(setup.device)))
        self.start_from.setCurrentIndex(max(0, self.start_from.findData(setup.start)))
        if not self.microscope.hasFocus():
            self.microscope.setText(setup.microscope)
        self.preview.blockSignals(True)
        self.preview.setChecked(setup.preview)
        self.preview.blockSignals(False)
        self.preview_text.setVisible(setup.preview)
        slices, thickness = self._slicing()
        self.form.show_values(setup, {"slices": slices, "slice_thickness": thickness})
        self._show_canvas()

    def fill_devices(self) -> None:
        """Offer the devices of this machine."""
        from ...base.devices import devices

        self.device.clear()
        for item in devices():
            self.device.addItem(str(item), item.name)
        if self.session.choices.setup.device not in [
            self.device.itemData(i) for i in range(self.device.count())
        ]:
            self._change("device", self.device.itemData(0))  # a GPU that is no longer there

    def _change(self, name: str, value: Any) -> None:
        self.session.change("setup", **{name: value})

    def _ask_microscope(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self,
            "Refined probe and positions",
            str(self.workspace.export_folder()),
            "Refined microscopes (*_microscope.h5);;PtyRAD, py4DSTEM (*.hdf5 *.h5);;All files (*)",
        )
        if path:
            self._take_microscope(path)

    def _take_microscope(self, path: str) -> None:
        if path and not Path(path).is_file():
            self.session.message.emit("error", f"there is no file {path}", "")
            self.microscope.setText(self.session.choices.setup.microscope)
        elif path != self.session.choices.setup.microscope:
            self._change("microscope", path)
            self.microscope.setText(path)

    def layers_changed(self) -> None:
        """Offer the volumes among the layers to start from."""
        chosen = self.session.choices.setup.start
        self.start_from.clear()
        self.start_from.addItem("nothing", "")
        for layer in images(self.workspace.viewer):
            self.start_from.addItem(layer.name, layer.name)
        index = self.start_from.findData(chosen)
        self.start_from.setCurrentIndex(max(0, index))
        if chosen and index < 0:
            self._change("start", "")

    def _slicing(self) -> tuple[int, float]:
        """Number and thickness in Å of the slices that a run would have."""
        data, setup = self.session.data, self.session.choices.setup
        calibration = Calibration() if data is None else data.calibration
        each = slicing(calibration, self.session.slices(), setup.slice_thickness)
        return len(each), each[0]

    def _show_canvas(self) -> None:
        data = self.session.data
        if data is None:
            self.canvas.setText("no data yet: open some in the Data dock")
            return
        try:
            from ...physics.scan import canvas_shape

            pixel = data.real_pixel
            slices, thickness = self._slicing()
            canvas = (
                data.canvas
                if data.boundary == "periodic"
                else canvas_shape(data.scan_positions(), pixel, data.detector_shape)[0]
            )
            assert canvas is not None
            self.canvas.setText(
                f"volume {slices} × {canvas[0]} × {canvas[1]} voxels of "
                f"{thickness:.3g} × {pixel[0]:.3g} × {pixel[1]:.3g} Å: "
                f"{slices * thickness:.1f} × {canvas[0] * pixel[0]:.1f} × "
                f"{canvas[1] * pixel[1]:.1f} Å, {data.boundary} field"
            )
        except (ValueError, AssertionError) as error:
            self.canvas.setText(str(error))
