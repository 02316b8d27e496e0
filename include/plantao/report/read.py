"""Read what a report is made from.

Every figure comes from a table that the client can read, too; nothing is computed anew from predictions.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao.ledger import session
from plantao.measure.profile.sketch import added
from plantao.report.data import GRAVITY, RECENT, Figure, Incident, ReportData, Run, Unjudged, Version
from plantao.report.label_delay import Arrived
from plantao.report.point import Point

if TYPE_CHECKING:
    from collections.abc import Mapping
    from zoneinfo import ZoneInfo

    from sqlalchemy import Connection, RowMapping

    from plantao.config.job import Job

PERIOD, LEAST_PERIOD = timedelta(days=120), timedelta(days=28)


def read_report(connection: Connection, job: Job, first: date | None = None, last: date | None = None) -> ReportData:
    """Read the report of a job for a period of local days, both included.

    By default the 120 days up to the newest one that was measured or scored: a job that has ended, or a demo about
    an earlier year, still has a report. One that began later has a shorter one, of four weeks at least.
    """
    now = session.now(connection)
    with connection.begin():
        oldest, newest = _known_days(connection, job) or (now.astimezone(job.zone).date(),) * 2
        last = last or newest
        first = first or max(last - PERIOD, min(oldest - timedelta(days=1), last - LEAST_PERIOD)) + timedelta(days=1)
        bounds = {"job": job.name, "first": first, "last": last, "zone": job.timezone}
        bounds |= {"start": midnight(first, job.zone), "end": midnight(last + timedelta(days=1), job.zone)}
        versions = _versions(connection, job)
        version, reference_version, reference = _reference(connection, job, bounds)
        objective, outcome = job.measure.objective, job.measure.outcome
        return ReportData(
            job=job.name,
            description=job.description,
            first=first,
            last=last,
            now=now.astimezone(job.zone),
            figures=_figures(connection, job, bounds),
            incidents=_incidents(connection, job, bounds),
            versions=versions,
            runs=_runs(connection, job, bounds),
            score_state=_recent(connection, SCORE_STATES, bounds, {"version": version, "reference": reference_version}),
            outcome_state=_recent(connection, OUTCOME_STATES, bounds, {"version": version, "reference": None}),
            reference=reference,
            model=job.score.model,
            version=version,
            reference_version=reference_version,
            objective=objective.name if objective else "",
            metrics=job.measure.metrics,
            segments=job.measure.segments,
            control_share=job.measure.control_group,
            unjudged=_unjudged(connection, bounds),
            arrived=_arrived(connection, bounds),
            known_after=outcome.known_after if outcome else timedelta(0),
            mature_at=outcome.mature_at if outcome else 0.0,
            language=job.alert.language,
        )


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant at which a local day begins."""
    return datetime.combine(day, time(), zone)


def _all(connection: Connection, query: str, values: Mapping[str, Any]) -> list[RowMapping]:
    return list(connection.execute(text(query), values).mappings())


def _known_days(connection: Connection, job: Job) -> tuple[date, date] | None:
    """Return the first and the last local day that was scored or measured."""
    query = (
        "select min(window_start) as began, max(window_end) as ended from ("
        "(select window_start, window_end from metrics where job = :job order by window_start limit 1) union all"
        " (select window_start, window_end from metrics where job = :job order by window_start desc limit 1) union all"
        " select lower(done), upper(done) from coverage where job = :job) as known"
    )
    (known,) = _all(connection, query, {"job": job.name})
    if known["began"] is None:
        return None
    last = known["ended"] - timedelta(microseconds=1)
    return known["began"].astimezone(job.zone).date(), last.astimezone(job.zone).date()


def _figures(connection: Connection, job: Job, bounds: Mapping[str, Any]) -> list[Figure]:
    """Read the figures of whole local days; where two versions measured a day, the one with more rows speaks."""
    query = (
        "select name, column_name, segment, window_start, window_end, value, lower, upper, n, maturity, status,"
        " detectable, model_version from metrics_latest where job = :job and role = 'champion'"
        " and window_start >= :start and window_end <= :end and not starts_with(name, 'check_')"
        " order by n, model_version"
    )
    found: dict[tuple[str, str, str, date], Figure] = {}
    for row in _all(connection, query, bounds):
        start, end = row["window_start"].astimezone(job.zone), row["window_end"].astimezone(job.zone)
        day = start.date()
        if start.time() != time() or end != midnight(day + timedelta(days=1), job.zone):
            continue
        point = Point(day, row["value"], row["lower"], row["upper"], row["n"], row["status"], row["maturity"])
        key = (row["name"], row["column_name"], row["segment"], day)
        found[key] = Figure(key[0], point, key[1], key[2], row["detectable"], row["model_version"])
    return list(found.values())


