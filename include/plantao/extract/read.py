"""Find which rows are owed and read them, at one moment of the source.

One read-only transaction sees the source's columns, decides what is owed and copies it out. It ends with the last
row, before most of them are scored. What is missing is computed from the keys already predicted, never from a
watermark: a row committed late is simply a key without a prediction.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Identifier

from plantao import database
from plantao.errors import SourceRefused
from plantao.extract import keys, query
from plantao.extract.courtesy import giving_way
from plantao.extract.query import Branch, Predicted, both
from plantao.extract.source import Source
from plantao.extract.spool import Spool
from plantao.extract.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    import pyarrow as pa
    from psycopg2.sql import Composable
    from sqlalchemy import Connection

    from plantao.database import Snapshot
    from plantao.job import Job

# Up to this many owed keys are asked for by name; beyond, the whole range is read and the known rows are dropped.
KEYS_BY_NAME = 10_000
# PostgreSQL types that arrive as Arrow text; any other that does is one of the client's own enumerations.
TEXT_TYPES = {"text", "varchar", "bpchar", "name", "citext"}
TEXT_LIKE = {"string", "large_string", "string_view"}


@dataclass(frozen=True)
class Extraction:
    """Which rows a run is about to read, decided in the snapshot that will read them."""

    branches: tuple[Branch, ...]
    rows_already_scored: int
    predicted: pa.Table | None = None
    """Keys to drop while reading, where the source's own session could not leave them out."""
    duplicates: pa.Table | None = None
    """Keys that more than one owed row has; None when the source guarantees that there is none."""


@dataclass(frozen=True)
class Owing:
    """What decides which rows a run owes."""

    window: Window
    late: Sequence[Window]
    rescore: bool

    @property
    def ranges(self) -> list[Window]:
        """The window and the time before it in which late rows are looked for."""
        return [self.window, *self.late]

    @property
    def bounds(self) -> Window:
        """The shortest interval around all ranges."""
        return Window(min(w.start for w in self.ranges), self.window.end)


def source_of(job: Job, snapshot: Snapshot, quoter: Connection) -> Source:
    """Return the source as it is now, with the PostgreSQL type of each column. Raises SourceRefused."""
    probe = Source(job, {})
    with database.explained("extract", SourceRefused, f"looking at the source of job {job.name}"):
        schema = snapshot.schema(database.quoted(quoter, SQL("select * from {} as s").format(probe.relation)))
    return Source(job, {column.name: _postgres_type(column) for column in schema})


def _postgres_type(column: pa.Field) -> str:
    name = str((column.metadata or {}).get(b"POSTGRESQL:type", b"unknown").decode())
    return "enum" if name not in TEXT_TYPES and str(column.type) in TEXT_LIKE else name


def sees_predictions(source: Source, snapshot: Snapshot, target: Connection) -> bool:
    """Tell whether the source's own session can read the prediction table: one database, and the right to.

    The start time of the server and the database's number name a database wherever it is reached from. A standby
    has a start time of its own, as it should: its copy of the predictions may lag behind.
    """
    identity = (
        "select pg_postmaster_start_time()::text || ' ' || oid::text from pg_catalog.pg_database"
        " where datname = current_database()"
    )
    with database.explained("extract", SourceRefused, "looking for the prediction table"):
        with target.begin():
            there = str(database.fetch(target, SQL(identity))[0][0])
        if str(snapshot.value(identity)) != there:
            return False
        return bool(snapshot.value(database.quoted(target, query.can_read_predictions(source))))


def plan(  # noqa: PLR0913 - two databases, and what is owed between them
    source: Source,
    snapshot: Snapshot,
    quoter: Connection,
    owing: Owing,
    *,
    same_database: bool,
    read_predicted: Callable[[str], pa.Table] | None,
) -> Extraction:
    """Decide which rows are owed.

    `read_predicted` runs a SELECT on the target and returns its rows; None when there is no prediction table yet.
    `same_database` says that the source's own session sees that table, so that one query can compare both.
    """

    def ask(composed: Composable) -> pa.Table:
        return snapshot.table(database.quoted(quoter, composed))

    with database.explained("extract", SourceRefused, "looking for the rows that are owed"):
        if read_predicted is None:
            extraction = Extraction((Branch(source.within_any(owing.ranges)),), 0)
        elif same_database:
            extraction = _plan_together(source, ask, owing)
        else:
            extraction = _plan_apart(source, ask, lambda c: read_predicted(database.quoted(quoter, c)), owing)
        if extraction.branches and not ask(query.is_unique(source)).column(0)[0].as_py():
            rows = [ask(query.select_duplicate_keys(source, branch.condition)) for branch in extraction.branches]
            extraction = Extraction(
                extraction.branches, extraction.rows_already_scored, extraction.predicted, _concatenated(rows)
            )
    return extraction


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)


