"""Which rows may be scored: the contract, the job's own limits, and the reasons."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from plantao.config.job import ColumnRule
from plantao.models.contract import Column, Contract, differences
from plantao.validate.verdict import judge, rule_problems

X = Column(name="x", kind="float", dtype="float64", nullable=False, accepts_null=False)
GAPS = Column(name="y", kind="float", dtype="float64", nullable=True, accepts_null=True)
COUNT = Column(name="n", kind="integer", dtype="int64", nullable=False, accepts_null=False)
CITY = Column(
    name="city",
    kind="text",
    dtype="str",
    nullable=False,
    accepts_null=False,
    accepts_unknown=False,
    categories=("a", "b"),
)
WHEN = Column(name="when", kind="timestamp", dtype="datetime64[us, UTC]", nullable=False, accepts_null=False)

WHEN_TYPE = pa.timestamp("us", "UTC")


def verdict(columns, features, rules=None, keys=None, duplicates=None):
    count = len(features[0])
    keys = keys or [pa.array(range(count), pa.int64())]
    found = judge(keys, features, Contract(columns=tuple(columns)), rules or {}, duplicates)
    assert found.accepted.sum() + len(found.rejects) == count
    return [(r.row, r.reason, r.column) for r in found.rejects]


def test_good_rows_are_accepted():
    assert verdict([X, COUNT], [pa.array([1.0, 2.0]), pa.array([1, 2])]) == []


def test_each_bad_row_has_the_first_reason_that_applies():
    x = pa.array([1.0, None, float("nan"), float("inf"), 1.0])
    city = pa.array(["a", "zzz", "a", "b", "zzz"])
    assert verdict([X, CITY], [x, city]) == [
        (1, "null_feature", "x"),
        (2, "not_finite", "x"),
        (3, "not_finite", "x"),
        (4, "unknown_category", "city"),
    ]


def test_a_key_is_looked_at_before_anything_else():
    keys = [pa.array([1, None, 3], pa.int64()), pa.array(["a", "b", None])]
    assert verdict([X], [pa.array([None, None, None], pa.float64())], keys=keys) == [
        (0, "null_feature", "x"),
        (1, "null_key", None),
        (2, "null_key", None),
    ]


def test_double_keys_are_set_aside():
    marks = np.array([True, False, True])
    assert verdict([X], [pa.array([1.0, 1.0, 1.0])], duplicates=marks) == [
        (0, "duplicate_key", None),
        (2, "duplicate_key", None),
    ]


def test_where_the_training_had_gaps_a_gap_passes_but_infinity_does_not():
    values = pa.array([None, float("nan"), float("-inf"), 1.0])
    assert verdict([GAPS], [values]) == [(2, "not_finite", "y")]


def test_what_no_frame_can_hold_is_set_aside():
    """PostgreSQL's infinities are the largest and the smallest number of microseconds or days since 2000."""
    smallest, since_2000 = -(2**63), 946_684_800_000_000
    when = pa.array([0, smallest + since_2000, smallest + since_2000 - 1, None], pa.int64()).cast(WHEN_TYPE)
    assert verdict([WHEN], [when]) == [
        (1, "not_finite", "when"),
        (2, "not_finite", "when"),
        (3, "null_feature", "when"),
    ]
    day = Column(name="day", kind="date", dtype="object", nullable=True, accepts_null=True)
    days = pa.array([0, 2_932_896, 2_932_897, -719_162, -719_163, None], pa.int32()).cast(pa.date32())
    assert verdict([day], [days]) == [(2, "out_of_range", "day"), (4, "out_of_range", "day")]
    text = pa.array([b"S\xc3\xa3o", b"S\xe3o", None, b""]).view(pa.string())
    plain = Column(name="city", kind="text", dtype="str", nullable=True, accepts_null=True)
    assert verdict([plain], [text]) == [(1, "out_of_range", "city")]


def test_the_job_may_be_stricter_than_the_contract():
    rules = {"y": ColumnRule(nullable=False, min=0, max=2), "n": ColumnRule(min=1), "city": ColumnRule(values=("a",))}
    y = pa.array([None, -1.0, 3.0, 1.0, 1.0, 1.0])
    n = pa.array([1, 1, 1, 0, 1, 1])
    city = pa.array(["a", "a", "a", "a", "b", "a"])
    assert [(row, reason) for row, reason, _ in verdict([GAPS, COUNT, CITY], [y, n, city], rules)] == [
        (0, "null_feature"),
        (1, "out_of_range"),
        (2, "out_of_range"),
        (3, "out_of_range"),
        (4, "out_of_range"),
    ]


def test_the_job_may_let_gaps_pass_where_the_model_can_bear_them():
    bearing = X.model_copy(update={"accepts_null": True})
    assert verdict([bearing], [pa.array([None, 1.0])], {"x": ColumnRule(nullable=True)}) == []


def test_rules_that_cannot_be_kept_are_named():
    contract = Contract(columns=(X, CITY))
    rules = {"z": ColumnRule(min=1), "x": ColumnRule(nullable=True), "city": ColumnRule(max=3)}
    found = rule_problems(rules, contract)
    assert "[validate.columns.z] is about no column of the model; its columns are x, city" in found
    assert "[validate.columns.x] nullable: the model fails when 'x' is NULL" in found
    assert "[validate.columns.city] min and max: the column is text, not a number" in found


def test_an_empty_batch_has_no_faults():
    assert verdict([X, CITY], [pa.array([], pa.float64()), pa.array([], pa.string())]) == []


@pytest.mark.parametrize(
    ("column", "source", "fine"),
    [
        (X, "float8", True), (X, "float4", True), (X, "numeric", True), (X, "int8", True), (X, "text", False),
        (X, "bool", False), (COUNT, "int2", True), (COUNT, "float8", False), (COUNT, "numeric", False),
        (CITY, "varchar", True), (CITY, "enum", True), (CITY, "int4", False), (WHEN, "timestamptz", True),
        (WHEN, "timestamp", False), (WHEN, "date", False),
    ],
)  # fmt: skip
def test_only_types_that_keep_a_values_meaning_are_taken(column, source, fine):
    assert (differences(Contract(columns=(column,)), {column.name: source}) == []) is fine


def test_every_difference_is_named_at_once_and_new_columns_do_not_matter():
    contract = Contract(columns=(X, COUNT, CITY))
    assert differences(contract, {"x_2": "float8", "n": "text", "city": "text", "new": "text"}) == [
        "column 'x' is missing (there is a column 'x_2': was it renamed?)",
        "column 'n' is text, but the model was trained on integer (int8, int2, int4)",
    ]
