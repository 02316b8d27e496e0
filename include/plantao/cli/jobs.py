"""`plantao jobs …`: the job files."""

from __future__ import annotations

import json

import typer

from plantao import place
from plantao.cli import show
from plantao.job import Job
from plantao.job_file import read_folder
from plantao.job_schema import json_schema

app = typer.Typer(no_args_is_help=True, help="The job files.")


@app.command("list")
def list_jobs(json_: show.JsonOption = False) -> None:
    """List the jobs, and the mistakes of files that are none."""
    found = read_folder(place.from_environment().settings.jobs)
    if json_:
        show.as_json(
            [
                {"job": name, "mistakes": [], **job.model_dump(mode="json", by_alias=True)}
                if isinstance(job, Job)
                else {"job": name, "mistakes": list(job.complaints)}
                for name, job in found.items()
            ]
        )
    else:
        columns = ("job", "schedule", "timezone", "model", "table", "description")
        show.table(
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
def schema() -> None:
    """Print the JSON Schema of a job file, for editors."""
    typer.echo(json.dumps(json_schema(), indent=1))
