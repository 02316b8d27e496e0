"""Old attempts leave the ledger for its archive, and nothing that anybody was promised changes by it."""

from __future__ import annotations

import contextlib
import json

import psycopg2
import pytest

from plantao.alert.send import ledgers
from plantao.errors import TargetRefused, UsageError
from plantao.ledger import prune, runs
from plantao.ledger.migrate import upgrade
from plantao.postgres import locks, session
from plantao.run.reconcile import reconcile
from world import JOB, WORKER, day

TEXT = JOB.replace("starts ", "ends = 2013-04-06\nstarts ")
OLD_DAYS = "2013-05-01Z"


@pytest.fixture
def job(world):
    return world.ready(TEXT)


def scored(world, job, *days):
    for number in days:
        world.score(job, day(number))


def grow_old(world, *numbers):
    """Date the attempts of these windows, with all that hangs on them, ten years back."""
    starts = [day(number).start for number in numbers]
    world.results(
        "set session_replication_role = replica;"
        " update plantao.log_events e set at = at - interval '10 years' from plantao.runs r"
        " where r.run_id = e.run_id and r.window_start = any(%(starts)s);"
        " update plantao.rejected_rows set resolved_at = resolved_at - interval '10 years'"
        " where source_timestamp < '2013-04-03Z';"
        " update plantao.runs set started_at = started_at - interval '10 years',"
        " finished_at = finished_at - interval '10 years' where window_start = any(%(starts)s)",
        {"starts": starts},
    )


@contextlib.contextmanager
def owner(world):
    with session.session(world.owner(world.home_of_results), "plantao") as connection:
        yield connection


def pruned(world, keep="2 years", job=None):
    with owner(world) as connection:
        return prune.prune(connection, prune.cutoff(connection, keep), job, "the ledger")


def everything(world, job):
    """What must not change: how the job stands, what it has covered, and which attempt wrote which prediction."""
    with world.place_session(job) as connection:
        covered = runs.covered(connection, job.name)
    written = (
        "select p.id, p.prediction, p.score, r.run_id, r.window_start, r.rows_scored, r.model_version"
        " from predictions.bad_reading p left join plantao.all_runs r using (run_id) order by 1"
    )
    kept = ("daily_state", "metrics", "incidents", "alerts", "models", "model_timeline", "jobs", "coverage")
    return (
        covered,
        world.results(written),
        world.results("select * from plantao.status"),
        [world.results(f"select count(*) from plantao.{table}") for table in kept],
        [connection for connection, _ in ledgers(world.place)],
    )


def test_old_attempts_move_to_the_archive_and_nothing_that_was_promised_changes(world, job):
    world.sql("update readings set x = 'nan' where id in (1003, 2004)")
    scored(world, job, 1, 2, 3)
    world.sql("update readings set x = 0 where id = 1003")
    scored(world, job, 1, 4, 5)
    grow_old(world, 1, 2, 3)
    before = everything(world, job)
    assert all(row[3] is not None for row in before[1])
    log = world.results("select count(*) from plantao.log_events")[0][0]

    with owner(world) as connection:
        counted = prune.count(connection, prune.cutoff(connection, "2 years"), None)
    done = pruned(world)
    assert done == counted
    assert (done.runs, done.rejected_rows) == (4, 1)
    assert done.log_events > 8
    assert everything(world, job) == before
    assert world.results("select window_start::date::text from plantao.runs order by 1") == [
        ("2013-04-04",),
        ("2013-04-05",),
    ]
    assert world.results("select count(*) from plantao.log_events") == [(log - done.log_events,)]
    open_ones = "select key ->> 'id' from plantao.rejected_rows where resolved_at is null"
    assert world.results(open_ones) == [("2004",)]
    said = "select runs, log_events, rejected_rows, who, finished_at is not null from plantao.prunes"
    assert world.results(said) == [(4, done.log_events, 1, "postgres", True)]
    assert pruned(world) == prune.Counts()


def test_a_pruned_window_is_scored_again_and_repaired_as_any_other(world, job):
    scored(world, job, 1, 2, 3, 4, 5)
    grow_old(world, 1, 2, 3, 4)
    assert pruned(world).runs == 4
    # A window that was scored before is none that had no success: that all is scored already is no alert.
    report = world.score(job, day(1))
    assert (report.counts.scored, report.counts.already_scored) == (0, 20)
    assert world.results("select count(*) from plantao.alerts") == [(0,)]
    assert reconcile(job, world.place).in_order
    world.sql("delete from predictions.bad_reading where id = 2003")
    found = reconcile(job, world.place, repair=True)
    assert (found.found.rows_owed, found.rows_repaired) == (1, 1)
    assert len(world.predictions()) == 100
    assert reconcile(job, world.place).in_order


def test_the_last_success_and_what_followed_stay_however_old_they_are(world, job):
    scored(world, job, 2, 1)
    world.sql("alter table readings rename x to z")
    with pytest.raises(Exception, match="column 'x' is missing"):
        scored(world, job, 3)
    grow_old(world, 1, 2, 3)
    before = everything(world, job)
    assert pruned(world) != prune.Counts()  # of the log
    assert world.attempts("window_start::date::text, status") == [
        ("2013-04-02", "succeeded"),  # the last window
        ("2013-04-01", "succeeded"),  # the last attempt
        ("2013-04-03", "failed"),
    ]
    assert everything(world, job) == before


