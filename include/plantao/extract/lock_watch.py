"""Give way to the client: a read that somebody waits for ends, and comes back later.

An open read holds a weak lock on the source. The client's ALTER TABLE waits for it, and every other query of the client
queues behind that ALTER TABLE. So a read that lasts longer than a moment is watched from a second session, and ended as
soon as somebody has waited for PATIENCE_SECONDS.
"""

from __future__ import annotations

import contextlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao import log
from plantao.errors import DatabaseUnavailable, PlantaoError
from plantao.postgres import session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plantao.config.address import Address
    from plantao.postgres.snapshot import Snapshot

PATIENCE_SECONDS = 3.0
LOOK_EVERY_SECONDS = 1.0

# Ends the session `pid` if somebody has waited too long for a lock of its, and tells whether it did.
GIVE_WAY = text(
    "select pg_terminate_backend(:pid) where exists (select from pg_locks where not granted"
    " and waitstart < clock_timestamp() - make_interval(secs => :patience) and :pid = any (pg_blocking_pids(pid)))"
)


@contextmanager
def giving_way(snapshot: Snapshot) -> Iterator[None]:
    """Watch over a read. Raises DatabaseUnavailable when it was ended in somebody's favour."""
    pid = int(snapshot.value("select pg_backend_pid()"))
    done, gave_way = threading.Event(), threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(snapshot.address, pid, done, gave_way), name="plantao-courtesy", daemon=True
    )
    watcher.start()
    try:
        yield
    except Exception as error:
        if gave_way.is_set():
            message = (
                f"somebody waited for a lock on the source for {PATIENCE_SECONDS:g} s (ALTER TABLE, for instance), so "
                "this read has given way. Nothing was written."
            )
            raise DatabaseUnavailable(message, "nothing: it is retried", "extract") from error
        raise
    finally:
        done.set()


def _watch(address: Address, pid: int, done: threading.Event, gave_way: threading.Event) -> None:
    if done.wait(PATIENCE_SECONDS):
        return  # the usual read: over before a second session was worth it
    try:
        with session.session(address, "pg_catalog", "plantao/courtesy") as connection:
            while not done.wait(LOOK_EVERY_SECONDS):
                values = {"pid": pid, "patience": PATIENCE_SECONDS}
                with connection.begin():
                    ended = connection.execute(GIVE_WAY, values).first() is not None
                if ended:
                    gave_way.set()
                    return
    except PlantaoError as error:
        # Without the watcher the read goes on; its own deadline still ends it.
        with contextlib.suppress(Exception):
            log.event("nobody watches over the read", {"error": str(error)}, log.WARNING)
