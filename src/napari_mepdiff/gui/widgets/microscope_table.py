"""The table of the microscope: told, estimated, refined; ticks for what shall be taken over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from ...session.microscope_table import TITLES, Block, Row, as_words
from ...session.takeover import Source, refusal
from .basic import COLOURS
from .microscope_words import ABOUT, BLOCKS, ERRORS, SHOWN_AS

COLUMNS = ("", "told", "estimated", "refined", "")
SOURCES: dict[int, Source] = {2: "estimated", 3: "refined"}
FREE = {True: "free in the next run", False: "fixed in the next run"}
HEIGHT, DOT = 18, 16  # px: of a row, and of a verdict
HAIR = "\u200a"  # the thinnest space: three columns of numbers in a narrow dock
STYLE = """
QTreeWidget { font-size: 11px; }
QTreeWidget::item { padding: 0px; }
QHeaderView::section { background: transparent; border: none; padding: 1px 2px; }
QTreeWidget::indicator { width: 9px; height: 9px; border: 1px solid #8a8d94; border-radius: 2px; }
QTreeWidget::indicator:checked { background: #5b8def; border-color: #5b8def; image: none; }
QTreeWidget::indicator:unchecked { background: transparent; image: none; }
QTreeWidget::indicator:disabled { border-color: #6a6d74; }
"""
_NAME = Qt.ItemDataRole.UserRole
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_ON, _OFF = Qt.CheckState.Checked, Qt.CheckState.Unchecked


class MicroscopeTable(QTreeWidget):
    """Values by blocks. A box at a block sets it free in the next run; a box at a value takes it.

    Parameters
    ----------
    freed : callable
        Called with a block and whether the user wants it free.
    ticked : callable
        Called when other values are ticked, or another row is looked at.
    """

    def __init__(
        self,
        freed: Callable[[str, bool], Any],
        ticked: Callable[[], Any],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._freed, self._ticked = freed, ticked
        self._rows: dict[str, Row] = {}
        self._blocks: dict[Block, QTreeWidgetItem] = {}
        self._items: dict[str, QTreeWidgetItem] = {}
        self._free: dict[Block, bool] = {}
        self._folded: set[str] = {""}
        self._silent = False
        self._held = ""  # why nothing can be set free now
        self.setColumnCount(len(COLUMNS))
        self.setHeaderLabels(list(COLUMNS))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setIndentation(7)
        self.setUniformRowHeights(True)
        self.setObjectName("microscope table")
        self.setStyleSheet(STYLE)
        header = self.header()
        header.setMinimumSectionSize(16)
        header.setSectionsMovable(False)
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(4, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(4, DOT)
        for column in (1, 2, 3):
            self.headerItem().setTextAlignment(column, _RIGHT)
        for column, text in ((2, ERRORS["estimated"]), (3, ERRORS["refined"])):
            self.headerItem().setToolTip(column, text)
        self.itemChanged.connect(self._changed)
        self.currentItemChanged.connect(lambda *_: self._ticked())
        self.itemExpanded.connect(self._folds)
        self.itemCollapsed.connect(self._folds)

    # ---- values -----------------------------------------------------------------------------
    def show_rows(self, rows: Sequence[Row], free: Mapping[Block, bool]) -> None:
        """Show the table, and which blocks the next run sets free; ticks and folds stay."""
        chosen = self.chosen()
        self._silent = True
        try:
            self._free = dict(free)
            if not self._blocks or [r.name for r in rows] != list(self._rows):
                self._lay_out(rows)
            self._rows = {row.name: row for row in rows}
            for row in rows:
                self._put(row, chosen)
            self._show_blocks()
        finally:
            self._silent = False
        self._fit()
        if self.chosen() != chosen:
            self._ticked()

    def _lay_out(self, rows: Sequence[Row]) -> None:
        folded = self._folded
        looked_at = self.looked_at()
        self.clear()
        self._blocks.clear()
        self._items.clear()
        there = {row.block for row in rows}
        for name, title in TITLES.items():
            if not name and name not in there:
                continue  # what nothing sets free comes with its values only
            self._blocks[name] = block = QTreeWidgetItem(self, [title])
            block.setData(0, _NAME, name)
            block.setSizeHint(4, QSize(0, HEIGHT))
            font = block.font(0)
            font.setBold(True)
            block.setFont(0, font)
            block.setExpanded(name not in folded)
        for row in rows:
            self._items[row.name] = item = QTreeWidgetItem(self._blocks[row.block])
            item.setData(0, _NAME, row.name)
            item.setSizeHint(4, QSize(0, HEIGHT))
            for column in (1, 2, 3):
                item.setTextAlignment(column, _RIGHT)
        if looked_at in self._items:
            self.setCurrentItem(self._items[looked_at])

    def _put(self, row: Row, chosen: dict[str, Source]) -> None:
        item = self._items[row.name]
        title = SHOWN_AS.get(row.name, row.name)
        title = f"{title} ({row.unit})" if row.unit else title
        item.setText(0, title)
        item.setToolTip(0, f"{title}\n{ABOUT.get(row.name, '')}")
        item.setText(1, as_words(row.told))
        texts = (
            as_words(row.estimated, row.estimated_error),
            as_words(row.refined, row.refined_error),
        )
        for (column, source), text in zip(SOURCES.items(), texts, strict=True):
            item.setText(column, text.replace(" ± ", HAIR + "±" + HAIR))
            why = refusal(row, source)
            wanted = chosen.get(row.name) == source and not why
            state = None if why else _ON if wanted else _OFF
            item.setData(column, Qt.ItemDataRole.CheckStateRole, state)
            absent = getattr(row, source) is None
            item.setToolTip(column, "" if absent else why or "Tick it to take it over")
        level = _level(row.verdict)
        item.setText(4, "●" if level else "")
        if level:
            item.setForeground(4, QBrush(QColor(COLOURS[level])))
        item.setToolTip(4, row.verdict)

    # ---- what is free -----------------------------------------------------------------------
    def hold_blocks(self, reason: str) -> None:
        """Let no block be set free or fixed, for a reason; empty: let them."""
        self._held = reason
        self._silent = True
        try:
            self._show_blocks()
        finally:
            self._silent = False

    def _show_blocks(self) -> None:
        for block, item in self._blocks.items():
            item.setFirstColumnSpanned(True)
            if not block:
                continue
            free = self._free[block]
            item.setText(0, f"{TITLES[block]}: {FREE[free]}")
            item.setCheckState(0, _ON if free else _OFF)
            flags = item.flags() | Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled
            item.setFlags(flags & ~Qt.ItemFlag.ItemIsUserCheckable if self._held else flags)
            item.setToolTip(0, f"{self._held}\n\n{BLOCKS[block]}" if self._held else BLOCKS[block])

    # ---- what the user does -----------------------------------------------------------------
    def chosen(self) -> dict[str, Source]:
        """What is ticked: where a value shall be taken from, by name."""
        return {
            name: source
            for name, item in self._items.items()
            for column, source in SOURCES.items()
            if item.checkState(column) == _ON
        }

    def tick(self, name: str, source: Source, on: bool = True) -> None:
        """Tick a value, as a click does."""
        column = next(c for c, s in SOURCES.items() if s == source)
        self._items[name].setCheckState(column, _ON if on else _OFF)

    def free(self, block: Block, on: bool) -> None:
        """Set a block free, or fix it, as a click does."""
        self._blocks[block].setCheckState(0, _ON if on else _OFF)

    def untick(self) -> None:
        """Tick nothing."""
        for name, source in self.chosen().items():
            self.tick(name, source, on=False)

    def looked_at(self) -> str:
        """Name of the row that is selected; empty if none."""
        item = self.currentItem()
        return "" if item is None or item.parent() is None else str(item.data(0, _NAME))

    def text(self, name: str, column: int) -> str:
        """What stands in a row."""
        return str(self._items[name].text(column))

    def _changed(self, item: Any, column: int) -> None:
        if self._silent:
            return
        if item.parent() is None:
            self._freed(str(item.data(0, _NAME)), item.checkState(0) == _ON)
            return
        if item.checkState(column) == _ON:  # a value has one source
            other = 5 - column
            if item.checkState(other) == _ON:
                item.setCheckState(other, _OFF)
        self._ticked()

    # ---- size -------------------------------------------------------------------------------
    def _folds(self, _item: Any) -> None:
        if not self._silent:
            self._folded = {b for b, item in self._blocks.items() if not item.isExpanded()} | (
                self._folded - self._blocks.keys()
            )
        self._fit()

    def _fit(self) -> None:
        """As high as its rows: the dock scrolls, not the table."""
        self.setFixedHeight(self.sizeHint().height())

    def sizeHint(self) -> QSize:
        """All rows that are not folded away."""
        rows = sum(1 + b.isExpanded() * b.childCount() for b in self._blocks.values())
        return QSize(300, self.header().sizeHint().height() + rows * HEIGHT + 6)


def _level(verdict: str) -> str:
    """Colour of a verdict; empty of a mere remark."""
    if "differs" in verdict or "off:" in verdict or "was told" in verdict:
        return "warning"
    if "agrees" in verdict or verdict.startswith("in the middle"):
        return "good"
    return "info" if verdict.startswith("not told") else ""
