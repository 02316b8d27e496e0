"""Locks by name, for work that one process at a time shall do; they end with the session that holds them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from plantao.postgres import driver_errors, session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, TextClause

LOCK_NOT_AVAILABLE = "55P03"

# Shorter than anybody waits for a lock.
SILENT_SECONDS = session.LOCK_SECONDS * 2 / 3
# The number of the lock `:name` of a ledger. A name is hashed with the ledger's schema, which stands first in the path,
# so that two ledgers in one database never wait for each other; what they share has a name for the whole database.
LEDGER = "hashtextextended(:name, coalesce((select oid::bigint from pg_namespace where nspname = current_schema()), 0))"
DATABASE = "hashtextextended(:name, 0)"
# PostgreSQL shows the two halves of a lock's number apart.
HOLDERS = (
    "from pg_locks as l join pg_stat_activity as a using (pid) where l.locktype = 'advisory' and l.granted"
    " and l.database = (select oid from pg_database where datname = current_database()) and l.objsubid = 1"
    " and l.classid::bigint << 32 | l.objid::bigint = "
)


def in_turn(connection: Connection, name: str, of: str = LEDGER) -> None:
    """Wait for a lock by name, of the ledger or of the DATABASE, and keep it until the caller's transaction ends.

    For short transactions: who has its turn and says nothing for SILENT_SECONDS, frozen or cut off, loses its session,
    so that those who wait for it go on.
    """
    take = text(f"select set_config('idle_in_transaction_session_timeout', :silent, true), pg_advisory_xact_lock({of})")
    _waited(connection, take, of, name=name, silent=f"{SILENT_SECONDS * 1000:.0f}ms")


def take_lock(connection: Connection, name: str, of: str = LEDGER) -> int:
    """Take a lock until the transaction ends; returns when that began, in microseconds since 1970."""
    lock = text(f"select pg_advisory_xact_lock({of}), now()")
    moment = _waited(connection, lock, of, name=name)[1]
    return int(moment.timestamp()) * 1_000_000 + int(moment.microsecond)


def _waited(connection: Connection, statement: TextClause, of: str, name: str, **given: str) -> Any:
    """Execute a statement that takes a lock and return its row; the error of a wait in vain says who has the lock."""
    try:
        return connection.execute(statement, {"name": name, **given}).one()
    except OperationalError as error:
        if driver_errors.sqlstate_of(error) == LOCK_NOT_AVAILABLE:
            with suppress(*driver_errors.SQLALCHEMY_ERRORS), connection.engine.connect() as another:
                error.add_note(f"{name} is held by {_holder(another, name, of)}")
        raise


def _holder(connection: Connection, name: str, of: str) -> str:
    """Return who holds a lock, in words; of another login's session no more is known than its process."""
    query = text(
        "select a.pid, a.application_name as application, a.state, to_char(a.xact_start, 'HH24:MI:SS OF') as since"
        f" {HOLDERS}{of}"
    )
    found = connection.execute(query, {"name": name}).one_or_none()
    if found is None:
        return "another session, which has let go of it by now"
    since = f", in a transaction since {found.since} ({found.state})" if found.since else ""
    return f"process {found.pid} ({found.application or 'of another login'}){since}"


def end_holders(connection: Connection, name: str) -> None:
    """End the other sessions that hold a lock of this ledger, as far as they are ours to end."""
    mine = "pg_has_role(a.usesysid, 'usage') and pid <> pg_backend_pid()"
    connection.execute(text(f"select pg_terminate_backend(pid) {HOLDERS}{LEDGER} and {mine}"), {"name": name})


@contextmanager
def alone(connection: Connection, name: str) -> Iterator[bool]:
    """Hold a lock by name for as long as the context lasts; False when another session has it."""
    take = text(f"select pg_try_advisory_lock({LEDGER})")
    with connection.begin():
        taken = bool(connection.execute(take, {"name": name}).scalar_one())
    try:
        yield taken
    finally:
        if taken and not connection.closed and not connection.invalidated:
            with connection.begin():
                connection.execute(text(f"select pg_advisory_unlock({LEDGER})"), {"name": name})
