"""The owner of a prediction table: a mark in its schema names the job and the ledger that write it.

Two jobs, or two deployments, that wrote one table would each take the other's predictions for their own. So a run
refuses a table with another owner's mark. A table without a mark is taken over by the job whose runs made all of its
rows, as those are that are older than the marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Identifier, Literal
from sqlalchemy import text

from plantao.config.table_name import Table
from plantao.errors import TargetRefused
from plantao.ledger.grants import MARKS, READER
from plantao.load.handover import hand_over, is_role
from plantao.postgres import driver_errors, session
from plantao.postgres.locks import DATABASE, in_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

IS_THERE = text("select to_regclass(format('%I.%I', cast(:schema as text), cast(:name as text))) is not null")
NAMES_RUNS = text(
    "select exists (select from pg_attribute where attname = 'run_id'"
    " and attrelid = to_regclass(format('%I.%I', cast(:schema as text), cast(:name as text))))"
)


@dataclass(frozen=True)
class Owner:
    """The job that a mark names, and its ledger."""

    table: Table
    job: str
    ledger_schema: str
    is_this_ledger: bool

    def __str__(self) -> str:
        where = "this ledger" if self.is_this_ledger else f"another ledger (made in schema {self.ledger_schema})"
        return f"{self.table} belongs to job {self.job} of {where}"


def refusal(connection: Connection, job: str, tables: Sequence[Table]) -> str | None:
    """Return why `job` may not write `tables`; None when they are its own, or nobody's."""
    marks = owners(connection, tables)
    for owner in marks.values():
        if owner.job != job or not owner.is_this_ledger:
            return str(owner)
    for table in tables:
        if table not in marks and (run := _run_of_another(connection, job, table)) is not None:
            return f"{table} has no owner's mark, and run {run}, which made some of its rows, is none of job {job}"
    return None


def require(connection: Connection, job: str, tables: Sequence[Table]) -> None:
    """Raise TargetRefused unless the job may write `tables`."""
    with driver_errors.explained("load", TargetRefused, f"asking for the owner of {tables[0]}"):
        said = refusal(connection, job, tables)
    if said is not None:
        raise _refused(said, job)


def claim(connection: Connection, job: str, tables: Sequence[Table]) -> None:
    """Mark tables as the job's own unless they are. Raises TargetRefused when they are another's."""
    with driver_errors.explained("load", TargetRefused, f"asking for the owner of {tables[0]}"):
        marks = owners(connection, tables)
    if len(marks) == len(tables) and all(owner.job == job and owner.is_this_ledger for owner in marks.values()):
        return
    require(connection, job, tables)  # outside of the turn: a large table without a mark takes its time
    with driver_errors.explained("load", TargetRefused, f"marking {tables[0]}"), connection.begin():
        in_turn(connection, "plantao.create", DATABASE)
        mark(connection, job, tables)


def mark(connection: Connection, job: str, tables: Sequence[Table]) -> None:
    """Mark tables inside the transaction that has its turn. Raises TargetRefused when another was faster."""
    _write(connection, job, tables, "nothing")
    for owner in owners(connection, tables).values():
        if owner.job != job or not owner.is_this_ledger:
            raise _refused(str(owner), job)


def adopt(connection: Connection, job: str, tables: Sequence[Table]) -> list[Owner]:
    """Make the job the owner of tables, whoever had them, and return their owners until now."""
    with driver_errors.explained("load", TargetRefused, f"adopting {tables[0]}"):
        before = owners(connection, tables)
        with connection.begin():
            in_turn(connection, "plantao.create", DATABASE)
            change = (
                "update set job = excluded.job, ledger = excluded.ledger, ledger_schema = excluded.ledger_schema,"
                " marked_at = excluded.marked_at, marked_by = excluded.marked_by"
            )
            _write(connection, job, tables, change)
    return list(before.values())


def owners(connection: Connection, tables: Sequence[Table]) -> dict[Table, Owner]:
    """Return the owners of those tables of one schema that are marked."""
    marks = Table(tables[0].schema, MARKS)
    query = SQL(
        "select table_name, job, ledger_schema, ledger = (select ledger_id from ledger) from {}"
        " where table_name = any({})"
    ).format(Identifier(*marks), Literal([table.name for table in tables]))
    with session.transaction(connection):
        if not connection.execute(IS_THERE, marks._asdict()).scalar_one():
            return {}
        rows = session.fetch(connection, query)
    found = [Owner(marks._replace(name=name), *others) for name, *others in rows]
    return {owner.table: owner for owner in found}


def _run_of_another(connection: Connection, job: str, table: Table) -> int | None:
    """Return a run that made rows of a table and is no success of the job; None when there is none.

    A table without the column `run_id` is none of ours, and does not fit either.
    """
    query = SQL(
        "select p.run_id from {} as p where not exists (select from all_runs as r where r.run_id = p.run_id"
        " and r.job = {} and r.status = 'succeeded') limit 1"
    ).format(Identifier(*table), Literal(job))
    with session.transaction(connection):
        if not connection.execute(NAMES_RUNS, table._asdict()).scalar_one():
            return None
        rows = session.fetch(connection, query)
    return int(rows[0][0]) if rows else None


def _write(connection: Connection, job: str, tables: Sequence[Table], on_conflict: str) -> None:
    marks = Table(tables[0].schema, MARKS)
    if not connection.execute(IS_THERE, marks._asdict()).scalar_one():
        create = SQL(
            "create table {} (table_name text primary key, job text not null, ledger uuid not null,"
            " ledger_schema text not null, marked_at timestamptz not null default now(),"
            " marked_by text not null default session_user)"
        )
        session.execute(connection, create.format(Identifier(*marks)))
        hand_over(connection, marks.schema, Identifier(*marks))
        if is_role(connection, READER):
            session.execute(connection, SQL("grant select on {} to {}").format(Identifier(*marks), Identifier(READER)))
    insert = SQL(
        "insert into {} (table_name, job, ledger, ledger_schema) select name, {}, ledger_id, current_schema()"
        " from ledger, unnest({}) as name on conflict (table_name) do " + on_conflict
    ).format(Identifier(*marks), Literal(job), Literal([table.name for table in tables]))
    session.execute(connection, insert)


def _refused(said: str, job: str) -> TargetRefused:
    advice = (
        f"name another table in the [load] of job {job}; if that job was renamed or retired, or this ledger stands in"
        f" for the other one, let job {job} have the table: plantao jobs adopt {job}"
    )
    return TargetRefused(f"{said}. Nothing was written.", advice, "load")
