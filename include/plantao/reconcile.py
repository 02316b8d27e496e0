"""Compare the whole history of a source with its predictions, and repair what is owed.

The look-back of a run ends where the job says; this does not. It finds rows that were committed even later, rows that
were predicted and are gone, and, with `on_change = "rescore"`, edits that no run has seen. A first pass folds both
sides into a digest per slice of time, so that a history in order costs two scans and no transfer; whatever seems to
differ is looked at once more by name, because the two sides were not seen at one moment.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import text

from plantao import database, ledger, locks, log
from plantao.errors import NotInitialised, SourceChanged, SourceRefused, TargetRefused, UsageError, WindowBusy
from plantao.extract import digest, keys, query, read
from plantao.extract.digest import Sides
from plantao.extract.source import missing_columns
from plantao.extract.window import BEGINNING, Schedule, Window
from plantao.job_types import parse_table_name
from plantao.load.write import find_table
from plantao.request import Request
from plantao.run import score_window

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from psycopg2.sql import Composable
    from sqlalchemy import Connection

    from plantao.extract.source import Source
    from plantao.job import Job
    from plantao.place import Place

EXAMPLES = 5
EVERY = {"daily": timedelta(days=1), "weekly": timedelta(days=7), "monthly": timedelta(days=30)}


@dataclass
class Found:
    """What a comparison found; rows are counted, a few are named, and none is kept."""

    rows_source: int = 0
    rows_accounted: int = 0
    rows_owed: int = 0
    rows_edited: int = 0
    rows_gone: int = 0
    rejects_gone: int = 0
    rows_without_time: int = 0
    examples: dict[str, list[list[Any]]] = field(default_factory=dict)
    windows: Counter[Window] = field(default_factory=Counter)
    """The windows with rows that are owed or edited, and how many of them."""

    def note(self, what: str, rows: pa.Table) -> None:
        """Keep the keys of a few rows."""
        some = self.examples.setdefault(what, [])
        for line in rows.select(keys.key_names(rows)).slice(0, EXAMPLES - len(some)).to_pylist():
            some.append(list(line.values()))


@dataclass(frozen=True)
class Reconciliation:
    """A comparison, and what was done about it."""

    job: str
    period: Window
    found: Found
    rows_repaired: int | None = None

    @property
    def in_order(self) -> bool:
        """Whether nothing is owed any more."""
        return self.rows_repaired is not None or not (self.found.rows_owed or self.found.rows_edited)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values, small enough for an XCom."""
        values = vars(self.found) | {"rows_repaired": self.rows_repaired, "in_order": self.in_order}
        windows = sorted(self.found.windows.items())
        values["windows"] = [{"start": w.start.isoformat(), "end": w.end.isoformat(), "rows": n} for w, n in windows]
        period = {"start": self.period.start.isoformat(), "end": self.period.end.isoformat()}
        return {"job": self.job, "period": period, **values}


def reconcile(job: Job, place: Place, period: Window | None = None, *, repair: bool = False) -> Reconciliation:
    """Compare a period, by default everything up to the last complete window, and write down what was found.

    With `repair`, the windows with rows that are owed, edited or set aside are scored again; what has a prediction
    stays. Raises a PlantaoError; WindowBusy when somebody else reconciles this job right now.
    """
    with (
        ledger.session(job, place, f"plantao/{job.name}/reconcile") as connection,
        locks.alone(connection, f"plantao.reconcile {job.name}") as alone,
    ):
        if not alone:
            message = f"job {job.name} is being reconciled by somebody else right now. Nothing was written."
            raise WindowBusy(message, "wait for it", "extract")
        chosen = period or whole_period(job, connection)
        started = ledger.now(connection)
        found = _Comparison(job, place, connection, chosen).run()
        repaired = _repair(job, place, connection, chosen, found) if repair else None
        result = Reconciliation(job.name, chosen, found, repaired)
        _record(connection, result.as_dict(), chosen, started)
    fields: dict[str, Any] = {"job": job.name, "step": "reconcile", "period": chosen.shown(job.zone)}
    fields |= {name: value for name, value in vars(found).items() if isinstance(value, int)}
    level = log.WARNING if found.rows_owed or found.rows_edited else log.INFO
    log.event("reconciliation finished", {**fields, "rows_repaired": repaired}, level)
    return result


