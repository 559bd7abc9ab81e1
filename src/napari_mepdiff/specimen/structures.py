"""Many crystal structures in memory: from the table of structures or from a folder of CIF files;
split by composition.

Two crystals of one reduced formula are never on both sides of a split (polymorphs, and the same
material from two sources).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..base.records import fingerprint
from .cif import load_crystal
from .table import Table, read_table

if TYPE_CHECKING:
    from ase import Atoms

Part = Literal["train", "validation", "test"]
LAST_ELEMENT = 103  # Lr; there are no scattering factors beyond


@dataclass(frozen=True)
class Structures:
    """Unit cells, flat: the atoms of structure i are ``start[i]:start[i + 1]``.

    Attributes
    ----------
    names, formulas : list of str
        Identifiers; reduced formulas with the elements in alphabetical order ("O3 Sr Ti").
    experimental : ndarray
        (N,) bool, known from experiment.
    lattice : ndarray
        (N, 3, 3) float32, rows a, b, c in Å.
    start : ndarray
        (N + 1,) int64.
    numbers, fractional : ndarray
        (M,) uint8 and (M, 3) float32.
    problems : list of str
        What was left out, and why.
    source : str
        Where they come from, with a fingerprint.
    """

    names: list[str]
    formulas: list[str]
    experimental: NDArray[np.bool_]
    lattice: NDArray[np.float32]
    start: NDArray[np.int64]
    numbers: NDArray[np.uint8]
    fractional: NDArray[np.float32]
    problems: list[str] = field(default_factory=list)
    source: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def cell(
        self, index: int
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]:
        """Lattice (3, 3) in Å, atomic numbers (n,), fractional positions (n, 3) of one
        structure."""
        part = slice(self.start[index], self.start[index + 1])
        return (
            self.lattice[index].astype(np.float64),
            self.numbers[part],
            self.fractional[part].astype(np.float64),
        )

    def choose(self, index: NDArray[np.integer]) -> Structures:
        """A part of them, in the given order."""
        index = np.asarray(index, dtype=np.int64)
        counts = np.diff(self.start)[index]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        atoms = _runs(self.start[index], counts)
        return Structures(
            [self.names[i] for i in index],
            [self.formulas[i] for i in index],
            self.experimental[index],
            self.lattice[index],
            start,
            self.numbers[atoms],
            self.fractional[atoms],
            self.problems,
            self.source,
        )

    def atoms(self, name: str) -> Atoms:
        """The unit cell of one structure, by its identifier.

        Raises
        ------
        KeyError
            If there is none of that name; the message is for the user.
        """
        from ase import Atoms

        if name not in self.names:
            left_out = [p for p in self.problems if p.startswith(f"{name}: ")]
            raise KeyError(
                f"no structure {name!r} in {self.source.split(' ')[0]}"
                + "".join(f" ({p})" for p in left_out)
            )
        cell, numbers, fractional = self.cell(self.names.index(name))
        atoms = Atoms(numbers, cell=cell, pbc=True, scaled_positions=fractional)
        atoms.info["id"] = name
        return atoms

    def part(self, part: Part) -> Structures:
        """Those of one side of the committed split; 'train' is all whose formula is on neither of
        the others.

        Raises
        ------
        ValueError
            If none is left.
        """
        split = load_split()
        if part == "train":
            held = {entry["formula"] for side in split.values() for entry in side}
            index = [i for i, f in enumerate(self.formulas) if f not in held]
        else:
            wanted = {entry["id"]: n for n, entry in enumerate(split[part])}
            index = sorted(
                (i for i, name in enumerate(self.names) if name in wanted),
                key=lambda i: wanted[self.names[i]],
            )
        if not index:
            raise ValueError(f"none of the {len(self)} structures belongs to the part {part!r}")
        return self.choose(np.array(index))


@lru_cache(maxsize=1)
def load_split() -> dict[str, list[dict[str, str]]]:
    """The committed lists: 'validation', 'test' and 'samples' (those that travel as 4D-STEM
    samples), id and formula each."""
    return json.loads((files(__package__) / "split.json").read_text())


def bundled() -> Path:
    """The table that travels with the package: 49,384 structures known from experiment (Materials
    Project, CC-BY-4.0)."""
    return Path(str(files(__package__) / "structures_experimental.npz"))


def load_structures(source: str | Path | None = None) -> Structures:
    """Structures from a table (.npz, .parquet), a CIF file or a folder of CIF files; the bundled
    table if nothing is named.

    What cannot be used (a corrupt row, a CIF with partly occupied sites) is left out and named in
    ``problems``.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    ValueError
        If it holds no usable structure.
    MissingExtra
        If the table is a .parquet file and pyarrow is not installed.
    """
    path = bundled() if source is None else Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    if path.suffix in (".parquet", ".npz"):
        found = _from_table(read_table(path), f"{path.name} {fingerprint(path)}")
    else:
        found = _from_cifs(path)
    if len(found) == 0:
        why = f": {found.problems[0]}" if found.problems else ""
        raise ValueError(f"{path.name} holds no usable structure{why}")
    return found


def reduced_formula(numbers: Iterable[int]) -> str:
    """Reduced formula with the elements in alphabetical order, as the table writes it: "O3 Sr
    Ti"."""
    from ase.data import chemical_symbols

    found, counts = np.unique(np.asarray(list(numbers)), return_counts=True)
    counts = counts // np.gcd.reduce(counts)
    pairs = sorted((chemical_symbols[n], c) for n, c in zip(found, counts, strict=True))
    return " ".join(s if c == 1 else f"{s}{c}" for s, c in pairs)