def _plan_together(source: Source, ask: Callable[[Composable], pa.Table], owing: Owing) -> Extraction:
    """Leave out what is predicted inside the source's own query."""
    predicted = Predicted(source, owing.bounds)
    window = source.within(owing.window)
    if owing.rescore:
        branches = [Branch(window)]
        if owing.late:
            branches.append(Branch(both(source.within_any(owing.late), query.no(predicted.exists))))
        already = 0
    else:
        branches = [Branch(both(source.within_any(owing.ranges), query.no(predicted.exists)))]
        already = ask(query.count_rows(source, [window, predicted.exists])).column(0)[0].as_py()
    if source.edits_count:
        edited = query.edited_before(source, owing.window, owing.ranges)
        branches.append(Branch(both(edited, Predicted(source).exists_of_another_edit), may_be_late=False))
    return Extraction(tuple(branches), already)


def _plan_apart(
    source: Source,
    ask: Callable[[Composable], pa.Table],
    ask_target: Callable[[Composable], pa.Table],
    owing: Owing,
) -> Extraction:
    """Compare the keys of two databases here. Ranges without any prediction, the usual case, are not compared."""
    branches: list[Branch] = []
    drop: list[pa.Table] = []
    already = 0
    for part in owing.ranges:
        condition = source.within(part)
        predicted = ask_target(query.select_predicted_keys(source, part))
        if predicted.num_rows == 0 or (owing.rescore and part == owing.window):
            branches.append(Branch(condition))
            continue
        there = ask(query.select_keys(source, condition))
        owed = keys.without(there, predicted, edits_count=source.edits_count)
        if part == owing.window:
            already = there.num_rows - owed.num_rows
        if owed.num_rows > KEYS_BY_NAME:
            branches.append(Branch(condition))
            drop.append(keys.without(there, owed, edits_count=False))
        elif owed.num_rows:
            branches.append(Branch(both(condition, query.has_one_of(source, keys.values(owed)))))
    if source.edits_count:
        branches += _edited_apart(source, ask, ask_target, owing)
    return Extraction(tuple(branches), already, _concatenated(drop) if drop else None)


def _edited_apart(
    source: Source,
    ask: Callable[[Composable], pa.Table],
    ask_target: Callable[[Composable], pa.Table],
    owing: Owing,
) -> list[Branch]:
    condition = query.edited_before(source, owing.window, owing.ranges)
    edited = ask(query.select_keys(source, condition))
    branches = []
    for some in keys.chunks(edited, KEYS_BY_NAME):
        predicted = ask_target(query.select_predictions_of(source, keys.values(some)))
        changed = keys.without(keys.also_in(some, predicted), predicted, edits_count=True)
        if changed.num_rows:
            chosen = query.has_one_of(source, keys.values(changed))
            branches.append(Branch(both(condition, chosen), may_be_late=False))
    return branches


def read(snapshot: Snapshot, close: Callable[[], None], statement: str | None) -> Spool:
    """Start to read; the batches come out of the spool, and only a complete read ends without an error.

    The thread closes the snapshot as soon as the last row is here. Nothing is read when `statement` is None.
    """
    spool = Spool()

    def run() -> None:
        problem: BaseException | None = None
        try:
            if statement is not None:
                with database.explained("extract", SourceRefused, "reading the source"), giving_way(snapshot):
                    for batch in snapshot.batches(statement):
                        if not spool.put(batch):
                            break
                        del batch  # or it would stay in memory while the next one is read
        except BaseException as error:  # noqa: BLE001 - handed over: the waiting thread raises it
            problem = error
        finally:
            close()
            spool.close(problem)

    threading.Thread(target=run, name="plantao-extract", daemon=True).start()
    return spool


def read_frame(snapshot: Snapshot, quoter: Connection, select: str) -> pd.DataFrame:
    """Return the rows of a SELECT as a training frame, each column in the form a run would give it to the model."""
    casts = {"numeric": "double precision", "float4": "double precision", "int2": "bigint", "int4": "bigint"}
    casts |= dict.fromkeys(("varchar", "bpchar", "uuid", "enum", "citext", "name"), "text")
    relation = SQL("(\n{}\n) as s").format(SQL(select.strip().rstrip(";")))
    with database.explained("extract", SourceRefused, "reading the training frame"):
        schema = snapshot.schema(database.quoted(quoter, SQL("select * from {}").format(relation)))
        columns = [
            SQL("s.{0}::{1} as {0}").format(Identifier(column.name), SQL(casts[kind]))
            if (kind := _postgres_type(column)) in casts
            else SQL("s.{}").format(Identifier(column.name))
            for column in schema
        ]
        statement = SQL("select {} from {}").format(SQL(", ").join(columns), relation)
        frame: pd.DataFrame = snapshot.table(database.quoted(quoter, statement)).to_pandas()
        return frame
