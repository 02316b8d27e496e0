"""What a run's checks call broken, what they let pass, and what they say they cannot judge."""

from __future__ import annotations

from datetime import UTC, date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from plantao.config.job import CHECKS
from plantao.measure.detect.checks import COLUMN_CHECKS, findings, row_count
from plantao.measure.detect.findings import Break, NotJudged
from plantao.measure.profile.sketch import Sketch
from plantao.measure.reference import Days, as_arrow, reference_profile
from plantao.models.contract import Column, Contract
from plantao.models.manifest import Output
from plantao.score.batch import BatchResult, ScoredBatch
from plantao.score.predict import Answers

CALM = {"count": 90, "missing_max": 0.02, "unseen_max": 0.0, "largest_cell_max": 0.5, "outside_max": 0.0}
NUMBER = {"rows": 90_000, "missing": 900, "edges": [0, 1, 2, 3, 4], "counts": [22_275] * 4, "mean": 2, "std": 1}
NAME = {"rows": 90_000, "missing": 0, "values": {"AA": 50_000, "UA": 30_000}, "other": 10_000}
SCORE = {"bins": 200, "counts": [450] * 200, "mean": 0.5, "std": 0.29}


def reference(days=CALM):
    columns = {"hour": NUMBER, "carrier": NAME, "at": {"rows": 90_000, "missing": 0}}
    found = {"columns": columns, "score": SCORE}
    if days is not None:
        found["days"] = {"columns": dict.fromkeys(columns, days), "score": days, "rows": {}}
    return found


def number(counts=(0, 200, 200, 200, 200, 0), missing=0, other=0):
    return {"rows": sum(counts) + missing + other, "missing": missing, "counts": list(counts), "other": other}


def name(counts=(450, 250), missing=0, other=100, unseen=0):
    rows = sum(counts) + missing + other + unseen
    return {"rows": rows, "missing": missing, "counts": list(counts), "other": other, "unseen": unseen}


def score(counts, total=0.0, squares=80.0):
    return {"rows": sum(counts), "scores": {"true": list(counts)}, "sum": total, "squares": squares}


FINE = {"hour": number(), "carrier": name(), "at": {"rows": 800, "missing": 0}, "": score([4] * 200)}


def judge(days=CALM, **states):
    """Judge fine states, with some of them replaced; `score` stands for the score."""
    changed = {("" if key == "score" else key): value for key, value in states.items()}
    return findings(reference(days), FINE | changed)


def names(found):
    return [(one.check, one.column) for one in found.breaks]


def test_the_checks_are_those_of_the_job_file():
    assert {"row_count", "score", *COLUMN_CHECKS} == set(CHECKS)


def test_a_run_like_its_reference_is_fine():
    for days in (CALM, None):
        found = judge(days)
        assert found.breaks == []
        assert found.not_judged == []


# --- nulls -----------------------------------------------------------------------------------------------------------


def test_more_nulls_than_on_the_worst_day_and_a_point_are_a_break():
    (found,) = judge(hour=number((0, 190, 190, 190, 190, 0), missing=40)).breaks
    assert (found.check, found.column, found.n) == ("null_share", "hour", 800)
    assert found.value == pytest.approx(0.05)
    assert found.limit == pytest.approx(0.03)
    for said in ("5.0% of 800 rows", "2.0%", "3.0%", "Next:"):
        assert said in found.message
    assert judge(hour=number((0, 194, 194, 194, 194, 0), missing=24)).breaks == []


def test_without_reference_days_the_whole_and_five_points_are_the_limit_and_it_says_so():
    assert judge(None, hour=number((0, 190, 190, 190, 190, 0), missing=40)).breaks == []
    few = CALM | {"count": 29}
    for days in (None, few):
        (found,) = judge(days, hour=number((0, 180, 180, 180, 180, 0), missing=80)).breaks
        assert found.limit == pytest.approx(0.06)
        assert "too few days" in found.message


def test_one_null_among_thirty_rows_is_luck():
    assert judge(hour=number((0, 8, 8, 8, 7, 0), missing=1)).breaks == []


def test_a_column_that_is_all_null_is_one_break_and_not_frozen_too():
    for states in ({"hour": number((0, 0, 0, 0, 0, 0), missing=800)}, {"carrier": name((0, 0), 800, 0)}):
        (found,) = judge(**states).breaks
        assert found.check == "null_share"
        assert found.value == 1


def test_a_point_in_time_is_watched_for_nulls_only():
    assert names(judge(at={"rows": 800, "missing": 800})) == [("null_share", "at")]


# --- unseen, frozen, range -------------------------------------------------------------------------------------------


