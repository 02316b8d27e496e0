"""A look at live rows: would they pass? The job's own steps judge at most ROWS of them, and nothing is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg2.sql import SQL
from psycopg2.sql import Literal as Value

from plantao.errors import DatabaseUnavailable, SourceRefused
from plantao.extract import catalog, query
from plantao.extract.lock_watch import giving_way
from plantao.extract.query import Branch
from plantao.extract.source import path_of
from plantao.ledger import session as ledger_session
from plantao.log import Stopwatch
from plantao.postgres import driver_errors
from plantao.postgres import session as database
from plantao.postgres.replaced import whole_snapshot
from plantao.preflight.database import session_at
from plantao.preflight.result import fail, ok, warn
from plantao.score.loader import bounded_threads
from plantao.window import BEGINNING, Schedule, Window

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa
    from psycopg2.sql import Composable

    from plantao.config.job import Job
    from plantao.extract.source import Source
    from plantao.models.contract import Contract
    from plantao.preflight.result import Answer
    from plantao.runtime import Place
    from plantao.score.batch import BatchResult
    from plantao.score.loader import Verified

ROWS = 2_000
KEYS = 200
SECONDS = 30
REASONS_SHOWN = 3


@dataclass
class Seen:
    """What became of the rows that were looked at."""

    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows that would be set aside, by reason and column."""
    unfamiliar: Counter[str] = field(default_factory=Counter)
    """Rows that would be scored though a column holds what the training never had, by what it is."""


def select(source: Source, contract: Contract | None, condition: Composable) -> Composable:
    """Return the SELECT of rows in the form in which a run reads them; without a contract only the job's columns."""
    features = query.select_features([] if contract is None else [contract], source.types).named
    nothing_is_late = Branch(condition, may_be_late=False)
    return query.select_rows(source, Window(BEGINNING, BEGINNING.replace(year=2)), [nothing_is_late], features)


def look(place: Place, version: Verified, source: Source) -> Answer:
    """Judge rows of the last complete window; where there is none, or no row in it, the newest rows."""
    job = source.job
    with session_at(job.extract.connection, place, "asking for the time") as session:
        now = ledger_session.now(session)
        window = last_complete(job, now)
        since = job.starts_at if job.starts_at is not None and job.starts_at < now else BEGINNING
        newest = source.within(Window(since, now))
        contract = version.manifest.contract
        in_window, before_now = (
            database.quoted(session, SQL("select * from (\n{}\n) as x{} limit {}").format(rows, order, Value(ROWS)))
            for rows, order in (
                (select(source, contract, newest if window is None else source.within(window)), SQL("")),
                (select(source, contract, newest), SQL(" order by t desc")),
            )
        )
    try:
        rows = _read(place, job, in_window) if window is not None else None
        if window is None or not rows:
            window, rows = None, _read(place, job, before_now)
    except DatabaseUnavailable as error:
        if driver_errors.sqlstate_of(error.__cause__ or error) != "57014":
            raise
        cure = f"ask the client for an index on {job.extract.timestamp}; every run picks its rows by that column"
        return warn(f"{ROWS:,} rows could not be read within {SECONDS} s", cure)
    return verdict(_judged(rows, version, job, place.settings.threads), job, window)


def key(place: Place, source: Source) -> Answer:
    """Look whether a key of the newest rows has several rows, unless the source itself says that it has one."""
    job = source.job
    columns = ", ".join(job.extract.key)
    with session_at(job.extract.connection, place, "asking for the time") as session:
        now = ledger_session.now(session)
        since = job.starts_at if job.starts_at is not None and job.starts_at < now else BEGINNING
        unique, repeated = (
            database.quoted(session, statement)
            for statement in (catalog.is_unique(source), _repeated(source, Window(since, now)))
        )
    try:
        if _table(place, job, unique).column(0)[0].as_py():
            return ok(f"a unique index covers {columns}")
        found = _table(place, job, repeated).to_pylist()
    except DatabaseUnavailable as error:
        if driver_errors.sqlstate_of(error.__cause__ or error) != "57014":
            raise
        said = f"no unique index covers {columns}, and {KEYS} keys could not be looked at within {SECONDS} s"
        return warn(said, f"make sure that {columns} identifies a row, or ask the client for a unique index")
    if not found:
        return ok(f"no unique index covers {columns}; of {KEYS} keys looked at each has one row")
    ((rows, first, last, *values),) = (tuple(line.values()) for line in found)
    said = (
        f"no unique index covers {columns}, and {rows} rows have the key {', '.join(map(str, values))}"
        f" ({job.extract.timestamp} {first} to {last}); of these one at most is scored"
    )
    return warn(said, "name all columns that identify a row in [extract] key, such as the customer and the day")


