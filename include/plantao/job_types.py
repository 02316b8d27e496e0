"""The small types of a job file: how a duration, a moment, a table's name or a schedule is written. Pure."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from croniter import croniter
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

SCHEDULES = {"daily": "0 0 * * *", "weekly": "0 0 * * 1", "monthly": "0 0 1 * *"}
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


def parse_table_name(text: str) -> tuple[str, str]:
    """Split `schema.table` into its two names; parts with other characters stand in double quotes.

    A name without a schema belongs to `public`. Raises ValueError for anything that is not one or two names.
    """
    parts = re.findall(r'"((?:[^"\0]|"")+)"|([^".\s\0]+)', text)
    names = [quoted.replace('""', '"') or plain for quoted, plain in parts]
    spelled = [r'"(?:[^"\0]|"")+"', r'[^".\s\0]+']
    if not re.fullmatch(rf"(?:{spelled[0]}|{spelled[1]})(?:\.(?:{spelled[0]}|{spelled[1]}))?", text):
        message = 'a table name such as "public.flights"'
        raise ValueError(message)
    if any(len(name.encode()) > 63 for name in names):
        message = "names of at most 63 bytes, PostgreSQL's limit"
        raise ValueError(message)
    return ("public", names[0]) if len(names) == 1 else (names[0], names[1])


def _accept_table(text: str) -> str:
    parse_table_name(text)
    return text


def _accept_target(text: str) -> str:
    # "_history" and "_shadow" are added to this name; PostgreSQL would cut a longer one without a word.
    if len(parse_table_name(text)[1].encode()) > 55:
        message = "a table name of at most 55 bytes, since <table>_history stands beside it"
        raise ValueError(message)
    return text


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
    """Take a schedule's name or a cron expression of five fields."""
    if text in SCHEDULES or text == "on demand" or (len(text.split()) == 5 and croniter.is_valid(text)):
        return text
    near = difflib.get_close_matches(text, (*SCHEDULES, "on demand"), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    message = f'"daily", "weekly", "monthly", "on demand" or a cron expression of five fields{hint}'
    raise ValueError(message)


def _moment(value: object) -> object:
    """Keep TOML's dates and times as they are. A number would otherwise pass as seconds since 1970."""
    if isinstance(value, (date, datetime)):
        return value
    message = "a date such as 2013-04-01 (without quotes) or a date with time"
    raise ValueError(message)


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
TableName = Annotated[str, AfterValidator(_accept_table)]
TargetName = Annotated[str, AfterValidator(_accept_target)]
ConnectionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,200}$")]
Share = Annotated[float, Field(ge=0, le=1)]


def localise(moment: date | datetime, zone: tzinfo) -> datetime:
    """Return `moment` as an instant in UTC; a date is its midnight, and without an offset it is meant in `zone`."""
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)
