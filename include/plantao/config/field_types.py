"""The small types of a job file: how a duration, a moment, a table's name or a schedule is written. Pure."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from croniter import croniter
from croniter.croniter import CroniterError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from plantao.config.table_name import Table, parse_table, parse_target

SCHEDULES = {"daily": "0 0 * * *", "weekly": "0 0 * * 1", "monthly": "0 0 1 * *"}
# What croniter expands to a random number (R) or to a hash (H), each time anew.
_RANDOM = re.compile(r"(?i)(?<![a-z])[rh](?![a-z])")
_TICKS = 5
_SOME_DAY = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - wall-clock time
FIRST_YEAR, LAST_YEAR = 1900, 2999
UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}


def parse_duration(value: object) -> object:
    """Read `"3 days"`, `"90 minutes"` or `"1 week"`. Anything else is left for pydantic to refuse."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"\s*(\d+)\s*([a-z]+?)s?\s*", value) if isinstance(value, str) else None
    if match is None or match[2] not in UNITS:
        message = 'a duration such as "90 minutes", "6 hours", "3 days" or "1 week"'
        raise ValueError(message)
    return timedelta(seconds=int(match[1]) * UNITS[match[2]])


def accept_timezone(text: str) -> str:
    """Take the name of an IANA time zone."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = difflib.get_close_matches(text, available_timezones(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else " such as UTC or America/New_York"
        message = f"an IANA time zone{hint}"
        raise ValueError(message) from error
    return text


def accept_schedule(text: str) -> str:
    """Take a schedule's name, or a cron expression of five fields that fires and means one thing."""
    if text in SCHEDULES or text == "on demand":
        return text
    if len(text.split()) == 5:
        if _RANDOM.search(text):
            message = "a cron expression of five fields without R or H, whose ticks differ each time it is read"
            raise ValueError(message)
        if croniter.is_valid(text):
            return _firing(text)
    near = difflib.get_close_matches(text, (*SCHEDULES, "on demand"), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    message = f'"daily", "weekly", "monthly", "on demand" or a cron expression of five fields{hint}'
    raise ValueError(message)


def _firing(cron: str) -> str:
    """Take a cron expression that fires several times before and after some day, each time it is read."""
    try:
        first, second = _ticks(cron), _ticks(cron)
    except (CroniterError, OverflowError):
        message = "a schedule that fires; no day is one of this cron expression"
        raise ValueError(message) from None
    if first != second:
        message = "a cron expression of five fields whose ticks are the same each time it is read"
        raise ValueError(message)
    return cron


def _ticks(cron: str) -> list[datetime]:
    forth, back = croniter(cron, _SOME_DAY), croniter(cron, _SOME_DAY)
    return [tick for _ in range(_TICKS) for tick in (forth.get_next(datetime), back.get_prev(datetime))]


def _moment(value: object) -> object:
    """Keep TOML's dates and times as they are. A number would otherwise pass as seconds since 1970."""
    if not isinstance(value, (date, datetime)):
        message = "a date such as 2013-04-01 (without quotes) or a date with time"
        raise ValueError(message)  # noqa: TRY004 - pydantic turns only these into complaints
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        message = f"a date from {FIRST_YEAR} to {LAST_YEAR}"
        raise ValueError(message)
    return value


def unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """Take names of which no two are the same."""
    if len(set(values)) != len(values):
        message = "names that differ from one another"
        raise ValueError(message)
    return values


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": "string", "pattern": r"^\d+ (second|minute|hour|day|week)s?$", "examples": ["3 days"]}),
]
Moment = Annotated[
    datetime | date, BeforeValidator(_moment), WithJsonSchema({"type": "string", "examples": ["2013-04-01"]})
]
Text = Annotated[str, StringConstraints(min_length=1)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]
ColumnNames = Annotated[tuple[ColumnName, ...], Field(min_length=1), AfterValidator(unique)]
_AS_TEXT = (PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string", "examples": ["public.flights"]}))
TableName = Annotated[Table, PlainValidator(parse_table), *_AS_TEXT]
TargetName = Annotated[Table, PlainValidator(parse_target), *_AS_TEXT]
ConnectionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,200}$")]
Share = Annotated[float, Field(ge=0, le=1)]


def localise(moment: date | datetime, zone: tzinfo) -> datetime:
    """Return `moment` as an instant in UTC; a date is its midnight, and without an offset it is meant in `zone`."""
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)
