"""Sessions on the database where a job's predictions and ledger are, and the time of that database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao.ledger import log_events
from plantao.ledger.migrate import require_current
from plantao.postgres import session as database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.runtime import Place


@contextmanager
def session(job: Job, place: Place, application: str = "plantao") -> Iterator[Connection]:
    """Open a session where a job's predictions and ledger are. Raises NotInitialised unless that is up to date."""
    target, schema = place.address(job.load.connection), place.settings.schema
    with database.session(target, schema, application) as connection:
        require_current(connection, schema, str(target))
        events = log_events.attach(target, schema)
        try:
            yield connection
        finally:
            if events is not None:
                events.flush()


def now(connection: Connection) -> datetime:
    """Return the database's time, the only clock that all workers share."""
    with connection.begin():
        moment: datetime = connection.execute(text("select now()")).scalar_one()
    return moment
