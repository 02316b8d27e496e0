"""Which incidents open, worsen or close: the conditions that hold now, against those that were open.

Pure. A condition is a state, not an event: it notifies when it opens, when it grows clearly worse and when it closes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import date, datetime


Lane = Literal["break", "degraded", "drift", "missing", "late", "watch", "delivery", "integrity"]
# A severity must grow by half before anybody is told again: less is the same trouble on another day.
GROWN = 1.5
# From news to trouble. A condition that has become graver in word is told again, whatever its severity.
GRAVITY = {"improved": 0, "drifting": 1, "watch": 2, "missing": 3, "degraded": 4, "broken": 5}


@dataclass(frozen=True)
class Condition:
    """Something that holds now; the fingerprint says what makes it the same condition tomorrow."""

    lane: Lane
    fingerprint: str
    word: str
    severity: float | None
    since: date
    message: str
    next_step: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Incident:
    """An open incident, with the word and the severity that were last told."""

    incident_id: int
    fingerprint: str
    word: str
    severity: float | None
    message: str = ""
    since: date | None = None
    opened_at: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    until: date | None = None
    """The day of the data that closes it; None where the condition is one of the clock."""


@dataclass(frozen=True)
class Open:
    """A condition that was not there before."""

    condition: Condition


@dataclass(frozen=True)
class Worsen:
    """An open incident that has become clearly worse; its word and severity become the condition's."""

    incident: Incident
    condition: Condition


@dataclass(frozen=True)
class Close:
    """An open incident whose condition no longer holds."""

    incident: Incident


Change: TypeAlias = Open | Worsen | Close


def fingerprint(lane: Lane, *parts: str) -> str:
    """Return what makes two conditions the same, such as 'degraded roc_auc v3' or 'break null_share dep_hour'."""
    return " ".join([lane, *(part for part in parts if part)])


def over(incident: Incident, version: int | None = None) -> str:
    """Return what there is to say of an incident that is closed; `version`: the one that scores now, if it matters."""
    since = "an unknown day" if incident.since is None else incident.since.isoformat()
    judged = incident.details.get("version")
    if version is not None and judged not in {None, version}:
        why = f"version {version} scores now, and version {judged} is judged no more"
    else:
        why = "over"
    days = f"since {since}" if incident.until is None else f"from {since} to {incident.until}"
    return f"{why}; it was open {days}: {incident.message}"


def changes(
    open_incidents: Iterable[Incident], conditions_now: Iterable[Condition], unjudged: Collection[str] = ()
) -> list[Change]:
    """Return what has changed: first what opened or worsened, in the order of the conditions, then what closed.

    An open incident that could not be judged this time (its fingerprint is in `unjudged`) stays open: no evidence is
    not evidence of recovery. When two conditions share a fingerprint the graver counts.
    """
    now: dict[str, Condition] = {}
    for condition in conditions_now:
        before = now.get(condition.fingerprint)
        if before is None or _rank(condition) > _rank(before):
            now[condition.fingerprint] = condition
    opened = {incident.fingerprint: incident for incident in open_incidents}
    found: list[Change] = []
    for mark, condition in now.items():
        incident = opened.get(mark)
        if incident is None:
            found.append(Open(condition))
        elif _is_worse(incident, condition):
            found.append(Worsen(incident, condition))
    closed = [incident for mark, incident in opened.items() if mark not in now and mark not in unjudged]
    return [*found, *map(Close, closed)]


def _rank(condition: Condition) -> tuple[int, float]:
    return GRAVITY.get(condition.word, 0), condition.severity or 0.0


def _is_worse(incident: Incident, condition: Condition) -> bool:
    before, after = GRAVITY.get(incident.word, 0), GRAVITY.get(condition.word, 0)
    if after != before:
        return after > before
    if incident.severity is None or condition.severity is None or incident.severity <= 0:
        return False
    return condition.severity >= GROWN * incident.severity
