"""Events in the table `plantao.log_events`, where they can be asked for by run.

A thread of its own writes them, over sessions of its own, so that what a run does to its transaction does not touch
them. A database that does not answer stops no run: what cannot be written waits, the oldest is dropped when too much
waits, and how much was dropped is itself an event.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao import log
from plantao.postgres import session

if TYPE_CHECKING:
    from plantao.config.address import Address

MOST_WAITING = 2000
PAUSE = 2.0
"""Seconds between two writings."""
FLUSH_SECONDS = 3.0
"""How long the end of a run waits for its events to be written."""
WRITE_SECONDS = 10.0

INSERT = text(
    "insert into log_events (at, level, event, job, run_id, step, fields)"
    " select cast(e ->> 'at' as timestamptz), e ->> 'level', e ->> 'event', e ->> 'job',"
    " cast(e ->> 'run_id' as bigint), e ->> 'step', e -> 'fields'"
    " from jsonb_array_elements(cast(:events as jsonb)) with ordinality as t (e, n) order by n"
)


class TableHandler(logging.Handler):
    """Collects events, and lets its thread write them."""

    def __init__(self, address: Address, schema: str) -> None:
        super().__init__()
        self.address, self.schema = address, schema
        self.dropped = 0
        self._waiting: deque[dict[str, Any]] = deque()
        self._in_flight = self._dropped_in_flight = 0
        self._guard = threading.Lock()
        self._something, self._hurry, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._turn = threading.Condition()
        self._tries = 0
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Take an event; it is written a moment later."""
        if threading.current_thread() is self._thread or self._ended.is_set():
            return  # what writing says about itself would never end
        with self._guard:
            self._waiting.append(log.record_as_dict(record))
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
                if self._in_flight:
                    self._in_flight -= 1
                    self._dropped_in_flight += 1
                else:
                    self.dropped += 1
        self._start()
        self._something.set()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until what was collected is written, or could not be, or time is over."""
        if not self._waiting or self._thread is None or self._process != os.getpid():
            return
        with self._turn:
            tries = self._tries
            self._hurry.set()
            # The try that is under way may have begun before the last event came.
            self._turn.wait_for(lambda: not self._waiting or self._tries >= tries + 2, seconds)

    def close(self) -> None:
        """Take no more; the thread tries once more to write, and ends."""
        self._ended.set()
        self._hurry.set()
        self._something.set()
        super().close()

    def _start(self) -> None:
        """Start the thread; after a fork there is none, though there was."""
        if self._thread is None or self._process != os.getpid():
            self._process = os.getpid()
            self._thread = threading.Thread(target=self._write_for_ever, name="plantao log", daemon=True)
            self._thread.start()

    def _write_for_ever(self) -> None:
        while True:
            self._something.wait()
            self._hurry.wait(PAUSE)
            self._hurry.clear()
            self._something.clear()
            if not self._write():
                self._something.set()
            with self._turn:
                self._tries += 1
                self._turn.notify_all()
            if self._ended.is_set():
                return

    def _write(self) -> bool:
        """Write what waits; when that fails it goes on waiting. Tell whether nothing has to be tried again."""
        with self._guard:
            taken, dropped = list(self._waiting), self.dropped
            self._in_flight, self._dropped_in_flight = len(taken), 0
        if not taken:
            return True
        lines = [_of_dropped(taken[0], dropped), *taken] if dropped else taken
        written = False
        try:
            with (
                session.session(self.address, self.schema, "plantao/log") as connection,
                session.deadline(connection, WRITE_SECONDS),
                connection.begin(),
            ):
                connection.execute(INSERT, {"events": json.dumps(lines, default=str)})
            written = True
        except Exception:  # noqa: BLE001 - a log that cannot be written must not stop anything; it waits and counts
            written = False
        with self._guard:
            if written:
                self.dropped -= dropped
                for _ in range(self._in_flight):  # those that were dropped meanwhile are written as well
                    self._waiting.popleft()
            else:
                self.dropped += self._dropped_in_flight
            self._in_flight = self._dropped_in_flight = 0
        return written


def _of_dropped(first: dict[str, Any], count: int) -> dict[str, Any]:
    empty = {"job": None, "run_id": None, "step": None}
    event = "events were dropped while the database did not answer"
    return {"at": first["at"], "level": "warning", "event": event, **empty, "fields": {"dropped": count}}


def attach(address: Address, schema: str) -> TableHandler | None:
    """Send events to the ledger at an address too, from the level of PLANTAO_LOG_TABLE_LEVEL on; None when it is off.

    The ledger that a process has opened last gets them. Attaching it again changes nothing.
    """
    level = log.level_of("PLANTAO_LOG_TABLE_LEVEL", "info")
    for handler in list(log.logger.handlers):
        if isinstance(handler, TableHandler):
            if (handler.address, handler.schema, handler.level) == (address, schema, level):
                return handler
            log.logger.removeHandler(handler)
            handler.close()
    if level >= log.OFF:
        return None
    log.hide(address.parameters.get("password"))
    found = TableHandler(address, schema)
    log.add(found, level)
    return found
