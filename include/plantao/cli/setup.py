"""`plantao init` and `plantao check`."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - Typer reads it
from typing import Annotated, Any

import typer

from plantao import runtime
from plantao.cli import output
from plantao.config.job import Job
from plantao.config.job_file import read_folder
from plantao.errors import UsageError
from plantao.ledger.grants import grants
from plantao.ledger.migrate import upgrade
from plantao.postgres import session as database
from plantao.postgres.encoding import UTF8
from plantao.preflight import environment
from plantao.preflight.check import check as check_all
from plantao.preflight.database import NOT_UTF8, UTF8_CURE
from plantao.preflight.environment import differences
from plantao.runtime import DEFAULT_CONNECTION, RESULTS_CONNECTION


def init(
    print_grants: Annotated[
        bool, typer.Option("--print-grants", help="Only print the GRANTs for a scorer role and a reader role.")
    ] = False,
    json_: output.JsonOption = False,
) -> None:
    """Create or upgrade the ledger in every database that a job writes to. Safe to repeat."""
    here = runtime.from_environment()
    jobs = [job for job in read_folder(here.settings.jobs).values() if isinstance(job, Job)]
    ledgers = sorted({job.load.connection for job in jobs}) or [DEFAULT_CONNECTION]
    if print_grants:
        typer.echo("\n\n".join(grants(jobs, ledgers, here.settings.schema).values()))
        return
    done: list[dict[str, Any]] = []
    for connection in ledgers:
        if connection in {DEFAULT_CONNECTION, RESULTS_CONNECTION}:
            runtime.start_default(here.settings)
        address = here.address(connection)
        with database.session(address, here.settings.schema, "plantao/init") as session:
            encoding = database.server_of(session).encoding
            names = upgrade(session, here.settings.schema)
            done.append({"connection": connection, "applied": names, "encoding": encoding})
    if json_:
        output.as_json(done)
        return
    for line in done:
        applied = ", ".join(line["applied"]) or "nothing to do"
        typer.echo(f"ledger in {line['connection']}, schema {here.settings.schema}: {applied}")
        if line["encoding"] != UTF8:
            typer.echo(f"  its database is in {line['encoding']}: {NOT_UTF8}. Better: {UTF8_CURE}")


def check(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job.")] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OTHER_ENV_JSON", help="Ask nothing; show what differs from where `--json` wrote this."),
    ] = None,
    json_: output.JsonOption = False,
) -> None:
    """Answer "will it work here?": every line is OK, WARN or FAIL with the cure. Nothing is written."""
    here = runtime.from_environment()
    if compare is not None:
        if job is not None:
            message = "--compare is about the whole environment; leave JOB out."
            raise UsageError(message)
        _compare(environment.describe(here), _saved(compare), json_=json_)
        return
    page = check_all(here, job)
    if json_:
        output.as_json({"lines": [line.as_dict() for line in page.lines], "environment": environment.describe(here)})
    else:
        columns = ("state", "of", "what", "cure")
        lines = [line.as_dict() for line in page.lines]
        output.table("Check", columns, [[line[column] or "-" for column in columns] for line in lines])
    if page.exit_status:
        raise typer.Exit(page.exit_status)


def _saved(path: Path) -> dict[str, Any]:
    """Read the environment out of what `plantao check --json` has printed elsewhere."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["environment"]
        if isinstance(found, dict):
            return found
        reason = "its environment is no object"
    except OSError as error:
        reason = str(error.strerror)
    except (ValueError, TypeError, KeyError) as error:
        reason = f"it is not what `plantao check --json` prints ({type(error).__name__})"
    message = f"{path} cannot be used: {reason}."
    raise UsageError(message, "in the other environment: plantao check --json > other.json")


def _compare(here: dict[str, Any], there: dict[str, Any], *, json_: bool) -> None:
    found = differences(here, there)
    if json_:
        output.as_json([{**vars(difference), "expected": difference.expected} for difference in found])
    elif found:
        columns = ("what", "here", "there", "")
        rows = [(d.what, d.here, d.there, "expected" if d.expected else "DIFFERS") for d in found]
        output.table("Differences", columns, rows)
    else:
        typer.echo("no differences")
    if not all(difference.expected for difference in found):
        raise typer.Exit(1)
