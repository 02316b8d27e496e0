"""What a login may do: read the source and not change it, write the ledger and the predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Identifier
from sqlalchemy import text

from plantao import database
from plantao.job_types import parse_table_name
from plantao.schema.grants import LEDGER_RIGHTS, SCORER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from plantao.extract.source import Source
    from plantao.job import Job

# A login that only scores can do without the right to register and to promote; reading these is enough for it.
DECIDED_ELSEWHERE = {"models", "model_events", "model_timeline"}

LACKING_AT_LEDGER = text(
    "select upper(privilege) || ' on ' || format('%I.%I', cast(:schema as text), name)"
    " from unnest(cast(:names as text[]), cast(:privileges as text[])) as need (name, privilege)"
    " where has_table_privilege(to_regclass(format('%I.%I', cast(:schema as text), name)), privilege) is not true"
)
# A standby takes no writes, whatever the rights say.
CHANGES = text(
    "select format('%I.%I', n.nspname, c.relname), string_agg(privilege, ', ' order by place)"
    " from pg_class as c join pg_namespace as n on n.oid = c.relnamespace,"
    " unnest(array['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) with ordinality as p (privilege, place)"
    " where c.oid in (select coalesce(pg_partition_root(to_regclass(t)), to_regclass(t))"
    "  from unnest(cast(:tables as text[])) as t)"
    " and not pg_is_in_recovery() and case when privilege in ('INSERT', 'UPDATE')"
    "  then has_any_column_privilege(c.oid, privilege) else has_table_privilege(c.oid, privilege) end"
    " group by 1 order by 1"
)
PLACE_OF_PREDICTIONS = text(
    "select has_database_privilege(current_database(), 'CREATE') as create_schema,"
    " has_database_privilege(current_database(), 'TEMPORARY') as temporary, n.oid is not null as schema_exists,"
    " has_schema_privilege(n.oid, 'USAGE') as usage, has_schema_privilege(n.oid, 'CREATE') as create_table,"
    " exists (select from pg_class c where c.relnamespace = n.oid and c.relname = :table) as table_exists"
    " from (values (1)) as one left join pg_namespace n on n.nspname = :schema"
)
LACKING_AT_TABLE = text(
    "select privilege || ' on ' || format('%I.%I', n.nspname, c.relname)"
    " from unnest(cast(:names as text[]), cast(:privileges as text[])) as need (name, privilege)"
    " join pg_namespace n on n.nspname = :schema join pg_class c on c.relnamespace = n.oid and c.relname = need.name"
    " where not has_table_privilege(c.oid, privilege)"
)


def cure(connection: str) -> str:
    """Return the cure for a right that is missing."""
    return (
        f"let the owner of {connection} run what `plantao init --print-grants` prints,"
        f" and GRANT {SCORER} to the login of AIRFLOW_CONN_{connection.upper()}"
    )


def lacking_at_ledger(session: Connection, schema: str) -> list[str]:
    """Return which rights on the ledger a run needs and this login has not."""
    needed = [
        (table, privilege)
        for privileges, tables in LEDGER_RIGHTS.items()
        for privilege in privileges.split(", ")
        for table in tables
        if privilege == "select" or table not in DECIDED_ELSEWHERE
    ]
    names, privileges = zip(*needed, strict=True)
    with session.begin():
        values = {"schema": schema, "names": list(names), "privileges": list(privileges)}
        return list(session.execute(LACKING_AT_LEDGER, values).scalars())


def changes_to(session: Connection, source: Source) -> list[str]:
    """Return how this login could change what the job reads, for instance `INSERT, UPDATE on public.readings`."""
    tables = sorted(_tables(session, source))
    with session.begin():
        rows = session.execute(CHANGES, {"tables": tables}).all()
    return [f"{privileges} on {table}" for table, privileges in rows]


def _tables(session: Connection, source: Source) -> set[str]:
    """Return the quoted names of the table the job names and of those that are read for it, as the planner sees it."""
    explain = SQL("explain (verbose, format json) select * from {} as s").format(source.relation)
    with session.begin():
        session.execute(text("set local search_path to default"))  # as where rows are read
        plan = database.fetch(session, explain)[0][0]
    read = {database.quoted(session, Identifier(*name)) for name in _scanned(plan)}
    return read if source.job.query is not None else {database.quoted(session, source.relation), *read}


def _scanned(plan: Any) -> Iterator[tuple[str, str]]:
    parts = plan if isinstance(plan, list) else plan.values() if isinstance(plan, dict) else ()
    if isinstance(plan, dict) and "Relation Name" in plan:
        yield plan["Schema"], plan["Relation Name"]
    for part in parts:
        yield from _scanned(part)


def lacking_at_target(session: Connection, job: Job) -> list[str]:
    """Return which rights a run of the job needs, and this login has not, where its predictions go."""
    schema, table = parse_table_name(job.load.table)
    needs = {table: ("SELECT", "INSERT", "DELETE"), f"{table}_history": ("SELECT", "INSERT")}
    names, privileges = zip(*((name, right) for name, rights in needs.items() for right in rights), strict=True)
    values = {"schema": schema, "table": table, "names": list(names), "privileges": list(privileges)}
    with session.begin():
        place = session.execute(PLACE_OF_PREDICTIONS, values).mappings().one()
        lacking = list(session.execute(LACKING_AT_TABLE, values).scalars())
    makes_tables = job.score.fans_out or not place["table_exists"]
    if not place["schema_exists"]:
        lacking += [] if place["create_schema"] else [f"CREATE the schema {schema}"]
    elif not place["usage"] or (makes_tables and not place["create_table"]):
        lacking.append(f"{'CREATE tables in' if place['usage'] else 'use'} the schema {schema}")
    if not place["temporary"]:
        lacking.append("CREATE TEMPORARY tables")
    return lacking
