"""What a message says, and how: notifications in, Slack's blocks out.

Pure. Slack takes at most 50 blocks and 3,000 characters in each; nothing is cut without being counted.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from plantao.alert.words import Language, escape, masked, period, redacted, say, title

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from plantao.config.job import Job

MOST_TYPES: Final = 12
MOST_LINES: Final = 3
"""Of a type, so many conditions are written out."""
MOST_TEXT: Final = 2_900
MOST_IN_ALL: Final = 12_000
"""Slack refuses more than about 13,000 characters in all blocks together."""
LONGEST: Final = 400
"""Characters of one condition that are written out."""
GOOD: Final = frozenset({"recovered", "healed", "improved", "test"})
FAILURES: Final = frozenset({"failed", "retrying", "blocked", "too_many_rejected", "model_refused", "source_changed"})
# Nobody has to get up for these. What is not listed goes out at once: a kind that nobody has thought of is no secret.
QUIET: Final = frozenset(
    {"drift", "drift_recovered", "improved", "slightly_worse", "retrying", "healed", "rejected_rows"}
)
INTERVALS: Final = {"minutely": timedelta(minutes=1), "hourly": timedelta(hours=1), "daily": timedelta(days=1)}

Block: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Addressee:
    """Whom a job tells, where, and how."""

    job: str = ""
    """Empty for what concerns no single job."""
    channel: str | None = None
    every: str = "hourly"
    language: Language = "en"
    redact: bool = True
    remind: timedelta = timedelta(days=1)
    owner: str = ""
    schedule: str = ""
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    names: frozenset[str] = frozenset()
    """Names from the job file, which may be quoted where values may not."""


def addressee(job: Job) -> Addressee:
    """Return whom a job tells."""
    tables = [table for table in (job.extract.table, job.load.table) if table is not None]
    parts = (job.extract.key, (job.extract.timestamp,), map(str, tables), *tables, job.validation.columns)
    names = {
        job.name,
        job.score.model,
        *job.measure.segments,
        *(name for part in parts for name in part),
    }
    return Addressee(
        job.name, job.alert.channel, job.alert.digest, job.alert.language, job.alert.redact, job.alert.remind,
        job.owner, job.schedule, job.zone, frozenset(names),
    )  # fmt: skip


@dataclass(frozen=True)
class Notification:
    """An alert, with what the ledger knows about it."""

    kind: str
    subject: str
    """What makes two alerts of a kind the same condition."""
    message: str
    next_step: str
    raised_at: datetime
    since: datetime | None = None
    """When its incident opened."""
    before: int = 0
    """How many times the same was raised before this message's interval."""
    link: str | None = None
    """The address of its run in Airflow."""
    retried: bool | None = None
    """Whether the run that failed is tried again by itself; None where there is nothing to try."""

    @property
    def is_good(self) -> bool:
        """Whether it says that something is well."""
        return self.kind in GOOD or self.kind.endswith("_recovered")


@dataclass(frozen=True)
class Day:
    """How a job's day went, for the digest that says that all is well, or what is not."""

    runs: int
    owed: str
    """The time that no success covers, in words; empty when all windows are complete."""
    open: tuple[str, ...] = ()
    told: int = 0
    """Notifications that the day's other digests have counted already."""


@dataclass(frozen=True)
class Message:
    """A message: the text of its notice, and its blocks."""

    text: str
    blocks: list[Block]


@dataclass(frozen=True)
class Frame:
    """What stands around the notifications of a message."""

    to: Addressee
    number: int
    repeats: bool = False


def digest(  # noqa: PLR0913 - the interval, and what was in it
    frame: Frame, start: datetime, end: datetime, notifications: Sequence[Notification], *, every: str = "",
    day: Day | None = None,
) -> Message:  # fmt: skip
    """Return the digest of a job's interval; `day` adds how the day went."""
    to = frame.to
    every = every or to.every
    hello = say("digest", to.language, period=period(every, to.language), job=_job(to))
    told = day.told if day else 0
    total = say("total", to.language, count=len(notifications) + told)
    first = f"{hello} {total}{', ' + _of_the_day(day, to.language) if day else ''}."
    where = [_span(start, end, to.zone), *_who(to)]
    note = say("told", to.language, period=period(to.every, to.language)) if told else ""
    return _message(frame, first, where, notifications, (told, note))


def page(frame: Frame, notifications: Sequence[Notification]) -> Message:
    """Return the message for notifications that cannot wait for the digest."""
    to = frame.to
    good = all(one.is_good for one in notifications)
    hello = say("good" if good else "page", to.language, job=_job(to))
    first = f"{hello} {say('total', to.language, count=len(notifications))}."
    return _message(frame, first, _who(to), notifications, (0, ""))


def _message(
    frame: Frame, first: str, where: list[str], notifications: Sequence[Notification], told: tuple[int, str]
) -> Message:
    """Return the parts of a message in their order; `told` are those that are counted, and a note on them."""
    to = frame.to
    types = _types(notifications)
    sections: list[Block] = []
    listed = 0
    for kind, some in types[:MOST_TYPES]:
        section = _section(_type(to, kind, some))
        if sum(len(block["text"]["text"]) for block in (*sections, section)) > MOST_IN_ALL:
            break
        sections.append(section)
        listed += len(some)
    last = say("another", to.language, count=len(notifications) - listed + told[0]) + told[1]
    footer = [say("message", to.language, number=frame.number)]
    if to.job:
        footer.append(say("list", to.language, job=to.job))
    warning = [_section(say("repeat", to.language, number=frame.number))] if frame.repeats else []
    blocks = [*warning, _section(first), *([_context(where)] if where else []), *sections, _section(f"{last}."),
              _context(footer)]  # fmt: skip
    return Message(re.sub(r"[*]", "", first), blocks)


