"""What the job files said when their jobs last ran: the table `jobs`, which the view `status` rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao.alert.watch.overdue import Declared
from plantao.locks import in_turn

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from plantao.job import Job


def declare(connection: Connection, job: Job, period: float | None) -> None:
    """Write down what the job file says, for the view `status`; `period` is a window's length in seconds."""
    statement = text(
        "insert into jobs (job, description, owner, schedule, timezone, starts, ends, period, late_after,"
        " prediction_table) values (:job, :description, :owner, :schedule, :timezone, :starts, :ends,"
        " make_interval(secs => :period), make_interval(secs => :late_after), :prediction_table)"
        " on conflict (job) do update set description = excluded.description, owner = excluded.owner,"
        " schedule = excluded.schedule, timezone = excluded.timezone, starts = excluded.starts, ends = excluded.ends,"
        " period = excluded.period, late_after = excluded.late_after, prediction_table = excluded.prediction_table,"
        " updated_at = now() where (jobs.description, jobs.owner, jobs.schedule, jobs.timezone, jobs.starts,"
        " jobs.ends, jobs.period, jobs.late_after, jobs.prediction_table) is distinct from (excluded.description,"
        " excluded.owner, excluded.schedule, excluded.timezone, excluded.starts, excluded.ends, excluded.period,"
        " excluded.late_after, excluded.prediction_table)"
    )
    values = {
        "job": job.name,
        "description": job.description,
        "owner": job.owner,
        "schedule": job.schedule,
        "timezone": job.timezone,
        "starts": job.starts_at,
        "ends": job.ends_at,
        "period": period,
        "late_after": job.alert.late_after.total_seconds(),
        "prediction_table": job.load.table,
    }
    with connection.begin():
        in_turn(connection, f"plantao.declare {job.name}")  # the row is locked even when nothing in it changes
        connection.execute(statement, values)


def known(connection: Connection) -> dict[str, Declared]:
    """Return the jobs that have run against this ledger, by name, whether or not their files are still there."""
    query = text(
        "select j.job, j.ends, j.period, j.updated_at, max(r.window_end) filter (where r.role = 'champion'"
        " and r.status in ('succeeded', 'empty')) as covered_until from jobs j left join runs r using (job)"
        " group by j.job order by j.job"
    )
    rows = connection.execute(query).all()
    return {row.job: Declared(row.job, row.ends, row.period, row.updated_at, row.covered_until) for row in rows}
