"""Whatever the server, the database and the login have set: a session means the same, and calls nobody else's code."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

import plantao
from plantao.errors import PlantaoError, SourceRefused
from plantao.ledger import session as ledger_session
from plantao.ledger.request import Request
from plantao.measure import measure
from plantao.measure.outcomes import join
from plantao.measure.rebase import rebase
from plantao.models import registry
from plantao.postgres import pinned, session
from plantao.postgres.replaced import whole_snapshot
from plantao.preflight.check import check
from plantao.release.comparison import compare
from plantao.run import parallel, publish
from plantao.run.reconcile import reconcile
from plantao.score import loader
from world import JOB, WORKER, World, administer, day

MEASURE = '[measure]\nsegments = ["city"]\noutcome = { table = "public.truth", column = "bad" }\n'
TABLE_JOB = JOB + MEASURE
QUERY_JOB = TABLE_JOB.replace('table     = "public.readings"', 'query = "select * from readings"', 1)
# A value that means something else, for every line of the table that has one.
OTHERWISE = {
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "gin_fuzzy_search_limit": "5",
    "quote_all_identifiers": "on",
    "xmlbinary": "hex",
    "xmloption": "document",
    "timezone_abbreviations": "Australia",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "exit_on_error": "on",
    "restrict_nonsystem_relation_kind": "view",
    "client_encoding": "LATIN1",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Pacific/Chatham",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "statement_timeout": "700s",
    "lock_timeout": "700s",
    "idle_in_transaction_session_timeout": "700s",
    "transaction_timeout": "700s",
    "idle_session_timeout": "700s",
    "client_min_messages": "debug1",
}


def set_for_the_worker(world, settings):
    """Let the worker's sessions in this world's databases begin with other settings; return those the server knows."""
    known = {name for (name,) in world.sql("select lower(name) from pg_settings where context = 'user'")}
    for database in set(world.databases.values()):
        for name, value in settings.items():
            if name in known:
                given = value if name == "search_path" else f"'{value}'"
                administer(world.server, f"alter role {WORKER} in database {database} set {name} = {given}")


@pytest.fixture
def clean(server):
    """Take from the worker what a test has set for all databases of a world; the world itself ends with them."""
    yield
    administer(server, f"alter role {WORKER} reset all")


def settings_in(fetch):
    names = [pin.name for pin in pinned.PINNED if pin.name != "lock_timeout"]
    found = fetch("select " + ", ".join(f"current_setting('{name}', true)" for name in names))
    return dict(zip(names, found, strict=True))


def test_both_drivers_have_what_is_pinned_whatever_the_login_has(world, clean):
    set_for_the_worker(world, {**OTHERWISE, "search_path": "public, pg_catalog"})
    address = world.address("client_db")
    with session.session(address, "plantao") as connection, connection.begin():
        (ours,) = session.fetch(connection, session.sql.SQL("select current_setting('search_path')"))
        assert ours == ('"plantao", pg_catalog, pg_temp',)
        of_statements = settings_in(lambda text: session.fetch(connection, session.sql.SQL(text))[0])
    with whole_snapshot(address) as snapshot:
        of_reads = settings_in(lambda text: [column[0].as_py() for column in snapshot.table(text).columns])
        assert snapshot.value("select current_setting('search_path')") == "pg_catalog, pg_temp"
    with whole_snapshot(address, path=pinned.LOGIN_PATH) as snapshot:
        assert snapshot.value("select current_setting('search_path')") == "pg_catalog, public, pg_catalog"
    assert of_statements == of_reads
    for name, value in of_statements.items():
        assert value is None or value != OTHERWISE.get(name), name


def test_every_line_of_the_table_says_why():
    assert len({pin.name for pin in pinned.PINNED}) == len(pinned.PINNED)
    assert all(len(pin.reason) > 10 for pin in pinned.PINNED)


# --- functions of others ---------------------------------------------------------------------------------------------

# The types that our SQL meets. A trap of two arguments is laid for each type with itself, and for each pair of PAIRED.
PAIRED = ("text", "varchar", "integer", "bigint", "double precision", "numeric", "interval", "timestamptz")
ARRAYS = ("double precision[]", "bigint[]", "text[]", "varchar[]", "integer[]")
RANGES = ("tstzrange", "int8range", "tstzmultirange")
OTHERS = ("smallint", "real", "date", "timestamp", "boolean", "name", "bpchar", "uuid", "jsonb", "oid", "regclass")
TYPES = (*PAIRED, *ARRAYS, *RANGES, *OTHERS)
PAIRS = [(one, other) for one in TYPES for other in TYPES if one == other or {one, other} <= set(PAIRED)]
THREES = [(one, one, one) for one in ("text", "varchar", "bigint", "double precision", "timestamptz", "jsonb")]
ARGUMENTS = {1: [(one,) for one in TYPES], 2: PAIRS, 3: THREES}


def sql_of_ours(world):
    """Return the functions, with how many arguments they take, the operators and the types that the package names."""
    package = Path(plantao.__file__).parent
    texts = [path.read_text(encoding="utf-8") for kind in ("py", "sql") for path in package.rglob(f"*.{kind}")]
    calls, signs, words = (
        [sorted({found for text in texts for found in re.findall(pattern, text)})]
        for pattern in (r"\b([a-z][a-z0-9_]+)\(", r"[-+*/<>=~!@#%^&|`?]+", r"[a-z][a-z0-9_]+")
    )
    functions = world.sql(
        "select proname, n from pg_proc, generate_series(1, 3) n where proname = any (%s) and (provariadic <> 0"
        " or n between pronargs - pronargdefaults and pronargs) group by 1, 2 order by 1, 2", calls
    )  # fmt: skip
    operators = world.sql("select distinct oprname from pg_operator where oprname = any (%s) order by 1", signs)
    types = world.sql(
        "select typname from pg_type where typname = any (%s) and typtype = 'b'"
        " and typnamespace = 'pg_catalog'::regnamespace order by 1", words
    )  # fmt: skip
    return functions, [name for (name,) in operators], [name for (name,) in types]


def trap(name, *types):
    """Return the statement that lays a function of this name and these types in front of PostgreSQL's."""
    given = ", ".join(types)
    body = f"begin raise exception 'trap: {name}({given})'; end"
    return f'create function public."{name}"({given}) returns boolean language plpgsql as $${body}$$'


