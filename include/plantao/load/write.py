"""Make the predictions visible, all at once, together with the ledger row that says they are complete.

One transaction: it takes the job's load lock, holds the attempt's ledger row (the fence), copies the predictions
straight into the table, writes the rejects and closes the attempt. Anything that goes wrong rolls all of it back.

The anti-join has left out what is predicted, so a plain COPY is right nearly always. Where another run was faster,
or a row is scored again on purpose, the batch goes through a temporary table.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg2.errors
from psycopg2.sql import SQL
from sqlalchemy import text

from plantao.errors import PlantaoError, TargetRefused
from plantao.ledger import runs
from plantao.load import copy_format
from plantao.load import table as tables
from plantao.load.conflicts import Conflicts, met_twice
from plantao.postgres import driver_errors, session
from plantao.postgres.locks import DATABASE, take_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from psycopg2.sql import Identifier
    from sqlalchemy import Connection

    from plantao.config.table_name import Table
    from plantao.load.table import PredictionTable
    from plantao.models.manifest import Output
    from plantao.score.batch import ScoredBatch

# Rows that are scored before the transaction opens: a usual window is loaded in one short burst, and only a large one
# keeps the transaction open while it is still being scored. Where scoring is fast, the transaction will be short
# anyway: it opens with the first rows, and little is left to load at the end.
ROWS_BEFORE_LOAD = 400_000
FIRST_ROWS, FIRST_SECONDS = 50_000, 2.0
BATCHES_IN_FLIGHT = 3


@dataclass
class Load:
    """The open load of one attempt."""

    connection: Connection
    table: PredictionTable
    output: Output
    run_id: int
    version: int
    replace: bool
    """Whether a row that has a prediction is scored again, the old one moving to the history."""
    expect_predictions: bool = False
    """Whether most rows have a prediction, so that a direct COPY would be in vain."""
    scored: int = 0
    dropped: int = 0
    """Rows that somebody else scored in the meantime."""
    rescored: int = 0
    conflicts: Conflicts = field(default_factory=Conflicts)
    """Of those dropped: the rows whose key has a prediction of another timestamp."""
    moved_days: set[date] = field(default_factory=set)
    """The local days that predictions were on which went to the history, where the new ones are on other days."""
    _staged: bool = False
    _scored_at: int = 0
    _queue: queue.Queue[ScoredBatch | None] = field(default_factory=lambda: queue.Queue(BATCHES_IN_FLIGHT))
    _thread: threading.Thread = field(init=False)
    _problem: BaseException | None = None
    _waiting: list[ScoredBatch] = field(default_factory=list)
    _waiting_rows: int = 0
    _is_open: bool = False
    _began: float = field(default_factory=time.monotonic)

    # --- called by the thread that scores ---------------------------------------------------------------------------

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="plantao-load", daemon=True)
        self._thread.start()

    def add(self, batch: ScoredBatch) -> None:
        """Take a scored batch; from some number of rows on it is loaded while the next ones are scored."""
        self._waiting.append(batch)
        self._waiting_rows += len(batch)
        is_fast = self._waiting_rows >= FIRST_ROWS and time.monotonic() - self._began < FIRST_SECONDS
        self._is_open = self._is_open or is_fast or self._waiting_rows >= ROWS_BEFORE_LOAD
        if self._is_open:
            self._hand_over_waiting()

    def _hand_over_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            self._hand_over(batch)

    def _hand_over(self, batch: ScoredBatch | None) -> None:
        while True:
            if self._problem is not None:
                raise self._problem
            try:
                self._queue.put(batch, timeout=1)
            except queue.Full:
                continue
            return

    def wait(self) -> None:
        """Return when every batch is in the table, the transaction still open."""
        self._hand_over_waiting()
        self._hand_over(None)
        self._thread.join()
        if self._problem is not None:
            raise self._problem

    def abandon(self) -> None:
        """Stop the loading thread; whoever calls this rolls the transaction back."""
        self._problem = self._problem or PlantaoError("the run stopped")
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)  # wakes the thread
        self._thread.join()

    # --- called by the thread that loads ----------------------------------------------------------------------------

    def _run(self) -> None:
        opened = False
        try:
            while True:
                batch = self._queue.get()
                if self._problem is not None:
                    return
                if not opened:
                    self._begin()
                    opened = True
                if batch is None:
                    return
                self._write(batch)
        except BaseException as error:  # noqa: BLE001 - handed over: the thread that scores raises it
            self._problem = error

    def _begin(self) -> None:
        with (
            driver_errors.explained("load", TargetRefused, f"opening the load into {self.table.name}"),
            session.deadline(self.connection, 2 * session.LOCK_SECONDS),
        ):
            self.connection.begin()
            self._scored_at = take_lock(self.connection, f"plantao.load {self.table.name}", DATABASE)
            self._hold()

    def _hold(self) -> None:
        """Make sure, inside the transaction, that this attempt still has the right to write."""
        runs.hold(self.connection, self.run_id)

    def _write(self, batch: ScoredBatch) -> None:
        if not len(batch):
            return
        stream = copy_format.encode(self._columns(batch))
        with (
            driver_errors.explained("load", TargetRefused, f"writing into {self.table.name}"),
            session.deadline(self.connection, 2 * session.STATEMENT_SECONDS),
        ):
            if self.expect_predictions or not self._copy_directly(stream):
                stream.seek(0)
                self._copy_through_stage(stream, len(batch))

    def _copy_directly(self, stream: Any) -> bool:
        """Copy into the table itself; False, and nothing changed, when a row has a prediction already."""
        into = tables.copy_into(self.table.identifier, self.table)
        copied = _where_none_is(self.connection, lambda: session.copy_in(self.connection, into, stream))
        self.scored += copied or 0
        return copied is not None

    def _copy_through_stage(self, stream: Any, count: int) -> None:
        stage = tables.STAGE
        if self._staged:
            session.execute(self.connection, SQL("truncate {}").format(stage))
        else:
            session.execute(self.connection, tables.create_stage(self.table))
            self._staged = True
        session.copy_in(self.connection, tables.copy_into(stage, self.table), stream)
        if self.replace:
            self.rescored += move_to_history(self.connection, self.table, self.run_id, stage, self.moved_days)
            inserted = insert_staged(self.connection, self.table, stage)
        else:
            inserted = session.execute(self.connection, tables.insert_missing(self.table, stage))
        if inserted < count:
            self.conflicts.look(self.connection, self.table, self.run_id, stage, inserted)
        self.scored += inserted
        self.dropped += count - inserted

    def _columns(self, batch: ScoredBatch) -> list[copy_format.Fixed | copy_format.Varying]:
        """Return the batch as the columns of COPY, in the table's order."""
        given: dict[str, Any] = {
            **dict(zip(self.table.keys, batch.keys, strict=True)),
            "source_timestamp": batch.timestamps,
            "source_changed_at": batch.changed_at,
            "prediction": batch.answers.prediction,
            "score": batch.answers.score,
            "in_control_group": batch.in_control_group,
        }
        constants: dict[str, float] = {
            "model_version": self.version,
            "run_id": self.run_id,
            "scored_at": self._scored_at,
        }
        if batch.control is not None:
            salt, constants["control_share"] = batch.control
            given["control_salt"] = [salt] * len(batch)
        columns: list[copy_format.Fixed | copy_format.Varying] = []
        for name, kind in self.table.columns:
            if name == "scores" and batch.answers.scores is not None:
                labels = [str(label) for label in self.output.classes]
                lines = batch.answers.scores.tolist()
                columns.append(copy_format.json_column([dict(zip(labels, line, strict=True)) for line in lines]))
            elif name in constants:
                columns.append(copy_format.constant(kind, constants[name], len(batch)))
            else:
                columns.append(copy_format.column(kind, given[name]))
        return columns


