"""Numbers that travel in one array come apart as they were: bit by bit, and with their gaps."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from plantao.extract.packing import Packing, apart
from plantao.extract.query import select_features
from plantao.models.contract import Column, Contract

DOUBLES = st.none() | st.floats(width=64)
SHORT = st.none() | st.integers(-(2**31), 2**31 - 1)
WHOLE = st.none() | st.integers(-(2**63), 2**63 - 1)


def sent(row, code, oid):
    """Return what PostgreSQL's array_send makes of a row."""
    elements = [struct.pack(">i", -1) if v is None else struct.pack(f">i{code}", 8, v) for v in row]
    return struct.pack(">iiiii", 1, int(None in row), oid, len(row), 1) + b"".join(elements)


def bits(value, code):
    return struct.pack(f">{code}", value)


@given(data=st.data(), width=st.integers(2, 5), kind=st.sampled_from([("f8", "d", 701), ("i8", "q", 20)]))
def test_arrays_come_apart_as_they_were_sent(data, width, kind):
    dtype, code, oid = kind
    rows = data.draw(st.lists(st.tuples(*[DOUBLES if code == "d" else WHOLE] * width), max_size=20))
    start = data.draw(st.integers(0, len(rows)))
    array = pa.array([sent(row, code, oid) for row in rows], pa.binary()).slice(start)
    values, missing = apart(array, width, dtype)
    assert values.shape == (width, len(rows) - start)
    for place in range(width):
        for at, row in enumerate(rows[start:]):
            assert (row[place] is None) == (missing is not None and bool(missing[place, at]))
            if row[place] is not None:
                assert bits(values[place, at].item(), code) == bits(row[place], code)


def packing_of(**types):
    kinds = {"float8": "float", "text": "text", "int2": "integer", "int4": "integer", "int8": "integer"}
    columns = [
        Column(name=name, kind=kinds[kind], dtype="", nullable=True, accepts_null=True) for name, kind in types.items()
    ]
    return Packing(select_features([Contract(columns=tuple(columns))], types))


def test_columns_keep_their_places_and_one_that_is_alone_travels_alone():
    packing = packing_of(c0="float8", c1="text", c2="float8", c3="int8")
    assert len(packing.columns) == 3
    batch = pa.record_batch(
        [
            pa.array([7]),
            pa.array([sent((1.5, None), "d", 701)], pa.binary()),
            pa.array(["Porto"]),
            pa.array([2**60]),
        ],
        ["k0", "doubles", "f1", "f3"],
    )
    found = packing.unpack(batch).to_pylist()
    assert found == [{"k0": 7, "f1": "Porto", "f3": 2**60, "f0": 1.5, "f2": None}]
    assert packing.unpack(batch.slice(1)).num_rows == 0
    assert np.isnan(apart(pa.array([sent((np.nan, 1.0), "d", 701)], pa.binary()), 2, "f8")[0][0, 0])


@given(rows=st.lists(st.tuples(SHORT, DOUBLES, SHORT), max_size=20))
def test_short_whole_numbers_travel_as_doubles_and_are_whole_again(rows):
    packing = packing_of(c0="int4", c1="float8", c2="int2")
    array = pa.array([sent([v if v is None else float(v) for v in row], "d", 701) for row in rows], pa.binary())
    found = packing.unpack(pa.record_batch([array], ["doubles"]))
    for place in (0, 2):
        assert found.column(f"f{place}").type == pa.int64()
        assert found.column(f"f{place}").to_pylist() == [row[place] for row in rows]
    assert [v is None or bits(v, "d") for v in found.column("f1").to_pylist()] == [
        row[1] is None or bits(row[1], "d") for row in rows
    ]
