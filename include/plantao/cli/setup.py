"""`plantao init` and `plantao check`."""

from __future__ import annotations

from typing import Annotated

import typer

from plantao import checks, database, place
from plantao.cli import show
from plantao.job import Job
from plantao.job_file import read_folder
from plantao.place import DEFAULT_CONNECTION, RESULTS_CONNECTION
from plantao.schema.grants import grants
from plantao.schema.migrate import upgrade


def init(
    print_grants: Annotated[
        bool, typer.Option("--print-grants", help="Only print the GRANTs for a scorer role and a reader role.")
    ] = False,
    json_: show.JsonOption = False,
) -> None:
    """Create or upgrade the ledger in every database that a job writes to. Safe to repeat."""
    here = place.from_environment()
    jobs = [job for job in read_folder(here.settings.jobs).values() if isinstance(job, Job)]
    if print_grants:
        typer.echo(grants(jobs, here.settings.schema))
        return
    done = []
    for connection in sorted({job.load.connection for job in jobs}) or [DEFAULT_CONNECTION]:
        if connection in {DEFAULT_CONNECTION, RESULTS_CONNECTION}:
            place.start_default(here.settings)
        address = here.address(connection)
        with database.session(address, here.settings.schema, "plantao/init") as session:
            done.append({"connection": connection, "applied": upgrade(session, here.settings.schema)})
    if json_:
        show.as_json(done)
        return
    for line in done:
        applied = ", ".join(line["applied"]) or "nothing to do"
        typer.echo(f"ledger in {line['connection']}, schema {here.settings.schema}: {applied}")


def check(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job.")] = None,
    json_: show.JsonOption = False,
) -> None:
    """Answer "will it work here?": job files, databases, ledger, models, and the contract with the live source."""
    lines = checks.check(place.from_environment(), job)
    if json_:
        show.as_json([vars(line) for line in lines])
    else:
        show.table("Check", ("state", "of", "what", "cure"), [(s.state, s.of, s.what, s.cure or "-") for s in lines])
    if any(line.state == "FAIL" for line in lines):
        raise typer.Exit(2 if any(line.exit_status == 2 for line in lines) else 1)
