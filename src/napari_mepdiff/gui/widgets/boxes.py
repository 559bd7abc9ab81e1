"""Boxes for numbers: any size, left open, and deaf to a wheel that only scrolls past."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QAbstractSpinBox, QDoubleSpinBox, QLineEdit, QWidget


class NoWheel(QObject):
    """Keeps the wheel for scrolling: a spin box under the mouse must not change by accident."""

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Ignore the wheel where there is no focus."""
        if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        return False


class Sparse(QLineEdit):
    """A number that may be left open: empty is None, what then holds stands in grey."""


class ScientificBox(QDoubleSpinBox):
    """A number of any size: shows as few digits as it needs, steps by a tenth of itself."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setDecimals(9)
        self.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:
        """As people write it."""
        return f"{value:.6g}"

    def valueFromText(self, text: str) -> float:
        """What they wrote."""
        return float(text.removesuffix(self.suffix()).strip().replace(",", ".") or 0)

    def validate(self, text: str, position: int) -> Any:
        """Anything that is a number, or may become one."""
        plain = text.removesuffix(self.suffix()).strip().replace(",", ".")
        try:
            inside = self.minimum() <= float(plain) <= self.maximum()
        except ValueError:
            partial = plain == "" or all(c in "+-.eE0123456789" for c in plain)
            return (
                (QValidator.State.Intermediate if partial else QValidator.State.Invalid),
                text,
                position,
            )
        return (
            (QValidator.State.Acceptable if inside else QValidator.State.Intermediate),
            text,
            position,
        )
