"""What the signs of life say: of Airflow, of the outbox, of the clock, and of a database that does not answer.

Pure. The watchdog asks; here it is decided what the answers mean, and when to speak again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from plantao.outbox.incident import Condition, fingerprint
from plantao.window import span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SYSTEM = "plantao-watchdog"
"""What stands in the place of a job for conditions that concern all of them; no job can have this name."""
OLDEST_HEARTBEAT = timedelta(seconds=90)
"""Airflow's own limit for its scheduler is 30 s; a busy machine is given three times that."""
MOST_SKEW = timedelta(seconds=60)
OUTBOX_PATIENCE = timedelta(minutes=5)
"""How long an alert or a message may wait: Airflow sends what waits every minute."""
SENDER_PAUSE = timedelta(seconds=90)
"""Without a sign of life for so long, whoever sends alerts is not waited for."""
SENDER_PATIENCE = timedelta(minutes=10)
"""How long whoever sends alerts may give no sign of life."""
REMIND_FIRST, REMIND_LAST = timedelta(hours=1), timedelta(hours=24)

PARTS = {
    "metadatabase": ("its database", "see whether Airflow's PostgreSQL runs and has room"),
    "scheduler": ("its scheduler", "start it again: docker compose restart scheduler; missed windows are caught up"),
    "dag_processor": ("its DAG processor", "start it again; until then changed job files and DAGs are not seen"),
    "triggerer": ("its triggerer", "start it again; until then deferred tasks and deadlines wait"),
}


# --- Airflow ---------------------------------------------------------------------------------------------------------


def airflow_conditions(health: Mapping[str, Any], now: datetime) -> list[Condition]:
    """Return what is wrong with Airflow, from the JSON of /api/v2/monitor/health, which answers 200 in any case.

    A part that says nothing of itself (status null) was never started and is not missed, but for the first two.
    """
    found = []
    for part, (name, next_step) in PARTS.items():
        said = health.get(part) if isinstance(health.get(part), dict) else {}
        assert isinstance(said, dict)
        status, heard = said.get("status"), heartbeat_of(health, part)
        if status is None and part in {"dag_processor", "triggerer"}:
            continue
        if status != "healthy":
            message = f"Airflow says that {name} is {status or 'not there'}{_last_heard(heard)}"
        elif heard is not None and now - heard > OLDEST_HEARTBEAT:
            message = f"Airflow calls {name} healthy, but its last sign of life is {span(now - heard)} old"
        else:
            continue
        found.append(_condition(f"airflow {part}", "unhealthy", message, next_step, now))
    return found


def airflow_silent(url: str, reason: str, now: datetime) -> Condition:
    """Return the condition that an Airflow is which does not answer."""
    message = f"Airflow does not answer at {url}: {reason}"
    return _condition("airflow api", "unhealthy", message, "see whether its api-server runs: docker compose ps", now)


def heartbeat_of(health: Mapping[str, Any], part: str) -> datetime | None:
    """Return when Airflow last heard of one of its parts; None when it does not say."""
    said = health.get(part)
    text = said.get(f"latest_{part}_heartbeat") if isinstance(said, dict) else None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _last_heard(heard: datetime | None) -> str:
    return "" if heard is None else f"; it was last heard of at {heard:%Y-%m-%d %H:%M:%S %Z}"


# --- the outbox and the clock ----------------------------------------------------------------------------------------


def outbox_stuck(waiting: int, oldest: datetime | None, sender_at: datetime | None, now: datetime) -> Condition | None:
    """Return the condition that an outbox is which nobody empties; None when it is in order.

    `waiting` and `oldest` are of alerts that no message holds yet, and of messages that are not acknowledged;
    `sender_at` is the last sign of life of whoever sends them, None when there never was one.
    """
    next_step = "see why the DAG plantao-alerts does not run, and whether its tasks reach Slack (plantao alerts test)"
    if oldest is not None and now - oldest > OUTBOX_PATIENCE:
        message = f"{waiting} wait to be sent, the oldest since {span(now - oldest)}; the watchdog sends them itself"
        return _condition("outbox", "stuck", message, next_step, now)
    if sender_at is not None and now - sender_at > SENDER_PATIENCE:
        message = f"whoever sends alerts was last alive {span(now - sender_at)} ago; the watchdog sends them itself"
        return _condition("outbox", "stuck", message, next_step, now)
    return None


