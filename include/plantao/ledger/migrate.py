"""Create and upgrade the ledger: numbered SQL files, each applied once, in order.

Safe to repeat, and safe to run twice at once: the second waits for the first and finds nothing left to do.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Identifier
from sqlalchemy import text

from plantao import __version__
from plantao.errors import NotInitialised, TargetRefused
from plantao.postgres import driver_errors, session
from plantao.postgres.locks import DATABASE, in_turn

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

UPGRADE = "upgrade Plantão on this machine, then run it again:\ngit pull && docker compose up --detach --build"


def migrations() -> list[tuple[int, str, str]]:
    """Return the migrations as (number, name, SQL), in order."""
    found = [path for path in files("plantao.ledger.migrations").iterdir() if path.name.endswith(".sql")]
    return sorted((int(path.name[:3]), path.name, path.read_text(encoding="utf-8")) for path in found)


def upgrade(connection: Connection, schema: str) -> list[str]:
    """Apply what is missing, in one transaction, and return the names of what was applied.

    Raises NotInitialised for a ledger that a newer program has upgraded.
    """
    applied = []
    with (
        driver_errors.explained("", TargetRefused, f"creating the ledger in schema {schema}"),
        connection.begin(),
    ):
        in_turn(connection, f"plantao.init {schema}", DATABASE)
        if connection.execute(text("select to_regnamespace(quote_ident(:s)) is null"), {"s": schema}).scalar():
            session.execute(connection, SQL("create schema {}").format(Identifier(schema)))
        # Not "if not exists", which asks for the right to create also where there is nothing to do.
        if connection.execute(text("select to_regclass('schema_migrations') is null")).scalar():
            connection.execute(
                text(
                    "create table schema_migrations"
                    " (number integer primary key, name text not null, applied_at timestamptz not null default now())"
                )
            )
        done = _applied(connection)
        if (newer := _newer(f"the ledger in schema {schema}", done)) is not None:
            raise newer
        for number, name, statements in migrations():
            if name not in done:
                # A comment may have a letter that the database's encoding lacks.
                session.execute(connection, SQL(statements.encode("ascii", "replace").decode()))
                insert = "insert into schema_migrations (number, name) values (:number, :name)"
                connection.execute(text(insert), {"number": number, "name": name})
                applied.append(name)
    return applied


def version(connection: Connection, schema: str, where: str) -> int | None:
    """Return the number of the ledger's newest migration; None where there is no ledger."""
    done = _ledger(connection, schema, where)
    return None if done is None else max(done.values())


def require_current(connection: Connection, schema: str, where: str) -> int:
    """Return the number of the ledger's newest migration.

    Raises NotInitialised unless the ledger has exactly the migrations that this program knows: an older program does
    not know what a newer ledger asks of it, such as a column that every success has to fill.
    """
    done, known = _ledger(connection, schema, where), migrations()
    if done is None:
        message = f"{where} has no ledger. Nothing was written."
        raise NotInitialised(message, "run: plantao init")
    if (newer := _newer(where, done)) is not None:
        raise newer
    if missing := [name for _, name, _ in known if name not in done]:
        message = f"{where} has an older ledger ({len(known) - len(missing)} of {len(known)}). Nothing was written."
        raise NotInitialised(message, "run: plantao init")
    return known[-1][0]


def _ledger(connection: Connection, schema: str, where: str) -> dict[str, int] | None:
    """Return the migrations of a ledger, the number of each by its name; None where there is no ledger."""
    there = text("select to_regclass(quote_ident(:s) || '.schema_migrations') is not null")
    with driver_errors.explained("", NotInitialised, f"looking for the ledger in {where}"), connection.begin():
        return _applied(connection) if connection.execute(there, {"s": schema}).scalar() else None


def _applied(connection: Connection) -> dict[str, int]:
    rows = connection.execute(text("select name, number from schema_migrations")).all()
    return {row.name: row.number for row in rows}


def _newer(where: str, done: Collection[str]) -> NotInitialised | None:
    """Return the error of a ledger with a migration that this program does not know; None when it knows them all."""
    known = migrations()
    unknown = sorted(set(done) - {name for _, name, _ in known})
    if not unknown:
        return None
    message = (
        f"{where} has a newer ledger than this program: its migration {unknown[-1]} is not known to Plantão"
        f" {__version__}, which knows {known[-1][1]}. Nothing was written."
    )
    return NotInitialised(message, UPGRADE)