def _from_table(table: Table, source: str) -> Structures:
    """The one decoder of tables: what does not fit together or cannot be is left out and named."""
    count = np.diff(table.numbers_at)
    fits = (
        (np.diff(table.lattice_at) == 9) & (np.diff(table.fractional_at) == 3 * count) & (count > 0)
    )
    problems = [
        f"{table.names[i]}: lattice, numbers and positions do not fit together"
        for i in np.flatnonzero(~fits)
    ]
    good = np.flatnonzero(fits)
    cells = table.lattice[table.lattice_at[good][:, None] + np.arange(9)].reshape(-1, 3, 3)
    with np.errstate(invalid="ignore"):
        volume = np.abs(np.linalg.det(np.nan_to_num(cells)))
    sound = np.isfinite(cells).all(axis=(1, 2)) & (volume > 1.0) & (volume < 1e5)
    for n, i in enumerate(good):
        numbers = table.numbers[table.numbers_at[i] : table.numbers_at[i + 1]]
        sound[n] &= numbers.min() >= 1 and numbers.max() <= LAST_ELEMENT
        if not sound[n]:
            problems.append(f"{table.names[i]}: impossible elements or lattice")
    good, cells = good[sound], cells[sound]
    start = np.concatenate([[0], np.cumsum(count[good])]).astype(np.int64)
    at = _runs(table.numbers_at[good], count[good])
    kept = table.numbers[at].astype(np.uint8)
    parts = _runs(table.fractional_at[good], 3 * count[good])
    positions = table.fractional[parts].reshape(-1, 3) / 65536
    if table.formulas is not None:
        formulas = [table.formulas[i] for i in good]
    else:
        formulas = [reduced_formula(kept[a:b]) for a, b in itertools.pairwise(start)]
    return Structures(
        [table.names[i] for i in good],
        formulas,
        np.ones(len(good), bool) if table.experimental is None else table.experimental[good],
        cells.astype(np.float32),
        start,
        kept,
        positions.astype(np.float32),
        problems,
        source,
    )


def _runs(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """first[0], first[0] + 1, … (count[0] of them), first[1], …"""
    ends = np.cumsum(count)
    return np.repeat(first - ends + count, count) + np.arange(ends[-1] if len(ends) else 0)


def _from_cifs(path: Path) -> Structures:
    paths = sorted(path.rglob("*.cif")) if path.is_dir() else [path]
    if not paths:
        raise ValueError(f"there is no CIF file in {path.name}")
    cells, problems, digest = [], [], hashlib.sha256()
    for one in paths:
        try:
            atoms = load_crystal(one)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if atoms.numbers.min() < 1 or atoms.numbers.max() > LAST_ELEMENT:
            problems.append(f"{one.name}: impossible elements")
            continue
        digest.update(one.read_bytes())
        cells.append((one.stem, atoms))
    start = np.concatenate([[0], np.cumsum([len(a) for _, a in cells])]).astype(np.int64)
    return Structures(
        [n for n, _ in cells],
        [reduced_formula(a.numbers) for _, a in cells],
        np.ones(len(cells), bool),
        np.array([a.cell.array for _, a in cells], dtype=np.float32).reshape(-1, 3, 3),
        start,
        np.concatenate([a.numbers for _, a in cells] or [[]]).astype(np.uint8),
        np.concatenate([np.zeros((0, 3)), *(a.get_scaled_positions() for _, a in cells)]).astype(
            np.float32
        ),
        problems,
        f"{path.name} sha256:{digest.hexdigest()}",
    )
