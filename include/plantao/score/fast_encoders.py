"""Shortcuts through scikit-learn's steps: the same bits of every intermediate result, for less CPU time.

Pure. Two steps cost more than most models: OneHotEncoder and OrdinalEncoder make a Python object of every value to find
its place among the categories (`_transform`), and ColumnTransformer takes a detour over coordinates to put dense and
sparse columns side by side (`_hstack`). In a model that is quickened, Arrow finds the places of the rows in which every
value is known, and NumPy lays the columns side by side. Everything else goes to scikit-learn's own step: rows with
unknown or missing values, and whatever a shortcut is not made for.

The steps are private to scikit-learn. So each shortcut has to agree with the step before it is taken: an encoder's on
all of its categories, a stack's on the first rows, which are the golden ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Array = np.ndarray[Any, Any]

MOST_CATEGORIES = 10_000
"""An encoder with a column of more categories is left as it is: to compare both ways would take too long."""


def quicken(model: Any) -> None:
    """Let a fitted model take the shortcuts, at whatever depth of its pipeline."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

    for part in parts(model):
        if type(part) in (OneHotEncoder, OrdinalEncoder) and (tables := _tables(part)) is not None:
            places = _Places(part._transform, tables)  # noqa: SLF001 - see above
            if _agree(places, getattr(part, "feature_names_in_", None)):
                part._transform = places  # noqa: SLF001
        elif type(part) is ColumnTransformer and getattr(part, "sparse_output_", False):
            part._hstack = _Stack(part._hstack)  # noqa: SLF001


def parts(model: Any) -> Iterator[Any]:
    """Yield the estimators inside a model, at whatever depth, each once."""
    yield from _inside(model, set())


def _inside(thing: Any, seen: set[int]) -> Iterator[Any]:
    from sklearn.base import BaseEstimator

    if not isinstance(thing, BaseEstimator | list | tuple | dict) or id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, BaseEstimator):
        yield thing
        thing = vars(thing)
    for inner in list(thing.values() if isinstance(thing, dict) else thing):
        yield from _inside(inner, seen)


# --- the places of values among an encoder's categories --------------------------------------------------------------


class _Places:
    """In place of an encoder's `_transform`: each value's place, and whether it is known; rows by columns."""

    def __init__(self, original: Callable[..., tuple[Array, Array]], tables: Sequence[pa.Array]) -> None:
        self.original, self.tables = original, tables

    def __call__(self, X: Any, *args: Any, **kwargs: Any) -> tuple[Array, Array]:  # noqa: N803 - scikit-learn's name
        found = self._found(X)
        if found is None:
            return self.original(X, *args, **kwargs)
        places, mask, known = np.empty(X.shape, int), np.ones(X.shape, bool), np.ones(len(X), bool)
        for i, column in enumerate(found):
            if column.null_count:
                known &= column.is_valid().to_numpy(zero_copy_only=False)
            places[:, i] = column.fill_null(0).to_numpy()
        if not known.all():
            places[~known], mask[~known] = self.original(X[~known], *args, **kwargs)
        return places, mask

    def _found(self, frame: Any) -> list[pa.Array] | None:
        """Return the places by column, NULL where a value is unknown or missing; None for what Arrow cannot take."""
        if not isinstance(frame, pd.DataFrame) or frame.shape[1] != len(self.tables):
            return None
        found = []
        for (_, series), table in zip(frame.items(), self.tables, strict=True):
            try:
                values = pa.array(series)
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                return None
            if isinstance(values, pa.ChunkedArray):
                values = values.combine_chunks()
            of_a_kind = values.type == table.type or (
                pa.types.is_large_string(values.type) and pa.types.is_string(table.type)
            )
            if not of_a_kind:
                return None
            found.append(pc.index_in(values, value_set=table.cast(values.type), skip_nulls=True))
        return found


