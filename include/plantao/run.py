"""Runs: which windows a job owes, and how one of them is scored.

What happens between the start and the end of an attempt stands in `attempt`, and how one that failed is closed in
`closing`.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from plantao import declared, ledger, memory
from plantao.attempt import Attempt
from plantao.closing import recorded
from plantao.errors import ModelMissing
from plantao.extract.window import Schedule, Window, owed, owed_on_demand
from plantao.origin import origin_of
from plantao.score import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from plantao.job import Job
    from plantao.ledger import Role
    from plantao.place import Place
    from plantao.request import Report, Request


def score_window(request: Request, place: Place) -> Report:
    """Score a window, or with `dry_run` only find out what would happen.

    Raises a PlantaoError; then nothing but the failed attempt was written.
    """
    memory.keep_freed()
    if request.dry_run:
        with ledger.session(request.job, place, f"plantao/{request.job.name}") as connection:
            return Attempt(request, place, connection, None, role_of(request, connection)).run()
    with (
        declared_session(request, place) as (connection, run_id, role),
        recorded(request, place, connection, run_id),
    ):
        return Attempt(request, place, connection, run_id, role).run()


def role_of(request: Request, connection: Connection) -> Role:
    """Return where the predictions belong: those of a version that is named go beside the champion's.

    Unless it is the very version that scores anyway, or the request says that it replaces what is there.
    """
    if request.model_version is None or request.rescore:
        return "champion"
    with contextlib.suppress(ModelMissing):
        if registry.scoring(connection, request).version == request.model_version:
            return "champion"
    return "challenger"


@contextlib.contextmanager
def declared_session(request: Request, place: Place) -> Iterator[tuple[Connection, int, Role]]:
    """Open a session on the target and start an attempt in it; yield both, and where the predictions belong."""
    job = request.job
    with ledger.session(job, place, f"plantao/{job.name}") as connection:
        declared.declare(connection, job, _period(job))
        role = role_of(request, connection)
        origin = origin_of(request, place)
        yield connection, ledger.start(connection, job, request.window, request.model_version, origin, role=role), role


def owed_windows(job: Job, place: Place) -> list[Window]:
    """Return the windows that have ended and that no success covers, oldest first.

    A job without a schedule owes one window: everything since the last one, up to now.
    """
    with ledger.session(job, place) as connection:
        done, now = ledger.covered(connection, job.name), ledger.now(connection)
    if job.cron is None or job.starts_at is None:
        window = owed_on_demand(job.starts_at, done, now)
        return [window] if window is not None else []
    return owed(Schedule(job.cron, job.zone), job.starts_at, job.ends_at, done, now)


def _period(job: Job) -> float | None:
    """Return the length of the job's longest window in seconds: months and days of a clock change differ."""
    if job.cron is None or job.starts_at is None:
        return None
    windows = islice(Schedule(job.cron, job.zone).windows(job.starts_at, datetime.max.replace(tzinfo=UTC)), 13)
    return max((window.end - window.start).total_seconds() for window in windows)
