"""The prediction table as it is: found, held against what is needed, and made where it is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Identifier
from sqlalchemy import text

from plantao.config.table_name import spelt
from plantao.errors import TargetRefused
from plantao.ledger.grants import READER
from plantao.load import ownership
from plantao.load import table as tables
from plantao.load.handover import hand_over, is_role
from plantao.postgres import driver_errors, session
from plantao.postgres.locks import DATABASE, in_turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from plantao.config.table_name import Table
    from plantao.load.table import PredictionTable


def find_table(connection: Connection, table: Table) -> dict[str, str] | None:
    """Return the columns of a table as it exists, name to type; None when it does not exist."""
    query = text(
        "select a.attname, format_type(a.atttypid, null) from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = :schema and c.relname = :name and a.attnum > 0 and not a.attisdropped"
    )
    with connection.begin():
        rows = connection.execute(query, table._asdict()).all()
    return {str(name): str(kind) for name, kind in rows} or None


@dataclass(frozen=True)
class Shape:
    """What an existing table is, besides its columns."""

    kind: str
    is_unlogged: bool
    has_children: bool
    has_unique_index: bool
    """Whether a unique index covers exactly the columns that identify a prediction."""


SHAPE = text(
    "select c.relkind::text, c.relpersistence = 'u',"
    " c.relkind = 'r' and exists (select from pg_inherits where inhparent = c.oid),"
    " exists (select from pg_index i, lateral (select array_agg(a.attname::text) as columns from pg_attribute a"
    "  where a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])) as k"
    "  where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indisready and i.indimmediate"
    "  and i.indpred is null and i.indexprs is null"
    "  and k.columns @> cast(:key as text[]) and k.columns <@ cast(:key as text[]))"
    " from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = :schema and c.relname = :name"
)
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "c": "a type"}


def misfits(connection: Connection, table: PredictionTable, found: Mapping[str, str]) -> list[str]:
    """Return why the table as it exists, with the columns `found`, cannot take the predictions."""
    with session.transaction(connection):
        shape = Shape(*connection.execute(SHAPE, {**table.name._asdict(), "key": list(table.unique)}).one())
    problems = tables.mismatches(table, found)
    if shape.kind in KINDS:
        return [f"it is {KINDS[shape.kind]}, and predictions need a table", *problems]
    if shape.is_unlogged:
        problems.append("it is unlogged, so a crash of the server would empty it")
    if shape.has_children:
        problems.append("other tables inherit from it, and no unique index covers their rows")
    if not shape.has_unique_index:
        key = ", ".join(table.unique)
        problems.append(f"no unique index covers exactly its key ({key}), so a row could get two predictions")
    return problems


def cure(table: PredictionTable) -> str:
    """Return the two ways out of a table that does not fit."""
    key = ", ".join(spelt(name) for name in table.unique)
    return (
        f"give it what it lacks (create unique index on {table.name} ({key}), where that is missing), or name another"
        " table in [load], which the next run makes as it has to be"
    )


def existing(connection: Connection, tables: Sequence[Table]) -> list[Table]:
    """Return which of the tables exist."""
    query = text("select schemaname::text, tablename::text from pg_tables where tablename = any(:names)")
    there = {tuple(row) for row in connection.execute(query, {"names": [table.name for table in tables]})}
    return [table for table in tables if table in there]


def ensure_table(connection: Connection, table: PredictionTable) -> bool:
    """Create the prediction table and its history when they are missing; return whether it was.

    Raises TargetRefused when a table of this name cannot take the rows, or is another job's or another ledger's.
    """
    with driver_errors.explained("load", TargetRefused, f"looking for {table.name}"):
        found = find_table(connection, table.name)
    if found is None:
        ownership.require(connection, table.job, table.owned)
    else:
        if problems := misfits(connection, table, found):
            message = f"the prediction table {table.name} does not fit: {'; '.join(problems)}. Nothing was written."
            raise TargetRefused(message, cure(table), "load")
        ownership.claim(connection, table.job, table.owned)
        with driver_errors.explained("load", TargetRefused, f"adding columns to {table.name}"), connection.begin():
            for statement in tables.add_missing(table, found):
                session.execute(connection, statement)
        return False
    with driver_errors.explained("load", TargetRefused, f"creating {table.name}"), connection.begin():
        # One lock for all tables: two jobs that start together may need the same new schema.
        in_turn(connection, "plantao.create", DATABASE)
        if connection.execute(
            text("select to_regnamespace(quote_ident(:s)) is null"), {"s": table.name.schema}
        ).scalar():
            session.execute(connection, SQL("create schema {}").format(Identifier(table.name.schema)))
        ownership.mark(connection, table.job, table.owned)
        for statement in tables.create(table):
            session.execute(connection, statement)
        hand_over(connection, table.name.schema, *table.tables)
        if is_role(connection, READER):
            session.execute(connection, tables.let_read(table, READER))
    return True