def timestamps(place: Place, source: Source) -> Answer:
    """Look for rows without a timestamp, which belong to no window, unless the source demands one of each row."""
    job, column = source.job, source.job.extract.timestamp
    counts = SQL("select count(*) filter (where {}) as without, count(*) as rows from {} as s").format(
        query.has_no_time(source), source.relation
    )
    with session_at(job.extract.connection, place, "quoting") as session:
        demanded, counted = (database.quoted(session, s) for s in (catalog.has_every_time(source), counts))
    try:
        if _table(place, job, demanded).column(0)[0].as_py():
            return ok(f"each row has a {column}")
        (found,) = _table(place, job, counted).to_pylist()
    except DatabaseUnavailable as error:
        if driver_errors.sqlstate_of(error.__cause__ or error) != "57014":
            raise
        cure = f"ask the client to make {column} NOT NULL, or make sure that each row gets its timestamp"
        return warn(f"{column} may be NULL; the rows without it could not be counted within {SECONDS} s", cure)
    if not found["without"]:
        return ok(f"none of {found['rows']:,} rows lacks a {column}")
    share = found["without"] / found["rows"]
    said = f"{found['without']:,} of {found['rows']:,} rows ({share:.2%}) have no finite {column}; no run scores them"
    return warn(said, f"ask the client to fill in {column}; a row that gets it within late_rows is scored as late")


def _repeated(source: Source, period: Window) -> Composable:
    """Return the SELECT of a key that several rows of a period have, of the KEYS of its newest rows."""
    rows = query.select_keys(source, source.within(period))
    names = [SQL("k{}").format(SQL(str(i))) for i in range(len(source.job.extract.key))]
    complete = SQL(" and ").join([SQL("{} is not null").format(name) for name in names])
    return SQL(
        "select count(*), pg_catalog.min(t)::text, pg_catalog.max(t)::text, {names} from (\n{rows}\n) as x"
        " where ({names}) operator(pg_catalog.=) any"
        " (select {names} from (\n{rows}\n) as y where {complete} order by t desc limit {limit})"
        " group by {names} having count(*) > 1 order by 1 desc limit 1"
    ).format(names=SQL(", ").join(names), rows=rows, complete=complete, limit=Value(KEYS))


def last_complete(job: Job, now: datetime) -> Window | None:
    """Return the last complete window of a job; None where it has none. Pure."""
    return None if job.cron is None else Schedule(job.cron, job.zone).last_due(now, job.starts_at, job.ends_at)


def _read(place: Place, job: Job, statement: str) -> list[pa.RecordBatch]:
    return [batch for batch in _table(place, job, statement).to_batches() if len(batch)]


def _table(place: Place, job: Job, statement: str) -> pa.Table:
    with (
        driver_errors.explained("extract", SourceRefused, "looking at live rows"),
        whole_snapshot(place.address(job.extract.connection), "plantao/check", path_of(job)) as snapshot,
        giving_way(snapshot),
    ):
        snapshot.value(f"select pg_catalog.set_config('statement_timeout', '{SECONDS}s', true)")
        return snapshot.table(statement)


def _judged(rows: list[pa.RecordBatch], version: Verified, job: Job, threads: int) -> Seen:
    from plantao.score.batch import BatchScorer

    scorer, seen = BatchScorer(job, version.manifest, version.model), Seen()
    with bounded_threads(threads):
        for batch in rows:
            result = scorer.score(batch, Stopwatch())
            seen.rows += result.read
            seen.rejected.update(f"{row.reason} ({row.column or 'key'})" for row in result.rejected)
            seen.unfamiliar += unfamiliar(result, version.manifest.contract)
    return seen


def unfamiliar(result: BatchResult, contract: Contract) -> Counter[str]:
    """Count, over the scored rows, the values that the training did not have. Pure."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: Counter[str] = Counter()
    for column, array in zip(contract.columns, result.features, strict=True):
        if not column.nullable:
            found[f"NULL in {column.name}"] = array.null_count
        if column.categories is not None:
            known = pc.is_in(array, value_set=pa.array(list(column.categories), type=array.type))
            found[f"an unknown {column.name}"] = len(array) - array.null_count - known.true_count
    return +found


def verdict(seen: Seen, job: Job, window: Window | None) -> Answer:
    """Judge what became of the rows, by the job's own limits; `window` is None for the newest rows. Pure."""
    limit, least = job.validation.at_most_rejected, job.validation.at_least_rows
    if not seen.rows:
        return warn("the source has no row up to now, so there was nothing to look at", "check again when it has rows")
    rejected, scored = seen.rejected.total(), seen.rows - seen.rejected.total()
    which = f"{seen.rows} newest rows" if window is None else f"{seen.rows} rows of {window.shown(job.zone)}"
    said = f"{rejected or 'none'} of {which} would be set aside"
    if rejected:
        said += f" (at_most_rejected = {limit:g}): {_listed(seen.rejected)}"
    if seen.unfamiliar:
        said += f"; scored with what the training never had: {_listed(seen.unfamiliar)}"
    if rejected / seen.rows > limit / 2:
        cure = "look at these columns at the source, train a version that knows such rows, or change [validate]"
        return (fail if rejected / seen.rows > limit else warn)(said, cure)
    if scored and max(seen.unfamiliar.values(), default=0) / scored > limit:
        return warn(said, "look at these columns at the source, or train a version that knows such rows")
    if window is not None and seen.rows < min(least, ROWS):
        return warn(f"{said}; at_least_rows = {least}", "ask the client whether the feed is complete")
    return ok(said)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common(REASONS_SHOWN))
