"""Tables of ours belong to the scorer role, so that each of its members can go on where another left off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao.ledger.grants import SCORER
from plantao.load import table as tables
from plantao.postgres import session

if TYPE_CHECKING:
    from psycopg2.sql import Identifier
    from sqlalchemy import Connection


def hand_over(connection: Connection, schema: str, *created: Identifier) -> None:
    """Let the scorer role own new tables if we are a member of it: another member may score the next window."""
    ours = text(
        "select exists (select from pg_roles where rolname = :scorer and pg_has_role(oid, 'usage')"
        " and has_schema_privilege(oid, :schema, 'create'))"
    )
    if connection.execute(ours, {"scorer": SCORER, "schema": schema}).scalar():
        for table in created:
            session.execute(connection, tables.hand_over(table, SCORER))


def is_role(connection: Connection, name: str) -> bool:
    """Tell whether the server has a role."""
    query = text("select exists (select from pg_roles where rolname = :name)")
    return bool(connection.execute(query, {"name": name}).scalar_one())
