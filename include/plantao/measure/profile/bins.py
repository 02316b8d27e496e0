"""The cells into which a value is counted: fixed once, by the reference, so that any two days can be compared.

Pure. A number falls below the training range, into one of its quantile bins, above the range, or is not finite; a
value is one of those that the reference lists, another one of the training frame, or was never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from plantao.models.contract import Column

SCORE_BINS = 200
FEW = 256  # of which the count fits in a byte
FARTHEST = 1e100
"""The longest distance from the centre that is added up, so that the square of one absurd value stays a number."""
Codes = np.ndarray[tuple[int], np.dtype[np.intp]]
Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]
Counts: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Atoms:
    """A distribution of numbers by points and their weights, such as the means of bins and the rows in them."""

    values: Counts
    weights: Counts


@dataclass(frozen=True)
class NumberCells:
    """Below, the bins between `edges`, above; then not finite and missing, which have no value to add up."""

    edges: Numbers
    centre: float

    @property
    def count(self) -> int:
        """How many cells there are, the last two being `other` and missing."""
        return self.valued + 2

    @property
    def valued(self) -> int:
        """How many cells hold values: a constant has one bin between below and above."""
        return 2 + max(len(self.edges) - 1, 1) if len(self.edges) else 2

    def place(self, array: pa.Array) -> tuple[Codes, Numbers]:
        """Return the cell of each value, and its distance from the centre (0 where it has none)."""
        values = _numbers(array)
        finite = np.isfinite(values)
        complete = bool(finite.all())
        if not complete:
            values = np.where(finite, values, self.centre)
        codes = reached(self._starts, values)
        distance = np.clip(values - self.centre, -FARTHEST, FARTHEST)
        if not complete:
            codes[~finite] = self.valued
        if array.null_count:
            missing = array.is_null().to_numpy(zero_copy_only=False)
            codes[missing], distance[missing] = self.valued + 1, 0.0
        return codes, distance

    @cached_property
    def _starts(self) -> Numbers:
        """Where each cell after the first begins."""
        # The last bin holds its upper edge too, as in numpy.histogram; a constant has one bin that holds just it.
        inner, upper = (self.edges[:-1] if len(self.edges) > 1 else self.edges), self.edges[-1:]
        return np.append(inner, np.nextafter(upper, np.inf))


def reached(edges: Numbers, values: Numbers) -> Codes:
    """Return how many edges each finite value has reached, as numpy.searchsorted(edges, values, "right").

    For the few edges of a reference, all of them compared with all values is several times faster than a search.
    """
    found = np.zeros(len(values), np.uint8 if len(edges) < FEW else np.intp)
    for edge in edges:
        np.add(found, (values >= edge).view(np.uint8), out=found)
    codes: Codes = found.astype(np.intp, copy=False)
    return codes


@dataclass(frozen=True)
class ValueCells:
    """The listed values, then other, unseen and missing."""

    listed: pa.Array
    others: pa.Array
    """Further values of the training frame, where they were few enough to list."""
    knows_all: bool
    """Whether a value that is neither listed nor among the others was never seen in training."""

    @property
    def count(self) -> int:
        """How many cells there are."""
        return len(self.listed) + 3

    def place(self, array: pa.Array) -> Codes:
        """Return the cell of each value."""
        other, unseen, missing = len(self.listed), len(self.listed) + 1, len(self.listed) + 2
        known = pa.concat_arrays([self.listed, self.others])
        found = pc.index_in(array, value_set=known, skip_nulls=True)
        codes: Codes = found.fill_null(len(known)).to_numpy().astype(np.intp)
        table = np.full(len(known) + 1, other, np.intp)
        table[: len(self.listed)] = np.arange(len(self.listed))
        table[-1] = unseen if self.knows_all else other
        codes = table[codes]
        if array.null_count:
            codes[array.is_null().to_numpy(zero_copy_only=False)] = missing
        return codes


@dataclass(frozen=True)
class PresenceCells:
    """Present or missing: for moments and whatever else has no bins."""

    count: int = 2

    def place(self, array: pa.Array) -> Codes:
        """Return 1 for a gap, else 0."""
        missing: Codes = array.is_null().to_numpy(zero_copy_only=False).astype(np.intp)
        return missing


Cells = NumberCells | ValueCells | PresenceCells


def cells_of(column: Column, profile: Mapping[str, Any]) -> Cells:
    """Return the cells of a column from its profile in the reference."""
    if "values" in profile:
        kind = {"boolean": pa.bool_(), "integer": pa.int64(), "float": pa.float64()}.get(column.kind, pa.string())
        listed = [_typed(value, kind) for value in profile["values"]]
        others = [value for value in column.categories or () if value not in set(listed)]
        knows_all = column.categories is not None or column.kind == "boolean" or not profile.get("other")
        return ValueCells(pa.array(listed, kind), pa.array(others, kind), knows_all)
    if column.kind in {"float", "integer"}:
        return number_cells(profile)
    return PresenceCells()


def number_cells(profile: Mapping[str, Any]) -> NumberCells:
    """Return the cells of a number; without a single finite value in training there are no bins."""
    return NumberCells(np.array(profile.get("edges", ()), float), float(profile.get("mean", 0.0)))


def score_bin(scores: Numbers) -> Codes:
    """Return the bin of each probability: 200 of equal width, 1.0 in the last."""
    return np.minimum((scores * SCORE_BINS).astype(np.intp), SCORE_BINS - 1)


def tally(codes: Codes, days: Codes | None, cells: int, n_days: int, weights: Numbers | None = None) -> Any:
    """Return how often each cell occurs, or the sum of `weights` in it, as days by cells."""
    places = codes if days is None else codes + days * cells
    return np.bincount(places, weights, minlength=n_days * cells).reshape(n_days, cells)


def _numbers(array: pa.Array) -> Numbers:
    values = array.fill_null(0) if array.null_count else array
    numbers: Numbers = values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return numbers


def _typed(value: str, kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return value == "True"
    return int(float(value)) if pa.types.is_integer(kind) else float(value) if pa.types.is_floating(kind) else value


def label(value: bool | int | str | None) -> str:
    """Return a class as JSON keys name it, and as PostgreSQL writes it: booleans as `true` and `false`."""
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def labels(values: Iterable[bool | int | str | None]) -> list[str]:
    """Return classes as JSON keys name them."""
    return [label(value) for value in values]
