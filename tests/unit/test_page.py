"""The report's page: nothing is loaded, everything is escaped, and what is not ok is shown."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest

import story
from plantao.report import page as report_page
from plantao.report.data import (
    Figure,
    Incident,
    Version,
    estimate_error,
    over_limits,
    overdispersion_of,
    segment_means,
    worst_first,
)
from plantao.report.headline import headline
from plantao.report.page import page
from plantao.report.page_style import DARK
from plantao.report.point import Point

pytestmark = pytest.mark.slow

EVIL = '"><script>alert(1)</script><img src=https://evil.example/x>&'


@pytest.fixture(scope="module")
def told():
    return story.data()


@pytest.fixture(scope="module")
def written(told):
    return page(told)


class Seen(HTMLParser):
    """All tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data


def test_the_page_loads_nothing(written):
    assert not re.search(r"https?://|//[a-z]|@import|url\((?!#)", written)
    seen = Seen(written)
    assert not {tag for tag, _ in seen.tags} & {"script", "iframe", "img", "object", "embed", "video", "base"}
    assert [attributes["href"] for tag, attributes in seen.tags if tag == "link"] == ["data:,"]


def test_every_value_is_escaped(told):
    figures = [
        *told.figures,
        Figure("roc_auc", Point(told.last, 0.1, n=900), EVIL, "", None, 4),
        Figure("jensen_shannon", Point(told.last, 9.0, n=900), EVIL, "", None, 4),
        Figure(EVIL, Point(told.last, 0.1, n=900)),
        *(Figure("roc_auc", Point(day, 0.1, n=900), "", f"origin={EVIL}") for day in told.days[-28:-3]),
    ]
    incident = Incident("break", "broken", EVIL, told.last, told.now)
    data = replace(
        told, job=EVIL, description=EVIL, figures=figures, incidents=[incident], model=EVIL, objective=EVIL,
        versions=[Version(told.last, 9, EVIL, EVIL)],
    )  # fmt: skip
    text = page(data)
    assert "<script" not in text
    assert "<img" not in text
    assert Seen(text).said.count("<script>alert(1)</script>") >= 6


def test_no_id_stands_twice(written):
    ids = re.findall(r'\bid="([^"]+)"', written)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", written)) <= set(ids)


@pytest.fixture
def without_pictures(monkeypatch):
    """Draw nothing where only tables and sentences are looked at: it takes seconds."""
    monkeypatch.setattr(report_page, "PICTURES", dict.fromkeys(report_page.PICTURES, lambda *_: None))


def test_what_is_not_ok_is_shown_with_its_status(told, without_pictures):
    never = [Figure("f1", Point(day, None, n=0, status="undefined"), version=4) for day in told.days]
    text = Seen(page(replace(told, figures=[*told.figures, *never]))).said
    assert "F1" in text
    assert "120 days undefined" in text
    assert "2 days provisional; 1 day no outcomes yet" in text
    assert "7 days failed" in text
    assert "carrier=HA" in text  # too few outcomes to be judged


def test_the_page_is_whole_in_both_languages(told, written):
    portuguese = Seen(page(replace(told, language="pt"))).said
    for word in ("Degradado desde 13 nov 2013", "Incidentes", "Pior para", "tratados", "0,9"):
        assert word in portuguese
    for word in ("Degraded since 13 Nov 2013", "Worst for carrier=EV", "detectable in a week", "Reference: 90 days"):
        assert word in Seen(written).said


def test_every_colour_of_the_pictures_has_one_for_the_dark(written):
    used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', written))
    assert used <= set(DARK)


