"""The DEGRADED lane: what came of the predictions, what the model is worth, and whether it has become worse."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao import log
from plantao.errors import TargetRefused
from plantao.ledger import runs
from plantao.ledger import session as ledger_session
from plantao.measure import records
from plantao.measure.detect import missing as evidence
from plantao.measure.detect.cusum import DayValue
from plantao.measure.detect.degradation import Judged
from plantao.measure.metrics import history, objective, objective_sql
from plantao.measure.metrics.metric import Measurement, Metric, Where
from plantao.measure.outcomes import join
from plantao.measure.outcomes.maturity import coverage, day_is_mature
from plantao.measure.outcomes.tally import Tally
from plantao.measure.profile import daily_state
from plantao.outbox.incident import over
from plantao.outbox.incidents import settle
from plantao.postgres import driver_errors, session
from plantao.window import Window, of_days

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import date, datetime

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.runs import Role
    from plantao.measure.metrics.objective_sql import Worth
    from plantao.models.manifest import Output
    from plantao.outbox.incident import Condition
    from plantao.runtime import Place

DAYS_JUDGED = 400
"""How far back an episode that is still open can have begun."""
WINDOWS_JUDGED = 100
"""How far back it is told since when a check could not be made; of an hourly job these are four days."""
DAYS_AGAIN = 35
"""A day becomes mature with time alone, so the last ones are measured again."""


def tally(job: Job, place: Place, days: Collection[date] = ()) -> list[date]:
    """Hold predictions against their outcomes where either has changed, and on the given days; return what changed.

    Raises OutcomeUnreadable, and DatabaseUnavailable where a retry can help.
    """
    with ledger_session.session(job, place, f"plantao/{job.name}/measure") as connection:
        now = ledger_session.now(connection)
        wanted = {*days, *join.days_to_look_at(connection, job, place, now)}
        outputs = _outputs(connection, job, place)
        changed = join.tally_days(job, place, connection, sorted(wanted), outputs)
    return sorted({one.day for one in changed})


def measure_performance(job: Job, place: Place, days: Collection[date] = ()) -> list[Metric]:
    """Measure how good the model was on the given days and the last ones, and open or close incidents.

    What came of the predictions was tallied before, by `tally`.
    """
    with (
        ledger_session.session(job, place, f"plantao/{job.name}/measure") as connection,
        driver_errors.explained("measure", TargetRefused, "measuring performance"),
        session.deadline(connection, session.STATEMENT_SECONDS),
    ):
        now = ledger_session.now(connection)
        outputs = _outputs(connection, job, place)
        with connection.begin():
            newest = records.last_day(connection, job)
            if newest is None:
                return []
            wanted = {*days, *(newest - timedelta(days=n) for n in range(DAYS_AGAIN))}
            found: list[Metric] = []
            for role in runs.ROLES:
                judged = _judged(connection, job, role, (min(wanted), newest), outputs, now)
                for one in judged:
                    found += one.metrics(wanted)
                if role == "champion" and judged:
                    _settle(connection, job, judged[-1], newest)
                    if job.measure.outcome is not None and (why := judged[-1].unwatched):
                        log.event("degradation is not watched", {"job": job.name, "why": why}, log.WARNING)
            written = history.keep(connection, job, found)
    fields = {"job": job.name, "step": "measure", "days": len(wanted), "metrics": len(found)}
    log.event("performance measured", {**fields, "changed": written})
    return found


def _outputs(connection: Connection, job: Job, place: Place) -> dict[int, Output]:
    manifests = records.manifests(job, place, records.versions(connection, job))
    return {version: manifest.output for version, manifest in manifests.items()}


def _judged(  # noqa: PLR0913, PLR0917 - one role of a job, at one moment
    connection: Connection, job: Job, role: Role, days: tuple[date, date], outputs: Mapping[int, Output], now: datetime
) -> list[Judged]:
    """Return what there is to judge, by version; the one with the newest predictions last."""
    first, newest = days
    since = newest - timedelta(days=DAYS_JUDGED)
    tallied = records.tallies(connection, job, role, since, newest)
    counted = records.counted(connection, job, role, first, newest, only_scores=True)
    found = []
    for version in sorted({*tallied, *counted}, key=lambda v: max([*tallied.get(v, ()), *_days(counted, v)])):
        if version not in outputs:
            continue
        scores = {day: states["", ""] for day, states in counted[version].states.items()} if version in counted else {}
        reference = daily_state.reference_of(connection, job, version).profile
        found.append(Judged(job, role, version, outputs[version], reference, tallied.get(version, {}), now, scores))
    return found


def _days(counted: Mapping[int, records.Counted], version: int) -> Sequence[date]:
    return counted[version].days if version in counted else ()


def _settle(connection: Connection, job: Job, judged: Judged, newest: date) -> None:
    """Open or close the incidents of the champion's version; the objective is as it was measured last."""
    since = of_days(newest - timedelta(days=DAYS_JUDGED), newest, job.zone).start
    worth = [
        (m.window.start.astimezone(job.zone).date(), m)
        for m in history.series(connection, job, ["objective"], since)
        if (m.role, m.model_version) == ("champion", judged.version)
        and m.window.end - m.window.start <= timedelta(hours=25)
    ]
    valued = [DayValue(day, m.value, m.n, m.status == "ok") for day, m in worth]
    found = judged.conditions(valued)
    told = partial(over, version=judged.version)
    settle(connection, job.name, "degraded", found, version=judged.version, day=newest, over=told)
    missing = judged.missing([(day, m.status) for day, m in worth])
    missing += _unchecked(connection, job, judged.version)
    settle(connection, job.name, "missing", missing, version=judged.version, day=newest)


