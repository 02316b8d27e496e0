"""What ADBC knows of a database's types, read once per process and not once per connection.

The driver reads the whole catalogue of types and columns when it opens a database: 46 ms where there are 600 relations,
and seconds of the client's server where there are 50,000. Its connections to a database that is open take 2 ms.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import adbc_driver_manager
    from adbc_driver_manager import dbapi as adbc

KEPT = 16
# The same answer means the same types: of this database, of this start of the server, and by these names.
TYPES = """
select pg_catalog.pg_postmaster_start_time()::pg_catalog.text as started, d.oid::pg_catalog.text as database,
  (select pg_catalog.sum(pg_catalog.hashtextextended(t.typname::pg_catalog.text, t.oid::pg_catalog.int8))
   from pg_catalog.pg_type as t)::pg_catalog.text as types
from pg_catalog.pg_database as d where d.datname operator(pg_catalog.=) pg_catalog.current_database()
"""


class _Database:
    """A database of ADBC's, which stays open when a connection closes it."""

    def __init__(self, database: adbc_driver_manager.AdbcDatabase, types: list[Any]) -> None:
        self.database, self.types = database, types

    def close(self) -> None:
        """Do nothing: the next connection needs it."""


_databases: dict[str, _Database] = {}
_changing = threading.Lock()


def connect(dsn: str) -> adbc.Connection:
    """Return a new connection, which knows the types that the database has now."""
    import adbc_driver_postgresql

    with _changing:
        known = _databases.get(dsn)
    if known is not None:
        connection, types = _connected(known)
        if types == known.types:
            return connection
        connection.close()
    opened = _Database(adbc_driver_postgresql.connect(dsn), [])
    connection, opened.types = _connected(opened)
    with _changing:
        _databases.pop(dsn, None)
        _databases[dsn] = opened
        while len(_databases) > KEPT:
            del _databases[next(iter(_databases))]
    return connection


def _connected(to: _Database) -> tuple[adbc.Connection, list[Any]]:
    """Return a new connection, and which types its database has, before its first transaction."""
    import adbc_driver_manager
    import pyarrow as pa
    from adbc_driver_manager import dbapi

    raw = adbc_driver_manager.AdbcConnection(to.database)
    try:
        with adbc_driver_manager.AdbcStatement(raw) as statement:
            statement.set_sql_query(TYPES)
            types = pa.RecordBatchReader.from_stream(statement.execute_query()[0]).read_all().to_pylist()
        return dbapi.Connection(to, raw), types  # type: ignore[arg-type]  # it asks a database only to be closed
    except BaseException:
        raw.close()
        raise
