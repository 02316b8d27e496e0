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
from plantao.alert.watch import heartbeat
from plantao.alert.watch.heartbeat import Outage
from plantao.alert.watch.overdue import late_windows
from plantao.errors import PlantaoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from plantao.alert.send.slack import Messenger
    from plantao.alert.watch.overdue import JobFacts
    from plantao.job import Job

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

    def begin(self, name: str, jobs: Sequence[Job], reason: str, now: datetime) -> bool:
        """Say that a database cannot be used, unless that was said lately; False when nobody could be told."""
        outage = self._open.setdefault(name, Outage(now, reason))
        if not outage.is_due(now):
            return True
        known = self.known.get(name, {})
        late = {job: len(late_windows(f.job, f.covered, f.first_seen, now)) for job, f in known.items()}
        names = sorted({*known, *(job.name for job in jobs)})
        message = heartbeat.of_outage(name, outage, _listed(names), late, now)
        sent, thread = self._say(_channel(jobs), message, outage.thread)
        if sent:
            self._open[name] = outage.was_told(now, thread)
        return sent

    def end(self, name: str, jobs: Sequence[Job], now: datetime) -> str | None:
        """Say that a database answers again, to whom it was said that it does not; return what was said."""
        outage = self._open.get(name)
        if outage is None:
            return None
        message = heartbeat.outage_over(name, outage, now)
        if outage.told and not self._say(_channel(jobs), message, outage.thread)[0]:
            return None  # it is said at the next look
        del self._open[name]
        return message

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


def _channel(jobs: Sequence[Job]) -> str | None:
    return next((job.alert.channel for job in jobs if job.alert.channel), None)


def _listed(names: Sequence[str]) -> list[str]:
    return [*names[:20], f"and {len(names) - 20} more"] if len(names) > 20 else list(names)


def _outage(values: Mapping[str, Any]) -> Outage:
    told_at = values["told_at"]
    return Outage(
        datetime.fromisoformat(values["since"]),
        str(values["reason"]),
        int(values["told"]),
        datetime.fromisoformat(told_at) if told_at else None,
        values["thread"],
    )
