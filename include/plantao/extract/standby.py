"""A source may be a hot standby, which shows what it has replayed: a window is read once all of it is there.

What a standby cannot know is that its primary does not reach it any more. Rows that it lacks for that reason are late
ones when they come.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from psycopg2.sql import SQL

from plantao.errors import DatabaseUnavailable, SourceRefused
from plantao.extract.source import instant, path_of
from plantao.postgres import driver_errors, session
from plantao.postgres import snapshot as snapshots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from plantao.config.address import Address
    from plantao.config.job import Job
    from plantao.postgres.snapshot import Snapshot

PATIENCE_SECONDS = 600
LOOK_EVERY_SECONDS = 5


def open_up_to(  # noqa: PLR0913 - what is opened, and how
    end: datetime, job: Job, address: Address, quoter: Connection, *, application: str, lock: Sequence[str] = ()
) -> Snapshot:
    """Open a snapshot of the job's source that shows what was committed before `end`; `lock` is locked first.

    A standby that is behind is waited for. Raises DatabaseUnavailable when that takes too long, or it is paused.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        snapshot = _opened(job, address, application, lock)
        try:
            lacking = _lacking(snapshot, quoter, end)
        except BaseException:
            snapshot.close()
            raise
        if lacking is None:
            return snapshot
        snapshot.close()
        if not lacking:
            # A snapshot is older than what its own session then says of the replay: a commit may lie between the two.
            return _opened(job, address, application, lock)
        if lacking == "is paused" or time.monotonic() > until:
            message = f"the standby behind {address} {lacking}, so rows may be missing. Nothing was written."
            advice = "let it catch up (select pg_wal_replay_resume() when it is paused), or read from the primary"
            raise DatabaseUnavailable(message, advice, "extract")
        time.sleep(LOOK_EVERY_SECONDS)


def _opened(job: Job, address: Address, application: str, lock: Sequence[str]) -> Snapshot:
    with driver_errors.explained("extract", SourceRefused, f"connecting to {address}"):
        return snapshots.open_snapshot(address, application, lock, path_of(job))


def _lacking(snapshot: Snapshot, quoter: Connection, end: datetime) -> str | None:
    """Return why a standby may not have all that was committed before `end`, empty when it has; None for a primary."""
    question = SQL(
        "select case when pg_is_in_recovery() then case when pg_is_wal_replay_paused() then 'is paused'"
        " when pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn() and pg_last_xact_replay_timestamp() < {}"
        " then 'has only what was committed until '"
        " || to_char(pg_last_xact_replay_timestamp(), 'YYYY-MM-DD HH24:MI:SS') || ' UTC' else '' end end"
    ).format(instant(end))
    with driver_errors.explained("extract", SourceRefused, "asking the source whether it is up to date"):
        found = snapshot.value(session.quoted(quoter, question))
    return None if found is None else str(found)
