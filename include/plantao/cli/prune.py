"""`plantao prune`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantao import runtime
from plantao.alert.send import ledgers
from plantao.cli import output
from plantao.config.job_file import read_job
from plantao.ledger import prune as pruning
from plantao.ledger.migrate import require_current
from plantao.postgres import session as database

if TYPE_CHECKING:
    from plantao.runtime import Place


def prune(
    keep: Annotated[str, typer.Option(metavar="TIME", help='What is younger stays as it is: "2 years", "18 months".')],
    job: Annotated[str | None, typer.Option(metavar="JOB", help="Only what belongs to this job.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is old, and change nothing.")] = False,
    json_: output.JsonOption = False,
) -> None:
    """Move old runs to the archive of the ledger, and delete the old log, parts and resolved rejects.

    Nothing that a promise needs is touched: coverage, measurements, incidents, alerts and versions stay.
    """
    here = runtime.from_environment()
    kept = pruning.kept(keep)
    only = None if job is None else read_job(here.settings.jobs, job).load.connection
    done = [
        _in_one(here, connection, kept, job, dry_run=dry_run)
        for connection, _ in ledgers(here)
        if only in {None, connection}
    ]
    if json_:
        output.as_json(done)
        return
    for one in done:
        what = "would be" if dry_run else "were"
        output.pairs(
            {
                "ledger": one["connection"],
                "older than": one["before"],
                f"runs that {what} moved to plantao.runs_archive": one["runs"],
                f"parts of these runs that {what} deleted": one["parts"],
                f"lines of the log that {what} deleted": one["log_events"],
                f"resolved rejects that {what} deleted": one["rejected_rows"],
            }
        )


def _in_one(here: Place, connection: str, keep: str, job: str | None, *, dry_run: bool) -> dict[str, Any]:
    address, schema = here.address(connection), here.settings.schema
    with database.session(address, schema, "plantao/prune") as session:
        where = str(address)
        require_current(session, schema, where)
        before = pruning.cutoff(session, keep)
        counts = pruning.count(session, before, job) if dry_run else pruning.prune(session, before, job, where)
    return {"connection": connection, "before": before, **asdict(counts)}
