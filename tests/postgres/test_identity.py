"""A prediction belongs to a row, and a key alone is no row: keys met twice in a run, and keys given to other rows."""

from __future__ import annotations

import pytest
from psycopg2.sql import SQL

from plantao.errors import SourceChanged
from plantao.extract import catalog
from plantao.ledger.request import Request
from plantao.preflight.check import check
from plantao.run import parallel, publish
from plantao.run.reconcile import reconcile
from world import JOB, day

LENIENT = JOB.replace("[score]", "[validate]\nat_most_rejected = 1\n\n[score]")
CHILD = "create table public.more () inherits (public.readings)"
REASONS = "select key ->> 'id', reason from plantao.rejected_rows where resolved_at is null order by 1"


@pytest.fixture(params=["one database", "two databases"])
def client(request):
    return request.getfixturevalue("world" if request.param == "one database" else "two_databases")


def copied(client, number: int, ids: list[int], moment: str = "at") -> None:
    """Repeat keys of a day in a table that inherits from the source's, with other values."""
    client.sql(f"insert into public.more select id, {moment}, x + 1, y, city from readings where id = any(%s)", (ids,))


def counts(report):
    found = report.counts
    return found.read, found.scored, found.rejected, found.already_scored


# --- a key twice in one run ------------------------------------------------------------------------------------------


def test_keys_that_a_child_of_the_table_repeats_are_set_aside_both_in_the_first_run_and_in_the_next(client):
    job = client.ready(LENIENT, days=1)
    client.sql(CHILD)
    client.grant()
    copied(client, 1, [1000, 1001])

    assert counts(client.score(job, day(1))) == (22, 18, 4, 0)
    assert counts(client.score(job, day(1))) == (22, 0, 4, 18)

    both = [(key, "duplicate_key") for key in ("1000", "1000", "1001", "1001")]
    assert client.results(REASONS) == both


def test_a_copy_that_comes_after_its_key_was_scored_is_not_taken_for_the_row_that_was(client):
    job = client.ready(LENIENT, days=1)
    client.sql(CHILD)
    client.grant()
    client.score(job, day(1))
    before = client.predictions()
    copied(client, 1, [1000])

    assert counts(client.score(job, day(1))) == (21, 0, 2, 19)

    assert client.predictions() == before
    assert client.results(REASONS) == [("1000", "duplicate_key")] * 2


def test_a_key_that_a_late_row_shares_with_one_of_the_window_is_met_twice(client):
    client.fill(days=2)
    client.sql("alter table readings rename to original; create view readings as table original")
    client.register()
    job = client.job(LENIENT)
    client.score(job, day(1))
    client.sql(
        "alter table original drop constraint readings_pkey;"
        " insert into original select 2000, '2013-04-01 12:00Z', x, y, city from original where id = 1000"
    )

    assert counts(client.score(job, day(2))) == (21, 19, 2, 0)

    assert client.results(REASONS) == [("2000", "duplicate_key")] * 2


def test_a_key_that_a_damaged_index_lets_through_twice_stops_the_run(world, monkeypatch):
    job = world.ready(LENIENT, days=1)
    world.sql(CHILD)
    world.grant()
    copied(world, 1, [1000])
    monkeypatch.setattr(catalog, "is_unique", lambda _: SQL("select true"))

    for again in (False, True):
        with pytest.raises(SourceChanged, match=r"has read a key twice.*Nothing was written"):
            world.score(job, day(1), rescore=again)

    assert world.predictions("count(*)") == [(0,)]


def test_in_parts_too_a_key_twice_is_set_aside(world):
    job = world.ready(LENIENT.replace("[load]", "parts = 2\n[load]"), days=1)
    world.sql(CHILD)
    world.grant()
    copied(world, 1, [1000, 1019])
    parts = parallel.plan(Request(job, day(1)), world.place)

    for part in parts:
        parallel.score_part(job, part, world.place)

    assert counts(publish.publish(job, parts[0].run_id, world.place)) == (22, 18, 4, 0)


# --- a key that was given to another row -----------------------------------------------------------------------------

OPEN = "select fingerprint, word, severity, message from plantao.incidents where lane = 'integrity' and state = 'open'"
REUSED = range(1010, 1020)


@pytest.fixture
def restored(client):
    """A source that was set back to the night before and gives the same ids to other rows of the next day."""
    job = client.ready(days=1)
    client.score(job, day(1))
    client.sql("delete from readings where id >= 1010")
    client.insert(2, [*REUSED, *range(2000, 2010)])
    return client, job


def test_rows_with_the_keys_of_others_are_conflicts_that_are_counted_told_and_listed(restored):
    client, job = restored

    report = client.score(job, day(2))

    assert counts(report) == (20, 10, 0, 10)
    assert report.as_dict()["rows_conflicting"] == 10
    assert client.attempts("rows_conflicting") == [(0,), (10,)]
    ((fingerprint, word, severity, message),) = client.results(OPEN)
    assert (fingerprint, word, severity) == ("integrity conflict", "broken", 10)
    assert "10 rows have keys with a prediction of another at" in message
    assert "1010 (2013-04-02" in message
    result = reconcile(job, client.place, day(2))
    assert (result.found.rows_conflicting, result.found.rows_owed, result.in_order) == (10, 0, False)
    assert result.found.examples["rows_conflicting"] == [[key] for key in REUSED[:5]]


