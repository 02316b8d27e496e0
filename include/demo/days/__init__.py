"""The four bad days of a model in production, acted out for real: what happens, what on-call reads, how it heals.

Each day has a home of its own under `.plantao/days`, with a PostgreSQL, a model store, and a stand-in for Slack that
checks messages as Slack does. The commands are those that a person would type, and their output is what came.
"""

from __future__ import annotations

import importlib

from plantao.errors import UsageError

DAYS = ("day0", "day1", "day2", "day60")


def act_out(day: str) -> None:
    """Act out a day, from an empty client to the recovery.

    Raises UsageError when there is no such day, and PlantaoError when something went otherwise than it should have.
    """
    if day not in DAYS:
        message = f"{day!r} is none of the days; there are {', '.join(DAYS)}."
        raise UsageError(message)
    from demo.days.stage import stage

    with stage(day) as found:
        importlib.import_module(f"demo.days.{day}").act(found)
