"""What came of the demo: the ledger, some predictions, and whether source and predictions agree."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from psycopg2.sql import SQL, Composed, Identifier, Literal

from demo import client_data
from plantao.alert.send import digest_of_now
from plantao.cli import output as cli
from plantao.errors import PlantaoError
from plantao.window import Schedule, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.config.job import Job
    from plantao.runtime import Place


def windows(job: Job) -> list[Window]:
    """Return the windows of a job that have ended by now."""
    assert job.cron is not None
    assert job.starts_at is not None
    until = min(datetime.now(UTC), job.ends_at or datetime.now(UTC))
    return list(Schedule(job.cron, job.zone).windows(job.starts_at, until))


MEASURED = SQL(
    "select job, (window_start at time zone 'America/New_York')::date, name, round(value::numeric, 3),"
    " round(lower::numeric, 3), round(upper::numeric, 3), n, round(maturity::numeric, 2), status"
    " from {}.metrics_latest where role = 'champion' and segment = '' and column_name = ''"
    " and name in ('roc_auc', 'brier', 'objective', 'mae') and window_end - window_start < interval '26 hours'"
    " order by window_start desc, job, name limit 8"
)


def show(here: Place, jobs: Sequence[Job]) -> None:
    """Print the summary. Raises PlantaoError when a row is missing or double."""
    with client_data.connected(here) as connection:

        def ask(statement: str | Composed) -> list[tuple[Any, ...]]:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()

        ledger = Identifier(here.settings.schema)
        columns = ("job", "window_start", "status", "rows_read", "rows_scored", "rows_already_scored", "model_version")
        newest = SQL(
            "select * from (select {} from {}.runs order by run_id desc limit 20) as r order by job, window_start"
        )
        names = SQL(", ").join(map(Identifier, columns))
        _table("The ledger: plantao.runs", columns, ask(newest.format(names, ledger)))
        for job in jobs:
            table = Identifier(*job.load.table)
            columns = ("flight_id", "source_timestamp", "prediction", "score", "model_version", "run_id")
            sample = SQL("select {} from {} order by 1 limit 5").format(SQL(", ").join(map(Identifier, columns)), table)
            _table(f"What the client reads: {job.load.table}", columns, ask(sample))
        columns = ("job", "day", "metric", "value", "lower", "upper", "rows", "outcomes known", "status")
        _table("What came of them: plantao.metrics_latest", columns, ask(MEASURED.format(ledger)))
        lines = [_balance(job, ask) for job in jobs]
        columns = ("job", "windows", "source rows", "predictions", "distinct keys")
        _table("Every row once", columns, lines)
    for job in jobs:
        typer.echo(f"\nThe {job.alert.digest} digest of {job.name}, as on-call will read it\n")
        typer.echo(digest_of_now(job, here))
    typer.echo(
        "\nWhere to look next:\n"
        '  psql "$(.venv/bin/plantao db url)"     the client\'s database; the ledger is in schema plantao\n'
        "  .venv/bin/plantao status               how every job stands\n"
        "  .venv/bin/plantao report flight_delay --out report.html\n"
        "                                         how good the model is, since when, for whom\n"
        "  make up                                Airflow's UI with these runs in it\n"
        "  make down                              ends everything\n"
    )
    if any(len(set(line[2:])) > 1 for line in lines):
        message = "source rows, predictions and distinct keys differ"
        raise PlantaoError(message)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; a pipe gets the title too, since this is read and not parsed."""
    if not sys.stdout.isatty():
        typer.echo(f"\n{title}")
    cli.table(title, columns, rows)


def _balance(job: Job, ask: Any) -> tuple[Any, ...]:
    there = windows(job)
    flights = SQL("select count(*) from public.flights where departed_at >= {} and departed_at < {}")
    source = ask(flights.format(Literal(there[0].start), Literal(there[-1].end)))[0][0]
    table = Identifier(*job.load.table)
    within = SQL("where source_timestamp >= {} and source_timestamp < {}").format(
        Literal(there[0].start), Literal(there[-1].end)
    )
    counts = ask(SQL("select count(*), count(distinct flight_id) from {} {}").format(table, within))[0]
    return job.name, len(there), source, *counts
