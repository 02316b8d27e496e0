"""What breaks is told once, with the rows it is about; it is over with the next good run, and may stop a run."""

from __future__ import annotations

import sys

import pytest

import steady
from plantao import cli
from plantao.errors import ChecksFailed
from plantao.ledger.request import Request
from plantao.release import promotion
from plantao.run import parallel, publish
from steady import alerts, incidents
from world import JOB, World, day

FAULTS = {
    "all missing": ("update readings set y = null where id between {} and {}", "null_share", "y"),
    "renamed": ("update readings set city = upper(city) where id between {} and {}", "unseen_share", "city"),
    "frozen": ("update readings set y = 0.123 where id between {} and {}", "frozen_column", "y"),
    "another unit": ("update readings set x = x / 1000 where id between {} and {}", "frozen_column", "x"),
}


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def spoil(world, number, fault="all missing"):
    world.sql(FAULTS[fault][0].format(number * 1000, number * 1000 + 999))


def open_ones(world):
    return incidents(world, "fingerprint", "state = 'open'")


# --- opening and closing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_on_its_first_day_and_over_on_the_next_good_one(world, fault):
    job = steady.ready(world)
    spoil(world, 2, fault)
    world.score(job, day(1))
    assert incidents(world) == []
    world.score(job, day(2))
    _, check, column = FAULTS[fault]
    assert incidents(world) == [(f"break {check} {column}", "broken", "open")]
    assert alerts(world, "kind, fingerprint") == [("break", f"break bad_reading break {check} {column}")]
    world.score(job, day(3))
    assert incidents(world) == [(f"break {check} {column}", "broken", "closed")]
    assert alerts(world) == ["break", "break_recovered"]
    ((since, until, hours),) = incidents(world, "since, until, extract(epoch from now() - closed_at) / 3600")
    assert (since, until) == (day(2).start.date(), day(3).start.date())
    assert hours < 1  # the clock's time is kept
    assert "open from 2013-04-02 to 2013-04-03" in alerts(world, "message")[1]


@pytest.mark.parametrize("fault", ["ten times as many rows", "a tenth of the rows"])
def test_a_sudden_change_in_the_number_of_rows_is_told_and_scored_all_the_same(world, fault):
    job = steady.ready(world, last=30)
    for number in range(1, 30):
        world.score(job, day(number))
    assert incidents(world) == []
    if fault == "ten times as many rows":
        world.insert(30, list(range(300_000, 300_360)))
    else:
        world.sql("delete from readings where id > 30003")
    expected = world.sql("select count(*) from readings where at >= '2013-04-30'")[0][0]
    assert world.score(job, day(30)).counts.scored == expected
    assert ("break row_count",) in open_ones(world)
    assert any("rows" in line for line in alerts(world, "message"))


def test_the_incident_and_the_alert_are_there_with_the_rows_and_never_without(client):
    job = steady.ready(client)
    spoil(client, 2)
    client.score(job, day(1))
    client.score(job, day(2))
    transactions = [
        client.results(f"select xmin::text from {table}")[0][0]
        for table in ("plantao.incidents", "plantao.alerts", "plantao.runs where run_id = 2")
    ]
    assert len(set(transactions)) == 1
    assert client.results("select since::text, model_version, details ->> 'n' from plantao.incidents") == [
        ("2013-04-02", 1, "40")]  # fmt: skip
    message, step = alerts(client, "message, next_step")[0]
    assert "bad_reading: y: 100.0% of 40 rows are missing" in message
    assert "see whether the source stopped filling the column" in step


def test_a_run_that_fails_after_its_checks_tells_nothing_of_them(world, monkeypatch):
    from plantao.ledger import runs

    job = steady.ready(world)
    spoil(world, 1)

    def lost(*_, **__):
        message = "gone"
        raise RuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr(runs, "succeed", lost)
        with pytest.raises(RuntimeError, match="gone"):
            world.score(job, day(1))
    assert (incidents(world), alerts(world)) == ([], ["failed"])  # of the run, not of what its checks have seen
    assert world.results("select count(*) from plantao.daily_state") == [(0,)]
    world.score(job, day(1))
    assert "break" in alerts(world)


def test_what_cannot_be_judged_stays_open(world):
    job = steady.ready(world, last=4)
    spoil(world, 1)
    world.sql("delete from readings where id between 2003 and 2999")
    world.sql("delete from readings where id between 3000 and 3999")
    world.score(job, day(1))
    world.score(job, day(2))
    assert ("break null_share y",) in open_ones(world)
    world.score(job, day(3))  # no row at all
    assert ("break null_share y",) in open_ones(world)
    world.score(job, day(4))
    assert open_ones(world) == []


def test_the_same_fault_the_next_day_is_not_told_again_and_a_worse_one_is(world):
    job = steady.ready(world, last=4)
    world.sql("update readings set y = null where id % 1000 < 16 and id < 3000")
    spoil(world, 3)
    spoil(world, 4)
    for number in (1, 2):
        world.score(job, day(number))
    assert alerts(world) == ["break"]
    world.score(job, day(3))
    assert alerts(world) == ["break", "break"]
    assert "worse: y: 100.0%" in alerts(world, "message")[1]
    world.score(job, day(4))
    assert alerts(world) == ["break", "break"]
    assert incidents(world) == [("break null_share y", "broken", "open")]


def test_a_past_window_opens_and_closes_nothing_and_is_told_once(world):
    job = steady.ready(world, JOB.replace('late_rows = "3 days"', 'late_rows = "0 days"'))
    spoil(world, 1)
    spoil(world, 3, "renamed")
    world.score(job, day(3))
    world.score(job, day(1))
    world.score(job, day(2))  # a good one of the past says nothing about today
    assert open_ones(world) == [("break unseen_share city",)]
    messages = alerts(world, "message")
    assert len(messages) == 2
    assert "in the past window" in messages[1]
    assert "y: 100.0% of 40 rows are missing" in messages[1]


