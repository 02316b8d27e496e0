"""Predictions that runs have written and that are not in their table any more: deleted, truncated, dropped, renamed.

The sums of the daily state are held against the table. To count the table costs a scan, so each run first compares the
table's storage and the server's number of deleted and updated rows with what the last look has seen, and counts only
where these say that something has changed. What an own run has moved to the history is taken into account.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Identifier, Literal
from sqlalchemy import text

from plantao.measure.profile import daily_state
from plantao.outbox.incident import Condition, fingerprint
from plantao.outbox.incidents import open_incidents, settle
from plantao.postgres import session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from sqlalchemy import Connection

    from plantao.config.job import Job

LOST = fingerprint("integrity", "lost")
GONE = "predictions of it are gone"

# A file of its own is what a table gets when it is made, truncated or rewritten. The statistics say how many rows were
# deleted or updated, also by transactions that were rolled back.
SIGNS = text(
    "with one as (select to_regclass(format('%I.%I', cast(:schema as text), cast(:name as text))) as oid),"
    " files as (select oid::oid from one where oid is not null"
    " union select t.relid from one, pg_partition_tree(oid) as t)"
    " select coalesce(md5(string_agg(concat_ws(' ', oid, pg_relation_filenode(oid)), ',' order by oid)), ''),"
    " coalesce(sum(pg_stat_get_tuples_deleted(oid) + pg_stat_get_tuples_updated(oid)), 0)::bigint from files"
)
SEEN = text("select prediction_table, storage, changes from table_checks where job = :job")
KEEP = text(
    "insert into table_checks (job, prediction_table, storage, changes) values (:job, :table, :storage, :changes)"
    " on conflict (job) do update set prediction_table = excluded.prediction_table, storage = excluded.storage,"
    " changes = excluded.changes, checked_at = clock_timestamp()"
)
MOVED = text("update table_checks set changes = changes + :rows where job = :job")
HAS_SCORED = text(
    "select exists (select from runs where job = :job and role = 'champion' and status = 'succeeded'"
    " and rows_scored > 0)"
)


@dataclass(frozen=True)
class Signs:
    """What tells, without a scan, that somebody has changed a table."""

    table: str
    storage: str
    changes: int


def look(connection: Connection, job: Job, *, was_made: bool = False, run_id: int | None = None) -> None:
    """Open an incident when predictions of the champion are gone; in a transaction of its own.

    `was_made`: the table was not there and has been made just now.
    """
    values = {"job": job.name, **job.load.table._asdict()}
    with connection.begin():
        now = Signs(str(job.load.table), *connection.execute(SIGNS, values).one())
        seen = connection.execute(SEEN, values).one_or_none()
        before = None if seen is None else Signs(*seen)
        if now == before or not now.storage:
            return
        days = _missing(connection, job)
        made_anew = was_made and connection.execute(HAS_SCORED, values).scalar_one()
        if days or made_anew:
            how = ""
            if before is not None and before.table != now.table:
                how = f"The job file named {before.table} until now. "
            elif made_anew:
                how = "The table was not there and has been made anew. "
            held = {one["fingerprint"] for one in open_incidents(connection, job.name)} - {LOST}
            settle(connection, job.name, "integrity", [of_lost(job, days, how)], unjudged=held, run_id=run_id)
            # Their sums are no longer those of the table; the next measurement counts what is there.
            daily_state.mark(connection, job, "champion", days, GONE)
        given = {"job": job.name, "table": now.table, "storage": now.storage, "changes": now.changes}
        connection.execute(KEEP, given)


def expect(connection: Connection, job: Job, rows: int) -> None:
    """Take into account that a run has moved rows to the history, inside its transaction."""
    if rows:
        connection.execute(MOVED, {"job": job.name, "rows": rows})


def of_lost(job: Job, days: Mapping[date, int], how: str) -> Condition:
    """Return the condition that predictions are gone, with how many on which days."""
    total = sum(days.values())
    first, last = min(days, default=datetime.now(UTC).date()), max(days, default=None)
    span = f"of {first}" if last in {None, first} else f"of {len(days)} days from {first} to {last}"
    rows = "1 prediction" if total == 1 else f"{total} predictions" if total else "predictions"
    gone = f"{rows} {span if total else 'of this job'} {'is' if total == 1 else 'are'} gone from {job.load.table}"
    message = f"{how}{gone}: deleted, truncated or replaced"
    step = f"find out by whom, then score them again: plantao reconcile {job.name} --repair"
    details = {"rows": total, "days": {day.isoformat(): missing for day, missing in days.items()}}
    return Condition("integrity", LOST, "broken", float(max(total, 1)), first, message, step, details)


def _missing(connection: Connection, job: Job) -> dict[date, int]:
    """Return how many predictions of each local day the table lacks; one statement, so that both are of one moment."""
    query = SQL(
        "with there as (select (p.source_timestamp at time zone {zone})::date as day, count(*) as rows"
        " from {table} as p group by 1), counted as (select day, sum(rows)::bigint as rows from daily_state"
        " where job = {job} and role = 'champion' and segment = '' and column_name = '' and day not in"
        " (select day from stale_days where job = {job} and role = 'champion') group by day)"
        " select day, c.rows - coalesce(t.rows, 0) from counted as c left join there as t using (day)"
        " where c.rows > coalesce(t.rows, 0) order by day"
    ).format(zone=Literal(job.timezone), table=Identifier(*job.load.table), job=Literal(job.name))
    return dict(session.fetch(connection, query))
