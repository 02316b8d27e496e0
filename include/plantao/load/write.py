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
from psycopg2.sql import SQL, Identifier
from sqlalchemy import text

from plantao import database, ledger
from plantao.errors import PlantaoError, TargetRefused
from plantao.load import copy_format
from plantao.load import table as tables
from plantao.locks import in_turn, take_lock
from plantao.schema.grants import READER, SCORER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from plantao.load.table import PredictionTable
    from plantao.score.batch import ScoredBatch
    from plantao.score.manifest import Output

# Rows that are scored before the transaction opens: a usual window is loaded in one short burst, and only a large one
# keeps the transaction open while it is still being scored. Where scoring is fast, the transaction will be short
# anyway: it opens with the first rows, and little is left to load at the end.
ROWS_BEFORE_LOAD = 400_000
FIRST_ROWS, FIRST_SECONDS = 50_000, 2.0
BATCHES_IN_FLIGHT = 3


def find_table(connection: Connection, schema: str, name: str) -> dict[str, str] | None:
    """Return the columns of a table as it exists, name to type; None when it does not exist."""
    query = text(
        "select a.attname, format_type(a.atttypid, null) from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = :schema and c.relname = :name and a.attnum > 0 and not a.attisdropped"
    )
    with connection.begin():
        rows = connection.execute(query, {"schema": schema, "name": name}).all()
    return {str(name): str(kind) for name, kind in rows} or None


def existing(connection: Connection, schema: str, names: Sequence[str]) -> list[str]:
    """Return which of the tables exist."""
    query = text("select tablename::text from pg_tables where schemaname = :schema and tablename = any(:names)")
    return list(connection.execute(query, {"schema": schema, "names": list(names)}).scalars())


def ensure_table(connection: Connection, table: PredictionTable) -> bool:
    """Create the prediction table and its history when they are missing; return whether it was.

    Raises TargetRefused when a table of this name cannot take the rows.
    """
    with database.explained("load", TargetRefused, f"looking for {table.shown}"):
        found = find_table(connection, table.schema, table.name)
    if found is not None:
        if problems := tables.mismatches(table, found):
            message = f"the prediction table {table.shown} does not fit: {'; '.join(problems)}. Nothing was written."
            advice = "name another table in [load], or alter this one (its rows stay as they are)"
            raise TargetRefused(message, advice, "load")
        with database.explained("load", TargetRefused, f"adding columns to {table.shown}"), connection.begin():
            for statement in tables.add_missing(table, found):
                database.execute(connection, statement)
        return False
    with database.explained("load", TargetRefused, f"creating {table.shown}"), connection.begin():
        # One lock for all tables: two jobs that start together may need the same new schema.
        in_turn(connection, "plantao.create")
        if connection.execute(text("select to_regnamespace(quote_ident(:s)) is null"), {"s": table.schema}).scalar():
            database.execute(connection, SQL("create schema {}").format(Identifier(table.schema)))
        for statement in tables.create(table):
            database.execute(connection, statement)
        hand_over(connection, table.schema, *table.tables)
        reader = text("select exists (select from pg_roles where rolname = :reader)")
        if connection.execute(reader, {"reader": READER}).scalar():
            database.execute(connection, tables.let_read(table, READER))
    return True


def hand_over(connection: Connection, schema: str, *created: Identifier) -> None:
    """Let the scorer role own new tables if we are a member of it: another member may score the next window."""
    ours = text(
        "select exists (select from pg_roles where rolname = :scorer and pg_has_role(oid, 'usage')"
        " and has_schema_privilege(oid, :schema, 'create'))"
    )
    if connection.execute(ours, {"scorer": SCORER, "schema": schema}).scalar():
        for table in created:
            database.execute(connection, tables.hand_over(table, SCORER))


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
            database.explained("load", TargetRefused, f"opening the load into {self.table.shown}"),
            database.deadline(self.connection, 2 * database.LOCK_SECONDS),
        ):
            self.connection.begin()
            self._scored_at = take_lock(self.connection, f"plantao.load {self.table.shown}")
            self._hold()

    def _hold(self) -> None:
        """Make sure, inside the transaction, that this attempt still has the right to write."""
        ledger.hold(self.connection, self.run_id)

    def _write(self, batch: ScoredBatch) -> None:
        if not len(batch):
            return
        stream = copy_format.encode(self._columns(batch))
        with (
            database.explained("load", TargetRefused, f"writing into {self.table.shown}"),
            database.deadline(self.connection, 2 * database.STATEMENT_SECONDS),
        ):
            if self.expect_predictions or not self._copy_directly(stream):
                stream.seek(0)
                self._copy_through_stage(stream, len(batch))

    def _copy_directly(self, stream: Any) -> bool:
        """Copy into the table itself; False, and nothing changed, when a row has a prediction already."""
        into = tables.copy_into(self.table.identifier, self.table)
        copied = _where_none_is(self.connection, lambda: database.copy_in(self.connection, into, stream))
        self.scored += copied or 0
        return copied is not None

    def _copy_through_stage(self, stream: Any, count: int) -> None:
        stage = tables.STAGE
        if self._staged:
            database.execute(self.connection, SQL("truncate {}").format(stage))
        else:
            database.execute(self.connection, tables.create_stage(self.table))
            self._staged = True
        database.copy_in(self.connection, tables.copy_into(stage, self.table), stream)
        if self.replace:
            self.rescored += database.execute(self.connection, tables.move_to_history(self.table, self.run_id, stage))
            inserted = insert_staged(self.connection, self.table, stage)
        else:
            inserted = database.execute(self.connection, tables.insert_missing(self.table, stage))
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


def insert_staged(connection: Connection, table: PredictionTable, stage: Identifier) -> int:
    """Insert the staged rows that have no prediction, and return how many; the transaction must be open.

    Expects that none has one: to look for it row by row takes twice as long, and is done only where one turns up.
    """
    inserted = _where_none_is(connection, lambda: database.execute(connection, tables.insert(table, stage)))
    return database.execute(connection, tables.insert_missing(table, stage)) if inserted is None else inserted


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


def part_table(run_id: int, part: int) -> str:
    """Return the name of the table that holds one part of a run."""
    return f"plantao_run_{run_id}_part_{part}"
