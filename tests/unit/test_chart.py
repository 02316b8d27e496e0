"""Pictures: each is a valid specification of the right size, whatever there is to draw."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from datetime import date, timedelta

import pytest

import story
from plantao.report.chart import heat_map, over_time, scores, segments, style, volume
from plantao.report.chart.words import METRICS, TEXTS, day, number, percent, say
from plantao.report.charts import PICTURES, WIDE
from plantao.report.data import ReportData
from plantao.report.point import Mean, Point, mean_of, week_means

pytestmark = pytest.mark.slow

DAYS = [date(2026, 1, 1) + timedelta(days=i) for i in range(400)]


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def drawn(picture, width: int) -> dict:
    """Draw it at twice its size, check how large it became, and return the specification."""
    found = size(style.png(picture, 2))[0] / 2
    # A concatenation cannot be fitted exactly; a few pixels are the room of a label.
    assert abs(found - width) <= 12, found
    return picture.to_dict()


@pytest.fixture(scope="module")
def told() -> ReportData:
    return story.data()


@pytest.mark.parametrize("language", ["en", "pt"])
@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_of_the_story_has_the_width_it_was_asked_for(told, name, language):
    for width in (360, 1100 if name in WIDE else 540):
        drawn(PICTURES[name](replace(told, language=language), width), width)


@pytest.mark.parametrize("name", PICTURES)
def test_without_any_figures_a_picture_says_so_or_is_none(told, name):
    nothing = ReportData("j", "", told.first, told.last, told.now)
    picture = PICTURES[name](nothing, 360)
    assert picture is None or drawn(picture, 360)


@pytest.mark.parametrize("name", PICTURES)
def test_one_day_is_enough_for_a_picture(told, name):
    day = told.first + timedelta(days=20)
    figures = [figure for figure in told.figures if figure.point.day == day]
    runs = [run for run in told.runs if run.day == day]
    drawn(PICTURES[name](replace(told, first=day, last=day, figures=figures, runs=runs), 360), 360)


@pytest.mark.parametrize("width", [360, 1100])
def test_400_days_fit(width):
    points = [Point(day, 0.7 + 0.001 * (i % 9), 0.68, 0.73, 900) for i, day in enumerate(DAYS)]
    drawn(over_time.chart([over_time.Track("roc_auc", points, points, 0.7, 0.02)], DAYS, width=width), width)
    cells = [heat_map.Cell(f"c{c}", day, (i + c) % 7 / 2) for c in range(30) for i, day in enumerate(DAYS)]
    spec = drawn(heat_map.chart(cells, [f"c{c}" for c in range(30)], DAYS, width=width), width)
    assert any("10 more columns" in line for line in [" ".join(spec["title"]["subtitle"])])
    drawn(volume.chart([volume.Volume(day, 900, 3) for day in DAYS], DAYS, width=width), width)


@pytest.mark.parametrize("status", ["provisional", "no_labels", "failed", "undefined", "not_enough"])
def test_days_that_may_not_be_judged_are_drawn_and_have_no_mean(status):
    points = [Point(day, 0.7, None, None, 20, status) for day in DAYS[:30]]
    spec = drawn(over_time.chart([over_time.Track("roc_auc", points, mean=0.7)], DAYS[:30], width=360), 360)
    assert "no day could be judged" in " ".join(spec["vconcat"][0]["title"]["text"])
    assert week_means(points) == []


def test_values_that_are_no_numbers_break_nothing():
    points = [Point(day, value, None, None, 9) for day, value in zip(DAYS, (None, float("nan"), 0.5), strict=False)]
    drawn(over_time.chart([over_time.Track("mae", points)], DAYS[:3], width=360), 360)
    cells = [heat_map.Cell("x", DAYS[0], float("nan")), heat_map.Cell("x", DAYS[1], None)]
    drawn(heat_map.chart(cells, ["x"], DAYS[:3], width=360), 360)


def test_a_regression_and_many_classes_have_their_scores_drawn():
    edges = [0.0, 1.0, 3.0, 4.0, 20.0]
    drawn(scores.distribution([scores.Distribution(edges, [3, 5, 6, 7], [4, 4, 4, 4], 5.1, 6.2)], width=360), 360)
    parts = [scores.Distribution([0, 0.5, 1], [3, c], [c, 3], label=f"class {c}") for c in range(1, 7)]
    assert len(drawn(scores.distribution(parts, width=360), 360)["vconcat"]) == 4


def test_a_segment_may_have_no_past():
    mean = Mean(0.6, None, None, 200, 28)
    drawn(segments.chart("roc_auc", [segments.Segment('it\'s="a"', mean)], None, width=360), 360)


def test_the_verdict_on_calibration_is_in_words():
    high = [scores.Group(0.4, 0.3, 4000)]
    assert scores.calibration(high).to_dict()["title"]["text"] == ["Calibration: predicts 10 points too much"]
    low = [scores.Group(0.3, 0.4, 4000)]
    assert "too little" in scores.calibration(low).to_dict()["title"]["text"][0]
    assert "comes true" in scores.calibration([scores.Group(0.4, 0.4, 40)]).to_dict()["title"]["text"][0]


def test_a_change_of_version_and_an_incident_are_marked():
    points = [Point(day, 0.7, 0.6, 0.8, 900) for day in DAYS[:60]]
    events = over_time.Events([over_time.Change(DAYS[20], 7)], [over_time.Span(DAYS[40], None, "degraded", "degraded")])
    text = over_time.chart([over_time.Track("roc_auc", points)], DAYS[:60], events, language="pt").to_json()
    assert '"v7"' in text
    assert '"degradado"' in text


def test_an_svg_loads_nothing_and_repeats_no_id_of_another():
    picture = volume.chart([volume.Volume(DAYS[0], 5)], DAYS[:5], width=360)
    one, two = style.svg(picture, "one"), style.svg(picture, "two")
    assert "http" not in one
    assert 'id="one-' not in two
    assert "url(#clip" not in one


def test_the_mean_of_days_is_weighted_and_its_interval_knows_that_days_differ():
    alike = [Point(day, 0.5, 0.4, 0.6, 100) for day in DAYS[:4]]
    assert mean_of(alike).upper == pytest.approx(0.55)
    apart = [
        Point(day, value, value - 0.01, value + 0.01, 100) for day, value in zip(DAYS, (0.2, 0.8, 0.5), strict=False)
    ]
    assert mean_of(apart).upper - mean_of(apart).value > 0.3
    weighted = [Point(DAYS[0], 0.0, n=1), Point(DAYS[1], 1.0, n=3)]
    assert mean_of(weighted).value == 0.75
    assert mean_of(weighted, by_rows=False).value == 0.5
    assert mean_of([Point(DAYS[0], None, status="no_rows")]) is None


def test_numbers_are_written_as_each_language_writes_them():
    assert [number(v, "en") for v in (1234567.0, 0.12345, -0.5, 12.0, 0.00449, None, float("inf"))] == [
        "1,234,567", "0.123", "\N{MINUS SIGN}0.500", "12", "0.0045", "\N{EN DASH}", "\N{EN DASH}"]  # fmt: skip
    assert [number(v, "pt") for v in (1234567.0, 0.12345)] == ["1.234.567", "0,123"]
    assert percent(0.123, "pt") == "12\u00a0%"
    assert day(date(2026, 9, 5), "pt", year=True) == "5 set 2026"


def test_every_text_is_there_in_both_languages_with_the_same_places():
    from plantao.report.page_words import TEXTS as OF_PAGE

    for one, other in [*TEXTS.values(), *OF_PAGE.values(), *METRICS.values()]:
        assert one
        assert other
        places = [sorted(re.findall(r"\{(\w+)\}", text)) for text in (one, other)]
        assert places[0] == places[1]
    assert say("segments_none", "pt").startswith("Segmentos")
