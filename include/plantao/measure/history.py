"""Measure a window, and keep the figures with their earlier values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Identifier, Literal
from sqlalchemy import text

from plantao import database, ledger, log
from plantao.errors import TargetRefused
from plantao.job_types import parse_table_name
from plantao.load.table import shadow_job
from plantao.measure.summary import Metric, Scored, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from plantao.extract.window import Window
    from plantao.job import Job
    from plantao.ledger import Role
    from plantao.place import Place


def measure_window(job: Job, window: Window, place: Place) -> list[Metric]:
    """Measure the predictions of a window and write what is new into `plantao.metrics`.

    Measuring again writes nothing when nothing has changed.
    """
    with (
        ledger.session(job, place, f"plantao/{job.name}/measure") as connection,
        database.explained("measure", TargetRefused, f"measuring {window.shown(job.zone)}"),
        database.deadline(connection, database.STATEMENT_SECONDS),
        connection.begin(),
    ):
        metrics = [
            *summarise(
                _scored(connection, job, window),
                _open_rejects(connection, job, window),
                _profiles(connection, job, window, "champion"),
            ),
            *summarise(
                _scored(connection, shadow_job(job), window),
                None,
                _profiles(connection, job, window, "challenger"),
                "challenger",
            ),
        ]
        written = _write(connection, job, window, metrics)
    fields = {"job": job.name, "step": "measure", "window": window.shown(job.zone), "metrics": len(metrics)}
    log.event("measure finished", {**fields, "changed": written})
    return metrics


def _scored(connection: Connection, job: Job, window: Window) -> list[Scored]:
    schema, name = parse_table_name(job.load.table)
    there = text("select to_regclass(format('%I.%I', cast(:s as text), cast(:t as text))) is not null")
    if not connection.execute(there, {"s": schema, "t": name}).scalar():
        return []
    query = SQL(
        "select p.model_version, count(*), count(*) filter (where r.window_start > p.source_timestamp), avg(p.score)"
        " from {} as p left join runs as r using (run_id)"
        " where p.source_timestamp >= {}::timestamptz and p.source_timestamp < {}::timestamptz group by 1 order by 1"
    ).format(Identifier(schema, name), Literal(window.start), Literal(window.end))
    return [Scored(*row) for row in database.fetch(connection, query)]


def _open_rejects(connection: Connection, job: Job, window: Window) -> int:
    query = text(
        "select count(*) from rejected_rows where job = :job and resolved_at is null"
        " and source_timestamp >= :start and source_timestamp < :end"
    )
    return int(connection.execute(query, {"job": job.name, "start": window.start, "end": window.end}).scalar_one())


def _profiles(connection: Connection, job: Job, window: Window, role: Role) -> list[tuple[int, dict[str, object]]]:
    query = text(
        "select model_version, profile from runs where job = :job and role = :role and status = 'succeeded'"
        " and window_start = :start and window_end = :end and rows_scored > 0 order by run_id"
    )
    values = {"job": job.name, "role": role, "start": window.start, "end": window.end}
    rows = connection.execute(query, values).all()
    return [(row.model_version, row.profile) for row in rows]


def _write(connection: Connection, job: Job, window: Window, metrics: Sequence[Metric]) -> int:
    """Insert the figures that differ from the newest ones, and return how many did."""
    statement = text(
        "insert into metrics (job, model_version, role, window_start, window_end, name, column_name, value, n)"
        " select :job, :version, :role, :start, :end, :name, :column, :value, :n where not exists ("
        " select from metrics_latest where job = :job and model_version = :version and role = :role"
        " and window_start = :start and window_end = :end and name = :name and column_name = :column and segment = ''"
        " and value is not distinct from cast(:value as double precision) and n = :n)"
    )
    changed = 0
    for metric in metrics:
        values: dict[str, Any] = {
            "version": metric.model_version,
            "role": metric.role,
            "name": metric.name,
            "column": metric.column,
        }
        values |= {"value": metric.value, "n": metric.n, "job": job.name}
        changed += connection.execute(statement, {**values, "start": window.start, "end": window.end}).rowcount
    return changed
