"""The report of a job: read from the tables, written as one page, opened in a browser without a network."""

from __future__ import annotations

import re
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

import debian_packages
import story
from plantao import cli
from plantao.ledger import session
from plantao.report import charts
from plantao.report.data import week_of
from plantao.report.headline import headline
from plantao.report.page import page
from plantao.report.read import read_report
from world import World, day

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told(server, tmp_path_factory):
    """A world with the story in its tables, and the job; for who only reads."""
    with World.create(server, tmp_path_factory.mktemp("told")) as created:
        yield created, story.tell(created)


@pytest.fixture(scope="module")
def data(told):
    return read(*told)


def read(world, job, *period):
    with session.session(job, world.place) as connection:
        return read_report(connection, job, *period)


def test_the_report_reads_what_the_tables_tell(data):
    assert (data.first, data.last, len(data.days)) == (story.FIRST, story.LAST, 120)
    assert (data.version, data.reference_version, data.main_metric) == (4, 1, "roc_auc")
    assert [point.status for point in data.points("roc_auc")][-4:] == ["ok", "provisional", "provisional", "no_labels"]
    assert data.reference_mean("roc_auc") == pytest.approx(0.724, abs=0.01)
    assert sum(data.score_state["scores"]["true"]) == data.score_state["rows"] > 20_000
    assert [one.word for one in data.incidents] == ["degraded", "watch", "drifting", "broken"] or {
        one.word for one in data.incidents
    } == {"degraded", "watch", "drifting", "broken"}
    assert [run.day for run in data.runs if run.failed] == [story.FIRST + timedelta(days=70)]
    assert [(one.version, one.day) for one in data.versions][-1] == (4, story.FIRST + timedelta(days=41))


def test_the_report_reads_when_outcomes_arrived(data):
    assert len(data.arrived) == story.DAYS - story.NEW_VERSION
    assert [(one.day, one.rows, one.labelled, one.lags) for one in data.arrived] == [
        (one.day, one.rows, one.labelled, one.lags) for one in story.data().arrived
    ]
    assert (data.known_after, data.mature_at) == (timedelta(days=1), 0.8)


def test_the_queries_of_the_documentation_run(told):
    world, _ = told
    said = (ROOT / "docs" / "measuring.md").read_text()
    (block,) = re.findall(r"^```sql\n(.*?)^```", said, re.MULTILINE | re.DOTALL)
    answers = {query: world.results(query) for query in block.split(";\n") if query.strip()}
    ((arrivals,),) = [[rows for query, rows in answers.items() if "'lags'" in query]]
    shares = [(days, float(share)) for days, _, share in arrivals]
    assert shares == [(1, pytest.approx(0.6, abs=0.01)), (2, pytest.approx(0.95, abs=0.01)), (7, 1.0)]


def test_the_headline_says_degraded_since_when_and_for_whom(data):
    found = headline(data)
    assert found.level == "degraded"
    assert found.title == "Degraded since 13 Nov 2013"
    text = " ".join(found.sentences)
    assert "Worst for carrier=EV, origin=LGA." in text
    assert text.startswith("Minutes saved per row is 0.6")
    assert "ROC AUC is 0.6" in text
    assert "3 incidents are open." in text


def test_a_period_ends_where_it_is_told_to(told):
    data = read(*told, date(2013, 8, 10), date(2013, 8, 20))
    assert (data.days[0], data.days[-1]) == (date(2013, 8, 10), date(2013, 8, 20))
    assert {figure.point.day for figure in data.figures} == set(data.days)
    assert not data.incidents
    assert headline(data).level == "fine"
    assert not read(*told, date(2013, 10, 5), date(2013, 10, 20)).incidents  # closed before, though noticed years later


def test_a_job_that_began_just_now_has_a_report_of_four_weeks(world):
    job = world.ready(days=2)
    world.score(job, day(2))
    found = read(world, job)
    assert (found.first, found.last) == (date(2013, 3, 6), date(2013, 4, 2))


def test_a_day_that_was_measured_again_shows_its_newest_value(world):
    job = story.tell(world)
    start = story.start_of(story.FIRST)
    again = {"job": "flight_delay", "model_version": 3, "name": "roc_auc", "value": 0.5, "n": 900,
             "window_start": start, "window_end": start + timedelta(days=1)}  # fmt: skip
    week = {**again, "value": 0.1, "window_end": start + timedelta(days=7)}
    other = {**again, "value": 0.2, "role": "challenger", "model_version": 5}
    for row in (again, week, other):
        story.insert(world, "metrics", [row])
    assert read(world, job).points("roc_auc")[0].value == 0.5


def test_a_new_job_has_a_report_that_says_so(world):
    job = story.declare(world, "pt")
    data = read(world, job)
    assert headline(data).title == "Evidência insuficiente"
    assert week_of(data, "roc_auc") is None
    assert page(data).count("<svg") >= 8


@pytest.fixture
def written(told, monkeypatch, capsys):
    """Return a function that calls `plantao report` and gives back the folder and the exit status."""
    for name, value in told[0].environment.items():
        monkeypatch.setenv(name, value)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["plantao", "report", "flight_delay", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.entry()
        capsys.readouterr()
        return ended.value.code

    return call


def test_the_command_writes_the_page_and_the_pictures(written, tmp_path):
    out, folder = tmp_path / "out" / "report.html", tmp_path / "pictures"
    assert not written("--out", str(out), "--png", str(folder), "--from", "2013-10-01", "--to", "2013-12-01")
    assert "Degraded since" in out.read_text()
    assert {path.stem for path in folder.iterdir()} == set(charts.PICTURES)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())


@pytest.mark.parametrize("period", [("2013-10-02", "2013-10-02"), ("yesterday", "2013-10-02")])
def test_a_period_that_is_none_is_wrong_usage(written, tmp_path, period):
    assert written("--out", str(tmp_path / "x.html"), "--from", period[0], "--to", period[1]) == 2
    assert not (tmp_path / "x.html").exists()


@pytest.fixture(scope="module")
def browser():
    program = debian_packages.need("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    """The page, as it is written."""
    found = tmp_path_factory.mktemp("page") / "report.html"
    found.write_text(page(data), encoding="utf-8")
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_opens_offline_at_both_widths(browser, file, width, scheme):
    said, asked = [], []
    context = browser.new_context(viewport={"width": width, "height": 800}, offline=True, color_scheme=scheme)
    opened = context.new_page()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(file.as_uri())
    # As wide as the screen, and not a pixel wider: nobody scrolls sideways on a phone.
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    shown = opened.evaluate("[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width).length")
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert shown == len(charts.PICTURES)
