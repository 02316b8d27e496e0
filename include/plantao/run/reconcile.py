"""Compare the whole history of a source with its predictions, and repair what is owed.

The look-back of a run ends where the job says; this does not. It finds rows that were committed even later, rows that
were predicted and are gone, and, with `on_change = "rescore"`, edits that no run has seen. A first pass folds both
sides into a digest per slice of time, so that a history in order costs two scans and no transfer; whatever seems to
differ is looked at once more by name, because the two sides were not seen at one moment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao import log
from plantao.errors import NotInitialised, UsageError, WindowBusy
from plantao.ledger import runs
from plantao.ledger import session as ledger_session
from plantao.ledger.request import Request
from plantao.postgres import driver_errors, locks
from plantao.run import integrity
from plantao.run.compare import Comparison, windows_of
from plantao.run.requested_windows import refuse_future
from plantao.run.run import score_window
from plantao.window import BEGINNING, Schedule, Window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.run.compare import Found
    from plantao.runtime import Place

EVERY = {"daily": timedelta(days=1), "weekly": timedelta(days=7), "monthly": timedelta(days=30)}


@dataclass(frozen=True)
class Reconciliation:
    """A comparison, and what was done about it."""

    job: str
    period: Window
    found: Found
    rows_repaired: int | None = None
    conflicts_accepted: bool = False
    """Whether the rows that conflict were scored, the predictions of their keys going to the history."""

    @property
    def in_order(self) -> bool:
        """Whether nothing is owed any more, and nothing conflicts."""
        repaired = self.rows_repaired is not None or not (self.found.rows_owed or self.found.rows_edited)
        return repaired and (self.conflicts_accepted or not self.found.rows_conflicting)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values, small enough for an XCom."""
        values = vars(self.found) | {"rows_repaired": self.rows_repaired, "in_order": self.in_order}
        for name in ("windows", "conflicts"):
            windows = sorted(values[name].items())
            values[name] = [{"start": w.start.isoformat(), "end": w.end.isoformat(), "rows": n} for w, n in windows]
        values["conflicts_accepted"] = self.conflicts_accepted
        period = {"start": self.period.start.isoformat(), "end": self.period.end.isoformat()}
        return {"job": self.job, "period": period, **values}


def reconcile(
    job: Job, place: Place, period: Window | None = None, *, repair: bool = False, accept_conflicts: bool = False
) -> Reconciliation:
    """Compare a period, by default everything up to the last complete window, and write down what was found.

    With `repair`, the windows with rows that are owed, edited or set aside are scored again; what has a prediction
    stays. With `accept_conflicts` the rows whose keys have predictions of other timestamps are scored too, and these
    predictions go to the history. Raises a PlantaoError; WindowBusy when somebody else reconciles this job right now.
    """
    with (
        ledger_session.session(job, place, f"plantao/{job.name}/reconcile") as connection,
        locks.alone(connection, f"plantao.reconcile {job.name}") as alone,
    ):
        if not alone:
            message = f"job {job.name} is being reconciled by somebody else right now. Nothing was written."
            raise WindowBusy(message, "wait for it", "extract")
        started = ledger_session.now(connection)
        chosen = period or whole_period(job, connection)
        refuse_future(job, chosen, started)
        found = Comparison(job, place, connection, chosen).run()
        repaired = _repair(job, place, connection, chosen, found) if repair else None
        if accept_conflicts:
            repaired = (repaired or 0) + _accept(job, place, chosen, found)
        result = Reconciliation(job.name, chosen, found, repaired, accept_conflicts)
        _record(connection, result.as_dict(), chosen, started)
        if period is None:  # a part of the history says nothing of the rest
            _settle(connection, job, result)
    fields: dict[str, Any] = {"job": job.name, "step": "reconcile", "period": chosen.shown(job.zone)}
    fields |= {name: value for name, value in vars(found).items() if isinstance(value, int)}
    level = log.WARNING if found.rows_owed or found.rows_edited or found.rows_conflicting else log.INFO
    log.event("reconciliation finished", {**fields, "rows_repaired": repaired}, level)
    return result


def is_due(job: Job, place: Place) -> bool:
    """Tell whether the job's own rhythm asks for a reconciliation; the first is due a period after the first run."""
    every = EVERY.get(job.extract.reconcile)
    if every is None:
        return False
    with ledger_session.session(job, place) as connection:
        since = _last_reconciled(connection, job.name)
        return since is not None and since + every <= ledger_session.now(connection)