def is_due(job: Job, place: Place) -> bool:
    """Tell whether the job's own rhythm asks for a reconciliation; the first is due a period after the first run."""
    every = EVERY.get(job.extract.reconcile)
    if every is None:
        return False
    with ledger.session(job, place) as connection:
        since = _last_reconciled(connection, job.name)
        return since is not None and since + every <= ledger.now(connection)


def whole_period(job: Job, connection: Connection) -> Window:
    """Return the time that must be scored by now: from the job's first window to its last complete one.

    A job without a schedule must have scored what its runs have covered.
    """
    if job.cron is None:
        covered = ledger.covered(connection, job.name)
        if not covered:
            message = f"job {job.name} has not run yet, so there is nothing to compare."
            raise UsageError(message, f"plantao run {job.name}")
        return Window(job.starts_at or BEGINNING, covered[-1].end)
    schedule, now = Schedule(job.cron, job.zone), ledger.now(connection)
    end = schedule.last_complete(now, job.ends_at).end
    start = BEGINNING if job.starts_at is None else schedule.at_or_after(job.starts_at)
    if start >= end:
        message = f"no window of job {job.name} has ended yet, so there is nothing to compare."
        raise UsageError(message)
    return Window(start, end)


class _Comparison:
    """The two passes of one comparison."""

    def __init__(self, job: Job, place: Place, connection: Connection, period: Window) -> None:
        self.job, self.place, self.connection, self.period = job, place, connection, period
        self.found = Found()

    def run(self) -> Found:
        """Fold both sides, and look closer at the slices that differ."""
        with self._snapshot(self.job.extract.connection, "looking at the source") as snapshot:
            source = read.source_of(self.job, snapshot, self.connection)
            if problems := missing_columns(self.job, source.types):
                message = f"the source of job {self.job.name} cannot be compared: {'; '.join(problems)}."
                raise SourceChanged(message, "ask the client what changed, or correct the job file", "extract")
            self._require_table(source)
            bounds = Sides(source, self.period, timedelta(days=1), self.place.settings.schema)
            self.found.rows_without_time = snapshot.value(self._quoted(bounds.without_time))
            first = self.period.start
            if first == BEGINNING:
                oldest = snapshot.table(self._quoted(query.select_oldest(source, self.period))).column(0)
                first = digest.moment(oldest.cast(pa.int64())[0].as_py()) if oldest.null_count == 0 else self.period.end
        sides = Sides(source, self.period, digest.slice_width(first, self.period.end), self.place.settings.schema)
        with ThreadPoolExecutor(2) as both:
            there = both.submit(self._ask_source, sides.fold(sides.there))
            here = both.submit(self._ask_target, sides.fold(sides.here))
            folded = there.result(), here.result()
        self.found.rows_source, self.found.rows_accounted = (pc.sum(side["rows"]).as_py() or 0 for side in folded)
        for piece in digest.differing(*folded):
            self._look_closer(sides, piece)
        return self.found

    def _look_closer(self, sides: Sides, piece: digest.Piece) -> None:
        there = self._ask_source(sides.rows(sides.there, piece))
        here = self._ask_target(sides.rows(sides.here, piece))
        source = sides.source
        owed = keys.complete(keys.without(there, here, edits_count=False))
        edited = there.slice(0, 0)
        if source.edits_count:
            edited = keys.complete(keys.without(keys.also_in(there, here), here, edits_count=True))
        for some in keys.chunks(owed, read.KEYS_BY_NAME):
            left = keys.without(some, self._predictions_of(source, some), edits_count=False)
            self._note_owed("rows_owed", self._not_set_aside(sides, left))
        for some in keys.chunks(edited, read.KEYS_BY_NAME):
            predicted = self._predictions_of(source, some)
            left = keys.without(keys.also_in(some, predicted), predicted, edits_count=True)
            self._note_owed("rows_edited", self._not_set_aside(sides, left))
        gone = keys.complete(keys.without(here, there, edits_count=False))
        for some in keys.chunks(gone, read.KEYS_BY_NAME):
            present = self._ask_source(query.select_keys(source, query.has_one_of(source, keys.values(some))))
            left = keys.without(some, present, edits_count=False)
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
        return keys.without(rows, self._ask_target(sides.open_rejects_of(keys.values(rows))), edits_count=False)

    def _note_owed(self, what: str, rows: pa.Table) -> None:
        if rows.num_rows:
            setattr(self.found, what, getattr(self.found, what) + rows.num_rows)
            self.found.note(what, rows)
            moments = sorted(digest.moment(t) for t in rows.column("t").cast(pa.int64()).to_pylist())
            self.found.windows += windows_of(self.job, moments)

    def _require_table(self, source: Source) -> None:
        if find_table(self.connection, *parse_table_name(source.job.load.table)) is None:
            message = f"job {self.job.name} has no prediction table yet, so every row of its source is owed."
            raise UsageError(message, f"plantao backfill {self.job.name} --from-date … --to-date …")

    def _ask_source(self, composed: Composable) -> pa.Table:
        with self._snapshot(self.job.extract.connection, "comparing the source") as snapshot:
            return snapshot.table(self._quoted(composed))

    def _ask_target(self, composed: Composable) -> pa.Table:
        address = self.place.address(self.job.load.connection)
        doing = f"comparing {self.job.load.table}"
        with database.explained("load", TargetRefused, doing), database.snapshot(address, "plantao/reconcile") as found:
            return found.table(self._quoted(composed))

    @contextmanager
    def _snapshot(self, name: str, doing: str) -> Iterator[database.Snapshot]:
        """Open a short view of the source: nothing here needs one moment, and the client must not wait."""
        address = self.place.address(name)
        with (
            database.explained("extract", SourceRefused, doing),
            database.snapshot(address, f"plantao/{self.job.name}/reconcile") as snapshot,
        ):
            yield snapshot

    def _quoted(self, composed: Composable) -> str:
        return database.quoted(self.connection, composed)


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


