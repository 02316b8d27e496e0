"""Which values of a column no frame can hold, so that the model cannot be asked about them.

Pure. PostgreSQL's calendar is longer than Python's and than pandas' nanoseconds, it has infinite dates, and a database
without an encoding (SQL_ASCII) lets any bytes be text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from plantao.extract import moment

if TYPE_CHECKING:
    from plantao.validate.contract import Column

# Whole days since 1970.
OF_PYTHON = (-719_162, 2_932_896)
OF_NANOSECONDS = (-106_751, 106_750)


def unreadable(array: pa.Array) -> pa.Array | None:
    """Mark the texts whose bytes are not UTF-8; None when there are none."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([not _is_text(value) for value in array.cast(pa.binary())])
    return None


def _is_text(value: pa.Scalar) -> bool:
    try:
        (value.as_py() or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def beyond_the_frame(column: Column, array: pa.Array) -> pa.Array | None:
    """Mark the finite dates and moments that the column's dtype cannot hold; None when it can hold them all."""
    if column.kind == "date":
        return moment.is_outside(array, *OF_PYTHON)
    if "[ns" in column.dtype:
        return moment.is_outside(array, *OF_NANOSECONDS)
    return None
