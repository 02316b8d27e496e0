"""One comparison of a source with its predictions: what is owed, edited, in conflict, and gone.

A first pass folds both sides into a digest per slice of time, a second one compares the keys of the slices that differ.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from plantao.errors import SourceChanged, SourceRefused, TargetRefused, UsageError
from plantao.extract import keys, query, read
from plantao.extract.source import missing_columns, path_of
from plantao.load import ownership
from plantao.load.existing import find_table
from plantao.postgres import driver_errors, session
from plantao.postgres import snapshot as snapshots
from plantao.postgres.replaced import Result, whole, whole_snapshot
from plantao.run import reconcile_query
from plantao.run.reconcile_query import Sides
from plantao.window import BEGINNING, Schedule, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from psycopg2.sql import Composable
    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.extract.source import Source
    from plantao.runtime import Place

EXAMPLES = 5


@dataclass
class Found:
    """What a comparison found; rows are counted, a few are named, and none is kept."""

    rows_source: int = 0
    rows_accounted: int = 0
    rows_owed: int = 0
    rows_edited: int = 0
    rows_conflicting: int = 0
    """Rows whose key has a prediction of another timestamp."""
    rows_gone: int = 0
    rejects_gone: int = 0
    rows_without_time: int = 0
    examples: dict[str, list[list[Any]]] = field(default_factory=dict)
    windows: Counter[Window] = field(default_factory=Counter)
    """The windows with rows that are owed or edited, and how many of them."""
    conflicts: Counter[Window] = field(default_factory=Counter)
    """The windows with rows that conflict, and how many of them."""

    def note(self, what: str, rows: pa.Table) -> None:
        """Keep the keys of a few rows."""
        some = self.examples.setdefault(what, [])
        for line in rows.select(keys.key_names(rows)).slice(0, EXAMPLES - len(some)).to_pylist():
            some.append(list(line.values()))


class Comparison:
    """The two passes of one comparison."""

    def __init__(self, job: Job, place: Place, connection: Connection, period: Window) -> None:
        self.job, self.place, self.connection, self.period = job, place, connection, period
        self.found = Found()

    def run(self) -> Found:
        """Fold both sides, and look closer at the slices that differ."""
        source, first = self._of_source("looking at the source", self._look)
        sides = Sides(
            source, self.period, reconcile_query.slice_width(first, self.period.end), self.place.settings.schema
        )
        with ThreadPoolExecutor(2) as both:
            there = both.submit(self._ask_source, sides.fold(sides.there))
            here = both.submit(self._ask_target, sides.fold(sides.here))
            folded = there.result(), here.result()
        self.found.rows_source, self.found.rows_accounted = (pc.sum(side["rows"]).as_py() or 0 for side in folded)
        for piece in reconcile_query.differing(*folded):
            self._look_closer(sides, piece)
        return self.found

    def _look(self, snapshot: snapshots.Snapshot) -> tuple[Source, datetime]:
        """Return the source, and where the comparison begins."""
        source = read.source_of(self.job, snapshot, self.connection)
        if problems := missing_columns(self.job, source.types):
            message = f"the source of job {self.job.name} cannot be compared: {'; '.join(problems)}."
            raise SourceChanged(message, "ask the client what changed, or correct the job file", "extract")
        self._require_table(source)
        bounds = Sides(source, self.period, timedelta(days=1), self.place.settings.schema)
        self.found.rows_without_time = snapshot.value(self._quoted(bounds.without_time))
        if self.period.start != BEGINNING:
            return source, self.period.start
        oldest = snapshot.table(self._quoted(query.select_oldest(source, self.period))).column(0)
        if oldest.null_count:
            return source, self.period.end
        return source, reconcile_query.moment(oldest.cast(pa.int64())[0].as_py())

    def _look_closer(self, sides: Sides, piece: reconcile_query.Piece) -> None:
        there = self._ask_source(sides.rows(sides.there, piece))
        here = self._ask_target(sides.rows(sides.here, piece))
        source = sides.source
        owed = keys.complete(keys.without(there, here, ["t"]))
        edited = there.slice(0, 0)
        if source.edits_count:
            edited = keys.complete(keys.without(keys.also_in(there, here, ["t"]), here, ["c"]))
        # A row that has moved in time counts as edited where edits count.
        moved = "rows_edited" if source.edits_count else "rows_conflicting"
        for some in keys.chunks(owed, read.KEYS_BY_NAME):
            predicted = self._predictions_of(source, some)
            self._note_owed("rows_owed", self._not_set_aside(sides, keys.without(some, predicted)))
            others = keys.without(keys.also_in(some, predicted), predicted, ["t"])
            self._note_owed(moved, self._not_set_aside(sides, others))
        for some in keys.chunks(edited, read.KEYS_BY_NAME):
            predicted = self._predictions_of(source, some)
            left = keys.without(keys.also_in(some, predicted), predicted, ["c"])
            self._note_owed("rows_edited", self._not_set_aside(sides, left))
        gone = keys.complete(keys.without(here, there))
        for some in keys.chunks(gone, read.KEYS_BY_NAME):
            present = self._ask_source(query.select_keys(source, query.has_one_of(source, keys.values(some))))
            left = keys.without(some, present)
            if left.num_rows:
                predicted = keys.also_in(left, self._predictions_of(source, left))
                self.found.rows_gone += predicted.num_rows
                self.found.rejects_gone += left.num_rows - predicted.num_rows
                self.found.note("rows_gone", predicted)
        nameless, set_aside = keys.incomplete(there), keys.incomplete(here)
        if nameless.num_rows > set_aside.num_rows:
            self._note_owed("rows_owed", nameless.slice(set_aside.num_rows))
        self.found.rejects_gone += max(0, set_aside.num_rows - nameless.num_rows)

    def _predictions_of(self, source: Source, rows: pa.Table) -> pa.Table:
        return self._ask_target(query.select_predictions_of(source, keys.values(rows)))

    def _not_set_aside(self, sides: Sides, rows: pa.Table) -> pa.Table:
        if not rows.num_rows:
            return rows
        return keys.without(rows, self._ask_target(sides.open_rejects_of(keys.values(rows))))

    def _note_owed(self, what: str, rows: pa.Table) -> None:
        if rows.num_rows:
            setattr(self.found, what, getattr(self.found, what) + rows.num_rows)
            self.found.note(what, rows)
            moments = sorted(reconcile_query.moment(t) for t in rows.column("t").cast(pa.int64()).to_pylist())
            windows = self.found.conflicts if what == "rows_conflicting" else self.found.windows
            windows.update(windows_of(self.job, moments))

    def _require_table(self, source: Source) -> None:
        ownership.require(self.connection, self.job.name, [self.job.load.table])
        if find_table(self.connection, source.job.load.table) is None:
            message = f"job {self.job.name} has no prediction table yet, so every row of its source is owed."
            raise UsageError(message, f"plantao backfill {self.job.name} --from-date … --to-date …")

    def _ask_source(self, composed: Composable) -> pa.Table:
        return self._of_source("comparing the source", lambda snapshot: snapshot.table(self._quoted(composed)))

    def _of_source(self, doing: str, use: Callable[[snapshots.Snapshot], Result]) -> Result:
        """Use a short view of the source: nothing here needs one moment, and the client must not wait."""
        address, application = self.place.address(self.job.extract.connection), f"plantao/{self.job.name}/reconcile"

        def opened(lock: Sequence[str]) -> snapshots.Snapshot:
            return snapshots.open_snapshot(address, application, lock, path_of(self.job))

        with driver_errors.explained("extract", SourceRefused, doing):
            snapshot, found = whole(opened, use)
            snapshot.close()
            return found

    def _ask_target(self, composed: Composable) -> pa.Table:
        address = self.place.address(self.job.load.connection)
        doing = f"comparing {self.job.load.table}"
        with (
            driver_errors.explained("load", TargetRefused, doing),
            whole_snapshot(address, "plantao/reconcile") as found,
        ):
            return found.table(self._quoted(composed))

    def _quoted(self, composed: Composable) -> str:
        return session.quoted(self.connection, composed)


def windows_of(job: Job, moments: list[Any]) -> Counter[Window]:
    """Return the windows that the instants (sorted) lie in, with how many do; without a schedule, their span."""
    found: Counter[Window] = Counter()
    if not moments:
        return found
    if job.cron is None:
        return Counter({Window(moments[0], moments[-1] + timedelta(microseconds=1)): len(moments)})
    schedule, window = Schedule(job.cron, job.zone), None
    for instant in moments:
        if window is None or instant >= window.end:
            start = schedule.at_or_before(instant)
            window = Window(start, schedule.after(start))
        found[window] += 1
    return found
