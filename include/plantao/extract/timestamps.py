"""Dates and moments as PostgreSQL has them: also before year 1, after year 9999, and infinite.

Pure. They travel as whole numbers from 1970 on, where the two infinities, which PostgreSQL keeps as the largest and the
smallest number from 2000 on, come out as numbers below its first day.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FIRST_DAY = -2_440_588
"""4714-11-24 BC, before which PostgreSQL has no day."""
MICROSECONDS = 86_400_000_000
FROM_2000 = 10_957


def numbers(array: pa.Array) -> pa.Array:
    """Return days or microseconds since 1970."""
    return array.cast(pa.int32() if pa.types.is_date32(array.type) else pa.int64())


def per_day(kind: pa.DataType) -> int:
    """Return how many steps of the numbers a day has."""
    return 1 if pa.types.is_date32(kind) else MICROSECONDS


def is_infinite(array: pa.Array) -> pa.Array:
    """Mark what is infinite; NULL is not."""
    return pc.fill_null(pc.less(numbers(array), FIRST_DAY * per_day(array.type)), False)


def is_outside(array: pa.Array, first: int, last: int) -> pa.Array:
    """Mark what is before the day `first` or after the day `last`, both since 1970; NULL is not."""
    steps = per_day(array.type)
    found = numbers(array)
    return pc.fill_null(pc.or_(pc.less(found, first * steps), pc.greater_equal(found, (last + 1) * steps)), False)


def shown(scalar: Any) -> str:
    """Return a date or moment as PostgreSQL reads it."""
    try:
        return str(scalar.as_py().isoformat())
    except (OverflowError, ValueError):
        return _beyond_python(scalar)


def _beyond_python(scalar: Any) -> str:
    is_date = pa.types.is_date32(scalar.type)
    number = scalar.cast(pa.int32() if is_date else pa.int64()).as_py()
    steps = per_day(scalar.type)
    day, rest = divmod(number, steps)
    if day < FIRST_DAY:
        smallest = -(2**31) + FROM_2000 if is_date else -(2**63) + FROM_2000 * MICROSECONDS
        return "-infinity" if number == smallest else "infinity"
    date = np.datetime64(day, "D")
    year = int(date.astype("datetime64[Y]").astype(int)) + 1970
    month = int(date.astype("datetime64[M]").astype(int)) % 12 + 1
    in_month = int((date - date.astype("datetime64[M]").astype("datetime64[D]")).astype(int)) + 1
    text = f"{year if year > 0 else 1 - year:04d}-{month:02d}-{in_month:02d}"
    if not is_date:
        seconds, fraction = divmod(rest, 1_000_000)
        zone = "+00" if scalar.type.tz else ""
        text += f" {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:06d}{zone}"
    return text if year > 0 else f"{text} BC"
