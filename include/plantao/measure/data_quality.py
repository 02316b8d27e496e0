"""Measure what went in and what came out, of a window and its days: rows, gaps, values unseen or out of range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.sql import SQL, Identifier, Literal
from sqlalchemy import text

from plantao import database, ledger, log
from plantao.errors import TargetRefused
from plantao.extract.window import listed_days, of_days
from plantao.job_types import parse_table_name
from plantao.load.table import shadow_job
from plantao.measure import records
from plantao.measure.count import cells
from plantao.measure.count.summary import Scored, summarise
from plantao.measure.metrics import history
from plantao.measure.metrics.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from plantao.extract.window import Window
    from plantao.job import Job
    from plantao.ledger import Role
    from plantao.measure.records import Counted, State
    from plantao.place import Place


def data_quality(job: Job, window: Window, place: Place) -> list[Metric]:
    """Measure the rows of a window and of its local days, and write what is new into `plantao.metrics`.

    Measuring again writes nothing when nothing has changed.
    """
    with (
        ledger.session(job, place, f"plantao/{job.name}/measure") as connection,
        database.explained("measure", TargetRefused, f"measuring {window.shown(job.zone)}"),
        database.deadline(connection, database.STATEMENT_SECONDS),
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
        for role in ledger.ROLES if days else ():
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
    n, found = state["rows"], cells.shares(cells.cells(state))
    if found is None:
        return
    yield Metric(window, version, "null_share", found.missing, n, column, role=role)
    if "unseen" in state:
        yield Metric(window, version, "unseen_share", found.unseen, n, column, role=role)
    elif "sums" in state:
        yield Metric(window, version, "outside_share", found.outside, n, column, role=role)


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
