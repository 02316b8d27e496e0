"""How an attempt that failed is closed, so that each leaves its row in the ledger, whatever stopped it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from plantao import database, ledger, log
from plantao.alert.outbox import Alert
from plantao.errors import ChecksFailed, PlantaoError, Superseded, TargetRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from plantao.place import Place
    from plantao.request import Request


@contextlib.contextmanager
def recorded(request: Request, place: Place, connection: Connection, run_id: int) -> Iterator[None]:
    """Close the attempt as failed when the context raises; then nothing but the failed attempt was written."""
    try:
        with database.explained("", TargetRefused, "working on the ledger"):
            yield
    except BaseException as error:
        alert = blocked(request, run_id, error) if isinstance(error, ChecksFailed) else None
        if not record_failure(request, place, connection, run_id, error, alert=alert):
            raise ledger.superseded(run_id) from error
        raise


def blocked(request: Request, run_id: int, error: ChecksFailed) -> Alert:
    """Return what somebody has to decide when a check that blocks has failed."""
    job, window = request.job.name, request.window.shown(request.job.zone)
    return Alert("blocked", f"{job} {window}", f"{job}, {window}: {error.what}", error.next_step, job, run_id)


@contextlib.contextmanager
def recorded_if_permanent(request: Request, place: Place, connection: Connection, run_id: int) -> Iterator[None]:
    """Close the whole attempt as failed when no retry of this step can help; otherwise it waits for the retry."""
    try:
        yield
    except PlantaoError as error:
        if not error.permanent or isinstance(error, Superseded):
            raise
        with recorded(request, place, connection, run_id):
            raise


def record_failure(  # noqa: PLR0913 - one attempt, what became of it, and who has to know
    request: Request,
    place: Place,
    connection: Connection,
    run_id: int,
    error: BaseException,
    *,
    alert: Alert | None = None,
) -> bool:
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
            return ledger.fail(connection, run_id, reason, permanent=permanent, alert=alert)
    except PlantaoError:
        target = place.address(request.job.load.connection)
        try:
            with database.session(target, place.settings.schema) as another:
                return ledger.fail(another, run_id, reason, permanent=permanent, alert=alert)
        except PlantaoError as second:
            log.event("the ledger could not be told", {"run": run_id, "error": str(second)}, logging.ERROR)
    return True