def test_one_job_can_be_pruned_and_the_others_stay(world, job):
    scored(world, job, 1, 2)
    other = world.job(TEXT.replace("predictions.bad_reading", "predictions.other"), name="other")
    scored(world, other, 1, 2)
    grow_old(world, 1)
    assert pruned(world, job="other").runs == 1
    assert world.results("select job from plantao.runs_archive") == [("other",)]
    assert world.results("select job, runs from plantao.prunes") == [("other", 1)]


def test_one_that_is_interrupted_has_counted_what_it_did_and_the_next_one_goes_on(world, job, monkeypatch):
    scored(world, job, 1, 2, 3, 4)
    grow_old(world, 1, 2, 3)
    monkeypatch.setattr(prune, "BATCH", 2)
    batches = []

    def stumble(*given, step=prune._runs):
        batches.append(1)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(prune, "_runs", stumble)
    with pytest.raises(KeyboardInterrupt):
        pruned(world)
    unfinished = "select runs, finished_at is null from plantao.prunes"
    assert world.results(unfinished) == [(2, True)]
    assert pruned(world).runs == 1
    assert world.results("select count(*), count(distinct run_id) from plantao.all_runs") == [(4, 4)]


def test_an_attempt_leaves_the_ledger_for_the_archive_only(world, job):
    scored(world, job, 1, 2)
    grow_old(world, 1)
    pruned(world)
    for attack in (
        "delete from plantao.runs",
        "delete from plantao.runs_archive",
        "update plantao.runs_archive set rows_scored = 0",
        "truncate plantao.runs_archive",
    ):
        with pytest.raises(psycopg2.errors.IntegrityError, match=r"never changes|only ever added to"):
            world.results(attack)
    for attack in ("delete from plantao.runs", "insert into plantao.runs_archive select * from plantao.runs"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            world.sql(attack, at=world.home_of_results, user=WORKER)


def test_a_worker_may_not_prune_and_two_at_once_do_not(world, job):
    with world.place_session(job) as connection, pytest.raises(TargetRefused, match="may not prune the ledger") as said:
        prune.prune(connection, prune.cutoff(connection, "2 years"), None, "the ledger")
    assert "the account of the ledger's owner" in str(said.value)
    with owner(world) as another, locks.alone(another, prune.LOCK) as mine:
        assert mine
        with pytest.raises(TargetRefused, match="somebody else prunes the ledger at this moment"):
            pruned(world)
    assert world.results("select count(*) from plantao.prunes") == [(0,)]


def test_the_command_says_what_it_did(world, job, plantao, monkeypatch):
    scored(world, job, 1, 2, 3)
    grow_old(world, 1, 2)
    status, out, err = plantao("prune", "--keep", "2 years")
    assert (status, out) == (1, "")
    assert "may not prune" in err
    monkeypatch.setenv("AIRFLOW_CONN_CLIENT_DB", world.owner("client_db").url())
    status, out, err = plantao("prune", "--keep", "2 years", "--dry-run")
    assert (status, err) == (0, "")
    assert "runs that would be moved to plantao.runs_archive  2" in out
    assert world.results("select count(*) from plantao.runs_archive") == [(0,)]
    status, out, _ = plantao("prune", "--keep", "24 months", "--job", "bad_reading", "--json")
    (one,) = json.loads(out)
    assert (status, one["connection"], one["runs"], one["parts"]) == (0, "client_db", 2, 0)
    status, out, err = plantao("prune", "--keep", "2 jears")
    assert (status, out) == (2, "")
    assert "'2 jears' is no time to keep" in err
    assert '\nplantao prune --keep "2 years"' in err


@pytest.mark.parametrize("given", ["2", "-2 years", "2 jears", "", "1.5 years", "2 years; drop table runs", "0 years"])
def test_what_is_no_time_to_keep_is_refused(given):
    with pytest.raises(UsageError, match=r"is no time to keep|is too short"):
        prune.kept(given)


def test_a_time_that_promises_need_is_refused():
    for given in ("30 days", "4 weeks", "1 month", "0 days"):
        with pytest.raises(UsageError, match="is too short: digests and late outcomes need 31 days"):
            prune.kept(given)
    assert [prune.kept(given) for given in ("31 days", " 5 weeks", "2 months", "1 year ", "9999 years")] == [
        *("31 day", "5 week", "2 month", "1 year", "9999 year"),
    ]


def test_the_archive_has_the_columns_of_the_ledger(world):
    columns = (
        "select array_agg(column_name || ' ' || data_type order by ordinal_position)"
        " from information_schema.columns where table_schema = 'plantao' and table_name = %s"
    )
    found = [world.results(columns, (table,)) for table in ("runs", "runs_archive", "all_runs")]
    assert found[0] == found[1] == found[2]


def test_a_second_ledger_in_the_database_has_an_archive_of_its_own(world, job):
    scored(world, job, 1, 2)
    with session.session(world.owner(world.home_of_results), "another") as connection:
        upgrade(connection, "another")
    grow_old(world, 1)
    with session.session(world.owner(world.home_of_results), "another") as connection:
        assert prune.prune(connection, prune.cutoff(connection, "2 years"), None, "the other") == prune.Counts()
    assert pruned(world).runs == 1
    assert world.results("select count(*) from another.runs_archive") == [(0,)]
