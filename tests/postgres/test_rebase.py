"""A new baseline from production: kept beside the old one, with who drew it and why, and compared with from now on."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

import steady
from plantao.errors import UsageError
from plantao.ledger.request import Request
from plantao.measure import measure
from plantao.measure.rebase import rebase
from plantao.release import promotion
from plantao.run import parallel, publish
from plantao.run.attempt import Attempt
from plantao.run.parallel import Part
from steady import MEASURE, PER_DAY, incidents, period, reveal
from world import JOB, World, day, preparation, training_frame

FIRST = date(2013, 4, 3)
SOON_KNOWN = JOB + MEASURE.replace("500 days", "1 day")


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def scored(client, last):
    job = steady.ready(client, SOON_KNOWN, last=last)
    reveal(client, 1, last)
    client.score(job, period(1, last))
    measure.measure(job, period(1, last), client.place)
    return job


def test_the_days_since_are_counted_in_the_bins_of_a_baseline_of_their_own(client):
    job = scored(client, 12)
    found = rebase(job, client.place, FIRST, "a new season")
    assert (found.model_version, found.reference_version, found.rows) == (1, 2, 10 * PER_DAY)
    assert (found.days, found.mature_days) == (10, 10)
    assert [note.partition(":")[0] for note in found.notes] == ["10 days", "10 mature days"]
    ((reference, who, why),) = client.results("select reference, who, why from plantao.reference_versions")
    assert why == "a new season"
    assert who
    assert reference["days"]["from"] == "2013-04-03"
    assert [one["n"] for one in reference["days"]["performance"]] == [PER_DAY] * 10
    calibrated = reference["calibration"]["true"]
    assert sum(calibrated["n"]) == 10 * PER_DAY
    assert sum(calibrated["positives"]) == int(steady.days(3, 12)["bad"].sum())
    x = steady.days(3, 12)["x"]
    assert reference["columns"]["x"]["mean"] == pytest.approx(x.mean())
    measure.freshen(job, client.place)
    counted = client.results(
        "select reference_version, count(*), sum(rows) from plantao.daily_state where column_name = ''"
        " and segment = '' group by 1 order by 1"
    )
    assert counted == [(1, 2, 2 * PER_DAY), (2, 10, 10 * PER_DAY)]
    # The next run counts in it too, and is checked against it.
    steady.insert(client, steady.days(13, 13))
    client.score(job, day(13))
    newest = "select distinct reference_version from plantao.daily_state where day = '2013-04-13'"
    assert client.results(newest) == [(2,)]
    assert incidents(client) == []


def test_baselines_are_numbered_and_never_changed(client):
    job = scored(client, 4)
    assert [rebase(job, client.place, FIRST, "again").reference_version for _ in range(2)] == [2, 3]
    with pytest.raises(Exception, match="only ever followed by another"):
        client.results("update plantao.reference_versions set why = 'another'")


def test_a_baseline_needs_predictions_of_the_champion(client):
    job = steady.ready(client, JOB + MEASURE)
    with pytest.raises(UsageError, match="no predictions since 2013-04-03"):
        rebase(job, client.place, FIRST, "too early")
    client.score(job, period(1, 3))
    client.register(frame=training_frame(seed=3))
    promotion.promote("bad_reading", 2, "newer", client.place, force=True)
    with pytest.raises(UsageError, match="version 2, the champion, has no predictions"):
        rebase(job, client.place, FIRST, "too early")
    assert client.results("select count(*) from plantao.reference_versions") == [(0,)]


def reference_of_days(world, first=3):
    return world.results(
        "select to_char(day, 'DD'), reference_version, sum(rows) from plantao.daily_state where column_name = ''"
        " and segment = '' and day >= %s group by 1, 2 order by 1, 2",
        (date(2013, 4, first),),
    )


def test_a_run_that_began_before_the_baseline_is_counted_anew_in_its_bins(client, monkeypatch):
    job = scored(client, 4)
    steady.insert(client, steady.days(5, 5))
    stream = Attempt._stream

    def slowly(self, *arguments):
        rebase(job, client.place, FIRST, "a new season")
        stream(self, *arguments)

    monkeypatch.setattr(Attempt, "_stream", slowly)
    client.score(job, day(5))
    assert reference_of_days(client, 5) == [("05", 1, PER_DAY)]
    measure.freshen(job, client.place)
    assert reference_of_days(client) == [(number, 2, PER_DAY) for number in ("03", "04", "05")]
    assert client.results("select count(*) from plantao.stale_days") == [(0,)]


@pytest.mark.parametrize("rescore", [False, True])
def test_a_baseline_between_two_parts_of_a_run_changes_nothing_of_it(client, rescore):
    scored(client, 5 if rescore else 4)
    if not rescore:
        steady.insert(client, steady.days(5, 5))
    job = client.job(SOON_KNOWN.replace("[load]", "parts = 3\n\n[load]"))
    parts = parallel.plan(Request(job, day(5), rescore=rescore), client.place)
    parallel.score_part(job, Part.of(parts[0].as_dict()), client.place)
    rebase(job, client.place, FIRST, "a new season")
    for part in parts[1:]:
        parallel.score_part(job, Part.of(part.as_dict()), client.place)
    assert publish.publish(job, parts[0].run_id, client.place).counts.scored == PER_DAY
    # The whole run was counted in the bins, and held against the days, with which it began.
    assert reference_of_days(client, 5) == [("05", 1, PER_DAY)]
    assert incidents(client) == []
    measure.freshen(job, client.place)
    assert reference_of_days(client) == [(number, 2, PER_DAY) for number in ("03", "04", "05")]


def test_parts_in_the_bins_of_two_baselines_lose_no_row_of_their_day(client):
    """As of a challenger, or of a run that was planned before parts knew their baseline."""
    scored(client, 5)
    job = client.job(SOON_KNOWN.replace("[load]", "parts = 3\n\n[load]"))
    parts = parallel.plan(Request(job, day(5), rescore=True), client.place)
    for part in parts:
        parallel.score_part(job, replace(part, reference=None), client.place)
        if part.number == 1:
            rebase(job, client.place, FIRST, "a new season")
    publish.publish(job, parts[0].run_id, client.place)
    assert sum(rows for _, _, rows in reference_of_days(client, 5)) == PER_DAY
    measure.freshen(job, client.place)
    assert reference_of_days(client, 5) == [("05", 2, PER_DAY)]


def test_a_regression_has_a_baseline_too(client):
    def fitted(frame):
        return make_pipeline(preparation(), LinearRegression()).fit(frame[["x", "y", "city"]], frame["amount"])

    job = steady.ready(client, SOON_KNOWN, last=4, outcome="double precision",
                       label="amount", model=fitted)  # fmt: skip
    reveal(client, 1, 4, lambda frame: frame["amount"])
    client.score(job, period(1, 4))
    measure.measure(job, period(1, 4), client.place)
    found = rebase(job, client.place, FIRST, "a new season")
    assert (found.rows, found.mature_days) == (2 * PER_DAY, 2)
    ((reference,),) = client.results("select reference from plantao.reference_versions")
    assert "mae" in reference["days"]["performance"][0]
    assert "calibration" not in reference


def test_of_many_rows_a_sample_by_key_is_read(client, monkeypatch):
    job = scored(client, 8)
    monkeypatch.setattr("plantao.measure.rebase.MOST_ROWS", 100)
    found = rebase(job, client.place, FIRST, "a sample")
    assert 0 < found.rows < 6 * PER_DAY
