"""`plantao watch`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from plantao import place
from plantao.alert import slack
from plantao.alert.watchdog import Watchdog
from plantao.cli import show


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
