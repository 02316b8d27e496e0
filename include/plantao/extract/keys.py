"""Keys that were read from two databases, compared outside of both.

Pure. Keys stay in Arrow: in pandas a bigint beside a NULL would become a float and lose its last digits.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def key_names(table: pa.Table) -> list[str]:
    """Return the names of the key columns, k0, k1, …, in order."""
    return sorted((n for n in table.column_names if n[0] == "k" and n[1:].isdigit()), key=lambda n: int(n[1:]))


def without(rows: pa.Table, known: pa.Table, by: Sequence[str] = ()) -> pa.Table:
    """Return the rows whose key, and whose other columns in `by`, are not among the known ones.

    `by` may name the timestamp (t) and the time of the edit (c). A key with a NULL is like no other, so it always
    stays; an edit time that is NULL equals another NULL.
    """
    return _joined(rows, known, by, "left anti")


def also_in(rows: pa.Table, known: pa.Table, by: Sequence[str] = ()) -> pa.Table:
    """Return the rows whose key, and whose other columns in `by`, are among the known ones."""
    return _joined(rows, known, by, "left semi")


def repeated(rows: pa.Table) -> pa.Table:
    """Return the complete keys that more than one of the rows has, each once."""
    names = key_names(rows)
    counted = complete(rows).select(names).group_by(names).aggregate([([], "count_all")])
    return counted.filter(pc.greater(counted["count_all"], 1)).select(names)


def _joined(rows: pa.Table, known: pa.Table, by: Sequence[str], kind: str) -> pa.Table:
    names, marks = key_names(rows), [f"{name}, compared" for name in by]
    left, right = (_with_comparable(one, by) for one in (rows, known.select([*names, *by])))
    found = left.join(right.select([*names, *marks]), keys=[*names, *marks], join_type=kind)
    return found.select(rows.column_names)


def values(rows: pa.Table) -> list[list[object]]:
    """Return the complete keys as one list of values per key column."""
    return [column.to_pylist() for column in complete(rows).select(key_names(rows)).columns]


def complete(rows: pa.Table) -> pa.Table:
    """Return the rows whose key has no NULL."""
    return rows.filter(pc.invert(_has_null(rows)))


def incomplete(rows: pa.Table) -> pa.Table:
    """Return the rows whose key has a NULL."""
    return rows.filter(_has_null(rows))


def chunks(rows: pa.Table, size: int) -> Iterator[pa.Table]:
    """Yield the rows, at most `size` at once."""
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size)


def _has_null(rows: pa.Table) -> pa.ChunkedArray:
    return reduce(pc.or_, (rows.column(name).is_null() for name in key_names(rows)))


def _with_comparable(rows: pa.Table, by: Sequence[str]) -> pa.Table:
    # A join never matches NULL with NULL, so "no edit time" becomes an instant that no row has.
    for name in by:
        rows = rows.append_column(f"{name}, compared", rows.column(name).cast(pa.int64()).fill_null(-(2**63) + 1))
    return rows
