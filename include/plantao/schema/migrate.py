"""Create and upgrade the ledger: numbered SQL files, each applied once, in order.

Safe to repeat, and safe to run twice at once: the second waits for the first and finds nothing left to do.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Identifier
from sqlalchemy import text

from plantao import database
from plantao.errors import NotInitialised, TargetRefused
from plantao.locks import in_turn

if TYPE_CHECKING:
    from sqlalchemy import Connection


def migrations() -> list[tuple[int, str, str]]:
    """Return the migrations as (number, name, SQL), in order."""
    found = [path for path in files(__package__).iterdir() if path.name.endswith(".sql")]
    return sorted((int(path.name[:3]), path.name, path.read_text(encoding="utf-8")) for path in found)


def upgrade(connection: Connection, schema: str) -> list[str]:
    """Apply what is missing, in one transaction, and return the names of what was applied."""
    applied = []
    with (
        database.explained("", TargetRefused, f"creating the ledger in schema {schema}"),
        connection.begin(),
    ):
        in_turn(connection, f"plantao.init {schema}")
        if connection.execute(text("select to_regnamespace(quote_ident(:s)) is null"), {"s": schema}).scalar():
            database.execute(connection, SQL("create schema {}").format(Identifier(schema)))
        # Not "if not exists", which asks for the right to create also where there is nothing to do.
        if connection.execute(text("select to_regclass('schema_migrations') is null")).scalar():
            connection.execute(
                text(
                    "create table schema_migrations"
                    " (number integer primary key, name text not null, applied_at timestamptz not null default now())"
                )
            )
        done = set(connection.execute(text("select number from schema_migrations")).scalars())
        for number, name, statements in migrations():
            if number not in done:
                database.execute(connection, SQL(statements))
                insert = "insert into schema_migrations (number, name) values (:number, :name)"
                connection.execute(text(insert), {"number": number, "name": name})
                applied.append(name)
    return applied


def version(connection: Connection, schema: str, where: str) -> int | None:
    """Return the number of the ledger's newest migration; None where there is no ledger."""
    with database.explained("", NotInitialised, f"looking for the ledger in {where}"), connection.begin():
        there = connection.execute(
            text("select to_regclass(quote_ident(:s) || '.schema_migrations') is not null"), {"s": schema}
        ).scalar()
        number: int | None = None
        if there:
            number = connection.execute(text("select max(number) from schema_migrations")).scalar()
    return number


def require_current(connection: Connection, schema: str, where: str) -> None:
    """Raise NotInitialised unless the ledger is there and has every migration this program knows."""
    number, newest = version(connection, schema, where), migrations()[-1][0]
    if number is None or number < newest:
        state = "has no ledger" if number is None else f"has an older ledger ({number} of {newest})"
        message = f"{where} {state}. Nothing was written."
        raise NotInitialised(message, "run: plantao init")