def test_more_than_one_percent_of_unseen_values_are_a_break():
    assert judge(carrier=name((450, 242), unseen=8)).breaks == []
    (found,) = judge(carrier=name((450, 241), unseen=9)).breaks
    assert (found.check, found.column) == ("unseen_share", "carrier")
    assert "never saw" in found.message


def test_two_odd_rows_of_a_small_run_are_no_break():
    assert judge(carrier=name((20, 8), other=2, unseen=2)).breaks == []
    assert names(judge(carrier=name((20, 8), other=2, unseen=3))) == [("unseen_share", "carrier")]


def test_a_frozen_column_is_a_break_unless_the_reference_had_days_like_it():
    frozen = number((0, 800, 0, 0, 0, 0))
    (found,) = judge(hour=frozen).breaks
    assert (found.check, found.value, found.limit) == ("frozen_column", 1, 0.99)
    assert names(judge(carrier=name((0, 800), other=0))) == [("frozen_column", "carrier")]
    constant_within_a_day = CALM | {"largest_cell_max": 1.0}
    assert judge(constant_within_a_day, hour=frozen).breaks == []
    assert judge(hour=number((0, 780, 20, 0, 0, 0))).breaks == []


def test_without_reference_days_a_column_that_is_constant_in_a_run_may_be_so_every_day():
    constant = number((0, 800, 0, 0, 0, 0)) | {"sums": [0, -1200, 0, 0, 0, 0], "squares": 800 * 1.5**2}
    found = judge(None, hour=constant, carrier=name((0, 800), other=0))
    assert found.breaks == []
    assert {(n.check, n.column, n.status) for n in found.not_judged} == {
        ("frozen_column", "hour", "not_enough"), ("frozen_column", "carrier", "not_enough")
    }  # fmt: skip
    assert "is so every day nobody knows" in found.not_judged[0].message
    # What varies a little is no constant of a day: another unit.
    little = constant | {"squares": 800 * (1.5**2 + 0.005**2)}
    assert names(judge(None, hour=little)) == [("frozen_column", "hour")]


def test_values_around_nothing_that_were_divided_by_a_thousand_are_frozen_on_both_sides_of_an_edge():
    halves = number((0, 0, 400, 400, 0, 0)) | {"sums": [0, 0, -0.3, 0.3, 0, 0], "squares": 800 * 0.001**2}
    known = reference()
    known["columns"]["hour"] = NUMBER | {"counts": [22_275 / 5] * 20, "edges": list(range(21))}
    (found,) = findings(known, FINE | {"hour": halves}).breaks
    assert found.check == "frozen_column"
    assert "spread" in found.message
    usual = halves | {"squares": 800.0}
    assert findings(known, FINE | {"hour": usual}).breaks == []


def test_a_part_of_a_day_is_not_asked_whether_it_is_frozen():
    found = findings(reference(), FINE | {"hour": number((0, 800, 0, 0, 0, 0))}, whole_day=False)
    assert found.breaks == []
    assert ("frozen_column", "hour", "provisional") in {(n.check, n.column, n.status) for n in found.not_judged}


def test_a_changed_unit_leaves_the_training_range():
    above = judge(hour=number((0, 100, 100, 0, 0, 600))).breaks
    assert [(b.check, b.value, b.limit) for b in above] == [("range", 0.75, 0.05)]
    assert "ends at 4" in above[0].message
    assert "starts at 0" in judge(hour=number((800, 0, 0, 0, 0, 0))).breaks[0].message
    assert judge(hour=number((20, 200, 200, 200, 160, 20))).breaks == []
    wide = CALM | {"outside_max": 0.72}
    assert judge(wide, hour=number((0, 100, 100, 0, 0, 600))).breaks == []


def test_a_record_is_no_change_of_unit():
    # A fifth of the rows above 4: on average 0.3 beyond it, then 0.7; the standard deviation is 1.
    record = number((0, 160, 160, 160, 160, 160))
    assert judge(hour=record | {"sums": [0, 0, 0, 0, 0, 160 * 2.3], "squares": 900.0}).breaks == []
    assert names(judge(hour=record | {"sums": [0, 0, 0, 0, 0, 160 * 2.7], "squares": 900.0})) == [("range", "hour")]
    most = number((480, 80, 80, 80, 80, 0)) | {"sums": [480 * -2.1, 0, 0, 0, 0, 0], "squares": 900.0}
    assert names(judge(hour=most)) == [("range", "hour")]


def test_infinite_values_are_outside_every_range():
    (found,) = judge(hour=number((0, 190, 190, 190, 150, 0), other=80)).breaks
    assert found.check == "range"
    assert "not finite" in found.message


# --- the score -------------------------------------------------------------------------------------------------------


def test_a_score_that_no_longer_varies_is_a_break():
    in_one_bin = [0] * 200
    in_one_bin[20] = 800
    (found,) = judge(score=score(in_one_bin)).breaks
    assert (found.check, found.column) == ("score", "")
    assert "in one bin" in found.message


