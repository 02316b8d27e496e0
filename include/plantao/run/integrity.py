"""Incidents of the predictions themselves: they do not belong to the rows that the source has now.

A run opens them, and a comparison of the whole source closes them (`plantao reconcile`), because one window says
nothing of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plantao.measure.profile.lost import LOST
from plantao.outbox.incident import Condition, fingerprint
from plantao.outbox.incidents import open_incidents, settle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.request import Request
    from plantao.load.conflicts import Conflicts

CONFLICT = fingerprint("integrity", "conflict")


def tell_conflicts(connection: Connection, request: Request, run_id: int, conflicts: Conflicts) -> None:
    """Open the incident of a run with conflicts, inside the transaction that makes its rows visible."""
    if not conflicts.rows:
        return
    job = request.job
    examples = [
        f"{', '.join(str(part) for part in key.values())} ({row} at the source, {prediction} in the prediction table)"
        for key, row, prediction in conflicts.examples
    ]
    found = of_conflicts(job, conflicts.rows, request.window.start.astimezone(job.zone).date(), examples)
    held = {one["fingerprint"] for one in open_incidents(connection, job.name)} - {CONFLICT}
    settle(connection, job.name, "integrity", [found], unjudged=held, run_id=run_id)


def of_conflicts(job: Job, rows: int, since: date, examples: Sequence[str]) -> Condition:
    """Return the condition that rows have a key whose prediction was made for a row with another timestamp."""
    has = "1 row has a key" if rows == 1 else f"{rows} rows have keys"
    message = (
        f"{has} with a prediction of another {job.extract.timestamp}, and no prediction of their own: the client gave"
        f" keys to other rows (a restored source, a key that identifies no single row) or moved rows in time. Keys, for"
        f" instance: {'; '.join(examples)}"
    )
    step = (
        f"ask the client which it is; plantao reconcile {job.name} lists them, and plantao reconcile {job.name}"
        " --accept-conflicts scores them, the earlier predictions going to the history"
    )
    details: dict[str, Any] = {"rows": rows, "examples": list(examples)}
    return Condition("integrity", CONFLICT, "broken", float(rows), since, message, step, details)


def settle_compared(
    connection: Connection, job: Job, conditions: Sequence[Condition], day: date, *, is_complete: bool
) -> None:
    """Make the open incidents those that a comparison of the whole source has found, in a transaction of its own.

    Predictions that were lost are back when every row has one again (`is_complete`). `day` is the last one compared.
    """
    with connection.begin():
        settle(connection, job.name, "integrity", conditions, unjudged=() if is_complete else {LOST}, day=day)
