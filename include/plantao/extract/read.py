"""Find which rows are owed and read them, at one moment of the source.

One read-only transaction sees the source's columns, decides what is owed and copies it out. It ends with the last
row, before most of them are scored. What is missing is computed from the keys already predicted, never from a
watermark: a row committed late is simply a key without a prediction.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Identifier

from plantao.errors import SourceRefused, UsageError
from plantao.extract import catalog, keys, query
from plantao.extract.lock_watch import giving_way
from plantao.extract.query import Branch, Predicted, both
from plantao.extract.source import Source, as_double
from plantao.extract.spool import Spool
from plantao.models.contract import SERVED, SOURCES
from plantao.postgres import driver_errors, session
from plantao.postgres.replaced import demand_whole
from plantao.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    import pyarrow as pa
    from psycopg2.sql import Composable
    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.postgres.snapshot import Snapshot

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
    with driver_errors.explained("extract", SourceRefused, f"looking at the source of job {job.name}"):
        schema = snapshot.schema(session.quoted(quoter, SQL("select * from {} as s").format(probe.relation)))
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
    with driver_errors.explained("extract", SourceRefused, "looking for the prediction table"):
        with target.begin():
            there = str(session.fetch(target, SQL(identity))[0][0])
        if str(snapshot.value(identity)) != there:
            return False
        return bool(snapshot.value(session.quoted(target, catalog.can_read_predictions(source))))


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
        return snapshot.table(session.quoted(quoter, composed))

    with driver_errors.explained("extract", SourceRefused, "looking for the rows that are owed"):
        may_repeat = not ask(catalog.is_unique(source)).column(0)[0].as_py()
        if read_predicted is None:
            extraction = Extraction((Branch(source.within_any(owing.ranges)),), 0)
        elif same_database:
            extraction = _plan_together(source, ask, owing)
        else:
            asked_there = partial(_asked, read_predicted, quoter)
            extraction = _plan_apart(source, ask, asked_there, owing, may_repeat=may_repeat)
        for branch in extraction.branches:
            ask(query.lock_rows(source, branch.condition))
        if may_repeat and (extraction.branches or extraction.rows_already_scored):
            extraction = _with_duplicates(source, ask, owing, extraction, same_database=same_database)
    return extraction


def _asked(read: Callable[[str], pa.Table], quoter: Connection, composed: Composable) -> pa.Table:
    return read(session.quoted(quoter, composed))


def _with_duplicates(
    source: Source,
    ask: Callable[[Composable], pa.Table],
    owing: Owing,
    extraction: Extraction,
    *,
    same_database: bool,
) -> Extraction:
    """Find the keys that more than one row has of those that the run accounts for; none of these is already scored."""
    conditions = [branch.condition for branch in extraction.branches]
    scored = both(source.within(owing.window), Predicted(source, owing.bounds).exists)
    has_scored = same_database and extraction.rows_already_scored > 0
    if not (conditions or has_scored):
        return extraction
    duplicates = ask(query.select_duplicate_keys(source, [*conditions, *([scored] if has_scored else [])]))
    extraction = replace(extraction, duplicates=duplicates)
    if not has_scored or not duplicates.num_rows:
        return extraction
    copies = both(scored, query.has_one_of(source, keys.values(duplicates)))
    count = ask(query.count_rows(source, [copies])).column(0)[0].as_py()
    if not count:
        return extraction
    branches = (*extraction.branches, Branch(copies))
    return replace(extraction, branches=branches, rows_already_scored=extraction.rows_already_scored - count)


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
    *,
    may_repeat: bool,
) -> Extraction:
    """Compare the keys of two databases here. Ranges without any prediction, the usual case, are not compared."""
    branches: list[Branch] = []
    drop: list[pa.Table] = []
    already = 0
    same = ["t", "c"] if source.edits_count else ["t"]
    for part in owing.ranges:
        condition = source.within(part)
        predicted = ask_target(query.select_predicted_keys(source, part))
        if predicted.num_rows == 0 or (owing.rescore and part == owing.window):
            branches.append(Branch(condition))
            continue
        there = ask(query.select_keys(source, condition))
        if may_repeat:  # a key that two rows have is no answer to either of them
            predicted = keys.without(predicted, keys.repeated(there))
        owed = keys.without(there, predicted, same)
        if part == owing.window:
            already = there.num_rows - owed.num_rows
        if owed.num_rows > KEYS_BY_NAME:
            branches.append(Branch(condition))
            drop.append(keys.without(there, owed, ["t"]))
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
        changed = keys.without(keys.also_in(some, predicted), predicted, ["c"])
        if changed.num_rows:
            chosen = query.has_one_of(source, keys.values(changed))
            branches.append(Branch(both(condition, chosen), may_be_late=False))
    return branches


def rows_without_time(source: Source, snapshot: Snapshot, quoter: Connection) -> int:
    """Return how many rows belong to no window; 0 where that would be to read the whole source."""
    with driver_errors.explained("extract", SourceRefused, "looking for rows without a timestamp"):
        if not snapshot.value(session.quoted(quoter, catalog.is_indexed(source))):
            return 0
        return int(snapshot.value(session.quoted(quoter, query.count_rows(source, [query.has_no_time(source)]))))


def read(snapshot: Snapshot, close: Callable[[], None], statement: str | None) -> Spool:
    """Start to read; the batches come out of the spool, and only a complete read ends without an error.

    The thread closes the snapshot as soon as the last row is here. Nothing is read when `statement` is None.
    """
    spool = Spool()

    def run() -> None:
        problem: BaseException | None = None
        try:
            if statement is not None:
                with driver_errors.explained("extract", SourceRefused, "reading the source"), giving_way(snapshot):
                    for batch in snapshot.batches(statement):
                        if not spool.put(batch):
                            break
                        del batch  # or it would stay in memory while the next one is read
                    else:
                        demand_whole(snapshot)  # of what only the rows themselves have read: partitions, functions
        except BaseException as error:  # noqa: BLE001 - handed over: the waiting thread raises it
            problem = error
        finally:
            close()
            spool.close(problem)

    threading.Thread(target=run, name="plantao-extract", daemon=True).start()
    return spool


def read_frame(snapshot: Snapshot, quoter: Connection, select: str) -> pd.DataFrame:
    """Return the rows of a SELECT as a training frame, each column in the form a run would give it to the model."""
    relation = SQL("(\n{}\n) as s").format(SQL(select.strip().rstrip(";")))
    with driver_errors.explained("extract", SourceRefused, "reading the training frame"):
        schema = snapshot.schema(session.quoted(quoter, SQL("select * from {}").format(relation)))
        if unserved := [f"{c.name} ({_postgres_type(c)})" for c in schema if _postgres_type(c) not in SERVED]:
            message = f"a run cannot read columns of these types: {', '.join(unserved)}. Nothing was registered."
            raise UsageError(message, "leave the columns out of the query, or cast them (amount::numeric, code::text)")
        columns = [
            SQL("{} as {}").format(_as_in_a_run(column.name, _postgres_type(column)), Identifier(column.name))
            for column in schema
        ]
        statement = SQL("select {} from {}").format(SQL(", ").join(columns), relation)
        frame: pd.DataFrame = snapshot.table(session.quoted(quoter, statement)).to_pandas()
        return frame


def _as_in_a_run(name: str, kind: str) -> Composable:
    """Return a column in the form that it has in a run."""
    column = SQL("s.{}").format(Identifier(name))
    if kind in {"numeric", "float4"}:
        return as_double(column, kind)
    casts = SOURCES["timestamp"] | SOURCES["date"] | SOURCES["text"] | SOURCES["integer"]
    return SQL("{}{}").format(column, SQL(casts.get(kind, "")))
