"""What answers behind an address: whether it can be served, and whether a session is one process of the server."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plantao.errors import ServerRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg2.extensions

    from plantao.config.address import Address

OLDEST = 14
LOOKS = 3


@dataclass(frozen=True)
class Server:
    """What a server reports about itself while a session connects, without a question."""

    version: int
    encoding: str
    in_recovery: bool
    read_only: bool

    @classmethod
    def of(cls, connection: psycopg2.extensions.connection) -> Server:
        """Return what the server behind a connection has reported."""
        reported = connection.info.parameter_status
        return cls(
            connection.info.server_version // 10_000,
            reported("server_encoding") or "",
            reported("in_hot_standby") == "on",
            reported("default_transaction_read_only") == "on",
        )

    def __str__(self) -> str:
        more = ", a standby" if self.in_recovery else ", read-only" if self.read_only else ""
        return f"PostgreSQL {self.version}, {self.encoding}{more}"


def demand_served(connection: psycopg2.extensions.connection, address: Address) -> None:
    """Raise ServerRefused when the server is older than what our SQL needs."""
    if Server.of(connection).version < OLDEST:
        message = f"the server behind {address} is PostgreSQL {Server.of(connection).version}. Nothing was written."
        raise ServerRefused(message, f"upgrade the server to PostgreSQL {OLDEST} or newer")


def demand_own_process(
    connection: psycopg2.extensions.connection, address: Address, connect: Callable[[], psycopg2.extensions.connection]
) -> None:
    """Raise ServerRefused when a pooler in between gives the server's processes to other sessions.

    In session mode each session has one process for itself as long as it lasts. In transaction mode an idle session
    has none: another session gets its process, or it gets another one itself. Nothing is set meanwhile, and there are
    no transactions, which statement mode refuses.
    """
    with contextlib.closing(connect()) as other:
        other.autocommit = True
        own = {_process(connection), _process(connection)}
        for _ in range(LOOKS):
            others = {_process(other)}
            own.add(_process(connection))
            if len(own) > 1 or own & others:
                message = (
                    f"a connection pooler (PgBouncer, say) in front of {address} is not in session mode: several"
                    " sessions share a process of the server, with its settings and locks. Nothing was written."
                )
                cure = "connect to PostgreSQL itself, or through a pool in session mode (PgBouncer: pool_mode=session)"
                raise ServerRefused(message, cure)


def _process(connection: psycopg2.extensions.connection) -> int:
    """Return which process of the server answers now."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_catalog.pg_backend_pid()")
        return int(cursor.fetchall()[0][0])
