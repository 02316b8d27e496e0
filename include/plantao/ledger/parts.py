"""The ledger of the parts of a run that was fanned out: the only module that changes their state.

As in `ledger`, a state moves by compare-and-swap. Whoever works on a part shares the attempt's own lock, so that the
next attempt can tell that somebody does.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao.ledger import runs
from plantao.postgres import locks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

Edge = tuple[str, ...] | None


@dataclass(frozen=True)
class Taken:
    """The right to score a part: it lasts until the next one takes it."""

    number: int
    """How often somebody has begun; who holds an older number writes nothing."""
    beside: tuple[int, ...]
    """The challengers' attempts that score the same rows."""


def plan(connection: Connection, run_id: int, ranges: Sequence[tuple[Edge, Edge]], *, replaces: bool) -> None:
    """Write down into which ranges of keys an attempt was cut."""
    insert = text(
        "insert into parts (run_id, part, lower_key, upper_key, replaces)"
        " values (:run, :part, cast(:lower as jsonb), cast(:upper as jsonb), :replaces)"
    )
    lines = [
        {"run": run_id, "part": number, "lower": json.dumps(lower), "upper": json.dumps(upper), "replaces": replaces}
        for number, (lower, upper) in enumerate(ranges)
    ]
    with connection.begin():
        connection.execute(insert, lines)
        runs.swap(
            connection,
            "update runs set parts = :parts where run_id = :run and status = 'running' and parts is null",
            run=run_id,
            parts=len(lines),
        )


def take(connection: Connection, run_id: int, part: int) -> Taken | None:
    """Begin to score a part for the champion and all that stand beside it; None when it is staged already.

    Raises Superseded when the attempt is closed. A challenger's part begins anew even when it is staged: it consists of
    the rows that the champion reads with it. One that another session holds is passed over, and so keeps an older
    number; the champion waits for no challenger.
    """
    changes = "status = 'running', worker = :worker, changed_at = clock_timestamp()"
    mine = text(
        f"update parts set {changes}, taken = taken + 1"
        " where run_id = :run and part = :part and status <> 'staged' returning taken"
    )
    beside = text(
        f"update parts set {changes}, taken = :taken where part = :part and run_id in"
        " (select p.run_id from parts p join runs r using (run_id) where r.beside = :run and r.status = 'running'"
        " and p.part = :part for update of p skip locked) returning run_id"
    )
    values: dict[str, Any] = {"run": run_id, "part": part, "worker": f"{socket.gethostname()}:{os.getpid()}"}
    with connection.begin():
        _join(connection, run_id)
        values["taken"] = connection.execute(mine, values).scalar()
        if values["taken"] is None:
            return None
        return Taken(values["taken"], tuple(connection.execute(beside, values).scalars()))


def join(connection: Connection, run_id: int) -> None:
    """Let others see that somebody works on an attempt. Raises Superseded when it is closed."""
    with connection.begin():
        _join(connection, run_id)


def _join(connection: Connection, run_id: int) -> None:
    alive = text("select run_id from runs where run_id = :run and status = 'running' for share")
    if connection.execute(alive, {"run": run_id}).first() is None:
        raise runs.superseded(run_id)
    connection.execute(text(f"select pg_advisory_lock_shared({locks.LEDGER})"), {"name": runs.lock_of(run_id)})


def hold(connection: Connection, run_id: int, part: int, taken: int) -> None:
    """Lock a part inside its load's transaction. Raises Superseded when somebody else has taken it since."""
    query = text(
        "select part from parts join runs using (run_id) where run_id = :run and part = :part and taken = :taken"
        " and parts.status = 'running' and runs.status = 'running' for update of parts for share of runs"
    )
    if connection.execute(query, {"run": run_id, "part": part, "taken": taken}).first() is None:
        raise runs.superseded(run_id)


def stage(  # noqa: PLR0913 - what a staged part consists of
    connection: Connection,
    run_id: int,
    part: int,
    counts: runs.Counts,
    *,
    rejects: Sequence[Mapping[str, Any]],
    profile: Mapping[str, Any],
    states: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> None:
    """Close a part's books, inside its load's transaction."""
    runs.swap(
        connection,
        "update parts set status = 'staged', changed_at = clock_timestamp(), rows_read = :read, rows_scored = :scored,"
        " rows_rejected = :rejected, rows_already_scored = :already_scored, rows_late = :late,"
        " rejects = cast(:rejects as jsonb), profile = cast(:profile as jsonb),"
        " states = cast(:states as jsonb), seconds = cast(:seconds as jsonb)"
        " where run_id = :run and part = :part and status = 'running'",
        run=run_id,
        part=part,
        **asdict(counts),
        rejects=json.dumps(list(rejects), default=str),
        profile=json.dumps(dict(profile)),
        states=json.dumps(dict(states)),
        seconds=json.dumps(dict(seconds)),
    )


def reopen(connection: Connection, run_id: int, part: int) -> None:
    """Let a part whose rows are gone be scored again."""
    with connection.begin():
        runs.swap(
            connection,
            "update parts set status = 'waiting', changed_at = clock_timestamp()"
            " where run_id = :run and part = :part and status = 'staged'",
            run=run_id,
            part=part,
        )


def of_run(connection: Connection, run_id: int) -> list[dict[str, Any]]:
    """Return the parts of an attempt, in order."""
    query = text("select * from parts where run_id = :run order by part")
    with connection.begin():
        return [dict(row) for row in connection.execute(query, {"run": run_id}).mappings()]


def abandoned(connection: Connection, job: str) -> list[tuple[int, int]]:
    """Return the parts whose attempt was closed as failed within the last weeks, as (run_id, part)."""
    query = text(
        "select run_id, part from parts join runs using (run_id)"
        " where job = :job and runs.status = 'failed' and finished_at > now() - interval '30 days'"
    )
    return [(row.run_id, row.part) for row in connection.execute(query, {"job": job})]
