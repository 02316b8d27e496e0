"""Locks by name, for work that one process at a time shall do; they end with the session that holds them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


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
