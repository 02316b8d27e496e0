"""How jobs stand, as the ledger tells it. Nothing in here changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao.extract.window import Window

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping


def last_scored(connection: Connection, job: str) -> Window | None:
    """Return the latest window of which rows were scored."""
    query = text(
        "select window_start, window_end from runs where job = :job and role = 'champion' and status = 'succeeded'"
        " order by window_end desc, window_start desc limit 1"
    )
    with connection.begin():
        row = connection.execute(query, {"job": job}).first()
    return None if row is None else Window.of(row.window_start, row.window_end)


def attempts(connection: Connection, job: str, limit: int) -> list[RowMapping]:
    """Return the newest attempts of a job, newest first."""
    query = text("select * from runs where job = :job order by run_id desc limit :limit")
    with connection.begin():
        return list(connection.execute(query, {"job": job, "limit": limit}).mappings())


def status(connection: Connection) -> list[RowMapping]:
    """Return the view `status`."""
    with connection.begin():
        return list(connection.execute(text("select * from status order by job")).mappings())
