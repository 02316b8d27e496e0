"""A read-only transaction that sees one moment of a database, read as Arrow over binary COPY."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plantao.errors import DatabaseUnavailable
from plantao.postgres import adbc_databases, login, pinned, session
from plantao.postgres.timeout import NotInTimeError, in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa
    from adbc_driver_manager import dbapi as adbc

    from plantao.config.address import Address
    from plantao.postgres.timeout import Result

SOURCE_LOCK_SECONDS = 10
POOLER_REFUSES = "unsupported startup parameter"  # PgBouncer's words, which it has in no other language
BEGIN = "set transaction isolation level repeatable read read only"
BATCH_OPTION = "adbc.postgresql.batch_size_hint_bytes"
BATCH_BYTES = 8 << 20


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

        return self.in_time(session.STATEMENT_SECONDS, ask)

    def table(self, text: str) -> pa.Table:
        """Return the whole result of a SELECT."""

        def fetch_all() -> pa.Table:
            with self._connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetch_arrow_table()

        return self.in_time(session.STATEMENT_SECONDS, fetch_all)

    def value(self, text: str) -> Any:
        """Return the one value of a SELECT that gives one row with one column."""
        return self.table(text).column(0)[0].as_py()

    def batches(self, text: str) -> Iterator[pa.RecordBatch]:
        """Yield the result of a SELECT batch by batch. Whoever waits for the batches keeps the time."""
        from adbc_driver_manager._reader import AdbcRecordBatchReader

        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{BATCH_OPTION: str(BATCH_BYTES)})
            cursor.execute(text)
            # Arrow's own reader loses the code of an error in the middle of a result.
            stream = cursor.fetch_arrow()
            yield from AdbcRecordBatchReader._import_from_c(stream.address)  # noqa: SLF001 - as the driver does


def _no_answer(seconds: float) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"the database did not answer for {seconds:g} s.", "nothing: it is retried")


def open_snapshot(
    address: Address, application: str = "plantao", lock: Sequence[str] = (), path: str | None = pinned.CLOSED_PATH
) -> Snapshot:
    """Open a transaction that sees one moment of the source; the relations of `lock` are locked before that moment.

    LOGIN_PATH is for SQL that is not ours. No context manager: the thread that reads closes it as soon as it has the
    last row. An open one keeps the client's ALTER TABLE waiting, and vacuum.
    """
    connection = _connected(address)
    opened = Snapshot(connection, address)
    limits = {"statement": session.STATEMENT_SECONDS, "lock": SOURCE_LOCK_SECONDS, "idle": session.IDLE_SECONDS}

    def prepare(*statements: str) -> None:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def pin(path: str) -> None:
        # In a transaction of its own: a query would take the snapshot of the transaction that reads, before its locks.
        prepare(pinned.statement(path, application, None, limits, unchecked=True))
        connection.commit()
        prepare(BEGIN)

    try:
        pinned_path = session.path_of_login(address, application) if path is pinned.LOGIN_PATH else path
        opened.in_time(session.CONNECT_SECONDS, lambda: pin(pinned_path))
        if lock:
            locks = f"lock table only {', '.join(lock)} in access share mode"
            opened.in_time(2 * SOURCE_LOCK_SECONDS, lambda: _lock_first(connection, prepare, locks))
    except BaseException:
        opened.close()
        raise
    return opened


def _connected(address: Address) -> adbc.Connection:
    """Connect with what the driver's own look into the catalog needs.

    A pooler may refuse options; then that look has the settings of the login.
    """
    import adbc_driver_manager

    def connect() -> adbc.Connection:
        closed = session.dsn(address, "plantao", pinned.AT_CONNECT)
        try:
            return adbc_databases.connect(closed)
        except adbc_driver_manager.Error as error:
            if POOLER_REFUSES not in str(error):
                error.sqlstate = error.sqlstate or login.sqlstate(closed)
                raise
        return adbc_databases.connect(session.dsn(address, "plantao"))

    session.demand_own_sessions(address)
    try:
        return in_time(2 * session.CONNECT_SECONDS, connect)
    except NotInTimeError:
        raise _no_answer(2 * session.CONNECT_SECONDS) from None


def _lock_first(connection: adbc.Connection, prepare: Callable[..., None], locks: str) -> None:
    """Lock before the snapshot is taken; what cannot be locked (a materialized view, a right on columns) is not."""
    import adbc_driver_manager

    connection.rollback()
    try:
        prepare(BEGIN, locks)
    except adbc_driver_manager.Error as error:
        if not str(getattr(error, "sqlstate", None) or "").startswith("42"):
            raise
        connection.rollback()
        prepare(BEGIN)
