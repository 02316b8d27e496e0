"""What the watchdog reads in the ledger. Nothing in here changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao.ledger import runs
from plantao.outbox.incident import Incident
from plantao.watch.overdue import HISTORY, JobFacts, Running
from plantao.window import Window

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from plantao.config.job import Job

# Alerts that no message holds yet, and messages that nobody has acknowledged.
OUTBOX = text(
    "select count(*) as waiting, min(since) as oldest, (select at from heartbeats where component = 'digest') as sender"
    " from (select raised_at as since from alerts where route is null and sent_at is null"
    " union all select created_at from digests where sent_at is null) as waits"
)


@dataclass(frozen=True)
class Outbox:
    """How many alerts and messages wait, and since when, and when somebody last sent any."""

    waiting: int
    oldest: datetime | None
    sender_at: datetime | None


def of_job(connection: Connection, job: Job, first_seen: datetime) -> JobFacts:
    """Return what the ledger says about a job."""
    values = {"job": job.name, "history": HISTORY}
    covered = runs.covered(connection, job.name)
    first_run = text(
        "select (select min(started_at) from runs where job = :job) as met,"
        " (select first_starts from jobs where job = :job) as first_starts"
    )
    running = text(
        "select run_id, window_start, window_end, started_at, worker from runs"
        " where job = :job and role = 'champion' and status = 'running' order by run_id"
    )
    done = text(
        "select finished_at, extract(epoch from finished_at - started_at)::double precision as seconds from runs"
        " where job = :job and role = 'champion' and status = 'succeeded' order by run_id desc limit :history"
    )
    with connection.begin():
        first = connection.execute(first_run, values).one()
        alive = connection.execute(running, values).all()
        successes = connection.execute(done, values).all()
    return JobFacts(
        job,
        covered,
        min(first_seen, first.met) if first.met else first_seen,
        first_starts=first.first_starts,
        last_success_at=successes[0].finished_at if successes else None,
        running=[Running(r.run_id, Window.of(r.window_start, r.window_end), r.started_at, r.worker) for r in alive],
        seconds=[row.seconds for row in successes],
    )


def last_error(connection: Connection, job: str, window: Window) -> str | None:
    """Return what the newest attempt at a window failed with; None when there was none."""
    query = text(
        "select error from runs where job = :job and role = 'champion' and status = 'failed'"
        " and window_start = :start and window_end = :end order by run_id desc limit 1"
    )
    values = {"job": job, "start": window.start, "end": window.end}
    with connection.begin():
        error: str | None = connection.execute(query, values).scalar()
    return error


def open_incident(connection: Connection, job: str, fingerprint: str) -> Incident | None:
    """Return an open incident of a job, with its details."""
    query = text(
        "select incident_id, fingerprint, word, severity, message, since, opened_at, details from incidents"
        " where job = :job and fingerprint = :fingerprint and state = 'open'"
    )
    with connection.begin():
        row = connection.execute(query, {"job": job, "fingerprint": fingerprint}).mappings().first()
    return None if row is None else Incident(**row)


def watched(connection: Connection) -> set[str]:
    """Return the jobs with an open incident of the watchdog's."""
    query = text("select distinct job from incidents where state = 'open' and lane in ('late', 'watch')")
    with connection.begin():
        return set(connection.execute(query).scalars())


def outbox(connection: Connection) -> Outbox:
    """Return what waits to be sent."""
    with connection.begin():
        row: Any = connection.execute(OUTBOX).one()
    return Outbox(row.waiting, row.oldest, row.sender)


def dead_candidates(connection: Connection) -> list[str]:
    """Return the jobs with a running attempt."""
    with connection.begin():
        return list(connection.execute(text("select distinct job from runs where status = 'running'")).scalars())
