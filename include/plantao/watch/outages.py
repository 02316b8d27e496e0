"""Databases that do not answer: what the watchdog says then, from memory, because it can write it down nowhere.

What was said is also kept in a small file, so that a watchdog that is started anew does not say it again; where the
file cannot be written, memory alone has to do.
"""

from __future__ import annotations

import contextlib
import html
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from plantao import log
from plantao.errors import PlantaoError, described
from plantao.watch import liveness
from plantao.watch.liveness import Outage, Trouble
from plantao.watch.overdue import late_windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from plantao.alert.slack import Messenger
    from plantao.config.job import Job
    from plantao.watch.overdue import JobFacts

MOST_TEXT = 2900
"""Slack takes 3,000 characters in a section."""


@dataclass
class Outages:
    """The databases that do not answer, by connection, and what was last known of the jobs that load into them."""

    voice: Messenger
    file: Path
    known: dict[str, dict[str, JobFacts]] = field(default_factory=dict)
    _open: dict[str, Outage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what an earlier process has said."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            saved = json.loads(self.file.read_text(encoding="utf-8"))
            self._open = {name: _outage(values) for name, values in saved.items()}

    def begin(self, name: str, jobs: Sequence[Job], trouble: Trouble, now: datetime) -> bool:
        """Say that a ledger cannot be used, or not watched as a whole, unless that was said lately.

        False when somebody should have been told and was not, or will be at the next look.
        """
        key = _key(name, in_part=bool(trouble.subjects))
        outage = self._open.setdefault(key, Outage(now))
        if not outage.is_due(trouble, now):
            return outage.told > 0
        known = self.known.get(name, {})
        late = {job: _late(facts, now) for job, facts in known.items()}
        names = sorted({*known, *(job.name for job in jobs)})
        message = liveness.of_outage(name, outage, trouble, _listed(names), late, now)
        sent, thread = self._say(_channel(jobs), message, outage.thread)
        if sent:
            self._open[key] = outage.was_told(trouble, now, thread)
        return sent

    def end(self, name: str, jobs: Sequence[Job], now: datetime, *, in_part: bool = False) -> str | None:
        """Say that a database answers again, to whom it was said that it does not; return what was said.

        With `in_part`: that all of its ledger can be watched again.
        """
        key = _key(name, in_part=in_part)
        outage = self._open.get(key)
        if outage is None:
            return None
        message = liveness.outage_over(name, outage, now)
        if outage.told and not self._say(_channel(jobs), message, outage.thread)[0]:
            return None  # it is said at the next look
        del self._open[key]
        return message if outage.told or not in_part else None

    def _say(self, channel: str | None, message: str, thread: str | None) -> tuple[bool, str | None]:
        return say(self.voice, channel, message, thread)

    def save(self) -> None:
        """Keep what was said. That the file was touched is also a sign of life, for who looks from outside."""
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            values = {name: asdict(outage) for name, outage in self._open.items()}
            self.file.write_text(json.dumps(values, default=str), encoding="utf-8")


def say(voice: Messenger, channel: str | None, message: str, thread: str | None = None) -> tuple[bool, str | None]:
    """Send a message at once, past the outbox; return whether it was acknowledged, and its ts."""
    words = log.masked(message)
    shown = words if len(words) <= MOST_TEXT else f"{words[:MOST_TEXT]} … and {len(words) - MOST_TEXT} characters more"
    escaped = html.escape(shown, quote=False)
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": escaped}}]
    try:
        ts = voice.post(channel, escaped, blocks, thread=thread)
    except PlantaoError as error:
        log.event("nobody could be told", {"message": words, "error": str(error)}, log.ERROR)
        return False, None
    return True, ts or None


def _late(facts: JobFacts, now: datetime) -> int:
    """Count the windows of a job that are late; none where that very question is what fails."""
    try:
        return len(late_windows(facts.job, facts.covered, facts.first_seen, now))
    except Exception as error:  # noqa: BLE001 - what is said of the others must be said
        log.event("late windows cannot be counted", {"job": facts.job.name, "error": described(error)}, log.WARNING)
        return 0


def _key(name: str, *, in_part: bool) -> str:
    return f"{name}, in part" if in_part else name


def _channel(jobs: Sequence[Job]) -> str | None:
    return next((job.alert.channel for job in jobs if job.alert.channel), None)


def _listed(names: Sequence[str]) -> list[str]:
    return [*names[:20], f"and {len(names) - 20} more"] if len(names) > 20 else list(names)


def _outage(values: Mapping[str, Any]) -> Outage:
    told_at = values["told_at"]
    return Outage(
        datetime.fromisoformat(values["since"]),
        int(values["told"]),
        datetime.fromisoformat(told_at) if told_at else None,
        values["thread"],
        tuple(values.get("subjects", ())),
    )
