"""A prediction table of any name: every command finds it, and the tables beside it."""

from __future__ import annotations

import pytest

from plantao.config.table_name import Table
from plantao.ledger.request import Request
from plantao.load.table import create, prediction_table
from plantao.measure.measure import measure
from plantao.models.manifest import Output
from plantao.postgres.session import quoted
from plantao.release import promotion
from plantao.report.page import page
from plantao.report.read import read_report
from plantao.run.parallel import plan, score_part
from plantao.run.publish import publish
from plantao.run.reconcile import reconcile
from world import JOB, day, training_frame

NAME = Table("Pre Dictions", 'Bad "Reading".1')
OUTCOME = """
[measure]
outcome = { table = '"The Truth"."Of it"', key = ["id"], column = "bad" }
"""


@pytest.fixture
def job(world):
    world.sql('create schema "The Truth"; create table "The Truth"."Of it" (id bigint primary key, bad boolean)')
    toml = f"table = '{NAME}'"
    job = world.ready(JOB.replace('table = "predictions.bad_reading"', toml) + OUTCOME)
    world.sql('insert into "The Truth"."Of it" select id, x > 0 from readings')
    return job


def counts(world):
    quoted = '"' + NAME.name.replace('"', '""')
    tables = [f'"Pre Dictions".{quoted}{suffix}"' for suffix in ("", "_history", "_shadow")]
    return [world.sql(f"select count(*) from {table}")[0][0] for table in tables]


def test_every_command_works_on_a_table_whose_name_needs_quotes(world, job):
    promotion.mark(
        "bad_reading", world.register(frame=training_frame(seed=1)).version, "try", world.place, "challenger"
    )
    world.score(job, day(1))
    world.score(job, day(1), rescore=True)
    in_parts = job.model_copy(update={"score": job.score.model_copy(update={"parts": 2})}).named(job.name, None)
    parts = plan(Request(in_parts, day(2)), world.place)

    for part in parts:
        score_part(in_parts, part, world.place)
    publish(in_parts, parts[0].run_id, world.place)
    assert counts(world) == [40, 20, 40]

    measured = measure(job, day(1), world.place, anew=True)
    assert not measured.problems
    assert {"roc_auc", "rows"} <= {metric.name for metric in measured.metrics}
    world.sql(f"delete from {NAME} where id % 2 = 0")
    with world.place_session(job) as connection:
        assert "bad_reading" in page(read_report(connection, job))
    result = reconcile(job, world.place, day(1), repair=True)
    assert (result.found.rows_owed, result.rows_repaired) == (10, 10)


def test_the_ledger_names_the_table_as_psql_takes_it(world, job):
    world.score(job, day(1))

    (name,) = world.sql("select prediction_table from plantao.status")[0]

    assert name == str(NAME) == '"Pre Dictions"."Bad ""Reading"".1"'
    assert world.sql(f"select count(*) from {name}") == [(20,)]


def test_two_long_names_that_begin_alike_have_indexes_of_their_own(world):
    job, output = world.ready(), Output(kind="binary", classes=(False, True), positive=True)
    names = [f"{'long_' * 10}{last}" for last in ("one", "two")]
    with world.place_session(job) as connection, connection.begin():
        for name in names:
            aimed = job.load.model_copy(update={"table": Table("predictions", name)})
            table = prediction_table(job.model_copy(update={"load": aimed}), ["int8"], output)
            for statement in create(table):
                connection.exec_driver_sql(quoted(connection, statement).replace("%", "%%"))

    indexes = "select count(*) from pg_indexes where schemaname = 'predictions' and tablename = any(%s)"
    assert world.sql(indexes, (names,)) == [(6,)]
