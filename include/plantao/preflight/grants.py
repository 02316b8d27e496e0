"""What a login may do: read the source and not change it, write the ledger and the predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Identifier
from sqlalchemy import text

from plantao.ledger.grants import LEDGER_RIGHTS, MARKS, SCORER
from plantao.postgres import pinned
from plantao.postgres import session as database

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.extract.source import Source

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
    " exists (select from pg_class c where c.relnamespace = n.oid and c.relname = :table)"
    " and exists (select from pg_class c where c.relnamespace = n.oid and c.relname = :marks) as tables_exist"
    " from (values (1)) as one left join pg_namespace n on n.nspname = :schema"
)
LACKING_AT_TABLE = text(
    "select privilege || ' on ' || format('%I.%I', n.nspname, c.relname)"
    " from unnest(cast(:names as text[]), cast(:privileges as text[])) as need (name, privilege)"
    " join pg_namespace n on n.nspname = :schema join pg_class c on c.relnamespace = n.oid and c.relname = need.name"
    " where not has_table_privilege(c.oid, privilege)"
)

UNDER_POLICIES = text(
    "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where n.nspname = :schema and (cast(:names as text[]) is null or c.relname = any (cast(:names as text[])))"
    " and c.relkind in ('r', 'p') and row_security_active(c.oid) order by 1"
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


def under_policies(session: Connection, schema: str, names: Sequence[str] | None = None) -> list[str]:
    """Return the tables of a schema, or of some names, whose rows a policy (row-level security) hides from us."""
    with session.begin():
        found = session.execute(UNDER_POLICIES, {"schema": schema, "names": None if names is None else list(names)})
        return list(found.scalars())


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
        for setting in pinned.follow_login() if source.job.query is not None else ():  # as where rows are read
            session.execute(text(setting))
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
    schema, table = job.load.table
    needs = {
        table: ("SELECT", "INSERT", "DELETE"),
        job.load.table.history.name: ("SELECT", "INSERT"),
        MARKS: ("SELECT", "INSERT"),
    }
    names, privileges = zip(*((name, right) for name, rights in needs.items() for right in rights), strict=True)
    values = {"schema": schema, "table": table, "marks": MARKS, "names": list(names), "privileges": list(privileges)}
    with session.begin():
        place = session.execute(PLACE_OF_PREDICTIONS, values).mappings().one()
        lacking = list(session.execute(LACKING_AT_TABLE, values).scalars())
    makes_tables = job.score.fans_out or not place["tables_exist"]
    if not place["schema_exists"]:
        lacking += [] if place["create_schema"] else [f"CREATE the schema {schema}"]
    elif not place["usage"] or (makes_tables and not place["create_table"]):
        lacking.append(f"{'CREATE tables in' if place['usage'] else 'use'} the schema {schema}")
    if not place["temporary"]:
        lacking.append("CREATE TEMPORARY tables")
    return lacking