def is_silent(sender_at: datetime | None, now: datetime) -> bool:
    """Tell whether nobody seems to send alerts: it should have happened a minute ago, and half a minute is given."""
    return sender_at is None or now - sender_at > SENDER_PAUSE


def skewed(own: datetime, ledger: datetime) -> Condition | None:
    """Return the condition that two clocks are which tell different times; None when they agree."""
    apart = own - ledger
    if abs(apart) <= MOST_SKEW:
        return None
    which = "ahead of" if apart > timedelta() else "behind"
    message = f"the watchdog's clock is {span(abs(apart))} {which} the database's"
    next_step = "let both machines keep time (NTP); windows go by the database"
    return _condition("clock", "skewed", message, next_step, ledger)


def over(opened_at: datetime | None, message: str, now: datetime) -> str:
    """Return what there is to say of a condition that has ended."""
    lasted = "" if opened_at is None else f" after {span(now - opened_at)}"
    return f"over{lasted}: {message}"


def _condition(name: str, word: str, message: str, next_step: str, now: datetime) -> Condition:
    return Condition("watch", fingerprint("watch", name), word, None, now.date(), message, next_step)


# --- a database that does not answer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """Why a ledger cannot be used, or why some subjects of it cannot be watched."""

    reason: str
    next_step: str
    subjects: tuple[str, ...] = ()
    """What cannot be watched; empty when the whole ledger cannot be used."""
    may_pass: bool = False
    """Whether it may be over at the next look, such as a lock that somebody holds."""


@dataclass(frozen=True)
class Outage:
    """A trouble that lasts: what the watchdog remembers of it, because it can write it nowhere."""

    since: datetime
    told: int = 0
    told_at: datetime | None = None
    thread: str | None = None
    """The message that began it, which the later ones answer."""
    subjects: tuple[str, ...] = ()
    """The subjects that were told of."""

    def is_due(self, trouble: Trouble, now: datetime) -> bool:
        """Tell whether somebody has to be told now: at once, after an hour, then after twice as long each time.

        What may pass is told at the second look. A further subject is told at once.
        """
        if self.told_at is None:
            return not trouble.may_pass or now > self.since
        pause = min(REMIND_FIRST * (1 << min(self.told - 1, 10)), REMIND_LAST)
        return now - self.told_at >= pause or not set(trouble.subjects) <= set(self.subjects)

    def was_told(self, trouble: Trouble, now: datetime, thread: str | None) -> Outage:
        """Return the outage once somebody has been told."""
        subjects = tuple(sorted({*self.subjects, *trouble.subjects}))
        return replace(self, told=self.told + 1, told_at=now, thread=self.thread or thread, subjects=subjects)


def of_outage(  # noqa: PLR0913, PLR0917 - what there is to say
    where: str, outage: Outage, trouble: Trouble, jobs: Sequence[str], late: Mapping[str, int], now: datetime
) -> str:
    """Return the message about a database that does not answer. `late`: windows that are late by now, by job."""
    again = "still " if outage.told else ""
    since = f"{outage.since:%Y-%m-%d %H:%M:%S %Z} ({span(now - outage.since)})"
    if trouble.subjects:
        subjects = ", ".join(trouble.subjects)
        lines = [
            f"In the ledger {where} the watchdog {again}cannot watch these since {since}: {subjects}.",
            trouble.reason,
            "What is wrong with them, and runs of them that fail, may be in no incident and in no alert.",
        ]
    else:
        affected = ", ".join(jobs) or "no job is known"
        lines = [
            f"The database {where} {again}cannot be used since {since}: {trouble.reason}",
            f"Affected: {affected}. Nothing of them is scored, and no alert can be written down.",
        ]
    lines += [f"{job}: {count} windows are late by now" for job, count in sorted(late.items()) if count]
    lines.append(f"Next: {trouble.next_step}")
    return "\n".join(lines)


def outage_over(where: str, outage: Outage, now: datetime) -> str:
    """Return the message about a database that answers again, or that can be watched as a whole again."""
    lasted, since = span(now - outage.since), f"{outage.since:%Y-%m-%d %H:%M:%S %Z}"
    if outage.subjects:
        return f"the watchdog can watch all of the ledger {where} again after {lasted}; it could not since {since}"
    return f"the database {where} answers again after {lasted}; it did not since {since}"
