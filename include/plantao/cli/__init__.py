"""The command line: `plantao`, also `python -m plantao`.

Exit status: 0 fine; 1 the thing checked is not fine or the run failed; 2 wrong usage or a broken job file.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from plantao import __version__, log
from plantao.cli import (
    alerts,
    db,
    demo,
    jobs,
    models,
    prune,
    reconcile,
    reference,
    report,
    scoring,
    setup,
    versions,
    watch,
)
from plantao.errors import PlantaoError

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Scheduled batch scoring of machine-learning models: every row once, and never silent.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"plantao {__version__}")
        raise typer.Exit


@app.callback()
def main(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on standard error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Set up what all commands share."""
    del version
    log.from_environment(quiet=quiet)


for name, function in (
    ("init", setup.init),
    ("check", setup.check),
    ("run", scoring.run),
    ("backfill", scoring.backfill),
    ("measure", scoring.measure),
    ("reconcile", reconcile.reconcile),
    ("report", report.report),
    ("status", scoring.status),
    ("watch", watch.watch),
    ("prune", prune.prune),
    ("demo", demo.demo),
):
    app.command(name)(function)
app.add_typer(jobs.app, name="jobs")
for decision in (
    *(versions.promote, versions.rollback, versions.challenge, versions.retire),
    *(versions.timeline, versions.diff),
):
    models.app.command()(decision)
app.add_typer(models.app, name="models")
app.add_typer(reference.app, name="reference")
app.add_typer(alerts.app, name="alerts")
app.add_typer(db.app, name="db")


@functools.cache
def _command() -> Callable[[], None]:
    return typer.main.get_command(app)


def entry() -> None:
    """Run the command line; an error of ours becomes its message and its exit status."""
    try:
        _command()()
    except PlantaoError as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        sys.exit(error.exit_status)
