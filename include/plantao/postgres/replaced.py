"""Find relations that were replaced behind a snapshot.

A snapshot can be older than the lock that a statement waits for. PostgreSQL shows such a snapshot an empty relation
when another transaction rewrote the relation meanwhile (TRUNCATE, ALTER TYPE), or put a new one under its name. Once a
transaction holds its locks, nothing can be replaced any more. So a read is whole when all relations that it has locked
are today's ones: the catalogue as the snapshot shows it agrees with the catalogue as the server uses it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from psycopg2.sql import SQL

from plantao.errors import DatabaseUnavailable
from plantao.postgres import pinned, session
from plantao.postgres import snapshot as snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from plantao.config.address import Address
    from plantao.postgres.snapshot import Snapshot

TRIES = 5
LOOK_SECONDS = 10
Result = TypeVar("Result")
# Every relation that this transaction has locked: whether it was replaced, and whether the rows are another server's.
# pg_relation_filenode reads what the server uses now, pg_class what the snapshot shows.
LOOK = """
select o.identity as name,
  c.oid is null or (c.relfilenode operator(pg_catalog.<>) 0 and c.relkind operator(pg_catalog.=) any ('{r,p,m}')
    and c.relfilenode operator(pg_catalog.<>) pg_catalog.pg_relation_filenode(c.oid)) as replaced,
  coalesce(c.relkind operator(pg_catalog.=) 'f', false) as is_foreign,
  pg_catalog.has_table_privilege(l.relation, 'select') as is_readable
from pg_catalog.pg_locks as l
  cross join lateral pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, l.relation, 0) as o
  left join pg_catalog.pg_class as c on c.oid operator(pg_catalog.=) l.relation
where l.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid() and l.locktype operator(pg_catalog.=) 'relation'
  and l.database operator(pg_catalog.<>) 0 and o.type operator(pg_catalog.<>) 'index'
"""


def replaced(snapshot: Snapshot) -> list[str]:
    """Return the names of the relations that this snapshot has read and that were replaced since it was taken."""
    locked = snapshot.table(LOOK).to_pylist()
    found = [str(line["name"]) for line in locked if line["replaced"]]
    empty = [
        str(line["name"])
        for line in locked
        if line["is_foreign"] and line["is_readable"] and not snapshot.value(_has_rows(str(line["name"])))
    ]
    return found + (_filled(snapshot.address, empty) if empty else [])


def _has_rows(name: str) -> str:
    return f"select exists (select from {name})"


def _filled(address: Address, names: Sequence[str]) -> list[str]:
    """Return which of the foreign tables have rows for a new session.

    The other server's catalogue cannot be read, but a relation that was rewritten is empty for an older snapshot.
    """
    with session.session(address, "pg_catalog", "plantao/look") as connection, connection.begin():
        session.execute(connection, SQL(f"set local statement_timeout = '{LOOK_SECONDS}s'"))
        return [name for name in names if session.fetch(connection, SQL(_has_rows(name)))[0][0]]


def demand_whole(snapshot: Snapshot) -> None:
    """Raise DatabaseUnavailable when a relation that this snapshot has read was replaced since it was taken."""
    if names := replaced(snapshot):
        raise _being_replaced(names)


@contextlib.contextmanager
def whole_snapshot(
    address: Address, application: str = "plantao", path: str | None = pinned.CLOSED_PATH
) -> Iterator[Snapshot]:
    """Open a transaction that sees one moment of the database, for as long as the context lasts.

    Raises DatabaseUnavailable at the end when a relation was replaced behind it.
    """
    with contextlib.closing(snapshots.open_snapshot(address, application, path=path)) as opened:
        yield opened
        demand_whole(opened)


def whole(opened: Callable[[Sequence[str]], Snapshot], use: Callable[[Snapshot], Result]) -> tuple[Snapshot, Result]:
    """Open a snapshot and use it; once more, and with locks first, when a relation was replaced behind it.

    `opened` gets the names of the relations to lock before the snapshot is taken. Returns the open snapshot and what
    `use` returned. Raises DatabaseUnavailable when relations are replaced all the time.
    """
    names: list[str] = []
    for _ in range(TRIES):
        snapshot = opened(names)
        try:
            result = use(snapshot)
            names = replaced(snapshot)
        except BaseException:
            snapshot.close()
            raise
        if not names:
            return snapshot, result
        snapshot.close()
    raise _being_replaced(names)


def _being_replaced(names: Sequence[str]) -> DatabaseUnavailable:
    message = f"{', '.join(names)} was replaced during the read (a reload, ALTER TABLE). Nothing was written."
    return DatabaseUnavailable(message, "nothing: it is retried", "extract")
