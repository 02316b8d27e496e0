"""`plantao demo`: the demo, and the four bad days of a model in production."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from plantao.errors import UsageError


def demo(
    day: Annotated[
        str | None,
        typer.Argument(metavar="[day0|day1|day2|day60]", help="A bad day to act out; without one, the demo."),
    ] = None,
) -> None:
    """Act out a bad day for real, in a home of its own: what happens, what on-call reads, and how it heals.

    day0: it works on my machine. day1: it stopped in the night. day2: the fix that broke it again. day60: silent decay.
    Without a day it does what `make demo` does.
    """
    try:
        # It belongs to the project and not to the library, so it is there in a clone alone.
        module = importlib.import_module("demo.days" if day else "demo.__main__")
    except ModuleNotFoundError as error:
        if error.name not in {"demo", "demo.days", "demo.__main__"}:
            raise
        message = "the demo belongs to the project's source, and is not part of the package."
        raise UsageError(message, "clone the project, and run `make demo` there first") from error
    if day:
        module.act_out(day)
    else:
        module.run()
