"""Runs: start an attempt, walk its steps, and write down how it ended.

What happens between start and end stands in `attempt`. This module makes sure that every attempt leaves a row in the
ledger, also when it fails, and knows which windows a job owes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from plantao import __version__, database, ledger, log
from plantao.attempt import Attempt
from plantao.errors import PlantaoError, TargetRefused
from plantao.extract.window import Schedule, Window, owed, owed_on_demand
from plantao.score.environment import current_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from plantao.job import Job
    from plantao.place import Place
    from plantao.request import Report, Request


def score_window(request: Request, place: Place) -> Report:
    """Score a window, or with `dry_run` only find out what would happen.

    Raises a PlantaoError; then nothing but the failed attempt was written.
    """
    if request.dry_run:
        with ledger.session(request.job, place, f"plantao/{request.job.name}") as connection:
            return Attempt(request, place, connection, None).run()
    with declared_session(request, place) as (connection, run_id), recorded(request, place, connection, run_id):
        return Attempt(request, place, connection, run_id).run()


@contextlib.contextmanager
def declared_session(request: Request, place: Place) -> Iterator[tuple[Connection, int]]:
    """Open a session on the target and start an attempt in it."""
    job = request.job
    with ledger.session(job, place, f"plantao/{job.name}") as connection:
        ledger.declare(connection, job, _period(job))
        yield connection, ledger.start(connection, job, request.window, request.model_version, _origin(request, place))


@contextlib.contextmanager
def recorded(request: Request, place: Place, connection: Connection, run_id: int) -> Iterator[None]:
    """Close the attempt as failed when the context raises; then nothing but the failed attempt was written."""
    try:
        with database.explained("", TargetRefused, "working on the ledger"):
            yield
    except BaseException as error:
        if not _record_failure(request, place, connection, run_id, error):
            raise ledger.superseded(run_id) from error
        raise


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


def _record_failure(request: Request, place: Place, connection: Connection, run_id: int, error: BaseException) -> bool:
    """Close the attempt as failed, over a new session if the old one is gone; False when another one has done so.

    When the database cannot be reached at all, the next attempt finds this one's session gone and closes it.
    """
    permanent = isinstance(error, PlantaoError) and error.permanent
    reason = str(error) or type(error).__name__
    if not isinstance(error, PlantaoError):
        reason = f"{type(error).__name__}: {reason}"
    fields = {"job": request.job.name, "run": run_id, "window": request.window.shown(request.job.zone), "error": reason}
    log.event("run failed", fields, logging.ERROR)
    try:
        with contextlib.suppress(Exception):
            connection.rollback()
        with (
            database.explained("load", TargetRefused, "recording the failure"),
            database.deadline(connection, database.CONNECT_SECONDS),
        ):
            return ledger.fail(connection, run_id, reason, permanent=permanent)
    except PlantaoError:
        target = place.address(request.job.load.connection)
        try:
            with database.session(target, place.settings.schema) as another:
                return ledger.fail(another, run_id, reason, permanent=permanent)
        except PlantaoError as second:
            log.event("the ledger could not be told", {"run": run_id, "error": str(second)}, logging.ERROR)
    return True


def _origin(request: Request, place: Place) -> ledger.Origin:
    worker = f"{socket.gethostname()}:{os.getpid()}"
    environment = current_environment(place.settings.lock)
    return ledger.Origin(request.trigger, request.airflow_run, worker, code_version(), environment)


@cache
def code_version() -> str:
    """Return which code this is: PLANTAO_CODE_VERSION, or the commit of the checkout, or the package's version."""
    if given := os.environ.get("PLANTAO_CODE_VERSION"):
        return given
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return f"{__version__}+{done.stdout.strip()}"
    return __version__


def _period(job: Job) -> float | None:
    """Return the length of the job's longest window in seconds: months and days of a clock change differ."""
    if job.cron is None or job.starts_at is None:
        return None
    windows = islice(Schedule(job.cron, job.zone).windows(job.starts_at, datetime.max.replace(tzinfo=UTC)), 13)
    return max((window.end - window.start).total_seconds() for window in windows)