def move_to_history(
    connection: Connection, table: PredictionTable, run_id: int, stage: Identifier, days: set[date]
) -> int:
    """Move the predictions of the staged keys to the history, and return how many; adds to `days` what they leave."""
    moved, own, left = session.fetch(connection, tables.move_to_history(table, run_id, stage))[0]
    if own:
        raise met_twice(run_id)
    days.update(left)
    return int(moved)


def insert_staged(connection: Connection, table: PredictionTable, stage: Identifier) -> int:
    """Insert the staged rows that have no prediction, and return how many; the transaction must be open.

    Expects that none has one: to look for it row by row takes twice as long, and is done only where one turns up.
    """
    inserted = _where_none_is(connection, lambda: session.execute(connection, tables.insert(table, stage)))
    return session.execute(connection, tables.insert_missing(table, stage)) if inserted is None else inserted


def _where_none_is(connection: Connection, write: Callable[[], int]) -> int | None:
    """Return how many rows were written; None, and nothing changed, when one of them has a prediction already."""
    savepoint = connection.begin_nested()
    try:
        written = write()
    except psycopg2.errors.UniqueViolation:
        savepoint.rollback()
        return None
    savepoint.commit()
    return written


def part_table(connection: Connection, predictions: Table, run_id: int, part: int) -> Table:
    """Return the table that holds one part of a run, beside the one that its rows belong to.

    Its name has the ledger in it: another one in the same database has runs of the same numbers.
    """
    with session.transaction(connection):
        ledger = connection.execute(text("select left(ledger_id::text, 8) from ledger")).scalar_one()
    return predictions._replace(name=f"plantao_run_{run_id}_part_{part}_{ledger}")
