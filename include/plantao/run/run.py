"""Runs: which windows a request means, and how one of them is scored.

What happens between the start and the end of an attempt stands in `attempt`, and how one that failed is closed in
`closing`.
"""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from plantao import log
from plantao.errors import ModelMissing
from plantao.ledger import jobs, runs, session
from plantao.models import registry
from plantao.run import malloc
from plantao.run.attempt import Attempt
from plantao.run.finish import recorded
from plantao.run.origin import origin_of
from plantao.run.requested_windows import Asked, refuse_future, requested_windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.request import Request
    from plantao.ledger.runs import Role
    from plantao.run.report import Report
    from plantao.runtime import Place
    from plantao.window import Window


def score_window(request: Request, place: Place) -> Report:
    """Score a window, or with `dry_run` only find out what would happen.

    Raises a PlantaoError; then nothing but the failed attempt was written.
    """
    malloc.keep_freed()
    if request.dry_run:
        with session.session(request.job, place, f"plantao/{request.job.name}") as connection:
            await_end(request, connection)
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
    with session.session(job, place, f"plantao/{job.name}") as connection:
        await_end(request, connection)
        jobs.declare(connection, job)
        role = role_of(request, connection)
        origin = origin_of(request, place)
        yield connection, runs.start(connection, job, request.window, request.model_version, origin, role=role), role


def await_end(request: Request, connection: Connection) -> None:
    """Wait until the window has ended by the database's clock, where the clocks differ by seconds.

    Raises UsageError for a window that ends later.
    """
    while (left := request.window.end - (now := session.now(connection))) > timedelta():
        refuse_future(request.job, request.window, now, scheduled=request.trigger == "schedule")
        waiting = {"job": request.job.name, "seconds": round(left.total_seconds(), 1)}
        log.event("the window has not ended by the database's clock", waiting, log.WARNING)
        time.sleep(left.total_seconds())


def windows_for(job: Job, place: Place, asked: Asked) -> list[Window]:
    """Return the windows that a request means, by what the ledger calls done and by its clock."""
    with session.session(job, place) as connection:
        done, now = runs.covered(connection, job.name), session.now(connection)
    return requested_windows(job, asked, done, now)


def owed_windows(job: Job, place: Place) -> list[Window]:
    """Return the windows that have ended and that no success covers, oldest first."""
    return windows_for(job, place, Asked(missing=True))