def whole_period(job: Job, connection: Connection) -> Window:
    """Return the time that must be scored by now: from the job's first window to its last complete one.

    A job without a schedule must have scored what its runs have covered.
    """
    if job.cron is None:
        covered = runs.covered(connection, job.name)
        if not covered:
            message = f"job {job.name} has not run yet, so there is nothing to compare."
            raise UsageError(message, f"plantao run {job.name}")
        return Window(job.starts_at or BEGINNING, covered[-1].end)
    schedule, now = Schedule(job.cron, job.zone), ledger_session.now(connection)
    last = schedule.last_due(now, job.starts_at, job.ends_at)
    if last is None:
        message = f"no window of job {job.name} has ended yet, so there is nothing to compare."
        raise UsageError(message)
    return Window(BEGINNING if job.starts_at is None else schedule.at_or_after(job.starts_at), last.end)


def _repair(job: Job, place: Place, connection: Connection, period: Window, found: Found) -> int:
    """Score the windows again in which something is owed or set aside, and return how many rows that scored."""
    set_aside = _open_rejects(connection, job.name, period)
    scored = 0
    for whole in sorted({*found.windows, *windows_of(job, set_aside)}):
        window = Window(whole.start, min(whole.end, period.end))  # the last one may go on
        scored += score_window(Request(job, window, "backfill"), place).counts.scored
    return scored


def _accept(job: Job, place: Place, period: Window, found: Found) -> int:
    """Score the rows that conflict, and return how many rows that scored."""
    windows = [Window(whole.start, min(whole.end, period.end)) for whole in sorted(found.conflicts)]
    return sum(
        score_window(Request(job, window, "backfill", accept_conflicts=True), place).counts.scored for window in windows
    )


def _settle(connection: Connection, job: Job, result: Reconciliation) -> None:
    """Let the incidents of the predictions be those that a comparison of the whole source has found."""
    conditions = []
    if result.found.rows_conflicting and not result.conflicts_accepted:
        since = min(result.found.conflicts).start.astimezone(job.zone).date()
        examples = [", ".join(map(str, key)) for key in result.found.examples.get("rows_conflicting", [])]
        conditions.append(integrity.of_conflicts(job, result.found.rows_conflicting, since, examples))
    left = result.found.rows_owed + result.found.rows_edited - (result.rows_repaired or 0)
    last = (result.period.end - timedelta(microseconds=1)).astimezone(job.zone).date()
    integrity.settle_compared(connection, job, conditions, last, is_complete=left <= 0)


def _open_rejects(connection: Connection, job: str, period: Window) -> list[datetime]:
    """Return the timestamps of the rows of a period that are set aside, oldest first."""
    query = text(
        "select distinct source_timestamp from rejected_rows where job = :job and resolved_at is null"
        " and source_timestamp >= :start and source_timestamp < :end order by 1"
    )
    with connection.begin():
        return list(connection.execute(query, {"job": job, "start": period.start, "end": period.end}).scalars())


def _last_reconciled(connection: Connection, job: str) -> datetime | None:
    """Return when the job was last reconciled, else when it first succeeded; None when it never has."""
    query = text(
        "select coalesce((select max(finished_at) from reconciliations where job = :job), (select finished_at"
        " from runs where job = :job and role = 'champion' and status in ('succeeded', 'empty')"
        " order by run_id limit 1))"
    )
    with connection.begin():
        moment: datetime | None = connection.execute(query, {"job": job}).scalar_one()
    return moment


def _record(connection: Connection, values: Mapping[str, Any], period: Window, started: datetime) -> None:
    """Write down what a comparison of a period found."""
    counts = ("source", "accounted", "owed", "edited", "conflicting", "gone", "without_time", "repaired")
    names = [*(f"rows_{count}" for count in counts), "rejects_gone", "job"]
    statement = text(
        f"insert into reconciliations ({', '.join(names)}, period_start, period_end, examples, started_at)"
        f" values ({', '.join(f':{name}' for name in names)}, :start, :end, cast(:examples as jsonb), :started)"
    )
    given = {name: values[name] for name in names} | {"start": period.start, "end": period.end, "started": started}
    with driver_errors.explained("load", NotInitialised, "writing down the reconciliation"), connection.begin():
        connection.execute(statement, {**given, "examples": json.dumps(values["examples"], default=str)})