def _unchecked(connection: Connection, job: Job, version: int) -> list[Condition]:
    """Return the checks of runs that could not be made for days on end."""
    rows = connection.execute(NEWEST_WINDOWS, {"job": job.name, "limit": WINDOWS_JUDGED}).all()
    if not rows:
        return []
    scored = [(Window.of(row.window_start, row.window_end), row.model_version) for row in rows]
    kept = history.checks_since(connection, job, min(window.start for window, _ in scored))
    return evidence.persisting(scored, kept, version, job.zone)


NEWEST_WINDOWS = text(
    "select window_start, window_end, model_version from (select distinct on (window_start, window_end) * from runs"
    " where job = :job and role = 'champion' and status = 'succeeded' and rows_scored > 0"
    " order by window_start desc, window_end desc, run_id desc) as r order by window_start desc limit :limit"
)


# --- the business objective ------------------------------------------------------------------------------------------


def measure_objective(job: Job, place: Place, days: Collection[date]) -> list[Metric]:
    """Measure what the predictions of days were worth to the business, and write what is new."""
    wanted = job.measure.objective
    if wanted is None or job.measure.outcome is None or not days:
        return []
    with ledger_session.session(job, place, f"plantao/{job.name}/measure") as connection:
        now, outputs = ledger_session.now(connection), _outputs(connection, job, place)
        found: list[Metric] = []
        tallied = {role: records.tallies(connection, job, role, min(days), max(days)) for role in runs.ROLES}
        by_sql = objective_sql.objective_by_day(job, place, connection, sorted(days), outputs)
        for day in sorted(days):
            if wanted.values is not None:
                found += _by_values(job, day, tallied, now, outputs)
            else:
                found += _by_sql(job, day, by_sql.get(day, []), tallied, now)
        written = history.keep(connection, job, found)
        _judge_again(connection, job, outputs, now)
    fields = {"job": job.name, "step": "measure", "days": len(days), "metrics": len(found)}
    log.event("objective measured", {**fields, "changed": written})
    return found


def _judge_again(connection: Connection, job: Job, outputs: Mapping[int, Output], now: datetime) -> None:
    """Judge the champion with what its predictions were worth, which was not known when its metrics were."""
    newest = records.last_day(connection, job)
    if newest is None:
        return
    with driver_errors.explained("measure", TargetRefused, "judging the objective"), connection.begin():
        judged = _judged(connection, job, "champion", (newest - timedelta(days=DAYS_AGAIN), newest), outputs, now)
        if judged:
            _settle(connection, job, judged[-1], newest)


Tallied = dict["Role", dict[int, dict["date", dict[str, Tally]]]]


def _by_values(job: Job, day: date, tallied: Tallied, now: datetime, outputs: Mapping[int, Output]) -> Iterator[Metric]:
    assert job.measure.objective is not None
    assert job.measure.outcome is not None
    values = job.measure.objective.values or ()
    for role, versions in tallied.items():
        for version, days in versions.items():
            of_day = days.get(day, {})
            if version not in outputs or "" not in of_day:
                continue
            mature = day_is_mature(job.measure.outcome, day, job.zone, of_day[""], now)
            for segment, one in of_day.items():
                where = Where(of_days(day, day, job.zone), version, role, segment)
                for measured in objective.measure_values(one, values, outputs[version].positive, mature):
                    yield where.metric(measured, coverage(one.labelled, one.rows))


def _by_sql(job: Job, day: date, worths: Sequence[Worth], tallied: Tallied, now: datetime) -> Iterator[Metric]:
    assert job.measure.outcome is not None
    for worth in worths:
        one = tallied[worth.role].get(worth.version, {}).get(day, {}).get("", Tally(worth.rows, worth.rows))
        where, known = Where(of_days(day, day, job.zone), worth.version, worth.role), coverage(one.labelled, one.rows)
        if worth.problem is not None:
            log.event("objective failed", {"job": job.name, "day": day, "error": worth.problem}, log.WARNING)
            yield where.metric(Measurement("objective", None, None, None, worth.rows, "failed"), known)
            continue
        blocks = [value for _, value in worth.blocks]
        mature = day_is_mature(job.measure.outcome, day, job.zone, one, now)
        for measured in objective.measure_aggregate(worth.value, blocks, one, mature):
            yield where.metric(measured, known)
        for arm, (rows, value) in worth.arms.items():
            if value is not None and rows:
                yield where.metric(Measurement(f"objective_{arm}", value, None, None, rows, "ok"), known)
