"""A look at live rows: would they pass? The job's own steps judge at most ROWS of them, and nothing is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg2.sql import SQL
from psycopg2.sql import Literal as Value

from plantao import database, ledger
from plantao.checks.answer import fail, ok, warn
from plantao.checks.connection import session_at
from plantao.errors import DatabaseUnavailable, SourceRefused
from plantao.extract import query
from plantao.extract.courtesy import giving_way
from plantao.extract.query import Branch
from plantao.extract.window import BEGINNING, Schedule, Window
from plantao.log import Stopwatch
from plantao.score.gate import bounded_threads

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa
    from psycopg2.sql import Composable

    from plantao.checks.answer import Answer
    from plantao.extract.source import Source
    from plantao.job import Job
    from plantao.place import Place
    from plantao.score.batch import BatchResult
    from plantao.score.gate import Verified
    from plantao.validate.contract import Contract

ROWS = 2_000
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
        now = ledger.now(session)
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
        if database.sqlstate_of(error.__cause__ or error) != "57014":
            raise
        cure = f"ask the client for an index on {job.extract.timestamp}; every run picks its rows by that column"
        return warn(f"{ROWS:,} rows could not be read within {SECONDS} s", cure)
    return verdict(_judged(rows, version, job, place.settings.threads), job, window)


def last_complete(job: Job, now: datetime) -> Window | None:
    """Return the last complete window of a job; None where it has none. Pure."""
    if job.cron is None:
        return None
    window = Schedule(job.cron, job.zone).last_complete(now, job.ends_at)
    return window if job.starts_at is None or window.start >= job.starts_at else None


def _read(place: Place, job: Job, statement: str) -> list[pa.RecordBatch]:
    with (
        database.explained("extract", SourceRefused, "looking at live rows"),
        database.snapshot(place.address(job.extract.connection), "plantao/check") as snapshot,
        giving_way(snapshot),
    ):
        snapshot.value(f"select set_config('statement_timeout', '{SECONDS}s', true)")
        return [batch for batch in snapshot.table(statement).to_batches() if len(batch)]


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