def _tables(encoder: Any) -> list[pa.Array] | None:
    """Return the categories of each column; None for an encoder that is left as it is."""
    if encoder.min_frequency is not None or encoder.max_categories is not None:
        return None
    tables = []
    for categories in getattr(encoder, "categories_", ()):  # one that is not fitted has none
        if categories.dtype == object and all(type(value) is str for value in categories):
            tables.append(pa.array(categories, pa.string()))
        elif categories.dtype == np.int64:
            tables.append(pa.array(categories))
        else:
            return None
    return tables if tables and max(map(len, tables)) <= MOST_CATEGORIES else None


def _agree(places: _Places, names: Array | None) -> bool:
    """Tell whether both ways find the same for all categories."""
    rows = max(map(len, places.tables))
    columns = [table.take(pa.array(np.arange(rows) % len(table))).to_pandas() for table in places.tables]
    frame = pd.concat(columns, axis=1)
    frame.columns = range(len(columns)) if names is None else names
    try:
        ours, theirs = (step(frame, handle_unknown="ignore") for step in (places, places.original))
    except Exception:  # noqa: BLE001 - an encoder of another scikit-learn: it is left as it is
        return False
    return all(_same(a, b) for a, b in zip(ours, theirs, strict=True))


# --- columns side by side --------------------------------------------------------------------------------------------


class _Stack:
    """In place of the `_hstack` of a ColumnTransformer whose output is sparse."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.agrees: bool | None = None

    def __call__(self, Xs: Sequence[Any], *, n_samples: int) -> Any:  # noqa: N803 - scikit-learn's own name
        if self.agrees is False or not all(map(_is_plain, Xs)) or all(isinstance(block, np.ndarray) for block in Xs):
            return self.original(Xs, n_samples=n_samples)
        stacked = side_by_side(Xs)
        if self.agrees is None:
            theirs = self.original(Xs, n_samples=n_samples)
            self.agrees = type(stacked) is type(theirs) and all(
                _same(getattr(stacked, name), getattr(theirs, name)) for name in ("data", "indices", "indptr")
            )
            return theirs
        return stacked


def side_by_side(blocks: Sequence[Any]) -> Any:
    """Return blocks of columns, dense ones and rows of sparse ones (CSR), as one CSR without the zeros of the dense."""
    rows, sparse = blocks[0].shape[0], next(block for block in blocks if not isinstance(block, np.ndarray))
    widths = [block.shape[1] if isinstance(block, np.ndarray) else _most(block) for block in blocks]
    shape = (rows, sum(widths))
    values, columns, there = np.zeros(shape), np.zeros(shape, np.int32), np.zeros(shape, bool)
    at = first = 0
    for block, width in zip(blocks, widths, strict=True):
        own = slice(at, at + width)
        if isinstance(block, np.ndarray):
            values[:, own], columns[:, own], there[:, own] = block, np.arange(first, first + width), block != 0
        elif block.nnz == rows * width:  # as of an encoder that knows every value
            full = (rows, width)
            values[:, own], columns[:, own] = block.data.reshape(full), block.indices.reshape(full) + first
            there[:, own] = True
        else:
            filled = np.arange(width) < np.diff(block.indptr)[:, None]
            there[:, own] = filled
            values[:, own][filled], columns[:, own][filled] = block.data, block.indices + first
        at, first = at + width, first + block.shape[1]
    if there.all():
        found, ends = (values.ravel(), columns.ravel()), np.arange(rows + 1, dtype=np.int32) * np.int32(at)
    else:
        found, ends = (values[there], columns[there]), np.zeros(rows + 1, np.int32)
        np.cumsum(np.count_nonzero(there, axis=1), out=ends[1:])
    return type(sparse)((*found, ends), shape=(rows, first))


def _most(block: Any) -> int:
    return int(np.diff(block.indptr).max(initial=0))


def _is_plain(block: Any) -> bool:
    """Tell whether a block is of doubles, and either dense or CSR with its columns in order."""
    if getattr(block, "dtype", None) != np.float64:
        return False
    if isinstance(block, np.ndarray):
        return block.ndim == 2
    return getattr(block, "format", "") == "csr" and bool(block.has_canonical_format)


def _same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