def _types(notifications: Sequence[Notification]) -> list[tuple[str, list[Notification]]]:
    """Return the notifications by type: bad news, other news, good news; of each the most frequent."""
    by_kind: dict[str, list[Notification]] = {}
    for one in notifications:
        by_kind.setdefault(one.kind, []).append(one)
    return sorted(by_kind.items(), key=lambda item: (item[1][0].is_good, item[0] in QUIET, -len(item[1])))


def _type(to: Addressee, kind: str, some: Sequence[Notification]) -> str:
    """Return what is said of one type; as much of it as fits, with a count of the rest."""
    for most, longest in ((MOST_LINES, LONGEST), (1, LONGEST), (1, 100)):
        said = _type_within(to, kind, some, most, longest)
        if len(said) <= MOST_TEXT:
            break
    return said


def _type_within(to: Addressee, kind: str, some: Sequence[Notification], most: int, longest: int) -> str:
    language = to.language
    head = f"*{escape(title(kind, language))}*: {say('triggered', language, count=len(some))}"
    newest = some[-1]
    conditions = Counter(one.subject for one in some)
    shown: dict[str, Notification] = {one.subject: one for one in some}
    lines = [head, _facts(to, some)]
    for subject, times in conditions.most_common(most):
        text = _what(to, shown[subject].message, longest)
        lines.append(f"• {text}{' ' + say('times', language, count=times) if times > 1 else ''}")
    if len(conditions) > most:
        lines.append(f"• {say('more', language, count=len(conditions) - most)}")
    if newest.next_step and not newest.is_good:
        lines.append(say("next", language, step=_what(to, newest.next_step, longest)))
    if newest.link:
        lines.append(f"<{newest.link}|{say('run', language)}>")
    return "\n".join(line for line in lines if line)


def _facts(to: Addressee, some: Sequence[Notification]) -> str:
    """Return since when, whether for the first time, and whether something happens by itself."""
    language, newest = to.language, some[-1]
    since = min(one.since or one.raised_at for one in some)
    facts = [say("since", language, moment=_moment(since, to.zone))]
    if not newest.is_good:
        before = max(one.before for one in some)
        facts.append(say("repeated", language, count=before) if before else say("first", language))
        if newest.retried is not None:
            facts.append(say("by_itself" if newest.retried else "not_by_itself", language))
        elif newest.since is not None:
            facts.append(say("closes", language))
    return f"_{', '.join(facts)}_"


def _what(to: Addressee, text: str, longest: int) -> str:
    text = text.partition(" Next:")[0].removeprefix(f"{to.job}: ").removeprefix(f"{to.job}, ")
    text = masked(redacted(text, to.names) if to.redact else text)
    if len(text) > longest:
        text = f"{text[:longest]}{say('cut', to.language, count=len(text) - longest)}"
    return escape(text)


def _of_the_day(day: Day, language: Language) -> str:
    parts = [say("runs", language, count=day.runs)]
    parts.append(say("owed", language, owed=escape(day.owed)) if day.owed else say("complete", language))
    if day.open:
        listed = ", ".join(escape(name) for name in day.open[:MOST_LINES])
        more = f" (+{len(day.open) - MOST_LINES})" if len(day.open) > MOST_LINES else ""
        parts.append(say("open", language, count=len(day.open), listed=f"{listed}{more}"))
    return ", ".join(parts)


def _job(to: Addressee) -> str:
    return escape(to.job) or say("plantao", to.language)


def _who(to: Addressee) -> list[str]:
    schedule = [say("schedule", to.language, schedule=escape(to.schedule))] if to.schedule else []
    return [*schedule, *([mention(to.owner)] if to.owner else [])]


def mention(owner: str) -> str:
    """Return the owner as Slack calls somebody: a member's id (U…), a group's id (S…), else the name."""
    plain = owner.strip().lstrip("@")
    if re.fullmatch(r"[UW][A-Z0-9]{6,20}", plain):
        return f"<@{plain}>"
    if re.fullmatch(r"S[A-Z0-9]{6,20}", plain):
        return f"<!subteam^{plain}>"
    return f"@{escape(plain)}"


def _moment(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def _span(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    first, last = start.astimezone(zone), end.astimezone(zone)
    until = f"{last:%H:%M}" if last.date() == first.date() else f"{last:%Y-%m-%d %H:%M}"
    return f"{first:%Y-%m-%d %H:%M} .. {until} {zone.key}"


def _section(text: str) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _context(parts: Sequence[str]) -> Block:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(parts)}]}


def interval(moment: datetime, every: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the digest interval that a moment lies in; days are those of the job's own zone, of 23 hours or 25."""
    length = INTERVALS[every]
    if every != "daily":
        seconds = int(length.total_seconds())
        minute = moment.astimezone(zone).minute  # some zones are half an hour off
        first = moment.astimezone(ZoneInfo("UTC")).replace(second=0, microsecond=0)
        first -= timedelta(minutes=minute % (seconds // 60))
        return first, first + length
    local = moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    utc = ZoneInfo("UTC")
    return local.replace(tzinfo=zone).astimezone(utc), (local + length).replace(tzinfo=zone).astimezone(utc)
