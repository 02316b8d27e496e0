"""Numbers that travel together: a row's doubles and short whole numbers in one array, and its long ones in another.

Pure. A field of binary COPY costs whoever reads it far more than its eight bytes are worth, since each is parsed and
appended on its own. So the server lays numbers side by side (`array_send`), which costs it something, and NumPy takes a
batch of them apart at once. The reader, which the server had to wait for, needs a quarter less CPU time for twenty
columns, and lets go of the source sooner. A whole number of 32 bits or less is exact in a double, and one array costs
less than two.

Layout of an array, everything big-endian: https://doxygen.postgresql.org/arrayfuncs_8c_source.html (array_send)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from psycopg2.sql import SQL, Composable, Identifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.extract.query import Feature, Features

    Numbers = np.ndarray[Any, Any]

# By name of an array: its type, and how NumPy names its elements.
ARRAYS = {"doubles": ("double precision[]", "f8"), "integers": ("bigint[]", "i8")}
SHORT = ("int2", "int4")
AT_LEAST = 2
"""A column that would be the only one of its array travels alone: an array has five words of its own."""
WORD, HEAD, ELEMENT = 4, 5, 3
"""Everything is made of words: five in front of an array, and for an element one with its length and two of its own."""


@dataclass(frozen=True)
class Packing:
    """In which form the features of a run travel."""

    features: Features

    @property
    def columns(self) -> list[Composable]:
        """The columns of the SELECT, each with its name."""
        together = {place for places in self._groups.values() for place in places}
        alone = [column for place, column in enumerate(self.features.named) if place not in together]
        return [self._array(name, places) for name, places in self._groups.items()] + alone

    def unpack(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with every feature in a column of its own, whatever way it came."""
        columns = {name: batch.column(name) for name in batch.schema.names}
        for name, places in self._groups.items():
            values, missing = apart(columns.pop(name), len(places), ARRAYS[name][1])
            for i, place in enumerate(places):
                gaps = missing[i] if missing is not None and missing[i].any() else None
                dtype = np.float64 if self.features.distinct[place].kind == "float" else np.int64
                columns[f"f{place}"] = pa.array(values[i].astype(dtype, copy=False), mask=gaps)
        return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))

    @cached_property
    def _groups(self) -> dict[str, list[int]]:
        homes = [_array_of(feature) for feature in self.features.distinct]
        groups = {name: [place for place, home in enumerate(homes) if home == name] for name in ARRAYS}
        return {name: places for name, places in groups.items() if len(places) >= AT_LEAST}

    def _array(self, name: str, places: Sequence[int]) -> Composable:
        # Without their own casts, where these say no more than the array's, which is applied to each element.
        found = [self.features.distinct[i] for i in places]
        elements = SQL(", ").join(
            [one.column if one.type == "numeric" else SQL("s.{}").format(Identifier(one.name)) for one in found]
        )
        return SQL("pg_catalog.array_send(array[{}]::{}) as {}").format(
            elements, SQL(ARRAYS[name][0]), Identifier(name)
        )


def _array_of(feature: Feature) -> str | None:
    if feature.kind == "float" or (feature.kind == "integer" and feature.type in SHORT):
        return "doubles"
    return "integers" if feature.kind == "integer" else None


def apart(arrays: pa.Array, count: int, dtype: str) -> tuple[Numbers, Numbers | None]:
    """Take arrays of `count` numbers apart: the numbers as `count` by rows, and which of them are NULL, if any is."""
    if not len(arrays):
        return np.empty((count, 0), dtype), None
    content, number, size = arrays.buffers()[2], len(arrays), WORD * (HEAD + count * ELEMENT)
    ends = np.frombuffer(arrays.buffers()[1], np.int32)[arrays.offset : arrays.offset + number + 1]
    odd = np.flatnonzero(np.diff(ends) != size)  # a NULL is a length of -1 and nothing after it
    rows, first, missing = content, int(ends[0]), None
    if len(odd):
        last = content.size - size
        whole = np.ndarray((last // WORD + 1,), f"V{size}", content, 0, (WORD,)) if last >= 0 else None
        starts = np.minimum(ends[:-1], max(last, 0)) // WORD
        rows, first = (np.zeros(number, f"V{size}") if whole is None else whole[starts]).data, 0
        missing = np.zeros((count, number), bool)
    values = np.empty((count, number), dtype)
    for i in range(count):
        values[i] = np.ndarray((number,), f">{dtype}", rows, first + WORD * (HEAD + i * ELEMENT + 1), (size,))
    if missing is not None:
        values[:, odd], missing[:, odd] = _one_by_one(content, ends[odd] // WORD + HEAD, count, dtype)
    return values, missing


def _one_by_one(content: pa.Buffer, at: Numbers, count: int, dtype: str) -> tuple[Numbers, Numbers]:
    """Walk over the elements of some rows at once; what is missing is 0."""
    values, missing = np.empty((count, len(at)), dtype), np.empty((count, len(at)), bool)
    lengths = np.frombuffer(content, ">i4")
    numbers = np.ndarray((len(lengths) - 1,), f">{dtype}", content, 0, (WORD,))
    for i in range(count):
        missing[i] = lengths[np.minimum(at, len(lengths) - 1)] < 0
        values[i] = np.where(missing[i], 0, numbers[np.minimum(at + 1, len(numbers) - 1)])
        at = at + np.where(missing[i], 1, ELEMENT)
    return values, missing
