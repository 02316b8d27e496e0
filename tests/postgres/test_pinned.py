"""Whatever the server, the database and the login have set: a session means the same, and calls nobody else's code."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

import plantao
from plantao.errors import PlantaoError, SourceRefused
from plantao.ledger import session as ledger_session
from plantao.measure.outcomes import join
from plantao.postgres import pinned, session
from plantao.postgres.replaced import whole_snapshot
from plantao.preflight.check import check
from plantao.run.reconcile import reconcile
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

PAIRED = ("text", "varchar", "integer", "bigint", "double precision", "numeric", "interval", "timestamptz")
ARRAYS = ("double precision[]", "bigint[]", "text[]", "varchar[]", "integer[]")
TYPES = (*PAIRED, *ARRAYS, "smallint", "date", "timestamp", "boolean", "name")
OPERATORS = (
    *("=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "&", "|", "||", "^", "<<", ">>"),
    *("~", "!~", "~~", "!~~", "@>", "<@", "&&", "->", "->>"),
)
# What a cast names, where it is no keyword of the grammar: nobody but a type's owner can make another cast.
NAMED_TYPES = (
    *("text", "name", "bytea", "date", "jsonb", "uuid", "oid", "regclass", "float4", "float8", "int2", "int4", "int8"),
    *("timestamptz", "tstzrange", "tstzmultirange"),
)
LAY_TRAPS = """
do $lay$
declare one text; other text; called text; begin
  foreach one in array %(named)s loop
    execute format('create domain public.%%I as integer check (value is null)', one);
  end loop;
  create function public.trap() returns void language plpgsql as $$ begin raise exception 'a trap was called'; end $$;
  foreach called in array %(functions)s loop
    foreach one in array %(types)s loop
      execute format('create function public.%%I(%%s) returns bytea language plpgsql as $$ begin raise exception'
                     ' ''trap: %%s(%%s)''; end $$', called, one, called, one);
    end loop;
    foreach one in array %(paired)s loop foreach other in array %(paired)s loop
      execute format('create function public.%%I(%%s, %%s) returns bytea language plpgsql as $$ begin raise exception'
                     ' ''trap: %%s(%%s, %%s)''; end $$', called, one, other, called, one, other);
    end loop; end loop;
  end loop;
  foreach one in array %(paired)s loop foreach other in array %(paired)s loop
    execute format('create function public.trap_of_operators(%%s, %%s) returns boolean language plpgsql as'
                   ' $$ begin raise exception ''trap: operator of %%s, %%s''; end $$', one, other, one, other);
    foreach called in array %(operators)s loop
      execute format('create operator public.%%s (function = public.trap_of_operators, leftarg = %%s, rightarg = %%s)',
                     called, one, other);
    end loop;
  end loop; end loop;
end $lay$
"""


def functions_in_our_sql(world):
    """Return every function of PostgreSQL that is called by name somewhere in the package."""
    package = Path(plantao.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    called = {name for text in texts for name in re.findall(r"\b([a-z][a-z0-9_]+)\(", text)}
    return sorted(
        {name for (name,) in world.sql("select proname from pg_proc where proname = any (%s)", [list(called)])}
    )


@pytest.fixture(params=["table", "query"])
def text(request):
    return TABLE_JOB if request.param == "table" else QUERY_JOB


@pytest.mark.parametrize("results", ["client_db", "results_db"])
def test_nobody_elses_functions_and_operators_are_ever_called(server, tmp_path, clean, text, results):
    with World.create(server, tmp_path, results) as world:
        world.sql("create table readings (id varchar(20) primary key, at timestamptz not null, x numeric, y float8,"
                  " city varchar(20), edited_at timestamptz not null default '2013-01-01Z')")  # fmt: skip
        for number in (1, 2):
            world.insert(number, [number * 1000 + i for i in range(20)])
        world.sql("create table truth as select id, x > 0 as bad from readings")
        manifest = world.register()
        late = text.replace("late_rows", 'on_change = "rescore"\nchanged_at = "edited_at"\nlate_rows')
        job = world.job(late)
        functions = functions_in_our_sql(world)
        assert {"array_send", "min", "count", "unnest", "hashtextextended"} <= set(functions)
        values = {"functions": functions, "types": list(TYPES), "paired": list(PAIRED), "operators": list(OPERATORS),
                  "named": list(NAMED_TYPES)}  # fmt: skip
        world.sql(LAY_TRAPS, values)
        world.sql("grant usage on schema public to public")
        set_for_the_worker(world, {"search_path": "public, pg_catalog"})
        assert world.score(job, day(1)).counts.scored == 20
        world.insert(1, [9001])
        world.sql("update readings set edited_at = '2013-04-02 01:00Z' where id::text = '1001'")
        assert world.score(job, day(2)).counts.scored == 22
        assert world.score(job, day(2)).counts.already_scored == 20
        world.insert(1, [9002])
        assert reconcile(job, world.place, repair=True).rows_repaired == 1
        with ledger_session.session(job, world.place) as connection:
            assert join.tally_days(
                job, world.place, connection, (date(2013, 4, 1), date(2013, 4, 2)), {1: manifest.output}
            )
        assert len(world.predictions("id")) == 42


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
