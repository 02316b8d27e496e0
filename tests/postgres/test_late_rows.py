"""Rows that were committed after their window was scored: found, scored once, and counted as late."""

from __future__ import annotations

from datetime import timedelta

import pytest

from plantao.window import Window
from world import JOB, day


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    """The same promise holds whether predictions stand beside the source or elsewhere."""
    from world import World

    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def test_a_row_committed_late_is_scored_by_the_next_run_and_counted(client):
    job = client.ready()
    client.score(job, day(1))
    client.insert(1, [9001, 9002, 9003])
    report = client.score(job, day(2))
    assert (report.counts.read, report.counts.scored, report.counts.late) == (23, 23, 3)
    assert len(client.predictions()) == 43


def test_a_row_that_was_in_an_open_transaction_is_not_lost(client):
    job = client.ready(days=2)
    writer = client.connect()
    with writer.cursor() as cursor:
        cursor.execute("insert into readings (id, at, x, y, city) values (1500, '2013-04-01 12:00Z', 0, 0, 'Porto')")
        assert client.score(job, day(1)).counts.scored == 20
    writer.commit()
    assert client.score(job, day(2)).counts.late == 1


def test_the_look_back_takes_no_row_of_a_window_that_was_never_scored(client):
    job = client.ready()
    report = client.score(job, day(3))
    assert (report.counts.scored, report.counts.late) == (20, 0)
    client.score(job, day(1))
    report = client.score(job, day(4))
    assert report.counts.late == 0
    assert client.score(job, day(2)).counts == report.counts


def test_the_look_back_ends_where_the_job_says(client):
    job = client.ready(JOB.replace('"3 days"', '"1 day"'))
    for number in (1, 2):
        client.score(job, day(number))
    client.insert(1, [9001])
    assert client.score(job, day(3)).counts.late == 0
    assert client.score(job, day(2)).counts.late == 1


def test_a_late_row_in_a_window_that_runs_again_is_no_late_row(client):
    job = client.ready()
    client.score(job, day(1))
    client.insert(1, [9001])
    counts = client.score(job, day(1)).counts
    assert (counts.scored, counts.already_scored, counts.late) == (1, 20, 0)


def test_many_late_rows_at_once_are_all_found(client, monkeypatch):
    monkeypatch.setattr("plantao.extract.read.KEYS_BY_NAME", 5)
    job = client.ready()
    client.score(job, day(1))
    client.insert(1, list(range(9000, 9030)))
    counts = client.score(job, day(2)).counts
    assert (counts.scored, counts.late) == (50, 30)
    assert len(client.predictions()) == 70


def test_a_row_whose_timestamp_moved_into_another_window_stays_one_prediction(client):
    job = client.ready()
    client.score(job, day(1))
    client.sql("update readings set at = '2013-04-05 10:00Z' where id = 1000")
    counts = client.score(job, day(5)).counts
    assert (counts.read, counts.scored, counts.already_scored) == (21, 20, 1)
    assert len(client.predictions()) == 40


def test_a_view_of_which_every_row_is_scored_owes_nothing(client):
    client.fill()
    client.sql("alter table readings rename to readings_all; create view readings as select * from readings_all")
    client.register()
    job = client.job()
    assert client.score(job, day(1)).counts.scored == 20
    counts = client.score(job, day(1)).counts
    assert (counts.scored, counts.already_scored) == (0, 20)


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_a_timestamp_without_a_zone_is_meant_in_the_jobs_own(client, kind):
    client.fill(days=4)
    client.sql(f"alter table readings alter at type {kind} using (at at time zone 'UTC')::{kind}")
    client.register()
    job = client.job(JOB.replace("starts ", 'timezone = "America/New_York"\nstarts '))
    start = day(2).start + timedelta(hours=4)  # midnight in New York
    window = Window(start, start + timedelta(days=1))
    assert client.score(job, window).counts.scored == 20
    assert [row[0] for row in client.predictions()] == list(range(2000, 2020))
    assert client.score(job, window).counts.already_scored == 20


def test_composite_and_text_keys_are_compared_in_both_databases(client):
    client.sql(
        "create table readings (site text, number integer, at timestamptz, x float8, y float8, city text,"
        " primary key (site, number))"
    )
    client.sql(
        "insert into readings select 'ünï ' || i % 3, i, '2013-04-01Z'::timestamptz + i * interval '1 hour', i, 1,"
        " 'Porto' from generate_series(0, 30) i"
    )
    client.register()
    job = client.job(JOB.replace('["id"]', '["site", "number"]'))
    assert client.score(job, day(1)).counts.scored == 24
    client.sql("insert into readings values ('new', 1, '2013-04-01 05:00Z', 1, 1, 'Porto')")
    assert client.score(job, day(2)).counts.late == 1
    assert client.results("select count(*), count(distinct (site, number)) from predictions.bad_reading") == [(32, 32)]