def test_a_rare_event_is_no_constant_score_until_nothing_varies():
    rare = reference()
    rare["score"] = {"bins": 200, "counts": [89_000, 1_000, *[0] * 198], "mean": 0.002, "std": 0.001}
    states = FINE | {"": score([800, *[0] * 199], 0.0, 800 * 0.001**2)}
    assert findings(rare, states).breaks == []
    (found,) = findings(rare, FINE | {"": score([800, *[0] * 199], 0.8, 0.8**2 / 800)}).breaks
    assert "all 800 scores are the same" in found.message


def test_of_several_classes_all_must_be_constant():
    known = reference()
    known["score"] = {"classes": {"a": SCORE, "b": SCORE}}
    one = [800, *[0] * 199]
    state = {"rows": 800, "scores": {"a": one, "b": [4] * 200}, "sum": 0.0, "squares": 9.0}
    assert findings(known, FINE | {"": state}).breaks == []
    state["scores"]["b"] = one
    assert names(findings(known, FINE | {"": state})) == [("score", "")]


@pytest.mark.parametrize(
    "state",
    [
        {"rows": 900, "scores": {"true": [4] * 200}, "sum": 0.0, "squares": 80.0},
        score([4] * 200, total=float("nan")),
        score([4] * 200, squares=float("inf")),
        score([4] * 200, total=800 * 0.7),
        score([4] * 200, total=-800 * 0.7),
    ],
)
def test_a_score_that_cannot_be_is_a_break(state):
    (found,) = judge(score=state).breaks
    assert found.check == "score"
    assert "impossible" in found.message


def test_the_score_of_a_regression_is_watched_too():
    known = reference()
    known["score"] = {"edges": [0, 1, 2, 3, 4], "counts": [20] * 4, "mean": 2, "std": 1}
    fine = {"rows": 800, "counts": [0, 200, 200, 200, 200, 0], "sums": [0.0] * 6, "squares": 800.0}
    assert findings(known, FINE | {"": fine}).breaks == []
    assert names(findings(known, FINE | {"": fine | {"squares": float("nan")}})) == [("score", "")]
    assert names(findings(known, FINE | {"": fine | {"counts": [0, 0, 800, 0, 0, 0]}})) == [("score", "")]


# --- what cannot be judged -------------------------------------------------------------------------------------------


def test_three_rows_are_not_enough_and_are_said_so():
    found = judge(hour=number((0, 0, 0, 0, 0, 0), missing=3))
    assert found.breaks == []
    assert {(n.column, n.status) for n in found.not_judged} == {("hour", "not_enough")}
    assert {n.check for n in found.not_judged} == set(COLUMN_CHECKS)


def test_one_bad_column_never_loses_the_others():
    for nonsense in ({}, {"rows": None}, {"rows": 800}, {"rows": 800, "missing": "x", "counts": "y"}, {"rows": "many"}):
        found = judge(hour=nonsense, carrier=name((0, 0), 800, 0))
        assert names(found) == [("null_share", "carrier")]
        assert ("null_share", "hour") in {(n.check, n.column) for n in found.not_judged}
        assert {n.status for n in found.not_judged} <= {"failed", "undefined"}


@pytest.mark.parametrize("profile", [{}, {"rows": 0, "missing": 0}, {"rows": 9, "missing": 9}, None])
def test_a_reference_without_values_never_raises(profile):
    known = reference()
    known["columns"]["hour"] = profile
    known["score"] = {}
    for state in (number(), number((0, 0)), {"rows": 800, "missing": 800}, number((0, 0, 0, 0, 0, 0), missing=800)):
        findings(known, FINE | {"hour": state})
    assert findings({}, {}).breaks == []


def test_a_column_that_had_no_value_in_training_is_undefined():
    known = reference()
    known["columns"]["hour"] = {"rows": 9000, "missing": 9000}
    found = findings(known, FINE | {"hour": {"rows": 800, "missing": 800}})
    assert found.breaks == []
    assert [(n.check, n.status) for n in found.not_judged] == [("frozen_column", "undefined")]


def test_a_constant_feature_is_fine_until_it_changes():
    known = reference(CALM | {"largest_cell_max": 1.0})
    known["columns"]["hour"] = {"rows": 9000, "missing": 0, "edges": [7.0], "counts": [9000], "mean": 7, "std": 0}
    assert findings(known, FINE | {"hour": number((0, 800, 0))}).breaks == []
    assert names(findings(known, FINE | {"hour": number((0, 0, 800))})) == [("range", "hour")]


# --- the number of rows ----------------------------------------------------------------------------------------------

MONDAY = date(2013, 7, 1)
KNOWN = {"days": {"rows": {"1": [900, 920, 880, 900]}}}


