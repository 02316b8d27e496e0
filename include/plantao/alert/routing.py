"""Which alerts cannot wait, which only count, and which flap: the same thing is told once.

Pure. An alert goes out at once (`page`), or waits for the digest of its interval (`counted`); one that came and went
within the hour is `held` until it stays as it is. Every alert is counted in a digest, whatever its route.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from heapq import nlargest
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from plantao.alert.digest import FAILURES, QUIET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

Route: TypeAlias = Literal["page", "counted", "held"]
# A reminder is due when it is raised, and a test is for being seen.
ALWAYS: Final = frozenset({"reminder", "test"})
FLAPPING: Final = timedelta(hours=1)
SETTLED: Final = timedelta(minutes=15)
"""What flapped is told when it has stayed so long as it is."""
STILL_FLAPPING: Final = timedelta(days=1)
"""What never stops flapping is told again this often."""
MOST_CHANGES: Final = 3
"""So many messages about the same thing within the hour, good news among them, and it flaps."""


@dataclass(frozen=True)
class Raised:
    """An alert of the outbox, as far as its route depends on it."""

    alert_id: int
    at: datetime
    job: str
    kind: str
    subject: str
    incident_id: int | None = None
    silenced: bool = False
    held: bool = False

    @property
    def matter(self) -> tuple[str, str]:
        """What it is news of: a condition, or whether the runs of a job work."""
        return self.job, "" if self.kind in FAILURES or self.kind == "recovered" else self.subject

    @property
    def is_over(self) -> bool:
        """Whether it says that its matter is over."""
        return self.kind == "recovered" or self.kind.endswith("_recovered")


@dataclass
class Told:
    """What was told of a matter: no more than decides about the next alert, so that thousands cost thousands."""

    last_at: datetime | None = None
    """When it was told last."""
    newest: list[datetime] = field(default_factory=list)
    """The moments of the newest messages, as many as make it flap."""
    over_at: datetime | None = None
    """When it was last told that it is over."""
    since_it_was_over: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """What was told since the last time that it was over, and when last."""

    def add(self, page: Raised) -> None:
        """Take in the next message, in the order in which they were told."""
        self.last_at = page.at
        self.newest = nlargest(MOST_CHANGES, [*self.newest, page.at])
        if page.is_over:
            self.over_at = page.at if self.over_at is None else max(self.over_at, page.at)
            self.since_it_was_over.clear()
        else:
            what = (page.kind, page.subject)
            self.since_it_was_over[what] = max(page.at, self.since_it_was_over.get(what, page.at))

    def flaps(self, now: datetime) -> bool:
        """Tell whether it came and went too often in the last hour."""
        if self.over_at is None or len(self.newest) < MOST_CHANGES:
            return False
        return now - self.newest[-1] < FLAPPING and now - self.over_at < FLAPPING

    def says(self, alert: Raised, remind: timedelta) -> bool:
        """Tell whether what was told last says the same as this alert."""
        if alert.is_over:
            return not self.since_it_was_over
        if alert.incident_id is not None:
            return False  # an incident raises an alert only when it opens or worsens, and both are news
        told_at = self.since_it_was_over.get((alert.kind, alert.subject))
        return told_at is not None and alert.at - told_at < remind


def routes(
    waiting: Sequence[Raised], told: Iterable[Raised], reminds: Mapping[str, timedelta], now: datetime
) -> dict[int, Route]:
    """Return the route of each alert that waits, in order; `told` are the pages there were, `reminds` by job."""
    matters: dict[tuple[str, str], Told] = {}
    for one in told:
        matters.setdefault(one.matter, Told()).add(one)
    found: dict[int, Route] = {}
    held: dict[tuple[str, str], list[Raised]] = {}
    for alert in waiting:
        matter = matters.setdefault(alert.matter, Told())
        if alert.kind in ALWAYS:
            found[alert.alert_id] = "page"
        elif alert.kind in QUIET or alert.silenced or (alert.kind == "break" and alert.incident_id is None):
            found[alert.alert_id] = "counted"  # a break without an incident is one of a past window
        elif alert.held or held.get(alert.matter):
            held.setdefault(alert.matter, []).append(alert)
        elif matter.says(alert, reminds.get(alert.job, timedelta(days=1))):
            found[alert.alert_id] = "counted"
        elif matter.flaps(now):
            held.setdefault(alert.matter, []).append(alert)
        else:
            found[alert.alert_id] = "page"
            matter.add(alert)
    for key, some in held.items():
        found |= _of_held(some, matters[key], reminds, now)
    return found


def _of_held(some: Sequence[Raised], told: Told, reminds: Mapping[str, timedelta], now: datetime) -> dict[int, Route]:
    """Return the routes of what flaps: the newest word is told once it has settled, if it is news."""
    *earlier, newest = some
    found: dict[int, Route] = {one.alert_id: "counted" for one in earlier}
    silent = now - told.last_at if told.last_at is not None else STILL_FLAPPING
    if silent < FLAPPING or (now - newest.at < SETTLED and silent < STILL_FLAPPING):
        return {**found, newest.alert_id: "held"}
    known = told.says(newest, reminds.get(newest.job, timedelta(days=1)))
    return {**found, newest.alert_id: "counted" if known else "page"}