def _incidents(connection: Connection, job: Job, bounds: Mapping[str, Any]) -> list[Incident]:
    query = (
        "select lane, word, message, since, opened_at, closed_at, model_version, details, until from incidents"
        " where job = :job and since <= :last"
        " and (closed_at is null or coalesce(until, (closed_at at time zone :zone)::date) >= :first)"
        " order by state = 'closed', since desc, incident_id desc"
    )
    found = [
        Incident(
            row["lane"],
            row["word"],
            row["message"],
            row["since"],
            row["opened_at"].astimezone(job.zone),
            row["closed_at"] and row["closed_at"].astimezone(job.zone),
            row["model_version"],
            row["details"],
            row["until"],
        )
        for row in _all(connection, query, bounds)
    ]
    return sorted(found, key=lambda one: (not one.is_open, GRAVITY.get(one.word, len(GRAVITY))))


def _unjudged(connection: Connection, bounds: Mapping[str, Any]) -> list[Unjudged]:
    """Read which checks could not be made, those of the most days first."""
    query = (
        "select name, column_name, status, count(distinct (window_start at time zone :zone)::date) as days"
        " from metrics_latest where job = :job and role = 'champion' and starts_with(name, 'check_') and status <> 'ok'"
        " and window_start >= :start and window_start < :end group by 1, 2, 3 order by days desc, 1, 2"
    )
    return [
        Unjudged(row["name"].removeprefix("check_"), row["column_name"], row["status"], row["days"])
        for row in _all(connection, query, bounds)
    ]


def _arrived(connection: Connection, bounds: Mapping[str, Any]) -> list[Arrived]:
    """Read after how many days outcomes came, day by day; nothing where the job does not say when they did."""
    query = (
        "select day, rows, labelled, state -> 'lags' as lags from daily_outcomes where job = :job"
        " and role = 'champion' and segment = '' and day between :first and :last and state ? 'lags' order by day"
    )
    return [
        Arrived(row["day"], row["rows"], row["labelled"], {int(lag): n for lag, n in row["lags"].items()})
        for row in _all(connection, query, bounds)
    ]


def _versions(connection: Connection, job: Job) -> list[Version]:
    query = "select version, live_from, who, why from model_timeline where model = :model order by live_from"
    return [
        Version(row["live_from"].astimezone(job.zone).date(), row["version"], row["who"], row["why"])
        for row in _all(connection, query, {"model": job.score.model})
    ]


def _runs(connection: Connection, job: Job, bounds: Mapping[str, Any]) -> list[Run]:
    """Read what became of each window; a window whose every attempt failed has failed."""
    query = (
        "select window_start, sum(rows_scored) filter (where status = 'succeeded') as scored,"
        " sum(rows_rejected) filter (where status = 'succeeded') as rejected,"
        " bool_and(status = 'failed') as failed from all_runs where job = :job and role = 'champion'"
        " and window_start >= :start and window_start < :end and status <> 'running' group by 1 order by 1"
    )
    return [
        Run(row["window_start"].astimezone(job.zone).date(), int(row["scored"] or 0), int(row["rejected"] or 0),
            row["failed"])
        for row in _all(connection, query, bounds)
    ]  # fmt: skip


# The version that scored the newest day, with the baseline that is in force.
REFERENCE = """
select m.version, coalesce(r.reference_version, 1) as reference_version, coalesce(r.reference, m.reference) as reference
from models as m
left join lateral (
  select reference_version, reference from reference_versions
  where job = :job and model_version = m.version order by reference_version desc limit 1
) as r on true
where m.model = :model and m.version = (
  select model_version from all_runs where job = :job and role = 'champion' and status = 'succeeded'
    and window_start < :end order by window_start desc, run_id desc limit 1)
"""
SCORE_STATES = """
select day, state from daily_state where job = :job and role = 'champion' and segment = '' and column_name = ''
  and day between :first and :last and model_version = :version and reference_version = :reference
order by day desc limit :days
"""
OUTCOME_STATES = """
select day, state from daily_outcomes where job = :job and role = 'champion' and segment = ''
  and day between :first and :last and model_version = :version and labelled > 0
order by day desc limit :days
"""


def _reference(
    connection: Connection, job: Job, bounds: Mapping[str, Any]
) -> tuple[int | None, int | None, dict[str, Any]]:
    rows = _all(connection, REFERENCE, {**bounds, "model": job.score.model})
    return (rows[0]["version"], rows[0]["reference_version"], rows[0]["reference"] or {}) if rows else (None, None, {})


def _recent(
    connection: Connection, query: str, bounds: Mapping[str, Any], of: Mapping[str, int | None]
) -> dict[str, Any]:
    rows = _all(connection, query, {**bounds, **of, "days": RECENT})
    states = [dict(row["state"]) for row in rows]
    # A name is no number: it does not add up.
    kinds = {state.pop("kind") for state in states if "kind" in state}
    return {**added(states), **({"kind": kinds.pop()} if kinds else {})}
