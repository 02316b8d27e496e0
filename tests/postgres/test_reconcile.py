"""Reconciliation: the whole history against the predictions, however far back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from plantao.errors import UsageError, WindowBusy
from plantao.run import reconcile as reconciliation
from plantao.run import reconcile_query
from plantao.run.reconcile import reconcile
from plantao.window import Window
from world import APRIL, JOB, World, day

SHORT = JOB.replace('"3 days"', '"0 days"').replace("starts   = 2013-04-01", "starts = 2013-04-01\nends = 2013-04-06")
EDITS = SHORT.replace("late_rows", 'on_change = "rescore"\nchanged_at = "edited_at"\nlate_rows')


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def scored(client, text=SHORT):
    job = client.ready(text)
    for number in range(1, 6):
        client.score(job, day(number))
    return job


def counts(result):
    return {name: value for name, value in vars(result.found).items() if isinstance(value, int) and value}


def test_a_history_in_order_is_in_order_and_written_down(client):
    job = scored(client)
    result = reconcile(job, client.place)
    assert counts(result) == {"rows_source": 100, "rows_accounted": 100}
    assert result.in_order
    assert result.period == Window(APRIL, APRIL + timedelta(days=5))
    assert client.results("select job, rows_source, rows_owed, rows_repaired from plantao.reconciliations") == [
        ("bad_reading", 100, 0, None)
    ]


def test_rows_beyond_the_look_back_are_found_named_and_repaired(client):
    job = scored(client)
    client.insert(1, [9001, 9002])
    client.insert(4, [9003])
    assert client.score(job, day(5)).counts.scored == 0
    result = reconcile(job, client.place)
    assert counts(result) == {"rows_source": 103, "rows_accounted": 100, "rows_owed": 3}
    assert not result.in_order
    assert sorted(result.found.examples["rows_owed"]) == [[9001], [9002], [9003]]
    assert dict(result.found.windows) == {day(1): 2, day(4): 1}
    repaired = reconcile(job, client.place, repair=True)
    assert repaired.rows_repaired == 3
    assert counts(reconcile(job, client.place)) == {"rows_source": 103, "rows_accounted": 103}
    assert len(client.predictions()) == 103


def test_predictions_that_were_deleted_are_owed_and_scored_again(client):
    """As after a restored backup of the prediction table alone: the ledger still calls the windows done."""
    job = scored(client)
    before = client.predictions("id, score")
    client.results("delete from predictions.bad_reading where id between 2000 and 2999 or id = 4004")
    assert counts(reconcile(job, client.place)) == {"rows_source": 100, "rows_accounted": 79, "rows_owed": 21}
    assert reconcile(job, client.place, repair=True).rows_repaired == 21
    assert client.predictions("id, score") == before


def test_a_prediction_whose_row_is_gone_is_reported_and_kept(client):
    job = scored(client)
    client.sql("delete from readings where id in (1001, 3003)")
    result = reconcile(job, client.place, repair=True)
    assert counts(result) == {"rows_source": 98, "rows_accounted": 100, "rows_gone": 2}
    assert sorted(result.found.examples["rows_gone"]) == [[1001], [3003]]
    assert len(client.predictions()) == 100


def test_an_edit_that_no_run_has_seen_is_found_and_repaired(client):
    job = scored(client, EDITS)
    client.sql("update readings set x = 9, edited_at = '2013-01-02Z' where id = 2002")
    result = reconcile(job, client.place)
    assert counts(result) == {"rows_source": 100, "rows_accounted": 100, "rows_edited": 1}
    assert reconcile(job, client.place, repair=True).rows_repaired == 1
    assert counts(reconcile(job, client.place)) == {"rows_source": 100, "rows_accounted": 100}
    assert client.results("select count(*) from predictions.bad_reading_history") == [(1,)]


def test_a_row_that_is_set_aside_is_accounted_for_until_it_is_fixed(client):
    job = client.ready(SHORT.replace("[score]", "[validate]\nat_most_rejected = 1\n[score]"))
    client.sql("update readings set x = null where id = 1003")
    client.sql("update readings set x = 'infinity' where id = 1004")
    for number in range(1, 6):
        client.score(job, day(number))
    assert counts(reconcile(job, client.place)) == {"rows_source": 100, "rows_accounted": 100}
    client.sql("update readings set x = 1 where id = 1003")
    client.sql("delete from readings where id = 1004")
    result = reconcile(job, client.place, repair=True)
    assert counts(result) == {"rows_source": 99, "rows_accounted": 100, "rejects_gone": 1}
    assert result.rows_repaired == 1
    assert client.results("select key ->> 'id' from plantao.rejected_rows where resolved_at is null") == [("1004",)]


def test_a_row_whose_time_has_moved_is_neither_owed_nor_gone_but_a_conflict(client):
    job = scored(client)
    client.sql("update readings set at = '2013-04-03 10:00Z' where id = 1000")
    found = {"rows_source": 100, "rows_accounted": 100, "rows_conflicting": 1}
    assert counts(reconcile(job, client.place)) == found


def test_rows_without_a_time_are_counted_because_no_window_ever_has_them(client):
    client.fill()
    client.sql("alter table readings alter at drop not null")
    client.register()
    job = client.job(SHORT)
    for number in range(1, 6):
        client.score(job, day(number))
    client.sql("update readings set at = null where id = 1000")
    client.sql("update readings set at = 'infinity' where id = 1001")
    assert counts(reconcile(job, client.place))["rows_without_time"] == 2


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("text", "'n' || id"),
        ("uuid", "lpad(id::text, 32, '0')::uuid"),
        ("date", "date '2000-01-01' + id::int"),
        ("char(12)", "'n' || id"),
    ],
)
def test_keys_of_every_type_are_compared(client, kind, changed):
    client.fill()
    client.sql(f"alter table readings alter id type {kind} using ({changed})::{kind}")
    client.register()
    job = client.job(SHORT)
    for number in range(1, 6):
        client.score(job, day(number))
    assert counts(reconcile(job, client.place)) == {"rows_source": 100, "rows_accounted": 100}
    client.results("delete from predictions.bad_reading where source_timestamp < '2013-04-01 02:00Z'")
    assert counts(reconcile(job, client.place))["rows_owed"] == 2
    assert reconcile(job, client.place, repair=True).rows_repaired == 2


def test_composite_keys_with_gaps_are_compared(client):
    client.fill()
    client.sql("alter table readings add part text default 'a'; alter table readings drop constraint readings_pkey;"
               " update readings set part = 'b' where id % 2 = 0; update readings set part = null where id = 1001;"
               " create unique index on readings (id, part)")  # fmt: skip
    client.register()
    lenient = "[validate]\nat_most_rejected = 1\n[score]"
    job = client.job(SHORT.replace('["id"]', '["id", "part"]').replace("[score]", lenient))
    for number in range(1, 6):
        client.score(job, day(number))
    assert counts(reconcile(job, client.place)) == {"rows_source": 100, "rows_accounted": 100}
    client.sql("update readings set part = null where id = 2001")
    found = counts(reconcile(job, client.place))
    assert found == {"rows_source": 100, "rows_accounted": 100, "rows_owed": 1, "rows_gone": 1}


def test_a_slice_with_too_many_rows_is_compared_in_shares(client, monkeypatch):
    monkeypatch.setattr(reconcile_query, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr("plantao.extract.read.KEYS_BY_NAME", 3)
    job = scored(client)
    client.sql("update readings set at = '2013-04-02 11:00Z' where id between 2000 and 2999")
    client.insert(2, list(range(9000, 9020)))
    found = {"rows_source": 120, "rows_accounted": 100, "rows_owed": 20, "rows_conflicting": 20}
    assert counts(reconcile(job, client.place)) == found


def test_only_what_differs_is_looked_at_closer(client, monkeypatch):
    job = scored(client)
    client.insert(3, [9001])
    asked = []
    monkeypatch.setattr(reconciliation.Comparison, "_look_closer", lambda *piece: asked.append(piece[-1].starts))
    reconcile(job, client.place)
    assert [len(starts) for starts in asked] == [1]


def test_an_earlier_period_can_be_chosen(client):
    job = scored(client)
    client.insert(1, [9001])
    assert counts(reconcile(job, client.place, day(2))) == {"rows_source": 20, "rows_accounted": 20}
    assert counts(reconcile(job, client.place, day(1)))["rows_owed"] == 1


def test_a_job_without_a_schedule_answers_for_what_it_has_covered(client):
    job = client.ready(JOB.replace('schedule = "daily"', 'schedule = "on demand"').replace("starts   = 2013-04-01", ""))
    with pytest.raises(UsageError, match="has not run yet"):
        reconcile(job, client.place)
    client.score(job, Window(APRIL - timedelta(days=1), APRIL + timedelta(days=3)))
    client.insert(1, [9001])
    result = reconcile(job, client.place, repair=True)
    assert counts(result) == {"rows_source": 61, "rows_accounted": 60, "rows_owed": 1}
    assert counts(reconcile(job, client.place)) == {"rows_source": 61, "rows_accounted": 61}


def test_before_the_first_run_it_says_so(client):
    job = client.ready(SHORT)
    with pytest.raises(UsageError, match="no prediction table yet"):
        reconcile(job, client.place)


def test_two_at_once_do_the_work_once(client):
    job = scored(client)
    with client.connect(client.home_of_results).cursor() as rival:
        rival.execute(
            "select pg_advisory_lock(hashtextextended('plantao.reconcile bad_reading',"
            " 'plantao'::regnamespace::bigint))"
        )
        with pytest.raises(WindowBusy, match="somebody else"):
            reconcile(job, client.place)


@pytest.mark.parametrize(("every", "days", "due"), [("monthly", 29, False), ("monthly", 31, True), ("daily", 2, True),
                                                   ("never", 999, False)])  # fmt: skip
def test_it_is_due_when_the_job_says(client, every, days, due):
    job = client.ready(SHORT.replace("late_rows", f'reconcile = "{every}"\nlate_rows'))
    assert not reconciliation.is_due(job, client.place)
    client.score(job, day(1))
    assert not reconciliation.is_due(job, client.place)
    reconcile(job, client.place)
    client.results(f"update plantao.reconciliations set finished_at = now() - interval '{days} days'")
    assert reconciliation.is_due(job, client.place) is due
