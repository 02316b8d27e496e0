"""Sessions on PostgreSQL: the only module that knows a driver.

Two drivers, each for what it is best at: psycopg2 (under SQLAlchemy) for statements and for COPY into the target, ADBC
for reading the source in bulk, as Arrow batches over binary COPY.

Every wait has an end. psycopg2 waits for a frozen server inside C code, where neither a signal nor Airflow's
`execution_timeout` reaches it; so a timer shuts the socket down (`deadline`), and the wait becomes an ordinary error.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import psycopg2
import psycopg2.extensions
import sqlalchemy
import sqlalchemy.exc
from psycopg2 import sql
from sqlalchemy.pool import NullPool

from plantao import sqlstate
from plantao.errors import DatabaseUnavailable, PlantaoError
from plantao.waiting import NotInTimeError, in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    import pyarrow as pa
    from adbc_driver_manager import dbapi as adbc
    from sqlalchemy import Connection

    from plantao.address import Address

Result = TypeVar("Result")

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 600
LOCK_SECONDS = 30
SOURCE_LOCK_SECONDS = 10
IDLE_SECONDS = 300
# The second is what SQLAlchemy says at the next statement after a session was lost.
SQLALCHEMY_ERRORS = (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.PendingRollbackError)
COPY_CHUNK = 1 << 16
BATCH_OPTION = "adbc.postgresql.batch_size_hint_bytes"
BATCH_BYTES = 8 << 20


def sqlstate_of(error: BaseException) -> str | None:
    """Return the five-letter code of a database error; psycopg2 loses it when the session itself was ended."""
    original = getattr(error, "orig", None) or error
    state = getattr(original, "pgcode", None) or getattr(original, "sqlstate", None)
    return str(state) if state else sqlstate.of_login(str(original))


def sentence_of(error: BaseException) -> str:
    """Return what the server said in one line, without DETAIL and CONTEXT: these quote rows, and rows are private."""
    original = getattr(error, "orig", None) or error
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    if primary:
        return str(primary)
    text = re.sub(r"^.*?(ERROR|FATAL|PANIC): +", "", str(original), flags=re.DOTALL)
    return text.split("\n")[0].strip() or type(original).__name__


@contextlib.contextmanager
def explained(step: str, refused: type[PlantaoError], doing: str) -> Iterator[None]:
    """Turn a driver's error into ours: `DatabaseUnavailable` where a retry can help, else `refused`."""
    import adbc_driver_manager

    try:
        yield
    except (psycopg2.Error, *SQLALCHEMY_ERRORS, adbc_driver_manager.Error) as error:
        raise_explained(error, step, refused, doing)


def raise_explained(error: Exception, step: str, refused: type[PlantaoError], doing: str) -> NoReturn:
    """Raise our error for a driver's one."""
    state = sqlstate_of(error)
    more = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    said = f"{sentence_of(error)} ({state or 'the session ended'}) while {doing}{more}."
    if is_passing(error):
        raise DatabaseUnavailable(said, "nothing: it is retried", step) from error
    raise refused(said, sqlstate.cure(state), step) from error


def is_passing(error: Exception) -> bool:
    """Tell whether the same call may succeed later; a refused login comes without a code, so its words decide."""
    state = sqlstate_of(error)
    if state is not None:
        return sqlstate.is_passing(state)
    if getattr(error, "connection_invalidated", False):
        return True
    original = getattr(error, "orig", None) or error
    return not isinstance(original, (psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.IntegrityError))


# --- sessions for statements -----------------------------------------------------------------------------------------


