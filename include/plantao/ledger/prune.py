"""Move old attempts of a ledger to its archive, and delete what no promise needs.

What stays: the coverage of each job, so that no window is owed again; each job's last success and all after it;
measurements, incidents, alerts, versions and decisions. `all_runs` has the archived attempts too, so that each
prediction still names the attempt that wrote it.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao.errors import TargetRefused, UsageError
from plantao.postgres import driver_errors
from plantao.postgres.locks import alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
# Digests, the watchdog and late outcomes look at the last month.
LEAST_DAYS = 31
BATCH = 2000
LOCK = "plantao.prune"
UNCHANGED = "Nothing was changed."


@dataclass(frozen=True)
class Counts:
    """Rows by table."""

    runs: int = 0
    """Attempts that were moved to the archive."""
    parts: int = 0
    log_events: int = 0
    rejected_rows: int = 0


def kept(given: str) -> str:
    """Return how long to keep, as PostgreSQL reads it. Raises UsageError unless it is a time of a month or more."""
    match = re.fullmatch(r"\s*(\d{1,4})\s*(day|week|month|year)s?\s*", given)
    if match is None:
        message = f"--keep {given!r} is no time to keep; accepted are days, weeks, months or years. {UNCHANGED}"
    elif int(match[1]) * DAYS[match[2]] < LEAST_DAYS:
        message = f"--keep {given!r} is too short: digests and late outcomes need {LEAST_DAYS} days. {UNCHANGED}"
    else:
        return f"{match[1]} {match[2]}"
    raise UsageError(message, 'give at least a month or so:\nplantao prune --keep "2 years"')


def cutoff(connection: Connection, keep: str) -> datetime:
    """Return the moment, by the database's clock, before which things are old."""
    query = text("select greatest(now() - cast(:keep as interval), timestamptz '0001-01-01Z')")
    with driver_errors.explained("", TargetRefused, "asking for the time"), connection.begin():
        moment: datetime = connection.execute(query, {"keep": keep}).scalar_one()
    return moment


# The last success of a job, by number and by time, and all attempts after it say how the job stands now.
OLD_RUNS = """
select r.run_id from runs r
where r.finished_at < :before and (cast(:job as text) is null or r.job = :job)
  and r.run_id < (select max(g.run_id) from runs g
    where g.job = r.job and g.role = r.role and g.status in ('succeeded', 'empty'))
  and r.run_id <> coalesce((select e.run_id from runs e
    where e.job = r.job and e.role = 'champion' and e.status in ('succeeded', 'empty')
    order by least(e.window_end, e.started_at) desc, e.run_id desc limit 1), 0)
order by r.run_id
"""
OLD_EVENTS = """
select event_id from log_events
where at < :before and (cast(:job as text) is null or job = :job) order by event_id
"""
OLD_REJECTS = """
select reject_id from rejected_rows
where resolved_at < :before and (cast(:job as text) is null or job = :job) order by resolved_at
"""


def count(connection: Connection, before: datetime, job: str | None) -> Counts:
    """Count what `prune` would move or delete; nothing is changed."""
    values = {"before": before, "job": job}
    queries = {
        "runs": OLD_RUNS,
        "parts": f"select from parts where run_id in ({OLD_RUNS})",
        "log_events": OLD_EVENTS,
        "rejected_rows": OLD_REJECTS,
    }
    with driver_errors.explained("", TargetRefused, "counting what is old"), connection.begin():
        return Counts(
            **{
                name: int(connection.execute(text(f"select count(*) from ({query}) as q"), values).scalar_one())
                for name, query in queries.items()
            }
        )


def prune(connection: Connection, before: datetime, job: str | None, where: str) -> Counts:
    """Move and delete what ended before a moment, of one job or of all, some thousand rows a transaction.

    Safe to interrupt and to repeat; each transaction counts its rows in the table `prunes`. Raises TargetRefused when
    the login may not, or when somebody else prunes this ledger.
    """
    _require_right(connection, where)
    with driver_errors.explained("", TargetRefused, "pruning the ledger"), alone(connection, LOCK) as mine:
        if not mine:
            message = f"somebody else prunes {where} at this moment. {UNCHANGED}"
            raise TargetRefused(message, "wait until it has ended; what was it doing:\nselect * from plantao.prunes")
        begin = text("insert into prunes (job, before) values (:job, :before) returning prune_id")
        values: dict[str, Any] = {"before": before, "job": job, "batch": BATCH}
        with connection.begin():
            values["prune"] = connection.execute(begin, values).scalar_one()
        done = Counts()
        for step in (_runs, _events, _rejects):
            while (batch := _counted(connection, step, values)) != Counts():
                done = Counts(*(a + b for a, b in zip(asdict(done).values(), asdict(batch).values(), strict=True)))
        end = text("update prunes set finished_at = clock_timestamp() where prune_id = :prune")
        with connection.begin():
            connection.execute(end, values)
    return done


def _require_right(connection: Connection, where: str) -> None:
    may = text("select has_table_privilege('runs', 'delete') and has_table_privilege('runs_archive', 'insert')")
    with driver_errors.explained("", TargetRefused, "asking for the rights of this login"), connection.begin():
        if connection.execute(may).scalar_one():
            return
    message = f"this login may not prune {where}, since no worker may delete from the ledger. {UNCHANGED}"
    raise TargetRefused(message, "run it with the account of the ledger's owner, which `plantao init` needs too")


def _counted(
    connection: Connection, step: Callable[[Connection, dict[str, Any]], Counts], values: dict[str, Any]
) -> Counts:
    """Do one batch, and count it in the same transaction."""
    sums = ", ".join(f"{field.name} = {field.name} + :{field.name}" for field in fields(Counts))
    with connection.begin():
        batch = step(connection, values)
        connection.execute(text(f"update prunes set {sums} where prune_id = :prune"), {**values, **asdict(batch)})
    return batch


def _runs(connection: Connection, values: dict[str, Any]) -> Counts:
    found = connection.execute(text(f"{OLD_RUNS} limit :batch"), values).scalars().all()
    runs = {"runs": list(found)}
    if not found:
        return Counts()
    connection.execute(text("insert into runs_archive select * from runs where run_id = any(:runs)"), runs)
    parts = connection.execute(text("delete from parts where run_id = any(:runs)"), runs).rowcount
    # By the trigger of the table, only what is in the archive can go. Two statements: it must see what the first wrote.
    moved = connection.execute(text("delete from runs where run_id = any(:runs)"), runs).rowcount
    return Counts(runs=moved, parts=parts)


def _events(connection: Connection, values: dict[str, Any]) -> Counts:
    delete = text(f"delete from log_events where event_id = any(array({OLD_EVENTS} limit :batch))")
    return Counts(log_events=connection.execute(delete, values).rowcount)


def _rejects(connection: Connection, values: dict[str, Any]) -> Counts:
    delete = text(f"delete from rejected_rows where reject_id = any(array({OLD_REJECTS} limit :batch))")
    return Counts(rejected_rows=connection.execute(delete, values).rowcount)