# --- blocking --------------------------------------------------------------------------------------------------------


BLOCKING = JOB.replace("[score]", '[validate]\nblock = ["null_share"]\n\n[score]')


def test_a_check_that_blocks_stops_the_run_until_somebody_decides(client):
    job = steady.ready(client, BLOCKING)
    spoil(client, 1)
    with pytest.raises(ChecksFailed, match=r"y: 100\.0% of 40 rows are missing") as caught:
        client.score(job, day(1))
    assert "the limit is 8.5%. Nothing was written." in caught.value.what
    assert caught.value.permanent
    assert "--accept-checks" in caught.value.next_step
    assert client.predictions() == []
    assert client.results("select count(*) from plantao.daily_state") == [(0,)]
    assert client.attempts("status, error_kind") == [("failed", "permanent")]
    assert incidents(client) == []
    assert "blocked" in alerts(client)
    assert client.score(job, day(1), accept_checks=True).counts.scored == 40
    assert incidents(client) == [("break null_share y", "broken", "open")]
    assert client.results("select sum(rows) from plantao.daily_state where column_name = ''") == [(40,)]


def test_the_command_line_accepts_what_a_check_blocks(world, monkeypatch, capsys):
    steady.ready(world, BLOCKING)
    spoil(world, 1)
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["plantao", "-q", "run", "bad_reading", "--from", "2013-04-01", *more])
        with pytest.raises(SystemExit) as ended:
            cli.entry()
        return ended.value.code or 0, capsys.readouterr()

    status, said = run("--to", "2013-04-02")
    assert (status, "--accept-checks" in said.err, world.predictions()) == (1, True, [])
    status, said = run("--to", "2013-04-02", "--accept-checks")
    assert (status, "scored          40" in said.out) == (0, True)


def test_a_check_that_is_not_blocked_only_warns(world):
    job = steady.ready(world, BLOCKING)
    spoil(world, 1, "renamed")
    assert world.score(job, day(1)).counts.scored == 40
    assert alerts(world) == ["break"]


# --- rows that do not come -------------------------------------------------------------------------------------------


def test_a_day_without_rows_is_told_when_its_weekday_is_known(world):
    job = steady.ready(world, last=3)
    world.sql("delete from readings where id between 2000 and 2999")
    world.score(job, day(1))
    world.score(job, day(2))
    assert world.attempts("status")[-1] == ("empty",)
    assert open_ones(world) == [("break row_count",)]
    assert "0 rows, less than half of the 40 of a usual Tuesday" in alerts(world, "message")[0]
    world.score(job, day(3))
    assert open_ones(world) == []


def test_weekdays_are_learnt_from_production_when_the_reference_has_no_days(world):
    world.fill(days=0)
    steady.insert(world, steady.days(1, 28))
    world.register()
    job = world.job()
    world.score(job, steady.period(1, 28))
    world.score(job, day(29))
    assert open_ones(world) == [("break row_count",)]


def test_the_least_number_of_rows_needs_no_history(world):
    world.fill(days=2, per_day=40)
    world.register()
    job = world.job(JOB.replace("[score]", "[validate]\nat_least_rows = 30\n\n[score]"))
    world.score(job, day(2))
    assert open_ones(world) == []
    world.score(job, day(3))
    assert open_ones(world) == [("break row_count",)]
    assert "0 rows, fewer than at_least_rows = 30" in alerts(world, "message")[0]


# --- parts and challengers -------------------------------------------------------------------------------------------


def in_parts(world, job, number, **request):
    parts = parallel.plan(Request(job, day(number), **request), world.place)
    for part in parts:
        parallel.score_part(job, part, world.place)
    return publish.publish(job, parts[0].run_id, world.place, accept_checks=request.get("accept_checks", False))


def test_parts_are_checked_like_one_process(client):
    job = steady.ready(client, JOB.replace("[load]", "parts = 2\n\n[load]"))
    spoil(client, 1)
    in_parts(client, job, 1)
    assert incidents(client) == [("break null_share y", "broken", "open")]
    in_parts(client, job, 2)
    assert incidents(client) == [("break null_share y", "broken", "closed")]
    assert alerts(client) == ["break", "break_recovered"]


def test_parts_are_blocked_like_one_process(world):
    job = steady.ready(world, BLOCKING.replace("[load]", "parts = 2\n\n[load]"))
    spoil(world, 1)
    with pytest.raises(ChecksFailed, match=r"100\.0% of 40 rows"):
        in_parts(world, job, 1)
    assert world.predictions() == []
    assert world.attempts("status, error_kind") == [("failed", "permanent")]
    assert "blocked" in alerts(world)
    assert in_parts(world, job, 1, accept_checks=True).counts.scored == 40


def test_a_window_in_parts_without_rows_is_told(world):
    job = steady.ready(world, JOB.replace("[load]", "parts = 2\n\n[load]"))
    world.sql("delete from readings where id between 2000 and 2999")
    in_parts(world, job, 1)
    in_parts(world, job, 2)
    assert open_ones(world) == [("break row_count",)]


def test_a_challenger_checks_nothing(world):
    job = steady.ready(world, BLOCKING.replace("null_share", "unseen_share"))
    frame = steady.days(-40, -1)
    version = world.register(frame=frame.assign(city="Porto")).version  # which never saw another city
    promotion.mark("bad_reading", version, "let us see", world.place, "challenger")
    world.score(job, day(1))
    assert world.results("select count(*) from predictions.bad_reading_shadow") == [(40,)]
    assert (incidents(world), alerts(world)) == ([], [])