def _repair(job: Job, place: Place, connection: Connection, period: Window, found: Found) -> int:
    """Score the windows again in which something is owed or set aside, and return how many rows that scored."""
    set_aside = _open_rejects(connection, job.name, period)
    scored = 0
    for window in sorted({*found.windows, *windows_of(job, set_aside)}):
        scored += score_window(Request(job, window, "backfill"), place).counts.scored
    return scored


def _open_rejects(connection: Connection, job: str, period: Window) -> list[datetime]:
    """Return the timestamps of the rows of a period that are set aside, oldest first."""
    query = text(
        "select distinct source_timestamp from rejected_rows where job = :job and resolved_at is null"
        " and source_timestamp >= :start and source_timestamp < :end order by 1"
    )
    with connection.begin():
        return list(connection.execute(query, {"job": job, "start": period.start, "end": period.end}).scalars())


def _last_reconciled(connection: Connection, job: str) -> datetime | None:
    """Return when the job was last reconciled, else when it first succeeded; None when it never has."""
    query = text(
        "select coalesce((select max(finished_at) from reconciliations where job = :job), (select min(finished_at)"
        " from runs where job = :job and role = 'champion' and status in ('succeeded', 'empty')))"
    )
    with connection.begin():
        moment: datetime | None = connection.execute(query, {"job": job}).scalar_one()
    return moment


def _record(connection: Connection, values: Mapping[str, Any], period: Window, started: datetime) -> None:
    """Write down what a comparison of a period found."""
    counts = ("source", "accounted", "owed", "edited", "gone", "without_time", "repaired")
    names = [*(f"rows_{count}" for count in counts), "rejects_gone", "job"]
    statement = text(
        f"insert into reconciliations ({', '.join(names)}, period_start, period_end, examples, started_at)"
        f" values ({', '.join(f':{name}' for name in names)}, :start, :end, cast(:examples as jsonb), :started)"
    )
    given = {name: values[name] for name in names} | {"start": period.start, "end": period.end, "started": started}
    with database.explained("load", NotInitialised, "writing down the reconciliation"), connection.begin():
        connection.execute(statement, {**given, "examples": json.dumps(values["examples"], default=str)})
