"""Measure what went in and what came out, of a window and its days: rows, gaps, values unseen or out of range."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Identifier, Literal
from sqlalchemy import text

from plantao import log
from plantao.errors import TargetRefused
from plantao.ledger import runs
from plantao.ledger import session as ledger_session
from plantao.load.table import shadow_job
from plantao.measure import records
from plantao.measure.metrics import history
from plantao.measure.metrics.metric import Metric
from plantao.measure.profile import counts
from plantao.postgres import driver_errors, session
from plantao.window import listed_days, of_days

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.runs import Role
    from plantao.measure.records import Counted, State
    from plantao.runtime import Place
    from plantao.window import Window


def data_quality(job: Job, window: Window, place: Place) -> list[Metric]:
    """Measure the rows of a window and of its local days, and write what is new into `plantao.metrics`.

    Measuring again writes nothing when nothing has changed.
    """
    with (
        ledger_session.session(job, place, f"plantao/{job.name}/measure") as connection,
        driver_errors.explained("measure", TargetRefused, f"measuring {window.shown(job.zone)}"),
        session.deadline(connection, session.STATEMENT_SECONDS),
        connection.begin(),
    ):
        found = [
            *summarise(
                window,
                _scored(connection, job, window),
                _open_rejects(connection, job, window),
                _profiles(connection, job, window, "champion"),
            ),
            *summarise(
                window,
                _scored(connection, shadow_job(job), window),
                None,
                _profiles(connection, job, window, "challenger"),
                "challenger",
            ),
        ]
        days = listed_days(window, job.zone) or []
        for role in runs.ROLES if days else ():
            counted = records.counted(connection, job, role, days[0], days[-1])
            found += _of_days(job, role, counted)
        # What is known of a day from its own rows stands before what its runs saw, late rows of other days included.
        metrics = list({metric.key: metric for metric in found}.values())
        written = history.keep(connection, job, metrics)
    fields = {"job": job.name, "step": "measure", "window": window.shown(job.zone), "metrics": len(metrics)}
    log.event("data quality measured", {**fields, "changed": written})
    return metrics


def _of_days(job: Job, role: Role, counted: Mapping[int, Counted]) -> Iterator[Metric]:
    for version, found in counted.items():
        for day, states in found.states.items():
            window = of_days(day, day, job.zone)
            for (segment, column), state in states.items():
                if column:
                    yield from _of_column(window, version, role, column, state)
                else:
                    yield Metric(window, version, "rows", state["rows"], state["rows"], "", segment, role)


def _of_column(window: Window, version: int, role: Role, column: str, state: State) -> Iterator[Metric]:
    """Yield the shares of a column's rows that are missing, never seen in training, or out of its range."""
    n, found = state["rows"], counts.shares(counts.cells(state))
    if found is None:
        return
    yield Metric(window, version, "null_share", found.missing, n, column, role=role)
    if "unseen" in state:
        yield Metric(window, version, "unseen_share", found.unseen, n, column, role=role)
    elif "sums" in state:
        yield Metric(window, version, "outside_share", found.outside, n, column, role=role)


def _scored(connection: Connection, job: Job, window: Window) -> list[Scored]:
    there = text("select to_regclass(format('%I.%I', cast(:s as text), cast(:t as text))) is not null")
    if not connection.execute(there, {"s": job.load.table.schema, "t": job.load.table.name}).scalar():
        return []
    query = SQL(
        "with p as materialized (select model_version, run_id, source_timestamp, score from {}"
        " where source_timestamp >= {}::timestamptz and source_timestamp < {}::timestamptz),"
        # By their numbers, because a join would read all runs there ever were.
        " r as materialized (select run_id, window_start from all_runs where run_id = any(array(select distinct run_id"
        " from p)))"
        " select p.model_version, count(*), count(*) filter (where r.window_start > p.source_timestamp), avg(p.score)"
        " from p left join r using (run_id) group by 1 order by 1"
    ).format(Identifier(*job.load.table), Literal(window.start), Literal(window.end))
    return [Scored(*row) for row in session.fetch(connection, query)]


def _open_rejects(connection: Connection, job: Job, window: Window) -> int:
    query = text(
        "select count(*) from rejected_rows where job = :job and resolved_at is null"
        " and source_timestamp >= :start and source_timestamp < :end"
    )
    return int(connection.execute(query, {"job": job.name, "start": window.start, "end": window.end}).scalar_one())


def _profiles(connection: Connection, job: Job, window: Window, role: Role) -> list[tuple[int, dict[str, object]]]:
    query = text(
        "select model_version, profile from all_runs where job = :job and role = :role and status = 'succeeded'"
        " and window_start = :start and window_end = :end and rows_scored > 0 order by run_id"
    )
    values = {"job": job.name, "role": role, "start": window.start, "end": window.end}
    rows = connection.execute(query, values).all()
    return [(row.model_version, row.profile) for row in rows]


@dataclass(frozen=True)
class Scored:
    """What the prediction table holds for a window and a version."""

    model_version: int
    rows: int
    late: int
    mean_score: float | None


def summarise(
    window: Window,
    scored: Sequence[Scored],
    rejected: int | None,
    profiles: Sequence[tuple[int, Mapping[str, Any]]],
    role: Role = "champion",
) -> list[Metric]:
    """Return the metrics of a window, for the versions in one role.

    `scored` has one entry per version; `rejected` counts the open rejects of the window, where there can be any;
    `profiles` are those of the window's runs, each with its version.
    """
    metrics = []
    for part in scored:
        metrics += [
            Metric(window, part.model_version, "rows", part.rows, part.rows),
            Metric(window, part.model_version, "late_rows", part.late, part.rows),
            Metric(window, part.model_version, "mean_score", part.mean_score, part.rows),
        ]
    for version in sorted({version for version, _ in profiles}):
        rows, missing = 0, Counter[str]()
        for profile in (profile for v, profile in profiles if v == version):
            rows += profile["rows"]
            missing.update(profile["missing"])
        for column, count in missing.items():
            metrics.append(Metric(window, version, "null_share", count / rows if rows else None, rows, column))
    newest = max((m.model_version for m in metrics), default=None)
    if newest is not None and rejected is not None:
        total = rejected + sum(part.rows for part in scored)
        metrics.append(Metric(window, newest, "rejected_share", rejected / total if total else None, total))
    return [replace(metric, role=role) for metric in metrics]
