"""`plantao watch`."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from plantao import database, place
from plantao.alert.send import slack
from plantao.alert.send.everywhere import ledgers
from plantao.alert.watch import signs
from plantao.alert.watch.overdue import span
from plantao.alert.watch.watchdog import Watchdog
from plantao.cli import show

if TYPE_CHECKING:
    from plantao.place import Place


def watch(
    once: Annotated[bool, typer.Option("--once", help="Look once and stop, for a timer of your own.")] = False,
    every: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="Look again after so many seconds.")] = 60,
    json_: show.JsonOption = False,
) -> None:
    """Watch over all jobs, outside of Airflow: speak for what is late, gone, stuck or silent.

    With --once the exit status is 1 when something could not be looked at, or nobody could be told.
    """
    dog = Watchdog(place.from_environment(), slack.messenger(os.environ), every)
    if not once:
        dog.run()
    look = dog.look()
    if json_:
        show.as_json({"changes": look.changes, "unreachable": look.unreachable, "told": look.told})
    else:
        for line in look.changes or ["nothing has changed"]:
            typer.echo(line)
    if not look.is_complete:
        raise typer.Exit(1)


def show_signs(here: Place) -> None:
    """Print the last sign of life of every component, those of job files left out."""
    lines = []
    for connection, _ in ledgers(here):
        with database.session(here.address(connection), here.settings.schema, "plantao/status") as session:
            lines += [
                (row["component"], row["at"], f"{span(timedelta(seconds=row['age']))} ago", row["host"])
                for row in signs.signs(session)
                if not row["component"].startswith("file ")
            ]
    if lines:
        show.table("Signs of life", ("component", "last sign of life", "", "host"), lines)
