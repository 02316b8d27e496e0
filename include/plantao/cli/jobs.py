"""`plantao jobs …`: the job files."""

from __future__ import annotations

import json

import typer

from plantao import runtime
from plantao.cli import output
from plantao.cli.scoring import JobArgument  # noqa: TC001 - Typer reads it
from plantao.config.job import Job
from plantao.config.job_file import json_schema, read_folder, read_job
from plantao.ledger import session
from plantao.load import ownership

app = typer.Typer(no_args_is_help=True, help="The job files.")


@app.command("list")
def list_jobs(json_: output.JsonOption = False) -> None:
    """List the jobs, and the mistakes of files that are none."""
    found = read_folder(runtime.from_environment().settings.jobs)
    if json_:
        output.as_json(
            [
                {"job": name, "mistakes": [], **job.model_dump(mode="json", by_alias=True)}
                if isinstance(job, Job)
                else {"job": name, "mistakes": list(job.complaints)}
                for name, job in found.items()
            ]
        )
    else:
        columns = ("job", "schedule", "timezone", "model", "table", "description")
        output.table(
            "Jobs",
            columns,
            [
                (name, job.schedule, job.timezone, job.score.model, job.load.table, job.description)
                if isinstance(job, Job)
                else (name, "BROKEN", "-", "-", "-", f"{len(job.complaints)} mistakes")
                for name, job in found.items()
            ],
        )
    broken = [job for job in found.values() if not isinstance(job, Job)]
    for error in broken:
        typer.echo(str(error), err=True)
    if broken:
        raise typer.Exit(2)


@app.command()
def adopt(job: JobArgument, json_: output.JsonOption = False) -> None:
    """Make a job the owner of its prediction table, which another job or another ledger has written until now."""
    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    with session.session(declared, here, "plantao/adopt") as connection:
        before = ownership.adopt(connection, job, declared.load.table.written)
    tables = [str(table) for table in declared.load.table.written]
    if json_:
        output.as_json({"job": job, "tables": tables, "owners_before": [str(owner) for owner in before]})
        return
    for owner in before:
        typer.echo(f"until now: {owner}")
    typer.echo(f"{', '.join(tables)}: job {job} of this ledger writes them from now on.")
    typer.echo(f"Next: plantao reconcile {job} compares the table with the source")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a job file, for editors."""
    typer.echo(json.dumps(json_schema(), indent=1))
