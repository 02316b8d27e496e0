"""What the watchdog does with its own news, and with all that waits when nobody empties the outbox: it sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plantao import log
from plantao.alert.send.delivery import deliver
from plantao.alert.send.everywhere import addressees
from plantao.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from plantao.alert.send.delivery import Outcome
    from plantao.alert.send.slack import Messenger


def drain(
    connection: Connection, files: Mapping[str, object], voice: Messenger, airflow_url: str | None, now: datetime
) -> Outcome:
    """Send what waits in a ledger, as the DAG plantao-alerts does, and return what became of it."""
    jobs = {name: job for name, job in files.items() if isinstance(job, Job)}
    outcome = deliver(connection, addressees(jobs), voice, now, airflow_url=airflow_url)
    fields = {
        "sent": len(outcome.sent),
        "waiting": outcome.waiting,
        "reasons": sorted(set(map(str, outcome.failed.values()))),
    }
    log.event("the watchdog empties the outbox", fields)
    return outcome
