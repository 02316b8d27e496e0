"""The daily state: however the rows come, it is what one would count by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from plantao.measure.profile.bins import number_cells, reached, score_bin
from plantao.measure.profile.sketch import MISSING, OTHER, Sketch, added
from plantao.measure.reference import reference_profile
from plantao.models.contract import Column, Contract
from plantao.models.manifest import Output
from plantao.score.batch import BatchResult, ScoredBatch
from plantao.score.predict import Answers

CONTRACT = Contract(
    columns=(
        Column(name="x", kind="float", dtype="float64", nullable=True, accepts_null=True),
        Column(name="n", kind="integer", dtype="int64", nullable=True, accepts_null=True),
        Column(name="city", kind="text", dtype="str", nullable=True, accepts_null=True, categories=("A", "B", "C")),
        Column(name="yes", kind="boolean", dtype="bool", nullable=False, accepts_null=False),
    )
)
BINARY = Output(kind="binary", classes=(False, True), positive=True)
ZONE = ZoneInfo("America/New_York")
FRAME = pd.DataFrame(
    {
        "x": np.linspace(-1, 1, 500),
        "n": np.arange(500) % 7,
        "city": np.array(["A", "B"])[np.arange(500) % 2],
        "yes": np.arange(500) % 3 == 0,
    }
)
PROBABILITY = np.linspace(0, 1, 500)
REFERENCE = reference_profile(FRAME, CONTRACT, np.stack([1 - PROBABILITY, PROBABILITY], 1), BINARY)


def batch(rows: list[tuple]) -> BatchResult:
    """Return rows (x, n, city, yes, score, hours after 2013-03-09T00Z) as a batch that was scored."""
    x, n, city, yes, score, hours = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 6
    start = np.datetime64("2013-03-09T00:00:00", "us")
    times = pa.array(start + np.array(hours, "timedelta64[h]").astype("timedelta64[us]"), pa.timestamp("us", "UTC"))
    features = [
        pa.array(x, pa.float64()),
        pa.array(n, pa.int64()),
        pa.array(city, pa.string()),
        pa.array(yes, pa.bool_()),
    ]
    scores = np.array(score, float)
    scored = ScoredBatch([], times, None, Answers(scores >= 0.35, scores), np.zeros(len(rows), bool))
    return BatchResult(len(rows), 0, scored, features, [], [features[2]])


def folded(*batches: BatchResult, known: tuple[str, ...] = ()) -> Sketch:
    sketch = Sketch(CONTRACT, BINARY, REFERENCE, ZONE, {"city": known})
    for one in batches:
        sketch.add(one)
    return sketch


number = st.one_of(st.none(), st.floats(-3, 3), st.sampled_from([-1.0, 1.0, 0.0, 1e300, -1e300]))
row = st.tuples(
    number,
    st.one_of(st.none(), st.integers(-2, 9)),
    st.sampled_from(["A", "B", "C", "Z", None]),
    st.booleans(),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.35])),
    st.integers(0, 80),
)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(row, max_size=40), st.integers(0, 40))
def test_the_way_the_rows_are_cut_into_batches_does_not_matter(rows, cut):
    whole, parts = folded(batch(rows)), folded(batch(rows[:cut]), batch(rows[cut:]))
    found = parts.states()
    assert whole.states().keys() == found.keys()
    for key, (count, state) in whole.states().items():
        assert found[key][0] == count
        _same(state, found[key][1])


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(row, min_size=1, max_size=40))
def test_each_day_is_what_one_counts_by_hand(rows):
    states = folded(batch(rows)).states()
    # The clock of New York goes forward in the night to 10 March, so a day there has 23 hours.
    days = [(pd.Timestamp("2013-03-09", tz="UTC") + pd.Timedelta(hours=r[5])).tz_convert(ZONE).date() for r in rows]
    assert {key[0] for key in states} == set(days)
    for day in set(days):
        mine = [r for r, d in zip(rows, days, strict=True) if d == day]
        _check_number(states[day, "", "x"], [r[0] for r in mine], REFERENCE["columns"]["x"])
        _check_number(states[day, "", "n"], [r[1] for r in mine], REFERENCE["columns"]["n"])
        count, city = states[day, "", "city"]
        names = [r[2] for r in mine]
        listed = [names.count(value) for value in REFERENCE["columns"]["city"]["values"]]
        assert count == len(mine)
        assert city == {"rows": count, "missing": names.count(None), "counts": listed, "other": names.count("C"),
                        "unseen": names.count("Z")}  # fmt: skip
        score = states[day, "", ""][1]
        assert score["decisions"] == {"true": sum(r[4] >= 0.35 for r in mine), "false": sum(r[4] < 0.35 for r in mine)}
        expected = np.bincount([min(int(r[4] * 200), 199) for r in mine], minlength=200)
        assert score["scores"]["true"] == expected.tolist()
        segments = {key[1].removeprefix("city=") for key in states if key[0] == day and key[1]}
        assert segments == {MISSING if name is None else name for name in names}
        assert sum(states[key][0] for key in states if key[0] == day and key[1]) == len(mine)


def _check_number(found, values, profile):
    count, state = found
    known = np.array([v for v in values if v is not None], float)
    edges, far = np.array(profile["edges"]), np.clip(known - profile["mean"], -1e100, 1e100)
    inside = known[(known >= edges[0]) & (known <= edges[-1])]
    assert count == len(values) == state["rows"]
    assert state["missing"] == values.count(None)
    assert state["counts"][0] == (known < edges[0]).sum()
    assert state["counts"][-1] == (known > edges[-1]).sum()
    assert state["counts"][1:-1] == np.histogram(inside, edges)[0].tolist()
    rounding = 1e-9 * max(float(np.abs(far).sum()), 1.0)  # huge values of both signs cancel
    assert sum(state["sums"]) == pytest.approx(float(far.sum()), abs=rounding)
    assert state["squares"] == pytest.approx(float((far**2).sum()), rel=1e-9, abs=1e-9)


def _same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            _same(one[name], other[name])
    elif isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            _same(a, b)
    else:
        # As pytest.approx says it, which is slow for half a million numbers.
        assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(st.floats(-1e300, 1e300), max_size=22, unique=True).map(sorted),
    st.lists(st.floats(-1e300, 1e300), max_size=60),
)
def test_the_edges_that_were_reached_are_those_that_searchsorted_finds(edges, values):
    edges = np.array(edges, float)
    asked = np.concatenate([values, edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
    assert reached(edges, asked).tolist() == np.searchsorted(edges, asked, "right").tolist()


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["normal", "skewed", "whole"]))
def test_the_edges_that_were_reached_are_right_on_quantiles_too(seed, shape):
    rng = np.random.default_rng(seed)
    values = {
        "normal": rng.normal(size=400),
        "skewed": rng.exponential(size=400) ** 3,
        "whole": rng.integers(0, 9, 400),
    }
    edges = np.unique(np.quantile(values[shape], np.linspace(0, 1, 21)).astype(float))
    asked = np.concatenate([values[shape], edges, rng.normal(size=400, scale=10)]).astype(float)
    assert reached(edges, asked).tolist() == np.searchsorted(edges, asked, "right").tolist()


def test_edges_of_any_number_are_counted():
    edges = np.arange(1000.0)
    assert reached(edges, edges - 0.5).tolist() == list(range(1000))


def test_numbers_that_are_none_have_a_cell_of_their_own():
    cells = number_cells({"edges": [0.0, 1.0], "mean": 0.5})
    codes, distance = cells.place(pa.array([0.5, float("nan"), float("inf"), None, -1.0, 2.0]))
    assert codes.tolist() == [1, 3, 3, 4, 0, 2]
    assert distance.tolist() == [0.0, 0.0, 0.0, 0.0, -1.5, 1.5]


@pytest.mark.parametrize(("edges", "expected"), [([], [1, 1, 1]), ([5.0], [0, 1, 2])])
def test_a_column_without_values_or_with_one_has_cells_too(edges, expected):
    cells = number_cells({"edges": edges, "mean": 5.0})
    codes, _ = cells.place(pa.array([4.0, 5.0, 6.0]))
    if edges:
        assert codes.tolist() == expected
    assert cells.count == cells.valued + 2


def test_a_score_of_one_is_in_the_last_bin():
    assert score_bin(np.array([0.0, 0.0049, 0.005, 0.999, 1.0])).tolist() == [0, 0, 1, 199, 199]


def test_fifty_values_of_a_segment_are_counted_apart_and_the_rest_together():
    rows = [(0.0, 1, f"c{i:03d}", True, 0.5, 12) for i in range(70)]
    states = folded(batch(rows)).states()
    segments = {key[1]: count for key, (count, _) in states.items() if key[1]}
    assert len(segments) == 51
    assert segments[f"city={OTHER}"] == 20
    # Those that are known keep their place, whoever comes first today.
    later = folded(batch(rows), known=("c069",)).states()
    assert (date(2013, 3, 9), "city=c069", "") in later


def test_states_add_up_by_name_and_by_place():
    assert added([{"a": 1, "b": [1, 2], "c": {"x": 1}}, {"a": 2, "b": [3, 4], "c": {"y": 5}}]) == {
        "a": 3, "b": [4, 6], "c": {"x": 1, "y": 5}}  # fmt: skip


def test_a_regression_and_several_classes_are_folded_too():
    several = Output(kind="multiclass", classes=("a", "b", "c"))
    scores = np.array([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]])
    reference = reference_profile(FRAME, CONTRACT, np.full((500, 3), 1 / 3), several)
    sketch = Sketch(CONTRACT, several, reference, ZONE)
    given_ = batch([(0.0, 1, "A", True, 0.5, 12), (0.0, 1, "B", True, 0.7, 13)])
    scored = ScoredBatch([], given_.scored.timestamps, None, Answers(np.array(["b", "a"]), scores.max(1), scores), None)
    sketch.add(BatchResult(2, 0, scored, given_.features, []))
    state = sketch.states()[date(2013, 3, 9), "", ""][1]
    assert state["decisions"] == {"a": 1, "b": 1, "c": 0}
    assert state["scores"]["a"][40] == state["scores"]["a"][140] == 1
    assert state["chosen"]["b"][100] == 1
    assert sum(state["chosen"]["b"]) == 1

    number = Output(kind="regression")
    reference = reference_profile(FRAME, CONTRACT, np.linspace(0, 10, 500)[:, None], number)
    sketch = Sketch(CONTRACT, number, reference, ZONE)
    scored = ScoredBatch(
        [], given_.scored.timestamps, None, Answers(np.array([5.0, 11.0]), np.array([5.0, 11.0])), None
    )
    sketch.add(BatchResult(2, 0, scored, given_.features, []))
    state = sketch.states()[date(2013, 3, 9), "", ""][1]
    assert state["counts"][-1] == 1
    assert sum(state["counts"]) == 2


def test_days_far_apart_and_moments_without_a_date_are_counted_too():
    rows = [(0.0, 1, "A", True, 0.5, hours) for hours in (0, 24 * 400, 24 * 400 + 1)]
    far = batch(rows)
    states = folded(far).states()
    counts = {key[0]: count for key, (count, _) in states.items() if key[1:] == ("", "")}
    assert counts == {date(2013, 3, 8): 1, date(2014, 4, 12): 2}
    times = pa.array([-(2**62), 2**62, 0], pa.int64()).cast(pa.timestamp("us", "UTC"))
    odd = folded(replace(far, scored=replace(far.scored, timestamps=times)))
    assert odd.days == [date(1, 1, 3), date(1969, 12, 31), date(9999, 12, 27)]
