"""Which windows a request means: of the schedule, the trigger form, the API, the command line or a backfill.

Pure. The facts of the ledger go in, windows come out. The table in docs/jobs.md says the same in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from plantao.config.field_types import localise
from plantao.errors import UsageError
from plantao.window import Schedule, Window, owed, owed_on_demand, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.config.job import Job

CLOCK_SKEW = timedelta(seconds=60)
"""A window that ends this little after the database's time is waited for: two clocks may differ."""
SCHEDULERS_SKEW = timedelta(minutes=10)
"""The same for a window of the schedule, which has ended by the scheduler's clock: nobody would ask for it again."""


@dataclass(frozen=True)
class Asked:
    """What a request says about its windows."""

    start: str | None = None
    """A date, or a date with time, as it was typed; in the job's time zone unless it names another."""
    end: str | None = None
    interval: Window | None = None
    """The data interval of an Airflow run, given by the scheduler, a backfill or a person."""
    missing: bool = False
    """Whether every window is meant that the ledger calls missing."""
    by_hand_at: datetime | None = None
    """The logical date of a run that a person triggered: Airflow fills its interval in when none was given."""


def requested_windows(job: Job, asked: Asked, covered: Sequence[Window], now: datetime) -> list[Window]:
    """Return the windows that a request means, oldest first. Raises UsageError when it means none.

    `covered` is the time that the ledger calls done, `now` the time of its database.
    """
    given = named_window(job, asked.start, asked.end)
    if given is not None and asked.missing:
        message = "from and to name one window, and `missing` asks for all that are missing: give one of the two."
        raise UsageError(message)
    if asked.missing:
        return missing_windows(job, covered, now)
    window = given or asked.interval
    if window is None or (given is None and _is_before_the_start(job, asked)):
        window = default_window(job, covered, now)
    refuse_future(job, window, now, scheduled=given is None and asked.by_hand_at is None)
    return [window]


def named_window(job: Job, start: str | None, end: str | None) -> Window | None:
    """Return the window between two dates as a person types them; None when neither was given."""
    start, end = start or None, end or None  # a form gives empty text
    if (start is None) != (end is None):
        message = "from and to belong together: give both or none."
        raise UsageError(message)
    return None if start is None or end is None else Window.of(instant_of(start, job), instant_of(end, job))


def instant_of(given: str, job: Job) -> datetime:
    """Return a date, or a date with time, as an instant; in the job's time zone unless it names another."""
    try:
        moment: date | datetime = date.fromisoformat(given) if len(given) == 10 else datetime.fromisoformat(given)
        return localise(moment, job.zone).astimezone(UTC)
    except (ValueError, OverflowError):
        message = f"{given!r} is not a date such as 2013-04-01, nor a date with time such as 2013-04-01T06:00."
        raise UsageError(message) from None


def default_window(job: Job, covered: Sequence[Window], now: datetime) -> Window:
    """Return the window of a request that names none: the last complete one that is due.

    A job without a schedule has one window: from the end of what is covered up to now.
    """
    if job.cron is None:
        window = owed_on_demand(job.starts_at, covered, now)
        ended = f"it starts at {job.starts_at}" if window is None else ""
    else:
        window = Schedule(job.cron, job.zone).last_due(now, job.starts_at, job.ends_at)
        ended = f"it starts on {_local(job.starts_at, job)}, and no window of it has ended yet"
    if window is None:
        message = f"no window of job {job.name} is due: {ended}. Nothing was written."
        raise UsageError(message, "wait, or name a window: give from and to")
    return window


def missing_windows(job: Job, covered: Sequence[Window], now: datetime) -> list[Window]:
    """Return the windows that are due and that no success covers, oldest first.

    A job without a schedule misses one window: from the end of what is covered up to now.
    """
    if job.cron is None or job.starts_at is None:
        window = owed_on_demand(job.starts_at, covered, now)
        return [] if window is None else [window]
    return list(owed(Schedule(job.cron, job.zone), job.starts_at, job.ends_at, covered, now))


def backfilled_windows(  # noqa: PLR0913 - a period and the facts of the ledger
    job: Job, first: str | None, last: str | None, *, missing: bool, covered: Sequence[Window], now: datetime
) -> list[Window]:
    """Return the windows that start from `first` to `last` and have ended, or all that are missing, oldest first."""
    if missing != (first is None and last is None) or (first is None) != (last is None):
        message = "a backfill needs the days of a period, or --missing for all windows that are missing."
        raise UsageError(message, f"plantao backfill {job.name} --missing --dry-run lists these")
    if first is None or last is None:
        return missing_windows(job, covered, now)
    if job.cron is None:
        message = f"job {job.name} has no schedule, so a period of it has no windows."
        raise UsageError(message, f"plantao run {job.name} --from {first} --to {last}")
    start, until = instant_of(first, job), instant_of(last, job)
    schedule = Schedule(job.cron, job.zone)
    return list(takewhile(lambda window: window.start <= until, schedule.windows(start, now)))


def refuse_future(job: Job, window: Window, now: datetime, *, scheduled: bool = False) -> None:
    """Raise UsageError for a window that has not ended: what is not there yet would count as scored."""
    if window.end <= now + (SCHEDULERS_SKEW if scheduled else CLOCK_SKEW):
        return
    local = f"{now.astimezone(job.zone):%Y-%m-%d %H:%M}"
    message = (
        f"the window {window.shown(job.zone)} of job {job.name} ends in {span(window.end - now)}: it is {local} in"
        f" {job.timezone} by the database's clock. Nothing was written."
    )
    raise UsageError(message, f"name a window that has ended, or score the last one that has:\nplantao run {job.name}")


def note_of(job: Job, window: Window) -> str | None:
    """Return what to know of a window whose ends are no ticks of the job's schedule; None when both are."""
    if job.cron is None or Schedule(job.cron, job.zone).lines_up(window):
        return None
    return (
        f"the window {_local(window.start, job)} .. {_local(window.end, job)} in {job.timezone} does not line up with"
        f" the job's windows, {job.schedule!r} in {job.timezone}; a data interval in Airflow's form is in UTC"
    )


def _is_before_the_start(job: Job, asked: Asked) -> bool:
    """Tell whether Airflow has filled in an interval from before the job's start, which nobody asked for."""
    if asked.interval is None or asked.by_hand_at is None or job.cron is None or job.starts_at is None:
        return False
    filled_in = Schedule(job.cron, job.zone).last_complete(asked.by_hand_at, job.ends_at)
    return asked.interval == filled_in and asked.interval.start < job.starts_at


def _local(moment: datetime | None, job: Job) -> str:
    return "" if moment is None else f"{moment.astimezone(job.zone):%Y-%m-%d %H:%M}"
