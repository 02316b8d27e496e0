"""A client that changes its table while workers read it: what real ones do, again and again until it is told to stop.

Each act is one transaction, or two with a pause between them. In the end the table is what it was at first.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2

from plantao.ledger.grants import SCORER
from plantao.postgres.session import dsn

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from plantao.window import Window
    from world import World

TABLE = "restless"
SET_ASIDE = "create table if not exists set_aside (like restless);"
BACK = "insert into restless select * from set_aside; delete from set_aside"
WITHIN = "at >= %(start)s and at < %(end)s"
EDITED = "id %% 3 = 0"


@dataclass(frozen=True)
class Act:
    """What a client does, and how it takes that back; `hides` tells whether rows are away meanwhile."""

    does: str
    undoes: str = ""
    hides: bool = False


ACTS = {
    "reloads by TRUNCATE": Act(
        "create temp table kept on commit drop as table restless; truncate restless;"
        " insert into restless select * from kept"
    ),
    "reloads by DELETE": Act(
        "create temp table kept on commit drop as table restless; delete from restless;"
        " insert into restless select * from kept"
    ),
    "renames and swaps": Act(
        "create table fresh (like restless including all); insert into fresh select * from restless;"
        f" grant select on fresh to {SCORER}; alter table restless rename to stale;"
        " alter table fresh rename to restless; drop table stale"
    ),
    "rewrites a column": Act("alter table restless alter column y type double precision using y + 0"),
    "edits rows": Act(
        f"update restless set x = sin(id) + 0.25 where {WITHIN} and {EDITED}",
        f"update restless set x = sin(id) where {WITHIN} and {EDITED}",
    ),
    "deletes half": Act(
        f"{SET_ASIDE} insert into set_aside select * from restless where {WITHIN} and id %% 2 = 0;"
        f" delete from restless where {WITHIN} and id %% 2 = 0",
        BACK,
        hides=True,
    ),
    "restores an older state": Act(
        f"{SET_ASIDE} insert into set_aside select * from restless where at >= %(start)s + interval '30 minutes';"
        " create temp table kept on commit drop as select * from restless"
        " where at < %(start)s + interval '30 minutes';"
        " truncate restless; insert into restless select * from kept",
        BACK,
        hides=True,
    ),
    "hides rows by a policy": Act(
        "create policy half on restless using (id %% 2 = 0); alter table restless enable row level security",
        "drop policy half on restless; alter table restless disable row level security",
    ),
}


@contextlib.contextmanager
def at_work(world: World, name: str, window: Window, chance: random.Random, pause: float) -> Iterator[list[int]]:
    """Let a client act on the rows of a window until the context ends; what it yields grows with every act."""
    act, over, done, errors = ACTS[name], threading.Event(), list[int](), list[BaseException]()
    values = {"start": window.start, "end": window.end}

    def changes(connection: Any) -> None:
        over.wait(chance.uniform(0, pause))
        while True:
            for statements in filter(None, (act.does, act.undoes)):
                with connection, connection.cursor() as cursor:
                    cursor.execute(statements, values)
                over.wait(chance.uniform(0, pause / 4))
            done.append(1)
            if over.is_set():
                return

    def run() -> None:
        try:
            with contextlib.closing(psycopg2.connect(dsn(world.owner("client_db"), "the client"))) as connection:
                changes(connection)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()
    for error in errors:
        raise error
