"""What is laid out in the binary COPY format comes back from PostgreSQL equal, to the last bit."""

from __future__ import annotations

import math
import struct
import uuid
from datetime import UTC, date, datetime, timedelta

import numpy as np
import psycopg2
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import examples
from plantao.load import copy_format
from plantao.postgres.session import dsn

# PostgreSQL has no NUL in text, and UTF-8 no lone surrogates.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)
INSTANTS = st.integers(-719_161 * 86_400 * 10**6, 2_932_895 * 86_400 * 10**6).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
ROWS = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.integers(-(2**31), 2**31 - 1),
        st.integers(-(2**15), 2**15 - 1),
        FLOATS,
        st.booleans(),
        TEXT,
        st.uuids().map(str),
        st.dates(date(1, 1, 1), date(9999, 12, 31)),
        INSTANTS,
        st.none() | INSTANTS,
        st.dictionaries(TEXT, FLOATS, max_size=3),
    ),
    min_size=1,
    max_size=20,
)
KINDS = {
    "b": ("bigint", pa.int64()),
    "i": ("integer", pa.int32()),
    "s": ("smallint", pa.int16()),
    "f": ("double precision", pa.float64()),
    "o": ("boolean", pa.bool_()),
    "t": ("text", pa.string()),
    "u": ("uuid", pa.string()),
    "d": ("date", pa.date32()),
    "z": ("timestamp with time zone", pa.timestamp("us", "UTC")),
    "n": ("timestamp with time zone", pa.timestamp("us", "UTC")),
}


@pytest.fixture
def table(world):
    """A connection on a table with a column of each kind, emptied by every rollback."""
    connection = psycopg2.connect(dsn(world.owner("client_db"), "tests"))
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in KINDS.items())
    with connection, connection.cursor() as cursor:
        cursor.execute(f"create table kinds ({columns}, j jsonb, place bigint)")
        cursor.execute("set timezone = 'UTC'")
    yield connection
    connection.close()


def write(cursor, rows) -> None:
    columns = list(zip(*rows, strict=True))
    encoded = [
        copy_format.column(kind, pa.array(values, arrow))
        for (kind, arrow), values in zip(KINDS.values(), columns, strict=False)
    ]
    encoded += [copy_format.json_column(columns[-1]), copy_format.column("bigint", np.arange(len(rows)))]
    cursor.copy_expert("copy kinds from stdin (format binary)", copy_format.encode(encoded))


@given(rows=ROWS)
@settings(
    max_examples=examples(120),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_value_comes_back_equal(table, rows):
    with table.cursor() as cursor:
        write(cursor, rows)
        cursor.execute("select b, i, s, f, o, t, u::text, d, z, n, j from kinds order by place")
        found = cursor.fetchall()
        table.rollback()
    assert [row[:3] + row[4:10] for row in found] == [row[:3] + row[4:10] for row in rows]
    assert [_bits(row[3]) for row in found] == [_bits(row[3]) for row in rows]
    for mine, theirs in zip(rows, found, strict=True):
        assert mine[10].keys() == theirs[10].keys()
        assert all(math.isclose(theirs[10][key], value) for key, value in mine[10].items())


def _bits(value: float) -> bytes:
    return struct.pack(">d", value)


@given(values=st.lists(FLOATS, min_size=1, max_size=200), keys=st.integers(0, 2**40))
@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_rows_of_one_size_take_the_short_way_and_come_back_equal_too(table, values, keys):
    columns = [
        copy_format.column("bigint", np.arange(keys, keys + len(values))),
        copy_format.column("double precision", np.array(values)),
        copy_format.constant("timestamp with time zone", 1_364_774_400_000_000, len(values)),
        copy_format.constant("boolean", 1, len(values)),
    ]
    with table.cursor() as cursor:
        cursor.copy_expert("copy kinds (b, f, z, o) from stdin (format binary)", copy_format.encode(columns))
        cursor.execute("select b, f, z, o from kinds order by b")
        found = cursor.fetchall()
        table.rollback()
    moment = datetime(2013, 4, 1, tzinfo=UTC)
    assert [(row[0], _bits(row[1]), row[2], row[3]) for row in found] == [
        (keys + place, _bits(value), moment, True) for place, value in enumerate(values)
    ]


def test_a_slice_of_an_arrow_array_is_only_the_slice(table):
    whole = pa.array(["zero", "one", "two", "three"])
    ids = pa.array([str(uuid.UUID(int=i)) for i in range(4)])
    with table.cursor() as cursor:
        columns = [copy_format.column("text", whole.slice(1, 2)), copy_format.column("uuid", ids.slice(1, 2))]
        cursor.copy_expert("copy kinds (t, u) from stdin (format binary)", copy_format.encode(columns))
        cursor.execute("select t, u::text from kinds order by u")
        assert cursor.fetchall() == [("one", str(uuid.UUID(int=1))), ("two", str(uuid.UUID(int=2)))]


def test_a_value_that_is_missing_stays_missing_in_a_column_of_any_kind(table):
    columns = [
        copy_format.column(kind, pa.array([None, value], arrow))
        for value, (kind, arrow) in (("x", KINDS["t"]), (True, KINDS["o"]), (7, KINDS["i"]), (0.5, KINDS["f"]))
    ]
    with table.cursor() as cursor:
        cursor.copy_expert("copy kinds (t, o, i, f) from stdin (format binary)", copy_format.encode(columns))
        cursor.execute("select t, o, i, f from kinds order by t")
        assert cursor.fetchall() == [("x", True, 7, 0.5), (None, None, None, None)]
        table.rollback()
