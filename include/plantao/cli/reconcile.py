"""`plantao reconcile`."""

from __future__ import annotations

from typing import Annotated

import typer

from plantao import runtime
from plantao.cli import output
from plantao.cli.scoring import FromOption, JobArgument, ToOption, watched
from plantao.config.job_file import read_job
from plantao.run import reconcile as reconciliation
from plantao.run.requested_windows import named_window


def reconcile(
    job: JobArgument,
    start: FromOption = None,
    end: ToOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Score the rows that are owed.")] = False,
    accept_conflicts: Annotated[
        bool,
        typer.Option(
            "--accept-conflicts",
            help="Score rows whose key has a prediction of another timestamp; that prediction goes to the history.",
        ),
    ] = False,
    json_: output.JsonOption = False,
) -> None:
    """Compare the whole history of the source with the predictions: what is owed, what is gone."""
    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    period = named_window(declared, start, end)
    decided = {"repair": repair, "accept_conflicts": accept_conflicts}
    result = watched(f"reconciling {job}", lambda: reconciliation.reconcile(declared, here, period, **decided))
    if json_:
        output.as_json(result.as_dict())
    else:
        found = result.found
        output.pairs(
            {
                "job": job,
                "period": result.period.shown(declared.zone),
                "rows of the source": found.rows_source,
                "predicted or set aside": found.rows_accounted,
                "owed": found.rows_owed,
                "edited since": found.rows_edited,
                "in conflict": found.rows_conflicting,
                "predicted, but gone": found.rows_gone,
                "set aside, but gone": found.rejects_gone,
                "without a timestamp": found.rows_without_time,
                "repaired": result.rows_repaired,
            }
        )
        lines = [(window.shown(declared.zone), rows) for window, rows in sorted(found.windows.items())]
        if lines:
            output.table("Windows with rows that were owed", ("window", "rows"), lines)
        lines = [(window.shown(declared.zone), rows) for window, rows in sorted(found.conflicts.items())]
        if lines:
            output.table("Windows with rows whose key has a prediction of another timestamp", ("window", "rows"), lines)
        for what, examples in found.examples.items():
            typer.echo(f"{what}, for instance: {', '.join(str(key) for key in examples)}")
        if result.rows_repaired is None and (found.rows_owed or found.rows_edited):
            typer.echo(f"Next: plantao reconcile {job} --repair", err=True)
        if found.rows_conflicting and not accept_conflicts:
            advice = "ask the client whether the keys were given to other rows; to score these rows all the same:"
            typer.echo(f"Next: {advice}\nplantao reconcile {job} --accept-conflicts", err=True)
    if not result.in_order:
        raise typer.Exit(1)