def test_it_says_how_much_more_than_independent_rows_the_days_differ(told, without_pictures):
    # In the story 900 rows a day have an accuracy of .807 with a deviation of .02: 1.5 times that of independent rows.
    assert overdispersion_of(told) == pytest.approx(0.02 / math.sqrt(0.807 * 0.193 / 900), rel=0.15)
    assert "differs 1.5 times as much as that of independent rows" in page(told)
    assert "difere 1,5 vezes" in page(replace(told, language="pt"))
    days = told.reference["days"]
    few = {"days": {**days, "performance": days["performance"][:29]}}
    numbers = [{name: value for name, value in day.items() if name != "accuracy"} for day in days["performance"]]
    for reference in (few, {}, {"days": {**days, "performance": numbers}}):
        data = replace(told, reference=reference)
        assert overdispersion_of(data) is None
        assert "independent rows" not in page(data)


# --- the headline ----------------------------------------------------------------------------------------------------


def test_without_incidents_and_with_evidence_all_is_fine(told):
    found = headline(replace(told, incidents=[]))
    assert (found.level, found.title) == ("fine", "Fine")
    assert found.sentences[-1] == "No incident is open."


@pytest.mark.parametrize("word", ["drifting", "improved"])
def test_drift_and_improvement_are_no_alarm(told, word):
    incident = Incident("drift", word, "m", told.last, told.now, details={"column": "x"})
    assert headline(replace(told, incidents=[incident])).level == "fine"


def test_the_gravest_open_incident_speaks_and_a_closed_one_does_not(told):
    closed = [replace(one, closed_at=told.now) for one in told.incidents]
    broken = Incident("break", "broken", "dep_hour: all missing. Next: look", told.last, told.now)
    found = headline(replace(told, incidents=[*told.incidents, broken]))
    assert (found.level, found.sentences[0]) == ("broken", "dep_hour: all missing.")
    assert headline(replace(told, incidents=closed)).level == "fine"


def test_no_evidence_is_never_good_news(told):
    quiet = replace(told, incidents=[])
    old = [one for one in told.figures if one.point.day < told.last - timedelta(days=20)]
    found = headline(replace(quiet, figures=old))
    assert (found.level, found.title) == ("missing", "Not enough evidence")
    assert found.sentences[0].startswith("No day of ROC AUC could be judged after")
    assert headline(replace(quiet, figures=[])).level == "missing"


def test_an_incident_of_a_segment_says_so(told):
    only = Incident("degraded", "degraded", "m", told.last, told.now, details={"segment": "origin=LGA"})
    assert "It is about origin=LGA." in headline(replace(told, incidents=[only])).sentences


def test_a_reference_of_few_days_is_told(told):
    found = headline(replace(told, incidents=[], reference={"days": {"performance": [{}] * 12}}))
    assert found.sentences[-1].startswith("No statistical alarm: the reference has 12 measured days")


# --- what is computed ------------------------------------------------------------------------------------------------


def test_a_segment_with_few_labels_has_no_mean_and_a_loss_is_worse_when_high(told):
    assert segment_means(told, "roc_auc")["carrier=HA"][0] is None
    assert worst_first(told, "roc_auc")[0] == "carrier=EV"
    as_loss = [replace(one, name="log_loss") for one in told.figures if one.name == "roc_auc" and one.segment]
    assert worst_first(replace(told, figures=as_loss), "log_loss")[-1] == "carrier=EV"


def test_drift_is_a_multiple_of_what_the_days_of_the_reference_reach(told):
    day = told.first

    def of(away, limit, status="ok"):
        pairs = (("drift", away), ("drift_limit", limit), ("jensen_shannon", 0.1))
        some = [Figure(name, Point(day, value, n=9, status=status), "x") for name, value in pairs if value is not None]
        (point,) = over_limits(replace(told, figures=some), "x")
        return point.value, point.status

    assert of(math.log(6), math.log(3)) == (pytest.approx(2), "ok")
    assert of(-1.0, -1.0) == (1, "ok")
    assert of(5.0, None) == (None, "not_enough")
    assert of(None, None, "failed") == (None, "failed")
    assert math.isfinite(of(1e300, 1.0)[0])


def test_the_error_of_past_estimates_is_known(told):
    bias, size = estimate_error(told, "roc_auc")
    assert 0 < bias <= size < 0.06
    assert estimate_error(told, "log_loss") is None
