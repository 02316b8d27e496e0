"""Incidents in the database: conditions that open, worsen and close, each change with its alert in one transaction."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao.errors import UsageError
from plantao.outbox.alerts import Alert, raise_alert
from plantao.outbox.incident import Close, Incident, Open, Worsen, changes
from plantao.outbox.incident import over as when_over
from plantao.postgres import session
from plantao.postgres.locks import take_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import date, datetime

    from sqlalchemy import Connection

    from plantao.outbox.incident import Change, Condition, Lane


EVENTS = {Open: "opened", Worsen: "worsened", Close: "closed"}
# A lane speaks with one voice, but for what is no trouble yet or none at all: it wakes nobody.
KINDS = {"improved": "improved", "watch": "slightly_worse"}


def settle(  # noqa: PLR0913 - what holds now, and what it is compared with
    connection: Connection,
    job: str,
    lane: Lane,
    conditions: Sequence[Condition],
    *,
    unjudged: Collection[str] = (),
    run_id: int | None = None,
    version: int | None = None,
    day: date | None = None,
    over: Callable[[Incident], str] | None = None,
) -> list[Change]:
    """Make the open incidents of a lane those conditions that hold now, inside the caller's transaction.

    What changes raises an alert; the same conditions again change nothing. One at a time per job, by a lock.
    `day` is the day of the data that was judged: what is closed ends on it, whenever that is noticed. Conditions of the
    clock have none. `over` says in words what there is to say of an incident that is closed.
    """
    take_lock(connection, f"plantao.incidents {job}")
    found = [_dated(change, day) for change in changes(_open(connection, job, lane), conditions, unjudged)]
    for change in found:
        if isinstance(change, Open):
            incident = _insert(connection, job, change.condition, version)
        elif isinstance(change, Worsen):
            incident = _update(connection, change)
        else:
            incident = _close(connection, change)
        record(connection, incident, EVENTS[type(change)])
        raise_alert(connection, replace(_alert(job, lane, change, run_id, over), incident_id=incident))
    _refresh(connection, job, conditions)
    return found


def _dated(change: Change, day: date | None) -> Change:
    """Return a change that knows on which day of the data an incident ends; never before it began."""
    if not isinstance(change, Close) or day is None:
        return change
    return Close(replace(change.incident, until=max(day, change.incident.since or day)))


def record(connection: Connection, incident: int, event: str, who: str = "plantao", note: str = "") -> None:
    """Write down what happened to an incident, inside the caller's transaction."""
    statement = text(
        "insert into incident_events (incident_id, event, who, note) values (:incident, :event, :who, :note)"
    )
    connection.execute(statement, {"incident": incident, "event": event, "who": who, "note": note})


def silence(connection: Connection, incident: int, until: datetime, who: str, why: str) -> None:
    """Tell nothing of an open incident until then; it is still counted. Raises UsageError when it is not open."""
    _decide(connection, incident, "silenced_until = :until", until=until)
    record(connection, incident, "silenced", who, f"until {until:%Y-%m-%d %H:%M %Z}: {why}")


def acknowledge(connection: Connection, incident: int, who: str, why: str = "") -> None:
    """Somebody has taken an open incident on: it reminds no more until it worsens. Raises UsageError when not open."""
    _decide(connection, incident, "acknowledged_at = clock_timestamp(), acknowledged_by = :who", who=who)
    record(connection, incident, "acknowledged", who, why)


def _decide(connection: Connection, incident: int, change: str, **values: Any) -> None:
    statement = text(f"update incidents set {change} where incident_id = :incident and state = 'open'")
    if connection.execute(statement, {"incident": incident, **values}).rowcount != 1:
        message = f"there is no open incident {incident}."
        raise UsageError(message, "see which are open: plantao alerts list")


def open_incidents(connection: Connection, job: str) -> list[dict[str, Any]]:
    """Return what is open for a job, the oldest first."""
    query = text("select * from incidents where job = :job and state = 'open' order by incident_id")
    with session.transaction(connection):
        return [dict(row) for row in connection.execute(query, {"job": job}).mappings()]


def _open(connection: Connection, job: str, lane: Lane) -> list[Incident]:
    query = text(
        "select incident_id, fingerprint, word, severity, message, since, opened_at, details from incidents"
        " where job = :job and lane = :lane and state = 'open' order by incident_id for update"
    )
    return [Incident(**row) for row in connection.execute(query, {"job": job, "lane": lane}).mappings()]


def _insert(connection: Connection, job: str, condition: Condition, version: int | None) -> int:
    statement = text(
        "insert into incidents (job, lane, fingerprint, model_version, word, severity, since, message, details)"
        " values (:job, :lane, :fingerprint, :version, :word, :severity, :since, :message, cast(:details as jsonb))"
        " returning incident_id"
    )
    found: int = connection.execute(statement, {**_values(condition), "job": job, "version": version}).scalar_one()
    return found


def _update(connection: Connection, change: Worsen) -> int:
    statement = text(
        "update incidents set word = :word, severity = :severity, message = :message,"
        " details = cast(:details as jsonb), worsened_at = clock_timestamp(), acknowledged_at = null,"
        " acknowledged_by = null"
        " where incident_id = :incident and state = 'open'"
    )
    connection.execute(statement, {**_values(change.condition), "incident": change.incident.incident_id})
    return change.incident.incident_id


def _close(connection: Connection, change: Close) -> int:
    statement = text(
        "update incidents set state = 'closed', closed_at = clock_timestamp(), until = :until"
        " where incident_id = :incident and state = 'open'"
    )
    connection.execute(statement, {"incident": change.incident.incident_id, "until": change.incident.until})
    return change.incident.incident_id


def _refresh(connection: Connection, job: str, conditions: Sequence[Condition]) -> None:
    """Let the words of an open incident follow its condition, without telling anybody."""
    statement = text(
        "update incidents set message = :message, details = cast(:details as jsonb)"
        " where job = :job and fingerprint = :fingerprint and state = 'open' and message <> :message"
    )
    for condition in conditions:
        connection.execute(statement, {**_values(condition), "job": job})


def _values(condition: Condition) -> dict[str, Any]:
    return {
        "lane": condition.lane,
        "fingerprint": condition.fingerprint,
        "word": condition.word,
        "severity": condition.severity,
        "since": condition.since,
        "message": condition.message,
        "details": json.dumps(dict(condition.details)),
    }


def _alert(job: str, lane: Lane, change: Change, run_id: int | None, over: Callable[[Incident], str] | None) -> Alert:
    if isinstance(change, Close):
        said = (over or when_over)(change.incident)
        message = f"{job}: {said}"
        return Alert(f"{lane}_recovered", f"{job} {change.incident.fingerprint}", message, "nothing", job, run_id)
    condition = change.condition
    again = "worse: " if isinstance(change, Worsen) else ""
    kind = KINDS.get(condition.word, lane) if lane == "degraded" else lane
    about = f"{job} {condition.fingerprint}"
    return Alert(
        kind, about, f"{job}: {again}{condition.message} (since {condition.since})", condition.next_step, job, run_id
    )
