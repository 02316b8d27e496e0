"""Keys that were read from two databases, compared outside of both.

Pure. Keys stay in Arrow: in pandas a bigint beside a NULL would become a float and lose its last digits.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator


def key_names(table: pa.Table) -> list[str]:
    """Return the names of the key columns, k0, k1, …, in order."""
    return sorted((n for n in table.column_names if n[0] == "k" and n[1:].isdigit()), key=lambda n: int(n[1:]))


def without(rows: pa.Table, known: pa.Table, *, edits_count: bool) -> pa.Table:
    """Return the rows whose key (and edit time, when edits count) is not among the known ones.

    A key with a NULL is like no other, so it always stays; an edit time that is NULL equals another NULL.
    """
    names = key_names(rows)
    if edits_count:
        rows, known = _with_comparable_edit(rows), _with_comparable_edit(known)
        names.append("edit")
    left = rows.join(known.select(names), keys=names, join_type="left anti")
    return left.drop_columns(["edit"]) if edits_count else left


def also_in(rows: pa.Table, known: pa.Table) -> pa.Table:
    """Return the rows whose key is among the known ones."""
    names = key_names(rows)
    return rows.join(known.select(names), keys=names, join_type="left semi")


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


def _with_comparable_edit(rows: pa.Table) -> pa.Table:
    # A join never matches NULL with NULL, so "no edit time" becomes an instant that no row has.
    edit = rows.column("c").cast(pa.int64()).fill_null(-(2**63) + 1)
    return rows.append_column("edit", edit)
