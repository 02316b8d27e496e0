"""Predictions that somebody takes away are missed by the next run, and scored again by a repair."""

from __future__ import annotations

import pytest

from plantao.measure.measure import freshen
from plantao.measure.profile import lost
from plantao.run.reconcile import reconcile
from world import JOB, day

OPEN = "select message, severity from plantao.incidents where fingerprint = 'integrity lost' and state = 'open'"
NO_LOOK_BACK = JOB.replace('late_rows = "3 days"', 'late_rows = "0 days"')


@pytest.fixture
def job(world):
    job = world.ready(NO_LOOK_BACK, days=5)
    for number in (1, 2, 3):
        world.score(job, day(number))
    return job


@pytest.mark.parametrize(
    ("statement", "lacking", "said"),
    [
        (
            "delete from predictions.bad_reading where id % 2 = 0",
            30,
            "30 predictions of 3 days from 2013-04-01 to 2013-04-03",
        ),
        ("delete from predictions.bad_reading where id = 2001", 1, "1 prediction of 2013-04-02 is gone"),
        ("truncate predictions.bad_reading", 60, "60 predictions of 3 days"),
        ("drop table predictions.bad_reading", 60, "The table was not there and has been made anew. 60 predictions"),
        ("alter table predictions.bad_reading rename to elsewhere", 60, "The table was not there"),
    ],
)
def test_predictions_that_are_gone_are_missed_by_the_next_run_and_a_repair_heals_it(
    world, job, statement, lacking, said
):
    world.sql(statement)

    assert world.score(job, day(4)).counts.scored == 20

    ((message, severity),) = world.sql(OPEN)
    assert message.startswith(said)
    assert severity == lacking
    assert world.sql("select count(*) from plantao.alerts where kind = 'integrity'") == [(1,)]
    result = reconcile(job, world.place, None, repair=True)
    assert result.rows_repaired == lacking + 20 * 0 + max(0, result.found.rows_owed - lacking)
    assert world.sql(OPEN) == []
    assert world.sql("select count(*) from predictions.bad_reading where source_timestamp < '2013-04-05Z'") == [(80,)]
    freshen(job, world.place)
    world.score(job, day(5))
    assert world.sql(OPEN) == []


def test_a_measurement_says_what_is_gone_before_it_counts_what_is_left(world, job):
    world.sql("delete from predictions.bad_reading where id = 1001")

    freshen(job, world.place, [day(1).start.date()])

    assert world.sql(OPEN)[0][0].startswith("1 prediction of 2013-04-01")
    assert world.sql("select sum(rows) from plantao.daily_state where segment = '' and column_name = ''") == [(59,)]


def test_a_table_that_nobody_has_touched_is_not_counted_and_own_changes_are_no_loss(world, job, monkeypatch):
    counted = []
    original = lost._missing
    monkeypatch.setattr(lost, "_missing", lambda *given: counted.append(1) or original(*given))

    world.score(job, day(4))
    world.score(job, day(3), rescore=True)
    world.score(job, day(5))

    assert counted == []
    assert world.sql(OPEN) == []


def test_another_table_in_the_job_file_lacks_what_was_written_to_the_first(world, job):
    job = world.job(NO_LOOK_BACK.replace("predictions.bad_reading", "predictions.moved"))

    world.score(job, day(4))

    message = world.sql(OPEN)[0][0]
    assert message.startswith("The job file named predictions.bad_reading until now. 60 predictions of 3 days")