def lay_traps(world):
    """Lay a trap for each function, operator and type that the package names, and let the worker begin there."""
    functions, operators, types = sql_of_ours(world)
    assert {("array_send", 1), ("min", 1), ("unnest", 1), ("hashtextextended", 2), ("format", 3)} <= set(functions)
    assert {"=", "<>", "<", ">=", "+", "%", "&", "||", "<@", "@>", "&&", "->>"} <= set(operators)
    assert {"text", "timestamptz", "float8", "int8", "jsonb", "regclass", "numeric"} <= set(types)
    statements = [trap(name, *given) for name, arguments in functions for given in ARGUMENTS[arguments]]
    statements += [trap("operator", *given) for given in PAIRS]
    statements += [
        f"create operator public.{operator} (function = public.operator, leftarg = {left}, rightarg = {right})"
        for operator in operators
        for left, right in PAIRS
    ]
    statements.append(trap("cast", "anyelement"))
    statements += [f'create domain public."{name}" as pg_catalog."{name}" check (public.cast(value))' for name in types]
    world.sql(";\n".join(["set local check_function_bodies = off", *statements]))
    world.sql("grant usage on schema public to public")
    set_for_the_worker(world, {"search_path": "public, pg_catalog"})


def lay_traps_of_rows(world, tables):
    """Lay a trap for each function that is given a row of these tables, whose type wins over `anyelement`."""
    names = {name for name, arguments in sql_of_ours(world)[0] if arguments == 1}
    world.sql(";\n".join(trap(name, table) for table in tables for name in sorted(names)))


@pytest.fixture(params=["table", "query"])
def text(request):
    return TABLE_JOB if request.param == "table" else QUERY_JOB


@pytest.mark.parametrize("results", ["client_db", "results_db"])
def test_nobody_elses_functions_operators_and_types_are_ever_used(server, tmp_path, clean, text, results):
    with World.create(server, tmp_path, results) as world:
        world.sql("create table readings (id varchar(20) primary key, at timestamptz not null, x numeric, y float8,"
                  " city varchar(20), edited_at timestamptz not null default '2013-01-01Z')")  # fmt: skip
        for number in (1, 2):
            world.insert(number, [number * 1000 + i for i in range(20)])
        world.sql("create table truth as select id, x > 0 as bad from readings; grant select on truth to public")
        manifest = world.register()
        late = text.replace("late_rows", 'on_change = "rescore"\nchanged_at = "edited_at"\nlate_rows')
        job = world.job(late)
        parted = world.job(late.replace(".bad_reading", ".parted").replace("[load]", "parts = 3\n[load]"), "parted")
        lay_traps(world)
        assert world.score(job, day(1)).counts.scored == 20
        there = ["plantao.runs", "plantao.rejected_rows", "predictions.bad_reading"] if results == "client_db" else []
        lay_traps_of_rows(world, ["public.readings", *there])
        world.insert(1, [9001])
        world.sql("update readings set edited_at = '2013-04-02 01:00Z' where id::text = '1001'")
        assert world.score(job, day(2)).counts.scored == 22
        assert world.score(job, day(2)).counts.already_scored == 20
        world.insert(1, [9002])
        world.sql("delete from readings where id::text = '1002'")
        found = reconcile(job, world.place, repair=True)
        assert (found.rows_repaired, found.found.rows_gone) == (1, 1)
        with ledger_session.session(job, world.place) as connection:
            join.tally_days(job, world.place, connection, (date(2013, 4, 1), date(2013, 4, 2)), {1: manifest.output})
            champion = loader.verified(registry.champion(connection, "bad_reading"), world.place.settings)
        assert len(world.predictions("id")) == 42
        assert compare(job, day(2), champion, champion, world.place).both == 20
        parts = parallel.plan(Request(parted, day(2)), world.place)
        for part in parts:
            parallel.score_part(parted, part, world.place)
        assert publish.publish(parted, parts[0].run_id, world.place).counts.scored == 20
        assert measure.measure(job, day(1), world.place, anew=True).problems == {}
        rebase(job, world.place, date(2013, 4, 1), "a new season")
        said = [line.answer for line in check(world.place).lines]
        assert len(said) > 15
        assert not [answer.what for answer in said if "trap" in answer.what]


