"""No name and no value of a job file becomes SQL: it is quoted, and works as a name or is refused as one."""

from __future__ import annotations

import json

import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg2.sql import SQL, Identifier

from examples import examples
from plantao.config import job_file
from plantao.errors import JobFileError, SourceRefused
from world import World, classifier, day, training_frame

pytestmark = pytest.mark.slow

PIECES = st.characters(exclude_characters="\0", exclude_categories=["Cs"], max_codepoint=0x2FFF) | st.sampled_from(
    [*"\"'`;\\%$-/*(){}[]:.,", "--", "$$", "/*", "{}", "%s", ":x", '"; drop table canary; --']
)
NASTY = st.lists(PIECES, min_size=1, max_size=20).map("".join).filter(lambda text: len(text.encode()) <= 50)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@given(schema=NASTY, table=NASTY, key=NASTY, timestamp=NASTY, target=NASTY, zone=st.sampled_from(["UTC", "Asia/Tokyo"]))
@example('"; drop table canary; --', "'", "%s", "{}", "$$;", "UTC")
@example("$$", "$$; drop table canary; --", "%", ":x", "'; drop table canary; --", "UTC")
@settings(
    max_examples=examples(25),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_names_are_names(world, schema, table, key, timestamp, target, zone):  # noqa: PLR0917 - names of a job
    world.sql("create table if not exists canary (id int)")
    text = "\n".join(
        [
            'schedule = "daily"',
            "starts = 2013-04-01",
            f'timezone = "{zone}"',
            "[extract]",
            f"table = {json.dumps(quoted(schema) + '.' + quoted(table))}",
            f"key = [{json.dumps(key)}]",
            f"timestamp = {json.dumps(timestamp)}",
            "[score]",
            'model = "bad_reading"',
            "[load]",
            f"table = {json.dumps(quoted('p ' + schema) + '.' + quoted(target))}",
        ]
    )
    try:
        job_file.parse("bad_reading", text, read_query=str)
    except JobFileError as error:
        assert "key" in str(error) or "table" in str(error)  # noqa: PT017 - a name that is refused as a name
        return
    connection = psycopg2.connect(world.owner("client_db").url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        if key == timestamp or {key, timestamp} & {"x", "y", "city"}:
            return
        cursor.execute(SQL("drop schema if exists {} cascade").format(Identifier(schema)))
        cursor.execute(SQL("drop schema if exists {} cascade").format(Identifier("p " + schema)))
        cursor.execute(SQL("create schema {}").format(Identifier(schema)))
        create = SQL("create table {} ({} bigint primary key, {} timestamptz, x float8, y float8, city text)")
        cursor.execute(create.format(Identifier(schema, table), Identifier(key), Identifier(timestamp)))
        insert = SQL("insert into {} values (1, '2013-04-01 16:00Z', 1, 1, 'Porto')")
        cursor.execute(insert.format(Identifier(schema, table)))
    job = world.job(text)
    if not world.sql("select 1 from plantao.models"):
        world.register(classifier(training_frame()))
    assert world.score(job, day(1)).counts.read == 1
    assert world.score(job, day(1)).counts.already_scored == 1
    assert world.sql("select count(*) from canary") == [(0,)]
    connection.close()


@given(values=st.lists(NASTY, min_size=1, max_size=4, unique=True))
@settings(
    max_examples=examples(15),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_values_are_values(server, tmp_path_factory, values):
    """Keys travel between two databases inside statements; whatever they are, they come back as they were."""
    with World.create(server, tmp_path_factory.mktemp("world"), "results_db") as world:
        world.sql("create table readings (id text primary key, at timestamptz, x float8, y float8, city text)")
        world.sql("create table canary (id int)")
        world.register()
        job = world.job()
        insert = "insert into readings values (%s, '2013-04-01 10:00Z', 1, 1, 'Porto')"
        world.sql(insert, ["first"])
        world.score(job, day(1))
        for value in values:
            world.sql(insert, [f"x{value}"])
        assert world.score(job, day(2)).counts.late == len(values)
        assert world.score(job, day(1)).counts.already_scored == len(values) + 1
        found = {row[0] for row in world.predictions("id")}
        assert found == {"first", *(f"x{value}" for value in values)}
        assert world.sql("select count(*) from canary") == [(0,)]


@pytest.mark.parametrize(
    "query",
    [
        "select * from readings; drop table canary",
        "select * from readings) as s; drop table canary; --",
        "with gone as (delete from canary returning *) select * from readings",
        "select *, pg_terminate_backend(0) from readings where (select count(*) from nowhere) > 0",
    ],
)
def test_a_query_is_one_select_that_cannot_write(world, query):
    world.fill()
    world.register()
    world.sql("create table canary (id int); insert into canary values (1)")
    text = f'[extract]\nquery = "{query}"\nkey = ["id"]\ntimestamp = "at"\n'
    job = world.job(text + '[score]\nmodel = "bad_reading"\n[load]\ntable = "predictions.bad_reading"\n')
    with pytest.raises(Exception, match=r"SourceRefused|extract: "):
        world.score(job, day(1))
    assert world.sql("select count(*) from canary") == [(1,)]
    assert world.results("select to_regclass('predictions.bad_reading')") == [(None,)]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("pg_read_file('/etc/hostname')", "permission denied for function pg_read_file"),
        ("nextval('counter')", "permission denied for sequence|read-only transaction"),
        ("set_config('role', 'postgres', true)", "permission denied to set role"),
        ("lo_create(0)", "read-only transaction"),
    ],
)
def test_what_a_query_calls_meets_the_rights_of_a_reader(world, call, said):
    world.fill()
    world.register()
    world.sql("create sequence counter")
    text = f'[extract]\nquery = "select r.*, {call} as called from readings r"\nkey = ["id"]\ntimestamp = "at"\n'
    job = world.job(text + '[score]\nmodel = "bad_reading"\n[load]\ntable = "predictions.bad_reading"\n')
    with pytest.raises(SourceRefused, match=said):
        world.score(job, day(1))
    assert world.predictions() == []
    assert world.sql("select is_called from counter") == [(False,)]
