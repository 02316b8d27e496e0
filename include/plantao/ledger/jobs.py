"""What the job files said when their jobs last ran: the table `jobs`, which the view `status` rests on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao.postgres.locks import in_turn
from plantao.window import Schedule, Window

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from plantao.config.job import Job


def declare(connection: Connection, job: Job) -> None:
    """Write down what the job file says, and the windows that follow from it, for the view `status`."""
    statement = text(
        "insert into jobs (job, description, owner, schedule, timezone, starts, first_starts, ends, period,"
        " first_window, last_end, late_after, prediction_table) values (:job, :description, :owner, :schedule,"
        " :timezone, :starts, :starts, :ends, make_interval(secs => :period),"
        " nullif(tstzrange(:first_start, :first_end), '(,)'), :last_end, make_interval(secs => :late_after),"
        " :prediction_table)"
        " on conflict (job) do update set description = excluded.description, owner = excluded.owner,"
        " schedule = excluded.schedule, timezone = excluded.timezone, starts = excluded.starts, ends = excluded.ends,"
        " first_starts = least(jobs.first_starts, excluded.starts), first_window = excluded.first_window,"
        " last_end = excluded.last_end, period = excluded.period, late_after = excluded.late_after,"
        " prediction_table = excluded.prediction_table, updated_at = now()"
        " where (jobs.description, jobs.owner, jobs.schedule, jobs.timezone, jobs.starts, jobs.ends, jobs.period,"
        " jobs.first_window, jobs.last_end, jobs.late_after, jobs.prediction_table) is distinct from"
        " (excluded.description, excluded.owner, excluded.schedule, excluded.timezone, excluded.starts, excluded.ends,"
        " excluded.period, excluded.first_window, excluded.last_end, excluded.late_after, excluded.prediction_table)"
    )
    values = {
        "job": job.name,
        "description": job.description,
        "owner": job.owner,
        "schedule": job.schedule,
        "timezone": job.timezone,
        "starts": job.starts_at,
        "ends": job.ends_at,
        "late_after": job.alert.late_after.total_seconds(),
        "prediction_table": str(job.load.table),
        **_ticks(job),
    }
    with connection.begin():
        in_turn(connection, f"plantao.declare {job.name}")  # the row is locked even when nothing in it changes
        connection.execute(statement, values)


def _ticks(job: Job) -> dict[str, datetime | float | None]:
    """Return what SQL cannot find out about a schedule; of a job on demand, nothing.

    The period is the length of its longest window in seconds: months, and days of a clock change, differ.
    """
    if job.cron is None or job.starts_at is None:
        return dict.fromkeys(("period", "first_start", "first_end", "last_end"))
    schedule = Schedule(job.cron, job.zone)
    windows = list(islice(schedule.windows(job.starts_at, datetime.max.replace(tzinfo=UTC)), 13))
    return {
        "period": max((window.end - window.start).total_seconds() for window in windows),
        "first_start": windows[0].start,
        "first_end": windows[0].end,
        "last_end": None if job.ends_at is None else schedule.at_or_before(job.ends_at),
    }


def known(connection: Connection) -> dict[str, Declared]:
    """Return the jobs that have run against this ledger, by name, whether or not their files are still there."""
    query = text(
        "select j.job, j.ends, j.period, j.updated_at, upper(c.done) as covered_until from jobs j"
        " left join coverage c using (job) order by j.job"
    )
    rows = connection.execute(query).all()
    return {row.job: Declared(row.job, row.ends, row.period, row.updated_at, row.covered_until) for row in rows}


@dataclass(frozen=True)
class Declared:
    """A job as the ledger remembers it, whose file may be gone."""

    name: str
    ends: datetime | None
    period: timedelta | None
    updated_at: datetime
    covered_until: datetime | None

    @property
    def is_over(self) -> bool:
        """Whether no window of it can be owed any more."""
        if self.ends is None or self.covered_until is None:
            return False
        return self.covered_until + (self.period or timedelta()) > self.ends


def last_scored(connection: Connection, job: str) -> Window | None:
    """Return the latest window of which rows were scored."""
    query = text(
        "select window_start, window_end from runs where job = :job and role = 'champion' and status = 'succeeded'"
        " order by least(window_end, started_at) desc, run_id desc limit 1"
    )
    with connection.begin():
        row = connection.execute(query, {"job": job}).first()
    return None if row is None else Window.of(row.window_start, row.window_end)


def attempts(connection: Connection, job: str, limit: int) -> list[RowMapping]:
    """Return the newest attempts of a job, newest first."""
    query = text("select * from runs where job = :job order by run_id desc limit :limit")
    with connection.begin():
        return list(connection.execute(query, {"job": job, "limit": limit}).mappings())


def status(connection: Connection) -> list[RowMapping]:
    """Return the view `status`."""
    with connection.begin():
        return list(connection.execute(text("select * from status order by job")).mappings())
