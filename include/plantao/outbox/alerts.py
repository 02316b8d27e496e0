"""The outbox: alerts that wait to be sent.

An alert is written in the transaction of the fact it reports, so that neither is ever there without the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True)
class Alert:
    """One thing that somebody has to know: what happened, and what to do next."""

    kind: str
    about: str
    """The job, or the model version, that it is about."""
    message: str
    next_step: str
    job: str | None = None
    run_id: int | None = None
    incident_id: int | None = None

    @property
    def fingerprint(self) -> str:
        """What makes two alerts the same condition."""
        return f"{self.kind} {self.about}"


def raise_alert(connection: Connection, alert: Alert) -> None:
    """Write an alert down, inside the caller's transaction."""
    statement = text(
        "insert into alerts (job, kind, fingerprint, message, next_step, run_id, incident_id)"
        " values (:job, :kind, :fingerprint, :message, :next_step, :run_id, :incident_id)"
    )
    connection.execute(statement, {**vars(alert), "fingerprint": alert.fingerprint})