def test_less_than_half_or_more_than_twice_the_usual_rows_are_a_break():
    assert row_count(MONDAY, 450, KNOWN, {}) is None
    assert row_count(MONDAY, 1800, KNOWN, {}) is None
    low, high = row_count(MONDAY, 449, KNOWN, {}), row_count(MONDAY, 1801, KNOWN, {})
    assert (low.value, low.limit, high.value, high.limit) == (449, 450, 1801, 1800)
    assert "Monday" in low.message
    assert isinstance(row_count(MONDAY, 0, KNOWN, {}), Break)


def test_only_the_same_weekday_before_the_day_counts_and_four_are_needed():
    history = {MONDAY + timedelta(days=d): 900 for d in (-20, -15, -14, -8, -7, -3, 7)}
    found = row_count(MONDAY, 5, {}, history)
    assert isinstance(found, NotJudged)
    assert found.status == "not_enough"
    assert isinstance(row_count(MONDAY, 5, {"days": {"rows": {"1": [900, 900]}}}, history), Break)


def test_a_business_that_grew_is_not_broken():
    grown = {MONDAY - timedelta(weeks=w): 2000 for w in range(1, 9)}
    assert row_count(MONDAY, 2100, KNOWN, grown) is None
    assert isinstance(row_count(MONDAY, 900, KNOWN, grown), Break)


def test_a_small_count_may_double_by_chance():
    small = {"days": {"rows": {"1": [3, 2, 4, 3]}}}
    assert row_count(MONDAY, 8, small, {}) is None
    assert isinstance(row_count(MONDAY, 30, small, {}), Break)


def test_the_severity_is_how_many_times_the_limit():
    assert Break("null_share", "a", 0.5, 0.1, 9, "").severity == pytest.approx(5)
    assert Break("row_count", "", 100, 400, 9, "").severity == pytest.approx(4)
    assert Break("row_count", "", 0, 400, 9, "").severity == pytest.approx(400)
    assert Break("score", "", 800, 0, 9, "").severity == 1


# --- with the states and the reference that a run really has ---------------------------------------------------------

KINDS = {"x": ("float", "float64"), "city": ("text", "str"), "dead": ("float", "float64")}
CONTRACT = Contract(
    columns=tuple(
        Column(name=name, kind=kind, dtype=dtype, nullable=True, accepts_null=True)
        for name, (kind, dtype) in KINDS.items()
    )
)
BINARY = Output(kind="binary", classes=(False, True), positive=True)


def frame(days, rng, rows=200):
    """Return rows of days in a row from 2013-01-01, with their scores and timestamps."""
    count = days * rows
    inputs = {"x": rng.normal(0, 1, count), "city": rng.choice(["A", "B", "C"], count), "dead": np.full(count, np.nan)}
    stamps = pd.Timestamp("2013-01-01 12:00", tz="UTC") + pd.to_timedelta(np.repeat(np.arange(days), rows), "D")
    return pd.DataFrame(inputs), rng.uniform(0, 1, count), pd.Series(stamps)


def test_the_checks_understand_what_the_scorer_folds():
    rng = np.random.default_rng(1)
    inputs, p, stamps = frame(40, rng)
    known = reference_profile(inputs, CONTRACT, np.stack([1 - p, p], 1), BINARY, Days(stamps, UTC))
    assert known["days"]["columns"]["x"]["count"] == 40

    def found(inputs, p, stamps):
        sketch = Sketch(CONTRACT, BINARY, known, UTC)
        features = [as_arrow(inputs[column.name], column) for column in CONTRACT.columns]
        scored = ScoredBatch([], pa.array(stamps, pa.timestamp("us", "UTC")), None, Answers(p > 0.5, p, None), None)
        sketch.add(BatchResult(len(p), 0, scored, features, []))
        return findings(known, {name: state for (_, _, name), (_, state) in sketch.states().items()})

    fine = found(*frame(1, rng))
    assert fine.breaks == []
    assert [(n.check, n.column, n.status) for n in fine.not_judged] == [("frozen_column", "dead", "undefined")]
    inputs, p, stamps = frame(1, rng)
    faults = {
        "x": [("null_share", np.nan), ("range", np.inf), ("frozen_column", 0.3), ("range", 99.0)],
        "city": [("null_share", None), ("unseen_share", "Z"), ("frozen_column", "B")],
    }
    for column, cases in faults.items():
        for check, value in cases:
            assert names(found(inputs.assign(**{column: value}), p, stamps)) == [(check, column)]
    assert names(found(inputs.assign(x=inputs["x"] / 1000), p, stamps)) == [("frozen_column", "x")]
    assert names(found(inputs, np.full(200, 0.3), stamps)) == [("score", "")]