def test_conflicts_stay_and_are_told_once_until_somebody_decides(restored):
    client, job = restored
    for _ in range(2):
        assert client.score(job, day(2)).counts.conflicting == 10
    repaired = reconcile(job, client.place, repair=True)

    assert (repaired.in_order, repaired.rows_repaired) == (False, 0)
    assert len(client.results(OPEN)) == 1
    assert client.results("select count(*) from plantao.alerts where kind = 'integrity'") == [(1,)]


def test_accepted_conflicts_are_scored_and_the_earlier_predictions_kept(restored):
    client, job = restored
    client.score(job, day(2))

    result = reconcile(job, client.place, accept_conflicts=True)

    assert (result.in_order, result.rows_repaired) == (True, 10)
    moved = "select count(*) from {} where source_timestamp {} '2013-04-02Z' and id between 1010 and 1019"
    assert client.results(moved.format("predictions.bad_reading", ">=")) == [(10,)]
    assert client.results(moved.format("predictions.bad_reading_history", "<")) == [(10,)]
    assert client.results(OPEN) == []
    assert {str(one) for (one,) in client.results("select day from plantao.stale_days")} == {"2013-04-01", "2013-04-02"}
    assert counts(client.score(job, day(2))) == (20, 0, 0, 20)
    assert reconcile(job, client.place).found.rows_conflicting == 0


def test_in_parts_conflicts_are_counted_too(restored):
    client, _ = restored
    job = client.job(JOB.replace("[load]", "parts = 2\n[load]"))
    parts = parallel.plan(Request(job, day(2)), client.place)
    for part in parts:
        parallel.score_part(job, part, client.place)

    found = publish.publish(job, parts[0].run_id, client.place)

    assert (counts(found), found.counts.conflicting) == ((20, 10, 0, 10), 10)
    assert len(client.results(OPEN)) == 1


@pytest.mark.parametrize("on_change", ["keep", "rescore"])
def test_a_row_that_moves_in_time_is_a_conflict_unless_edits_are_scored_again(world, on_change):
    world.fill(days=2)
    world.register()
    edits = f'on_change = "{on_change}"\nchanged_at = "edited_at"\n[score]'
    job = world.job(JOB.replace("[score]", edits if on_change == "rescore" else "[score]"))
    world.score(job, day(1))
    world.sql("update readings set at = '2013-04-02 12:00Z', edited_at = '2013-04-02 13:00Z' where id = 1000")

    found = world.score(job, day(2)).counts

    conflicting, rescored = (1, 0) if on_change == "keep" else (0, 1)
    assert (found.read, found.conflicting, found.rescored) == (21, conflicting, rescored)
    assert found.scored == 20 + rescored


# --- a key that identifies no row ------------------------------------------------------------------------------------


@pytest.fixture
def customers(world):
    """A source with a row for each customer and day, and a job that takes the customer for its key."""
    world.fill(days=0)
    world.sql("alter table readings drop constraint readings_pkey")
    for number in (1, 2, 3):
        world.insert(number, list(range(20)))
    world.register()
    return world, world.job(JOB.replace('late_rows = "3 days"', 'late_rows = "0 days"'))


def key_line(client):
    page = check(client.place, "bad_reading")
    return next(line.answer for line in page.lines if line.of == "bad_reading: key")


def test_a_new_window_of_which_no_row_is_scored_is_an_alert_once(customers):
    client, job = customers
    told = "select message from plantao.alerts where kind = 'nothing_scored' order by alert_id"
    client.score(job, day(1))
    assert client.results(told) == []

    for _ in range(2):
        assert counts(client.score(job, day(2))) == (20, 0, 0, 20)

    ((message,),) = client.results(told)
    assert message.startswith("bad_reading, 2013-04-02: none of 20 rows was scored. The keys of 20 have a prediction")
    assert "20 of them of rows with another timestamp" in message


def test_a_window_scored_again_is_no_alert(world):
    job = world.ready(days=1)
    for _ in range(2):
        world.score(job, day(1))
    assert world.results("select count(*) from plantao.alerts where kind = 'nothing_scored'") == [(0,)]


def test_check_finds_a_key_that_several_rows_have(customers):
    client, _ = customers

    answer = key_line(client)

    assert answer.state == "WARN"
    assert "no unique index covers id, and 3 rows have the key" in answer.what
    assert "name all columns that identify a row" in answer.cure


def test_check_is_content_with_a_unique_index_and_with_keys_that_have_one_row(world):
    world.ready(days=2)
    assert key_line(world).what == "a unique index covers id"

    world.sql("alter table readings drop constraint readings_pkey")

    assert (key_line(world).state, "of 200 keys looked at each has one row" in key_line(world).what) == ("OK", True)
