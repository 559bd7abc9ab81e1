"""Small widgets that the docks share: page, folding section, notice, busy line, buttons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QColor, QGuiApplication, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QTextEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from ..jobs import Job, Jobs

WIDTH = 350  # px, so that a dock and a picture fit beside each other on 1366 × 768
WORTH = 150  # ms of work after which its progress is shown
COLOURS = {"info": "#5b8def", "warning": "#e0a030", "error": "#d9534f", "good": "#4caf7a"}


class Section(QCollapsible):
    """A part of a dock that folds."""

    def __init__(self, title: str, parent: QWidget | None = None, folded: bool = False) -> None:
        super().__init__(title, parent)
        self.setDuration(0)
        body = self.content().layout()
        body.setContentsMargins(6, 0, 0, 4)
        body.setSpacing(4)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.toggleButton().setStyleSheet(
            "QPushButton { font-weight: 600; border: none; text-align: left; padding: 3px 0px; "
            "background: transparent; }"
        )
        self.toggleButton().setToolTip("Click to fold or unfold")
        self.colours("#d0d0d0")
        (self.collapse if folded else self.expand)(animate=False)

    def colours(self, foreground: str) -> None:
        """Arrows in the colour of the theme's text."""
        self.setCollapsedIcon(_glyph("▸", foreground))
        self.setExpandedIcon(_glyph("▾", foreground))

    def add(self, *widgets: QWidget) -> Section:
        """Put widgets below each other."""
        for widget in widgets:
            self.addWidget(widget)
        return self


def _glyph(character: str, colour: str) -> QIcon:
    """A character as an icon."""
    pixmap = QPixmap(32, 32)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setPen(QColor(colour))
    font = painter.font()
    font.setPixelSize(30)
    painter.setFont(font)
    painter.drawText(pixmap.rect(), Qt.AlignmentFlag.AlignCenter, character)
    painter.end()
    return QIcon(pixmap)


class Page(QWidget):
    """What a dock consists of: a notice, a scrolling column of sections."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.notice = Notice()
        self.column = QWidget()
        self.column_layout = QVBoxLayout(self.column)
        self.column_layout.setContentsMargins(4, 2, 8, 4)
        self.column_layout.setSpacing(2)
        self.column_layout.addStretch(1)
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setWidget(self.column)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.notice)
        layout.addWidget(self.area, 1)
        self.setMinimumWidth(WIDTH)

    def sizeHint(self) -> QSize:
        """Narrow enough for a small laptop."""
        return QSize(WIDTH + 30, 560)

    def add(self, *widgets: QWidget) -> None:
        """Sections, from the top."""
        for widget in widgets:
            self.column_layout.insertWidget(self.column_layout.count() - 1, widget)


class Notice(QFrame):
    """One message in plain words, with its details to copy."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.copy = QPushButton("Copy details")
        self.copy.setToolTip("The whole report of the error, for a colleague or a bug report")
        self.copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.details))
        self.dismiss = QToolButton()
        self.dismiss.setText("✕")
        self.dismiss.setToolTip("Dismiss")
        self.dismiss.clicked.connect(self.hide)
        row = QHBoxLayout()
        row.addWidget(self.text, 1)
        row.addWidget(self.dismiss, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 4, 4)
        layout.addLayout(row)
        layout.addWidget(self.copy, 0, Qt.AlignmentFlag.AlignLeft)
        self.details = ""
        self.setObjectName("notice")
        self.hide()

    def say(self, level: str, text: str, details: str = "") -> None:
        """Show a message; an error stays until it is dismissed or overtaken by another error."""
        self.text.setText(text)
        self.details = f"{text}\n\n{details}" if details else text
        self.copy.setVisible(bool(details))
        self.setStyleSheet(
            f"#notice {{ border-left: 4px solid {COLOURS.get(level, COLOURS['info'])}; }}"
        )
        self.show()


class Busy(QWidget):
    """Progress and cancel of the jobs of a session, or of one purpose.

    It comes with work that takes a while, not with every short job: it moves the dock's layout.
    """

    def __init__(self, jobs: Jobs, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self._job: Job | None = None  # whose progress is shown
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(WORTH)
        self._soon.timeout.connect(self._come)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("End this work; nothing is changed by what was done so far")
        self.cancel.clicked.connect(lambda: jobs.cancel())
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar, 1)
        layout.addWidget(self.cancel)
        self.update_jobs()

    def update_jobs(self) -> None:
        """Whether there is work, and which; to be connected by the dock that it is part of."""
        if not self._jobs.running:
            self._soon.stop()
            self.hide()
        elif not self.isHidden():
            self._come()
        elif not self._soon.isActive():
            self._soon.start()

    def _come(self) -> None:
        running = self._jobs.running
        if not running:
            return
        job = running[-1]
        if job is not self._job:
            self._job = job
            job.progressed.connect(self._progress)
        self.bar.setFormat(f"{job.title} …")
        self.bar.setMaximum(1000 if job.shown else 0)
        self.bar.setValue(round(1000 * job.shown))
        self.show()

    def _progress(self, fraction: float) -> None:
        """Of a job; where several are at work, of the newest that tells."""
        self.bar.setMaximum(1000)
        self.bar.setValue(round(1000 * fraction))


class Status(QTextEdit):
    """Text that changes often: its height is fixed, so that the dock keeps its layout."""

    def __init__(self, lines: int = 2, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setReadOnly(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setStyleSheet(
            "QTextEdit { background: transparent; border: none; padding: 0px; font-size: 11px; }"
        )
        self.document().setDocumentMargin(2)
        self.setFixedHeight(lines * 15 + 6)

    def setText(self, text: str) -> None:
        """Set it, if it is another."""
        if text != self.property("said"):
            self.setProperty("said", text)
            self.setHtml(text)

    def text(self) -> str:
        """What it says."""
        return self.toPlainText()


def combo(items: Sequence[Any] = (), tip: str = "", letters: int = 6) -> QComboBox:
    """A combo box that does not grow with what it holds; items are texts, or (text, value)."""
    out = QComboBox()
    out.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    out.setMinimumContentsLength(letters)
    out.setToolTip(tip)
    for item in items:
        out.addItem(*item) if isinstance(item, tuple) else out.addItem(item)
    return out


def button(
    text: str, tip: str, clicked: Callable[[], Any], *, primary: bool = False, name: str = ""
) -> QPushButton:
    """A push button."""
    out = QPushButton(text)
    out.setToolTip(tip)
    out.setObjectName(name or text)
    out.clicked.connect(lambda _checked=False: clicked())
    if primary:
        out.setStyleSheet("QPushButton { font-weight: 600; }")
    return out


def allow(widget: QWidget, reason: str) -> None:
    """Let a widget act, or grey it out with the reason why not as the first line of its tip."""
    if widget.property("tip") is None:
        widget.setProperty("tip", widget.toolTip())
    own = str(widget.property("tip"))
    widget.setEnabled(not reason)
    widget.setToolTip(f"Not now: {reason}\n\n{own}" if reason else own)


def row(*widgets: QWidget, stretch: bool = False) -> QWidget:
    """Widgets beside each other."""
    out = QWidget()
    layout = QHBoxLayout(out)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    if stretch:
        layout.addStretch(1)
    return out


def words(text: str = "", *, small: bool = False) -> QLabel:
    """Text that wraps and can be selected."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    if small:
        label.setStyleSheet("font-size: 11px;")
    return label