def test_a_key_with_a_backslash_is_late_and_found_whatever_the_source_makes_of_backslashes(two_databases, clean):
    world = two_databases
    world.sql("create table readings (id text primary key, at timestamptz, x float8, y float8, city text)")
    world.register()
    job = world.job()
    insert = "insert into readings values (%s, '2013-04-01 10:00Z', 1, 1, 'Porto')"
    world.sql(insert, ["first"])
    source, results = world.databases["client_db"], world.databases["results_db"]
    administer(world.server, f"alter role {WORKER} in database {source} set standard_conforming_strings = off")
    administer(world.server, f"alter role {WORKER} in database {results} set backslash_quote = off")
    assert world.score(job, day(1)).counts.scored == 1
    keys = ["back\\slash", "\\'", "a\\'; b", "\\\\"]
    for key in keys:
        world.sql(insert, [key])
    assert world.score(job, day(2)).counts.late == len(keys)
    assert {key for (key,) in world.predictions("id")} == {"first", *keys}
    assert reconcile(job, world.place).in_order


def rescore_and_measure(world, job, manifest):
    world.score(job, day(1), rescore=True)
    with ledger_session.session(job, world.place) as connection:
        join.tally_days(job, world.place, connection, (date(2013, 4, 1),), {1: manifest.output})


@pytest.mark.parametrize("table", ["plantao.runs", "predictions.bad_reading", "truth"])
def test_policies_on_tables_of_ours_and_on_outcomes_are_refused_with_the_cure(world, table):
    world.fill()
    world.sql("create table truth as select id, x > 0 as bad from readings")
    manifest = world.register()
    job = world.job(TABLE_JOB)
    assert world.score(job, day(1)).counts.scored == 20
    world.sql(f"alter table {table} enable row level security; alter table {table} force row level security")
    with pytest.raises(PlantaoError) as refused:
        rescore_and_measure(world, job, manifest)
    assert refused.value.permanent
    assert "BYPASSRLS" in refused.value.next_step
    line = {"plantao.runs": "client_db: ledger", "predictions.bad_reading": "bad_reading: predictions"}.get(table)
    if line is not None:
        (answer,) = [found.answer for found in check(world.place).lines if found.of == line]
        assert (answer.state, table in answer.what, "BYPASSRLS" in answer.cure) == ("FAIL", True, True)


@pytest.mark.parametrize("how", ["its owner sees a part", "it asks as the login"])
def test_a_view_on_a_table_with_hidden_rows_is_refused(world, how):
    world.fill()
    world.register()
    world.sql("create role seer; grant select on readings to seer; grant create, usage on schema public to seer")
    world.sql("create view seen as select * from readings")
    if how == "its owner sees a part":
        world.sql("alter view seen owner to seer")
    else:
        world.sql("alter view seen set (security_invoker = true)")
    world.sql("alter table readings enable row level security; create policy a_part on readings using (x > 0)")
    job = world.job(JOB.replace("public.readings", "public.seen"))
    world.sql(f"grant select on readings to {WORKER}")
    try:
        with pytest.raises(SourceRefused, match="row-level security"):
            world.score(job, day(1))
    finally:
        world.sql("drop view seen; drop owned by seer; drop role seer")


# --- rows that a policy hides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["none", "a part"])
def test_a_source_with_hidden_rows_is_refused_with_the_cure(world, policy):
    job = world.ready()
    world.sql("alter table readings enable row level security")
    if policy == "a part":
        world.sql("create policy a_part on readings using (x > 0)")
    with pytest.raises(SourceRefused, match="row-level security") as refused:
        world.score(job, day(1))
    assert "BYPASSRLS" in refused.value.next_step
    assert world.attempts("status, error_kind") == [("failed", "permanent")]
    page = check(world.place)
    (line,) = [line.answer for line in page.lines if line.of == "bad_reading: source"]
    assert (line.state, "row-level security" in line.what, "BYPASSRLS" in line.cure) == ("FAIL", True, True)
    world.sql("create view seen as select * from readings")  # its owner is the table's, whom no policy binds
    seen = world.job(JOB.replace("public.readings", "public.seen"))
    assert world.score(seen, day(1)).counts.scored == 20
