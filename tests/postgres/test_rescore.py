"""Rows that are scored again: edited ones, and those that were asked for. The old prediction goes to the history."""

from __future__ import annotations

import pytest

from world import JOB, World, classifier, day, training_frame

EDITS = JOB.replace('late_rows = "3 days"', 'late_rows = "3 days"\non_change = "rescore"\nchanged_at = "edited_at"')


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def history(client):
    return client.results("select id, score, run_id, replaced_by_run from predictions.bad_reading_history order by id")


def test_an_edited_row_keeps_its_first_prediction_unless_the_job_says_otherwise(client):
    job = client.ready()
    client.score(job, day(1))
    before = client.predictions("*")
    client.sql("update readings set x = x + 10, edited_at = '2013-04-01 12:00Z' where id = 1003")
    counts = client.score(job, day(1)).counts
    assert (counts.scored, counts.already_scored) == (0, 20)
    assert client.predictions("*") == before


def test_an_edited_row_is_scored_again_and_its_old_prediction_kept(client):
    job = client.ready(EDITS)
    first = client.score(job, day(1))
    before = {row[0]: row[2] for row in client.predictions()}
    client.sql("update readings set x = x + 10, edited_at = '2013-04-01 12:00Z' where id = 1003")
    second = client.score(job, day(1))
    assert (second.counts.scored, second.counts.rescored, second.counts.already_scored) == (1, 1, 19)
    after = {row[0]: row[2] for row in client.predictions()}
    assert after[1003] > before[1003]
    assert len(after) == 20
    assert history(client) == [(1003, before[1003], first.run_id, second.run_id)]


def test_an_edit_of_a_day_long_past_is_met_by_the_run_whose_window_saw_it(client):
    job = client.ready(EDITS, days=12)
    for number in range(1, 11):
        client.score(job, day(number))
    client.sql("update readings set x = x + 10, edited_at = '2013-04-11 12:00Z' where id in (1003, 2004)")
    counts = client.score(job, day(11)).counts
    assert (counts.read, counts.scored, counts.rescored, counts.late) == (22, 22, 2, 0)
    counts = client.score(job, day(12)).counts
    assert (counts.read, counts.rescored) == (20, 0)


def test_an_edit_inside_the_look_back_is_met_once(client):
    job = client.ready(EDITS)
    for number in (1, 2):
        client.score(job, day(number))
    client.sql("update readings set edited_at = '2013-04-03 01:00Z' where id = 1003")
    assert client.score(job, day(3)).counts.rescored == 1
    assert client.score(job, day(4)).counts.rescored == 0
    assert client.score(job, day(3)).counts.rescored == 0


def test_rescore_replaces_the_window_and_only_the_window(client):
    job = client.ready()
    for number in (1, 2):
        client.score(job, day(number))
    frame = training_frame(seed=5)
    client.register(classifier(frame), frame)
    report = client.score(job, day(1), rescore=True, model_version=2)
    assert (report.counts.scored, report.counts.rescored, report.counts.already_scored) == (20, 20, 0)
    versions = client.results("select model_version, count(*) from predictions.bad_reading group by 1 order by 1")
    assert versions == [(1, 20), (2, 20)]
    assert len(history(client)) == 20


def test_rescore_takes_in_new_rows_too(client):
    job = client.ready()
    client.score(job, day(1))
    client.insert(1, [9001])
    counts = client.score(job, day(1), rescore=True).counts
    assert (counts.read, counts.scored, counts.rescored) == (21, 21, 20)


def test_a_rescore_that_fails_leaves_the_old_predictions(client):
    job = client.ready()
    client.score(job, day(1))
    before = client.predictions("*")
    client.sql("update readings set x = 'NaN' where id < 1010")
    with pytest.raises(Exception, match="at_most_rejected"):
        client.score(job, day(1), rescore=True)
    assert client.predictions("*") == before
    assert history(client) == []
