"""Forms: a row for each field of a settings model, with its title, unit, range and tooltip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QWidget,
)
from superqt import QLargeIntSpinBox

from ...session.tips import tip
from .boxes import NoWheel, ScientificBox, Sparse
from .field_values import TEXT, as_text, bounds_of, kind_of, parse


class Form(QWidget):
    """Rows for fields of a model.

    Parameters
    ----------
    model : type of BaseModel
    fields : sequence of str
        Which, in order.
    changed : callable
        Called with (name, value) after the user changed a field; a ValueError that it raises is
        shown at the field, which goes back.
    """

    def __init__(
        self,
        model: type[BaseModel],
        fields: Iterable[str],
        changed: Callable[[str, Any], Any],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.model, self._changed = model, changed
        self._filter = NoWheel(self)
        self.rows: dict[str, QWidget] = {}
        self._silent = False
        self.layout_ = QFormLayout(self)
        self.layout_.setContentsMargins(0, 2, 0, 2)
        self.layout_.setVerticalSpacing(3)
        self.layout_.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.layout_.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        for name in fields:
            self._add(name, model.model_fields[name])

    # ---- values -----------------------------------------------------------------------------
    def show_values(self, record: BaseModel, placeholders: dict[str, Any] | None = None) -> None:
        """Set all rows without telling anyone."""
        self._silent = True
        try:
            for name, widget in self.rows.items():
                if placeholders and isinstance(widget, QLineEdit):
                    widget.setPlaceholderText(
                        as_text(placeholders.get(name))
                        if placeholders.get(name) is not None
                        else "–"
                    )
                if not widget.hasFocus() or not isinstance(widget, QLineEdit):
                    _put(widget, getattr(record, name))
        finally:
            self._silent = False

    def block(self, reasons: Mapping[str, str]) -> None:
        """Grey out the rows that these reasons speak of, and only those; the reason is the tip."""
        for name, widget in self.rows.items():
            reason = reasons.get(name, "")
            tip_ = f"{reason}\n\n{widget.property('tip')}" if reason else widget.property("tip")
            for part in (widget, self.layout_.labelForField(widget)):
                if part is not None:
                    part.setEnabled(not reason)
                    part.setToolTip(tip_)

    def set_row_visible(self, name: str, visible: bool) -> None:
        """Hide a row with its label."""
        if name in self.rows:
            self.layout_.setRowVisible(self.rows[name], visible)

    def _told(self, name: str, value: Any) -> None:
        if self._silent:
            return
        widget = self.rows[name]
        try:
            self._changed(name, value)
        except ValueError as error:
            widget.setStyleSheet("border: 1px solid #d9534f")
            widget.setToolTip(_first_reason(error))
        else:
            widget.setStyleSheet("")
            widget.setToolTip(widget.property("tip"))

    # ---- rows -------------------------------------------------------------------------------
    def _add(self, name: str, field: FieldInfo) -> None:
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        unit = str(extra.get("unit", ""))
        bounds = bounds_of(field)
        widget = self._widget(name, field, unit, bounds)
        widget.setObjectName(name)
        words = tip(name, field.description or "", unit, bounds)
        widget.setToolTip(words)
        widget.setProperty("tip", words)
        widget.setAccessibleName(field.title or name)
        widget.installEventFilter(self._filter)
        widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.rows[name] = widget
        title = field.title or name
        if isinstance(widget, QCheckBox):
            widget.setText(title)
            self.layout_.addRow(widget)
            return
        label = QLabel(f"{title} ({unit})" if unit and isinstance(widget, QLineEdit) else title)
        label.setToolTip(words)
        self.layout_.addRow(label, widget)

    def _widget(
        self, name: str, field: FieldInfo, unit: str, bounds: tuple[float | None, float | None]
    ) -> QWidget:
        kind, optional = kind_of(field.annotation)
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices and not optional:
            box = QComboBox()
            box.addItems([str(c) for c in choices])
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.setMinimumContentsLength(6)
            box.setProperty("choices", list(choices))
            box.activated.connect(lambda i: self._told(name, choices[i]))
            return box
        if kind is bool:
            check = QCheckBox()
            check.toggled.connect(lambda on: self._told(name, on))
            return check
        if (
            kind is int
            and not optional
            and isinstance(field.default, int)
            and field.default > 2**30
        ):
            large = QLargeIntSpinBox()
            large.setRange(int(bounds[0] or 0), int(bounds[1] or 2**62))
            large.setKeyboardTracking(False)
            large.valueChanged.connect(lambda v: self._told(name, int(v)))
            return large
        if kind is int and not optional:
            spin = QSpinBox()
            spin.setRange(
                int(bounds[0] if bounds[0] is not None else -(2**31) + 1),
                int(min(bounds[1] or 2**31 - 1, 2**31 - 1)),
            )
            spin.setSuffix(f" {unit}" if unit else "")
            spin.setKeyboardTracking(False)
            spin.valueChanged.connect(lambda v: self._told(name, v))
            return spin
        if kind is float and not optional:
            box_ = ScientificBox()
            box_.setRange(
                bounds[0] if bounds[0] is not None else -1e12,
                bounds[1] if bounds[1] is not None else 1e12,
            )
            box_.setSuffix(f" {unit}" if unit else "")
            box_.setKeyboardTracking(False)
            box_.valueChanged.connect(lambda v: self._told(name, float(f"{v:.9g}")))
            return box_
        line = Sparse()
        line.setMinimumWidth(60)
        line.setProperty(
            "kind", TEXT[kind] if kind in TEXT else "list" if get_origin(kind) is tuple else "text"
        )
        line.setProperty("optional", optional)
        line.setProperty(
            "item", "float" if get_origin(kind) is tuple and get_args(kind)[0] is float else "str"
        )
        line.setPlaceholderText("automatic" if optional else "")
        line.editingFinished.connect(lambda: self._line_done(name, line))
        return line

    def _line_done(self, name: str, line: QLineEdit) -> None:
        if self._silent or not line.isModified():
            return
        line.setModified(False)
        text = line.text().strip()
        try:
            value = parse(
                text, line.property("kind"), line.property("optional"), line.property("item")
            )
        except ValueError:
            line.setStyleSheet("border: 1px solid #d9534f")
            line.setToolTip(f"{text!r} is not a number")
            return
        self._told(name, value)


def _put(widget: QWidget, value: Any) -> None:
    if isinstance(widget, QComboBox):
        choices = widget.property("choices")
        widget.setCurrentIndex(choices.index(value) if value in choices else -1)
    elif isinstance(widget, QCheckBox):
        widget.setChecked(bool(value))
    elif isinstance(widget, (QSpinBox, QDoubleSpinBox, QLargeIntSpinBox)):
        widget.setValue(value)
    elif isinstance(widget, QLineEdit):
        widget.setText("" if value is None else as_text(value))
        widget.setModified(False)


def _first_reason(error: ValueError) -> str:
    """A validation error in one line."""
    details = getattr(error, "errors", None)
    if callable(details):
        return "; ".join(str(d["msg"]).removeprefix("Value error, ") for d in details())
    return str(error)