def dsn(address: Address, application: str) -> str:
    """Return the connection string: fail fast when nobody answers, and notice a peer that vanished."""
    defaults = {
        "application_name": application[:63],
        "connect_timeout": str(CONNECT_SECONDS),
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    parameters: dict[str, Any] = {**defaults, **address.parameters}
    return str(psycopg2.extensions.make_dsn(**parameters))


@contextlib.contextmanager
def session(address: Address, schema: str, application: str = "plantao") -> Iterator[Connection]:
    """Open a session for statements on the ledger in `schema`; closed, and rolled back, at the end.

    Names of the ledger need no schema in front of them: the search path is `schema`, then `pg_catalog`, then
    the temporary schema last, so that nobody's temporary table can stand in front of the ledger.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://", creator=lambda: _connect(address, schema, application), poolclass=NullPool
    )
    with explained("", PlantaoError, f"connecting to {address}"):
        connection = engine.connect()
    try:
        with explained("", PlantaoError, f"working on {address}"):
            yield connection
    finally:
        with contextlib.suppress(psycopg2.Error, sqlalchemy.exc.DBAPIError):
            connection.close()
        engine.dispose()


def _connect(address: Address, schema: str, application: str) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(dsn(address, application))
    settings = {
        "search_path": f"{psycopg2.extensions.quote_ident(schema, connection)}, pg_catalog, pg_temp",
        "timezone": "UTC",
        "statement_timeout": f"{STATEMENT_SECONDS}s",
        "lock_timeout": f"{LOCK_SECONDS}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
        "client_min_messages": "warning",
    }
    # Not as start-up options: a connection pooler in between would refuse those.
    with deadline(connection, CONNECT_SECONDS), connection.cursor() as cursor:
        for name, value in settings.items():
            cursor.execute("select set_config(%s, %s, false)", (name, value))
    connection.commit()
    return connection


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


# --- sessions for reading in bulk ------------------------------------------------------------------------------------


class Snapshot:
    """One read-only transaction that sees one moment of a database, read as Arrow over binary COPY."""

    def __init__(self, connection: adbc.Connection, address: Address) -> None:
        self._connection, self.address = connection, address
        self._is_left = False

    def close(self) -> None:
        """End the transaction. A call that did not come back in time still works with it, and closes it itself."""
        if not self._is_left:
            self._connection.close()

    def in_time(self, seconds: float, call: Callable[[], Result]) -> Result:
        """Return what `call` returns. Raises DatabaseUnavailable after `seconds`; then the snapshot is of no use."""
        try:
            return in_time(seconds, call, self._connection.close)
        except NotInTimeError:
            self._is_left = True
            raise _no_answer(seconds) from None

    def schema(self, text: str) -> pa.Schema:
        """Return the columns a SELECT would give, without running it; it must be one statement."""

        def ask() -> pa.Schema:
            with self._connection.cursor() as cursor:
                return cursor.adbc_execute_schema(text)

        return self.in_time(STATEMENT_SECONDS, ask)

    def table(self, text: str) -> pa.Table:
        """Return the whole result of a SELECT."""

        def fetch_all() -> pa.Table:
            with self._connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetch_arrow_table()

        return self.in_time(STATEMENT_SECONDS, fetch_all)

    def value(self, text: str) -> Any:
        """Return the one value of a SELECT that gives one row with one column."""
        return self.table(text).column(0)[0].as_py()

    def batches(self, text: str) -> Iterator[pa.RecordBatch]:
        """Yield the result of a SELECT batch by batch. Whoever waits for the batches keeps the time."""
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{BATCH_OPTION: str(BATCH_BYTES)})
            cursor.execute(text)
            try:
                yield from cursor.fetch_record_batch()
            except OSError as error:
                raise _of_the_stream(error) from error


def _of_the_stream(error: OSError) -> Exception:
    """Return the driver's error for what Arrow reports in the middle of a result, where the SQLSTATE is lost.

    What the server says of a value is a data error, and would be said again; anything else may pass.
    """
    import adbc_driver_manager

    passing = r"cancell?ing|terminating|conflict|timeout|No space|memory|could not (extend|write|read)"
    state = "22000" if "ERROR:" in str(error) and not re.search(passing, str(error)) else None
    code = adbc_driver_manager.AdbcStatusCode.IO
    return adbc_driver_manager.OperationalError(str(error), status_code=code, sqlstate=state)


def _no_answer(seconds: float) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"the database did not answer for {seconds:g} s.", "nothing: it is retried")


def open_snapshot(address: Address, application: str = "plantao") -> Snapshot:
    """Open a transaction that sees one moment of the source.

    No context manager: the thread that reads closes it as soon as it has the last row. An open one keeps the client's
    ALTER TABLE waiting, and vacuum.
    """
    import adbc_driver_postgresql.dbapi

    try:
        connection = in_time(
            2 * CONNECT_SECONDS, lambda: adbc_driver_postgresql.dbapi.connect(dsn(address, application))
        )
    except NotInTimeError:
        raise _no_answer(2 * CONNECT_SECONDS) from None
    opened = Snapshot(connection, address)
    settings = (
        "set transaction isolation level repeatable read read only",
        *("set local timezone = 'UTC'", "set local datestyle = 'ISO'"),
        f"set local statement_timeout = '{STATEMENT_SECONDS}s'",
        f"set local lock_timeout = '{SOURCE_LOCK_SECONDS}s'",
        f"set local idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'",
    )

    def prepare() -> None:
        with connection.cursor() as cursor:
            for setting in settings:
                cursor.execute(setting)

    try:
        opened.in_time(CONNECT_SECONDS, prepare)
    except BaseException:
        opened.close()
        raise
    return opened


@contextlib.contextmanager
def snapshot(address: Address, application: str = "plantao") -> Iterator[Snapshot]:
    """Open a transaction that sees one moment of the database, for as long as the context lasts."""
    with contextlib.closing(open_snapshot(address, application)) as opened:
        yield opened
