"""Sessions on PostgreSQL: the only module that knows a driver.

Two drivers, each for what it is best at: psycopg2 (under SQLAlchemy) for statements and for COPY into the target, ADBC
for reading the source in bulk, as Arrow batches over binary COPY.

Every wait has an end. psycopg2 waits for a frozen server inside C code, where neither a signal nor Airflow's
`execution_timeout` reaches it; so a timer shuts the socket down (`deadline`), and the wait becomes an ordinary error.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from psycopg2 import sql
from sqlalchemy.pool import NullPool

from plantao.errors import DatabaseUnavailable, PlantaoError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from sqlalchemy import Connection

    from plantao.config.address import Address
from plantao.postgres import encoding, login, pinned
from plantao.postgres.driver_errors import explained
from plantao.postgres.server import Server, demand_own_process, demand_served

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 600
LOCK_SECONDS = 30
IDLE_SECONDS = 300
COPY_CHUNK = 1 << 16
_own_processes: set[str] = set()
"""Where this process has found that each session is a process of the server."""


# --- sessions for statements -----------------------------------------------------------------------------------------


def dsn(address: Address, application: str, options: str = "") -> str:
    """Return the connection string: fail fast when nobody answers, and notice a peer that vanished.

    `options` are for the server, as its command line has them; they come after those of the address, and so they count.
    """
    defaults = {
        "application_name": application[:63],
        "connect_timeout": str(CONNECT_SECONDS),
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    parameters: dict[str, Any] = {**defaults, **address.parameters, "client_encoding": "UTF8"}
    if options:
        parameters["options"] = f"{parameters.get('options', '')} {options}".strip()
    return str(psycopg2.extensions.make_dsn(**parameters))


@contextlib.contextmanager
def session(address: Address, schema: str, application: str = "plantao") -> Iterator[Connection]:
    """Open a session for statements on the ledger in `schema`; closed, and rolled back, at the end.

    Names of the ledger need no schema in front of them: the search path is `schema`, then `pg_catalog`, then
    the temporary schema last, so that nobody's temporary table can stand in front of the ledger.
    """
    with explained("", PlantaoError, f"connecting to {address}"):
        connection = _engine(_Connecting(dsn(address, application), schema, address, application)).connect()
    replace_what_is_not_in(server_of(connection).encoding, connection)
    try:
        with explained("", PlantaoError, f"working on {address}"):
            yield connection
    finally:
        with contextlib.suppress(psycopg2.Error, sqlalchemy.exc.DBAPIError):
            connection.close()


@dataclass(frozen=True)
class _Connecting:
    """How an engine connects."""

    dsn: str
    schema: str
    address: Address = field(compare=False)
    application: str = field(compare=False)

    def __call__(self) -> psycopg2.extensions.connection:
        return _connect(self.address, self.schema, self.application)


@functools.lru_cache(maxsize=16)
def _engine(connecting: _Connecting) -> sqlalchemy.Engine:
    """Return an engine, which holds no connection; its first one asks the server five things that stay as they are."""
    return sqlalchemy.create_engine(
        "postgresql+psycopg2://", creator=connecting, poolclass=NullPool, use_native_hstore=False
    )


def _connect(address: Address, schema: str, application: str) -> psycopg2.extensions.connection:
    connection = login.connect(dsn(address, application))
    try:
        with deadline(connection, CONNECT_SECONDS):
            path = f"{psycopg2.extensions.quote_ident(schema, connection)}, {pinned.CLOSED_PATH}"
            _pin(connection, address, path, application)
    except BaseException:
        connection.close()
        raise
    return connection


def _pin(connection: psycopg2.extensions.connection, address: Address, path: str, application: str) -> None:
    """Pin the settings, not as start-up options: a connection pooler in between would refuse those."""
    demand_served(connection, address)
    connection.autocommit = True
    limits: dict[str, float] = {"statement": STATEMENT_SECONDS, "lock": LOCK_SECONDS, "idle": IDLE_SECONDS}
    pin = partial(pinned.statement, path, application)
    with connection.cursor() as cursor:
        cursor.execute(pin(connection.info.backend_pid, limits))
        if not cursor.fetchall():
            demand_own_process(connection, address, lambda: login.connect(dsn(address, "plantao/look")))
            cursor.execute(pin(None, limits))
    connection.autocommit = False
    if connection.encoding != "UTF8":  # the driver has it from the address's options, from before it was pinned
        connection.set_client_encoding("UTF8")
    _own_processes.add(dsn(address, ""))


def demand_own_sessions(address: Address) -> None:
    """Raise ServerRefused when sessions at this address cannot be served; a question only for the first of a process.

    The other driver does not tell which process of the server it has.
    """
    if dsn(address, "") not in _own_processes:
        with explained("", PlantaoError, f"connecting to {address}"):
            _connect(address, "pg_catalog", "plantao/look").close()


def path_of_login(address: Address, application: str) -> str:
    """Return the search path that a session of this login begins with, behind pg_catalog."""
    with explained("", PlantaoError, f"connecting to {address}"):
        connection = login.connect(dsn(address, application))
        with contextlib.closing(connection), deadline(connection, CONNECT_SECONDS), connection.cursor() as cursor:
            cursor.execute(f"select {pinned.PATH_OF_LOGIN}")
            return str(cursor.fetchall()[0][0])


def server_of(connection: Connection) -> Server:
    """Return what the server of a session has reported about itself."""
    return Server.of(driver_connection(connection))


def replace_what_is_not_in(name: str, connection: Connection) -> None:
    """Let texts of ours lose the characters that a database's encoding lacks; rows travel by COPY, and lose none."""
    if name == encoding.UTF8:
        return
    codec = "utf-8" if name == encoding.UNKNOWN else psycopg2.extensions.encodings.get(name, "ascii")

    def replace(*given: Any) -> tuple[str, Any]:
        return given[2], encoding.replaced(given[3], codec)

    sqlalchemy.event.listen(connection, "before_cursor_execute", replace, retval=True)


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Run the context in the caller's transaction, or else in one of its own."""
    with contextlib.nullcontext() if connection.in_transaction() else connection.begin():
        yield


