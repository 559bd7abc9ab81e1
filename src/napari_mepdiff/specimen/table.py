"""Tables of crystal structures as files: .npz, which numpy reads, and .parquet, which needs
pyarrow.

Both have the same columns; only these are needed: ``id``, ``lattice`` (9 floats, Å, rows a, b, c),
``numbers`` (Z) and ``frac_u16`` (fractional positions × 65536). ``formula`` and ``experimental``
are used where they are there; all others are kept by :func:`to_npz`.

An .npz holds, for a column NAME: ``NAME`` with one value a structure; or, for lists, ``NAME`` with
all values one list after the other and ``NAME__count`` with the length of each; or, for text,
``NAME__text``, UTF-8 as uint8, joined by newlines.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.extras import require
from ..base.files import atomic

_COUNT, _TEXT = "__count", "__text"
_NEEDED = ("id", "lattice", "numbers", "frac_u16")


@dataclass(frozen=True)
class Table:
    """Columns as they stand in the file, unchecked. Lists are flat: those of structure i begin at
    ``…_at[i]``.

    Attributes
    ----------
    names : list of str
        Identifiers.
    formulas, experimental : list of str, (N,) bool, or None
    lattice, numbers, fractional : ndarray
        Flat; Å, atomic numbers, fractional positions × 65536.
    lattice_at, numbers_at, fractional_at : ndarray
        (N + 1,) int64.
    """

    names: list[str]
    formulas: list[str] | None
    experimental: NDArray[np.bool_] | None
    lattice: NDArray[np.floating]
    lattice_at: NDArray[np.int64]
    numbers: NDArray[np.integer]
    numbers_at: NDArray[np.int64]
    fractional: NDArray[np.integer]
    fractional_at: NDArray[np.int64]


@dataclass(frozen=True)
class _Column:
    """Values of all structures; with `count` the length of each one's list, else one value each."""

    values: NDArray[np.generic] | list[str]
    count: NDArray[np.int64] | None = None


def read_table(path: str | Path) -> Table:
    """The columns of a table of structures.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read or lacks the columns of a structures table.
    MissingExtra
        If it is a .parquet file and pyarrow is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    columns = _from_npz(path) if path.suffix == ".npz" else _from_parquet(path)
    if missing := set(_NEEDED) - set(columns):
        raise ValueError(f"{path.name} lacks the columns {sorted(missing)} of a structures table")

    def lists(name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        column = columns[name]
        if isinstance(column.values, list) or column.count is None:
            raise ValueError(f"{path.name}: the column {name!r} holds no lists of numbers")
        return column.values, np.concatenate([[0], np.cumsum(column.count)]).astype(np.int64)

    def texts(name: str) -> list[str]:
        values = columns[name].values
        if not isinstance(values, list):
            raise ValueError(f"{path.name}: the column {name!r} holds no text")
        return values

    known = columns.get("experimental")
    return Table(
        texts("id"),
        texts("formula") if "formula" in columns else None,
        None if known is None else np.asarray(known.values, dtype=bool),
        *lists("lattice"),
        *lists("numbers"),
        *lists("frac_u16"),
    )


def to_npz(parquet: str | Path, npz: str | Path) -> None:
    """Write all columns of a .parquet table as .npz, which can be read without pyarrow.

    The table that travels with the package was made so.

    Raises
    ------
    ValueError
        If a column is of a kind that the format does not hold.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, column in _from_parquet(Path(parquet)).items():
        if isinstance(column.values, list):
            if any("\n" in text for text in column.values):
                raise ValueError(f"the column {name!r} holds text of several lines")
            arrays[name + _TEXT] = np.frombuffer("\n".join(column.values).encode(), np.uint8)
            continue
        arrays[name] = column.values
        if column.count is not None:
            arrays[name + _COUNT] = column.count.astype(np.uint16)
            if (column.count > 65535).any():
                raise ValueError(f"the column {name!r} holds lists of more than 65535 values")
    with atomic(npz) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def _from_npz(path: Path) -> dict[str, _Column]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} cannot be read as a table of structures: {error}") from error
    columns = {}
    for name, values in arrays.items():
        if name.endswith(_TEXT):
            columns[name.removesuffix(_TEXT)] = _Column(values.tobytes().decode().split("\n"))
        elif not name.endswith(_COUNT):
            count = arrays.get(name + _COUNT)
            columns[name] = _Column(values, None if count is None else count.astype(np.int64))
    return columns


def _from_parquet(path: Path) -> dict[str, _Column]:
    pa = require("pyarrow", "train", "Reading a .parquet table of structures")
    pq = require("pyarrow.parquet", "train", "Reading a .parquet table of structures")
    try:
        table = pq.read_table(path).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as a table of structures: {error}") from error
    return {
        name: _arrow_column(pa, table[name], f"{path.name}: {name}") for name in table.column_names
    }


def _arrow_column(pa: Any, column: Any, where: str) -> _Column:
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _Column([str(text) for text in column.to_pylist()])
    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        return _Column(column.to_numpy())
    if column.null_count:
        raise ValueError(f"{where} has rows without a list")
    if column.num_chunks == 0:
        return _Column(np.zeros(0, kind.value_type.to_pandas_dtype()), np.zeros(0, np.int64))
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if pa.types.is_fixed_size_list(kind):
        count = np.full(len(array), kind.list_size, np.int64)
    else:
        count = np.diff(array.offsets.to_numpy()).astype(np.int64)
    return _Column(array.flatten().to_numpy(zero_copy_only=False), count)
