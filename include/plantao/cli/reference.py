"""`plantao reference …`: what the days of a job are compared with."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from plantao import runtime
from plantao.cli import output
from plantao.cli.scoring import JobArgument, watched
from plantao.config.job_file import read_job
from plantao.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="What the days of a job are compared with.")


@app.command()
def rebase(
    job: JobArgument,
    since: Annotated[str, typer.Option("--from", help="The first day of the new baseline.")],
    why: Annotated[str, typer.Option("--why", help="The reason, for those who ask later. It is kept for ever.")],
    json_: output.JsonOption = False,
) -> None:
    """Compare from now on with production since a day; the old baseline is kept, and drift and alarms begin anew."""
    from plantao.measure.measure import freshen
    from plantao.measure.rebase import rebase as draw

    try:
        first = date.fromisoformat(since)
    except ValueError:
        message = f"{since!r} is not a date such as 2013-04-01."
        raise UsageError(message) from None
    if not why.strip():
        message = "--why is empty."
        raise UsageError(message, "say in a few words why what was normal is not any more")
    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    found = watched(f"drawing the baseline of {job}", lambda: draw(declared, here, first, why))
    watched(f"counting the days of {job} anew", lambda: freshen(declared, here))
    if json_:
        output.as_json({**vars(found), "notes": found.notes})
        return
    output.pairs(
        {
            "job": job,
            "baseline": found.reference_version,
            "of version": found.model_version,
            "days": f"{found.from_day} .. {found.until_day} ({found.days} with rows, {found.mature_days} mature)",
            "rows": found.rows,
        }
    )
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"Next: plantao measure {job}", err=True)