def driver_connection(connection: Connection) -> psycopg2.extensions.connection:
    """Return psycopg2's own connection, for COPY and for quoting."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg2.extensions.connection)
    return raw


@contextlib.contextmanager
def deadline(connection: Connection | psycopg2.extensions.connection, seconds: float) -> Iterator[None]:
    """End whatever waits on this connection after `seconds`, also when the server is frozen."""
    raw = connection if isinstance(connection, psycopg2.extensions.connection) else driver_connection(connection)
    fired = threading.Event()

    def cut() -> None:
        fired.set()
        with contextlib.suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(raw.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (psycopg2.Error, sqlalchemy.exc.DBAPIError) as error:
        if fired.is_set():
            message = f"the database did not answer for {seconds:g} s."
            raise DatabaseUnavailable(message, "nothing: it is retried") from error
        raise
    finally:
        timer.cancel()


def quoted(connection: Connection, composed: sql.Composable) -> str:
    """Return the SQL text of a composed statement; names and values are quoted by the driver."""
    return composed.as_string(driver_connection(connection))


def execute(connection: Connection, composed: sql.Composable) -> int:
    """Run a composed statement and return the number of rows it touched."""
    with driver_connection(connection).cursor() as cursor:
        cursor.execute(composed)
        return cursor.rowcount


def fetch(connection: Connection, composed: sql.Composable) -> list[tuple[Any, ...]]:
    """Run a composed statement and return its rows."""
    with driver_connection(connection).cursor() as cursor:
        cursor.execute(composed)
        return cursor.fetchall()


def copy_in(connection: Connection, composed: sql.Composable, stream: BinaryIO) -> int:
    """Send `stream` through `COPY … FROM STDIN` and return the number of rows the server took."""
    with driver_connection(connection).cursor() as cursor:
        cursor.copy_expert(composed, stream, size=COPY_CHUNK)
        return cursor.rowcount
