"""`plantao reconcile`."""

from __future__ import annotations

from typing import Annotated

import typer

from plantao import place
from plantao import reconcile as reconciliation
from plantao.cli import show
from plantao.cli.scoring import FromOption, JobArgument, ToOption, given_window, watched
from plantao.job_file import read_job


def reconcile(
    job: JobArgument,
    start: FromOption = None,
    end: ToOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Score the rows that are owed.")] = False,
    json_: show.JsonOption = False,
) -> None:
    """Compare the whole history of the source with the predictions: what is owed, what is gone."""
    here = place.from_environment()
    declared = read_job(here.settings.jobs, job)
    period = given_window(declared, start, end)
    result = watched(f"reconciling {job}", lambda: reconciliation.reconcile(declared, here, period, repair=repair))
    if json_:
        show.as_json(result.as_dict())
    else:
        found = result.found
        show.pairs(
            {
                "job": job,
                "period": result.period.shown(declared.zone),
                "rows of the source": found.rows_source,
                "predicted or set aside": found.rows_accounted,
                "owed": found.rows_owed,
                "edited since": found.rows_edited,
                "predicted, but gone": found.rows_gone,
                "set aside, but gone": found.rejects_gone,
                "without a timestamp": found.rows_without_time,
                "repaired": result.rows_repaired,
            }
        )
        lines = [(window.shown(declared.zone), rows) for window, rows in sorted(found.windows.items())]
        if lines:
            show.table("Windows with rows that were owed", ("window", "rows"), lines)
        for what, examples in found.examples.items():
            typer.echo(f"{what}, for instance: {', '.join(str(key) for key in examples)}")
        if not result.in_order:
            typer.echo(f"Next: plantao reconcile {job} --repair", err=True)
    if not result.in_order:
        raise typer.Exit(1)
