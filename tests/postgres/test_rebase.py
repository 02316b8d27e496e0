"""A new baseline from production: kept beside the old one, with who drew it and why, and compared with from now on."""

from __future__ import annotations

from datetime import date

import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

import steady
from plantao.errors import UsageError
from plantao.measure import measuring
from plantao.measure.rebase import rebase
from plantao.versions import promotion
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
    measuring.measure(job, period(1, last), client.place)
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
    measuring.freshen(job, client.place)
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


def test_a_regression_has_a_baseline_too(client):
    def fitted(frame):
        return make_pipeline(preparation(), LinearRegression()).fit(frame[["x", "y", "city"]], frame["amount"])

    job = steady.ready(client, SOON_KNOWN, last=4, outcome="double precision",
                       label="amount", model=fitted)  # fmt: skip
    reveal(client, 1, 4, lambda frame: frame["amount"])
    client.score(job, period(1, 4))
    measuring.measure(job, period(1, 4), client.place)
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
