"""Rejects that a run looks back over: what is as it was is accounted for, and no part of the run's share."""

from __future__ import annotations

import pytest

from plantao.errors import TooManyRejected
from plantao.ledger.request import Request
from plantao.run import parallel, publish
from plantao.run.parallel import Part
from plantao.run.reconcile import reconcile
from world import JOB, World, day

LIMITED = JOB + "\n[validate]\nat_most_rejected = 0.05\n"
EDITS = LIMITED.replace("late_rows", 'on_change = "rescore"\nchanged_at = "edited_at"\nlate_rows')
ONE_A_DAY = "id % 1000 = 3"
USUAL = ("succeeded", 20, 19, 1, 0)


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def spoil(client, where=ONE_A_DAY, assignment="x = null"):
    client.sql(f"update readings set {assignment} where {where}")


def scored(client, job, *days):
    """Score these days and return where the rows of each went."""
    for number in days:
        client.score(job, day(number))
    return client.attempts()[-len(days) :]


def open_rejects(client):
    return client.results("select (key ->> 'id')::int, reason from plantao.rejected_rows where resolved_at is null"
                          " order by 1, 2")  # fmt: skip


def in_parts(client, job, window):
    parts = [Part.of(part.as_dict()) for part in parallel.plan(Request(job, window), client.place)]
    for part in parts:
        parallel.score_part(job, part, client.place)
    return publish.publish(job, parts[0].run_id, client.place).counts


@pytest.mark.parametrize("text", [LIMITED, EDITS], ids=["keep", "rescore"])
def test_bad_rows_of_earlier_days_never_stop_a_day_and_are_not_counted_again(client, text):
    job = client.ready(text)
    spoil(client)
    assert scored(client, job, 1, 2, 3, 4) == [USUAL] * 4
    counts = in_parts(client, job, day(5))
    assert (counts.read, counts.scored, counts.rejected, counts.late) == (20, 19, 1, 0)
    assert open_rejects(client) == [(1000 * n + 3, "null_feature") for n in range(1, 6)]
    again = client.results("select count(*) from plantao.rejected_rows where last_seen_at > first_seen_at")
    assert again == [(0,)]


def test_the_share_is_that_of_the_runs_own_window(client):
    job = client.ready(LIMITED)
    scored(client, job, 1)
    client.insert(1, list(range(1900, 1910)))
    spoil(client, "id >= 1900 and id < 2000")
    report = client.score(job, day(2))
    assert (report.counts.read, report.counts.rejected, report.counts.late) == (30, 10, 10)
    spoil(client, "id in (3003, 3004)")
    with pytest.raises(TooManyRejected, match="2 of 20 rows would be set aside"):
        client.score(job, day(3))
    with pytest.raises(TooManyRejected, match="2 of 20 rows would be set aside"):
        in_parts(client, job, day(3))


def test_an_edited_row_is_met_again_and_heals_or_stays(client):
    job = client.ready(LIMITED)
    spoil(client, "id in (1003, 2003)")
    scored(client, job, 1, 2)
    spoil(client, "id = 1003", "x = 1")
    spoil(client, "id = 2003", "x = 'NaN'")
    assert scored(client, job, 3) == [("succeeded", 22, 21, 1, 0)]
    assert open_rejects(client) == [(2003, "not_finite")]
    assert scored(client, job, 4) == [("succeeded", 20, 20, 0, 0)]


def test_rows_of_the_runs_own_window_are_judged_again_and_so_reconcile_heals(client):
    job = client.ready(LIMITED.replace("starts   = 2013-04-01", "starts = 2013-04-01\nends = 2013-04-03"))
    spoil(client)
    scored(client, job, 1, 2)
    assert scored(client, job, 2) == [("succeeded", 20, 0, 1, 19)]
    spoil(client, assignment="x = 1")
    assert reconcile(job, client.place, repair=True).rows_repaired == 2
    assert open_rejects(client) == []


def test_another_rule_judges_them_again(client):
    spoil_all = "[validate.columns.x]\nmax = {}\n"
    client.ready(LIMITED)
    spoil(client, assignment="x = 7")
    assert scored(client, client.job(LIMITED + spoil_all.format(6)), 1, 2) == [USUAL] * 2
    assert scored(client, client.job(LIMITED + spoil_all.format(6.5)), 3) == [("succeeded", 22, 19, 3, 0)]
    assert scored(client, client.job(LIMITED + spoil_all.format(8)), 4) == [("succeeded", 23, 23, 0, 0)]
    assert open_rejects(client) == []


def test_a_key_that_gets_a_twin_is_met_again_with_it(client):
    query = 'query = "select id, at, x, y, city from readings"'
    job = client.ready(LIMITED.replace('table     = "public.readings"', query))
    client.sql("alter table readings drop constraint readings_pkey")
    spoil(client, "id = 1003")
    scored(client, job, 1)
    assert scored(client, job, 2) == [("succeeded", 20, 20, 0, 0)]
    client.insert(1, [1003])
    assert scored(client, job, 3) == [("succeeded", 22, 20, 2, 0)]
    assert open_rejects(client) == [(1003, "duplicate_key")] * 2
    assert scored(client, job, 4) == [("succeeded", 22, 20, 2, 0)]  # the twins need to see each other
    client.sql("delete from readings where id = 1003 and x is null")
    assert scored(client, job, 5)[0][1:4] == (20, 20, 0)
