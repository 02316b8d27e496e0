"""`plantao watch`."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from plantao import runtime
from plantao.alert import slack
from plantao.alert.send import ledgers
from plantao.cli import output
from plantao.errors import PlantaoError
from plantao.ledger import heartbeats
from plantao.postgres import session as database
from plantao.watch.watchdog import Watchdog
from plantao.window import span

if TYPE_CHECKING:
    from plantao.runtime import Place


def watch(
    once: Annotated[bool, typer.Option("--once", help="Look once and stop, for a timer of your own.")] = False,
    every: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="Look again after so many seconds.")] = 60,
    json_: output.JsonOption = False,
) -> None:
    """Watch over all jobs, outside of Airflow: speak for what is late, gone, stuck or silent.

    With --once the exit status is 1 when something could not be watched, or nobody could be told.
    """
    dog = Watchdog(runtime.from_environment(), slack.messenger(os.environ), every)
    if not once:
        dog.run()
    look = dog.look()
    if json_:
        fields = {"changes": look.changes, "unreachable": look.unreachable, "problems": look.problems}
        output.as_json({**fields, "told": look.told})
    else:
        for line in look.changes or ([] if look.problems else ["nothing has changed"]):
            typer.echo(line)
    for line in look.problems:
        typer.echo(line, err=True)
    if not look.is_complete:
        raise typer.Exit(1)


def show_signs(here: Place) -> None:
    """Print the last sign of life of every component, those of job files left out."""
    lines = []
    for connection, _ in ledgers(here):
        with (
            contextlib.suppress(PlantaoError),  # each job that loads there says what is wrong
            database.session(here.address(connection), here.settings.schema, "plantao/status") as session,
        ):
            lines += [
                (row["component"], row["at"], f"{span(timedelta(seconds=row['age']))} ago", row["host"])
                for row in heartbeats.signs(session)
                if not row["component"].startswith("file ")
            ]
    if lines:
        output.table("Signs of life", ("component", "last sign of life", "", "host"), lines)
