"""A run on a real PostgreSQL: what it writes, what it leaves alone, what it says."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from plantao.load import write
from plantao.load.existing import ensure_table
from plantao.load.table import prediction_table
from plantao.postgres import session
from plantao.score.batch import BatchScorer
from plantao.window import Window
from world import APRIL, JOB, classifier, day, training_frame


def test_every_row_of_the_window_is_scored_and_no_other(world):
    job = world.ready()
    report = world.score(job, day(2))
    assert report.status == "succeeded"
    assert [row[0] for row in world.predictions()] == list(range(2000, 2020))
    assert world.attempts() == [("succeeded", 20, 20, 0, 0)]


def test_the_score_is_the_one_that_scikit_learn_gives_by_hand(world):
    job = world.ready()
    world.score(job, day(1))
    import pandas as pd

    rows = world.sql("select id, x, y, city from public.readings where id < 2000 order by id")
    frame = pd.DataFrame(rows, columns=["id", "x", "y", "city"])
    expected = classifier(training_frame()).predict_proba(frame[["x", "y", "city"]])[:, 1]
    assert [row[2] for row in world.predictions()] == expected.tolist()
    assert [row[1] for row in world.predictions()] == (expected >= 0.5).tolist()


def test_a_second_run_of_the_window_changes_no_row_and_says_why(world):
    job = world.ready()
    world.score(job, day(1))
    before = world.predictions("*")
    report = world.score(job, day(1))
    assert world.predictions("*") == before
    assert (report.counts.scored, report.counts.already_scored) == (0, 20)
    assert world.attempts()[1] == ("succeeded", 20, 0, 0, 20)


def test_a_prediction_says_what_it_came_from(world):
    job = world.ready()
    report = world.score(job, day(1))
    row = world.predictions("id, source_timestamp, model_version, run_id, in_control_group")[0]
    assert row == (1000, APRIL, 1, report.run_id, False)
    ledger = world.results("select code_version, environment->>'python', source_snapshot, worker from plantao.runs")
    assert all(ledger[0])


def test_jobs_that_start_together_share_a_new_schema(world):
    world.fill(days=0)
    output = world.register().output
    jobs = [world.job(JOB.replace("predictions.bad_reading", f"predictions.p{i}"), f"job_{i}") for i in range(6)]
    ready = threading.Barrier(len(jobs))

    def create(job):
        # As the owner: the scorer role is granted the schema, and need not make one.
        with session.session(world.owner("client_db"), "plantao") as connection:
            ready.wait()
            return ensure_table(connection, prediction_table(job, ["int8"], output))

    for _ in range(5):
        world.sql("drop schema predictions cascade")
        with ThreadPoolExecutor(len(jobs)) as pool:
            assert all(pool.map(create, jobs))


def test_an_empty_window_is_a_run_and_no_error(world):
    job = world.ready()
    assert world.score(job, day(20)).status == "empty"
    assert world.attempts() == [("empty", 0, 0, 0, 0)]


def test_a_dry_run_counts_and_writes_nothing(world):
    job = world.ready()
    report = world.score(job, day(1), dry_run=True)
    assert (report.status, report.counts.scored, report.run_id) == ("dry run", 20, None)
    assert world.attempts() == []
    assert world.results("select to_regclass('predictions.bad_reading')") == [(None,)]


def test_a_dry_run_after_a_run_counts_what_is_scored(world):
    job = world.ready()
    world.score(job, day(1))
    counts = world.score(job, day(1), dry_run=True).counts
    assert (counts.scored, counts.already_scored) == (0, 20)


def test_windows_that_overlap_score_each_row_once(world):
    job = world.ready()
    world.score(job, day(2))
    report = world.score(job, Window(APRIL, APRIL + timedelta(days=3)))
    assert (report.counts.read, report.counts.scored, report.counts.already_scored) == (60, 40, 20)
    assert len(world.predictions()) == 60


def test_a_window_that_fits_into_many_batches_is_complete(world, monkeypatch):
    monkeypatch.setattr("plantao.postgres.snapshot.BATCH_BYTES", 400)
    job = world.ready(per_day=200, days=1)
    report = world.score(job, day(1))
    assert report.counts.scored == 200
    assert [row[0] for row in world.predictions()] == list(range(1000, 1200))


def test_a_large_window_is_loaded_while_it_is_scored(world, monkeypatch):
    monkeypatch.setattr("plantao.postgres.snapshot.BATCH_BYTES", 400)
    monkeypatch.setattr("plantao.load.write.ROWS_BEFORE_LOAD", 20)
    job = world.ready(per_day=200, days=1)
    assert world.score(job, day(1)).counts.scored == 200
    assert world.attempts() == [("succeeded", 200, 200, 0, 0)]


@pytest.mark.parametrize(("seconds", "waits"), [(60.0, False), (0.0, True)], ids=["fast", "slow"])
def test_a_usual_window_is_loaded_while_it_is_scored_where_scoring_is_fast(world, monkeypatch, seconds, waits):
    # Else the target's transaction, and the lock on the table, would last as long as a slow model takes.
    monkeypatch.setattr("plantao.postgres.snapshot.BATCH_BYTES", 400)
    monkeypatch.setattr("plantao.load.write.FIRST_ROWS", 20)
    monkeypatch.setattr("plantao.load.write.FIRST_SECONDS", seconds)
    job, steps = world.ready(per_day=200, days=1), []
    for owner, step in ((BatchScorer, "score"), (write.Load, "_hand_over")):
        monkeypatch.setattr(owner, step, noted(steps, step, getattr(owner, step)))
    assert world.score(job, day(1)).counts.scored == 200
    last_scored = len(steps) - 1 - steps[::-1].index("score")
    assert ("_hand_over" not in steps[:last_scored]) is waits


def noted(steps, name, step):
    def call(*given, **more):
        steps.append(name)
        return step(*given, **more)

    return call


def test_batches_that_scoring_cannot_take_yet_go_through_the_spool(world, monkeypatch):
    monkeypatch.setattr("plantao.postgres.snapshot.BATCH_BYTES", 400)
    monkeypatch.setattr("plantao.extract.spool.Spool.__init__.__defaults__", (0,))
    job = world.ready(per_day=200, days=1)
    assert world.score(job, day(1)).counts.scored == 200


@pytest.mark.parametrize(("share", "marked"), [(0.0, 0), (0.5, 48)])
def test_the_control_group_is_a_stable_share_of_the_keys(world, share, marked):
    job = world.ready(JOB + f"\n[measure]\ncontrol_group = {share}\n", per_day=100, days=1)
    world.score(job, day(1))
    assert world.results("select count(*) from predictions.bad_reading where in_control_group") == [(marked,)]


def test_a_query_may_be_the_source(world):
    text = JOB.replace(
        'table     = "public.readings"',
        'query = """select r.*, 1 as one from public.readings r where city = \'Recife\' -- only one; and a % sign"""',
    )
    job = world.ready(text)
    report = world.score(job, day(1))
    assert report.counts.scored == 10
    assert [row[0] for row in world.predictions()] == list(range(1001, 1020, 2))


def test_a_query_file_stands_beside_the_job_file(world):
    (world.folder / "jobs" / "source.sql").write_text("select * from public.readings;\n")
    job = world.ready(JOB.replace('table     = "public.readings"', 'query_file = "source.sql"'))
    assert world.score(job, day(1)).counts.scored == 20


def test_a_run_whose_rows_are_fewer_than_expected_warns(world, caplog):
    job = world.ready(JOB + "\n[validate]\nat_least_rows = 100\n")
    world.score(job, day(1))
    assert "fewer rows than expected" in caplog.text
