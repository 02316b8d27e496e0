"""Locks by name, for work that one process at a time shall do; they end with the session that holds them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao import database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

# Shorter than anybody waits for a lock.
SILENT_SECONDS = database.LOCK_SECONDS * 2 / 3


def in_turn(connection: Connection, name: str) -> None:
    """Wait for a lock by name, and keep it until the caller's transaction ends.

    For short transactions: who has its turn and says nothing for SILENT_SECONDS, frozen or cut off, loses its session,
    so that those who wait for it go on.
    """
    take = text(
        "select set_config('idle_in_transaction_session_timeout', :silent, true),"
        " pg_advisory_xact_lock(hashtextextended(:name, 0))"
    )
    connection.execute(take, {"name": name, "silent": f"{SILENT_SECONDS * 1000:.0f}ms"})


def take_lock(connection: Connection, name: str) -> int:
    """Take a lock until the transaction ends; returns when that began, in microseconds since 1970."""
    lock = text("select pg_advisory_xact_lock(hashtextextended(:name, 0)), now()")
    moment = connection.execute(lock, {"name": name}).one()[1]
    return int(moment.timestamp()) * 1_000_000 + int(moment.microsecond)


@contextmanager
def alone(connection: Connection, name: str) -> Iterator[bool]:
    """Hold a lock by name for as long as the context lasts; False when another session has it."""
    take = text("select pg_try_advisory_lock(hashtextextended(:name, 0))")
    with connection.begin():
        taken = bool(connection.execute(take, {"name": name}).scalar_one())
    try:
        yield taken
    finally:
        if taken and not connection.closed and not connection.invalidated:
            with connection.begin():
                connection.execute(text("select pg_advisory_unlock(hashtextextended(:name, 0))"), {"name": name})
