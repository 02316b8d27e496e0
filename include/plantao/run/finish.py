"""How an attempt that failed is closed, so that each leaves its row in the ledger, whatever stopped it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao import log
from plantao.errors import PlantaoError, Superseded, TargetRefused
from plantao.ledger import heartbeats, runs
from plantao.outbox import run_alerts
from plantao.outbox.alerts import raise_alert
from plantao.postgres import driver_errors, session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from plantao.ledger.request import Request
    from plantao.ledger.runs import Counts
    from plantao.outbox.alerts import Alert
    from plantao.runtime import Place

# Written as the index `runs_by_time` has it, so that the cost does not grow with the history.
OVERLAPS = (
    "int8range(hashtextextended(r.job || ' ' || r.role, 0), hashtextextended(r.job || ' ' || r.role, 0), '[]')"
    " && int8range(hashtextextended(t.job || ' ' || t.role, 0), hashtextextended(t.job || ' ' || t.role, 0), '[]')"
    " and tstzrange(r.window_start, r.window_end) && tstzrange(t.window_start, t.window_end)"
    " and r.job = t.job and r.role = t.role"
)
# The attempts at the same window that failed since it was last scored, with what was told of each.
FAILED_BEFORE = text(
    "with this as (select job, role, window_start, window_end from runs where run_id = :run),"
    f" same as (select r.run_id, r.status, r.started_at from runs r join this t on {OVERLAPS} where r.run_id < :run),"
    " failed as (select run_id, started_at from same where status = 'failed' and run_id > coalesce("
    "(select max(run_id) from same where status in ('succeeded', 'empty')), 0))"
    " select count(distinct run_id) as times, min(started_at) as since, clock_timestamp() as now,"
    " array_agg(distinct kind) as kinds from failed left join alerts using (run_id)"
)
IS_FIRST = text(
    "with t as (select job, cast('champion' as text) as role, window_start, window_end from runs where run_id = :run)"
    f" select not exists (select from all_runs r join t on {OVERLAPS} where r.run_id <> :run"
    " and r.status in ('succeeded', 'empty'))"
)


@contextlib.contextmanager
def recorded(request: Request, place: Place, connection: Connection, run_id: int) -> Iterator[None]:
    """Close the attempt as failed when the context raises; then nothing but the failed attempt was written."""
    try:
        with driver_errors.explained("", TargetRefused, "working on the ledger"):
            yield
    except BaseException as error:
        if not record_failure(request, place, connection, run_id, error, alert=_alert(request, run_id, error)):
            raise runs.superseded(run_id) from error
        raise


def _alert(request: Request, run_id: int, error: BaseException) -> Alert:
    window = request.window.shown(request.job.zone)
    return run_alerts.of_error(error, request.job.name, window, run_id, request.tries_left)


def tell(connection: Connection, request: Request, run_id: int, counts: Counts, reasons: Mapping[str, int]) -> None:
    """Write down what is worth knowing of a success, inside its transaction: a sign of life, rejects, a recovery."""
    job, window = request.job.name, request.window.shown(request.job.zone)
    heartbeats.beat(connection, f"job {job}", {"run": run_id, "window": window, "rows_scored": counts.scored})
    if counts.rejected:
        raise_alert(connection, run_alerts.rejected(job, window, run_id, reasons, counts.read))
    if counts.already_scored and not counts.scored and connection.execute(IS_FIRST, {"run": run_id}).scalar_one():
        raise_alert(connection, run_alerts.nothing_scored(job, window, run_id, counts))
    failed = connection.execute(FAILED_BEFORE, {"run": run_id}).one()
    if failed.times:
        told = run_alerts.recovered(
            job, window, run_id, kinds=failed.kinds, times=failed.times, since=failed.since, now=failed.now
        )
        raise_alert(connection, told)


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
            driver_errors.explained("load", TargetRefused, "recording the failure"),
            session.deadline(connection, session.CONNECT_SECONDS),
        ):
            return runs.fail(connection, run_id, reason, permanent=permanent, alert=alert)
    except PlantaoError:
        target = place.address(request.job.load.connection)
        try:
            with session.session(target, place.settings.schema) as another:
                return runs.fail(another, run_id, reason, permanent=permanent, alert=alert)
        except PlantaoError as second:
            log.event("the ledger could not be told", {"run": run_id, "error": str(second)}, logging.ERROR)
    return True
