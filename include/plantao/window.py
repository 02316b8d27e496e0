"""Which rows a run is for: windows of time, from a schedule, the ledger and now.

Pure. A window is the half-open interval `[start, end)` in UTC. The windows of a schedule are the intervals
between two ticks of its cron expression in the job's time zone, as Airflow's `CronDataIntervalTimetable` draws them
(a property test compares the two), so that the command line and Airflow mean the same window, also on the days when
the clock is changed. Only for a moment inside the very hour of the change do they differ: Airflow then takes a tick
that is still to come for the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from croniter import croniter

from plantao.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
MOST_LISTED = timedelta(days=400)


@dataclass(frozen=True, order=True)
class Window:
    """The half-open interval `[start, end)` of source rows that a run is for."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuse what could silently mean other rows than intended."""
        if self.start.tzinfo is None or self.end.tzinfo is None:
            message = f"a window needs instants with a time zone, not {self.start} and {self.end}"
            raise UsageError(message)
        if self.start >= self.end:
            message = f"a window must start before it ends, not {self.start} and {self.end}"
            raise UsageError(message)

    @classmethod
    def of(cls, start: datetime, end: datetime) -> Self:
        """Return the window with both ends in UTC, as plain datetimes; Airflow's have an arithmetic of their own."""
        return cls(_plain(start), _plain(end))

    def overlap(self, other: Window) -> Window | None:
        """Return what the two windows share, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Window(start, end) if start < end else None

    def shown(self, zone: tzinfo = UTC) -> str:
        """Return the window for people, in their time zone, whole days without the time of day."""
        start, end = self.start.astimezone(zone), self.end.astimezone(zone)
        midnights = start.time() == end.time() == datetime.min.time()
        form = "%Y-%m-%d" if midnights else "%Y-%m-%d %H:%M:%S%z"
        if midnights and end.date() - start.date() == timedelta(days=1):
            return start.strftime(form)
        return f"{start.strftime(form)} .. {end.strftime(form)}"


def _plain(moment: datetime) -> datetime:
    utc = moment.astimezone(UTC)
    return datetime.combine(datetime(utc.year, utc.month, utc.day), utc.time(), UTC)  # noqa: DTZ001 - given its zone here


@dataclass(frozen=True)
class Schedule:
    """A cron expression of five fields, meant in a time zone."""

    cron: str
    zone: tzinfo

    def after(self, moment: datetime) -> datetime:
        """Return the first tick after `moment`, in UTC."""
        wall, cron = self._wall_clock(moment)
        tick: datetime = cron.get_next(datetime)
        if _ticks_every_hour(cron):
            return moment.astimezone(UTC) + (tick - wall)
        found = _from_wall_clock(tick, self.zone)
        while (earlier := _from_wall_clock(cron.get_prev(datetime), self.zone)) > moment:
            found = earlier
        return found

    def before(self, moment: datetime) -> datetime:
        """Return the last tick before `moment`, in UTC."""
        wall, cron = self._wall_clock(moment)
        tick: datetime = cron.get_prev(datetime)
        if _ticks_every_hour(cron):
            return moment.astimezone(UTC) + (tick - wall)
        while (found := _from_wall_clock(tick, self.zone)) >= moment:
            tick = cron.get_prev(datetime)
        return found

    def at_or_after(self, moment: datetime) -> datetime:
        """Return `moment` when it is a tick, else the first one after it."""
        following = self.after(moment)
        return moment.astimezone(UTC) if self.before(following) == moment else following

    def at_or_before(self, moment: datetime) -> datetime:
        """Return `moment` when it is a tick, else the last one before it."""
        previous = self.before(moment)
        return moment.astimezone(UTC) if self.after(previous) == moment else previous

    def windows(self, start: datetime, until: datetime) -> Iterator[Window]:
        """Yield the windows that start at or after `start` and end at or before `until`, in order."""
        tick = self.at_or_after(start)
        while (following := self.after(tick)) <= until:
            yield Window(tick, following)
            tick = following

    def last_complete(self, now: datetime, ends: datetime | None = None) -> Window:
        """Return the newest window that has ended at `now`; none is due after `ends`."""
        end = self.at_or_before(now if ends is None else min(now, ends))
        return Window(self.before(end), end)

    def last_due(self, now: datetime, starts: datetime | None, ends: datetime | None) -> Window | None:
        """Return the newest window that has ended at `now`, of those from `starts` to `ends`; None if none has."""
        window = self.last_complete(now, ends)
        return window if starts is None or window.start >= starts else None

    def lines_up(self, window: Window) -> bool:
        """Tell whether both ends of a window are ticks."""
        return all(self.at_or_before(edge) == edge for edge in (window.start, window.end))

    def _wall_clock(self, moment: datetime) -> tuple[datetime, croniter]:
        wall = moment.astimezone(self.zone).replace(tzinfo=None)
        return wall, croniter(self.cron, wall)


def _ticks_every_hour(cron: croniter) -> bool:
    """Tell whether ticks are stepped by duration: the wall clock cannot tell the two 01:30 of a night in autumn."""
    return bool(cron.expanded[1] == ["*"])


def _from_wall_clock(wall: datetime, zone: tzinfo) -> datetime:
    """Return the instant of a wall-clock time: the second of two, and past the gap when there is none."""
    first, second = wall.replace(tzinfo=zone, fold=0), wall.replace(tzinfo=zone, fold=1)
    before, after = first.utcoffset(), second.utcoffset()
    if before is not None and after is not None and after > before:
        second = (wall + (after - before)).replace(tzinfo=zone, fold=1)
    return second.astimezone(UTC)


def merged(windows: Iterable[Window]) -> list[Window]:
    """Return the same time as sorted windows that neither overlap nor touch."""
    result: list[Window] = []
    for window in sorted(windows):
        if result and window.start <= result[-1].end:
            result[-1] = Window(result[-1].start, max(result[-1].end, window.end))
        else:
            result.append(window)
    return result


def is_covered(window: Window, covered: Sequence[Window]) -> bool:
    """Tell whether `window` lies wholly inside the time that is done; `covered` is `merged`."""
    return any(done.start <= window.start and window.end <= done.end for done in covered)


def owed(
    schedule: Schedule, starts: datetime, ends: datetime | None, covered: Sequence[Window], now: datetime
) -> Iterator[Window]:
    """Yield the windows that have ended and that no success covers, oldest first.

    Only the holes are walked through, so that the cost does not grow with what is done.
    """
    until = now if ends is None else min(now, ends)
    if starts >= until:
        return
    last = None
    for hole in holes(covered, Window.of(starts, until)):
        for window in schedule.windows(schedule.at_or_before(hole.start), until):
            if window.start >= hole.end:
                break
            if window.start >= starts and window != last:
                yield window
            last = window


def owed_on_demand(starts: datetime | None, covered: Sequence[Window], now: datetime) -> Window | None:
    """Return what a job without a schedule owes: everything after what is done, up to now."""
    start = max([starts or BEGINNING, *(done.end for done in covered)])
    return Window(start, now) if start < now else None


def late_ranges(
    window: Window, late_rows: timedelta, starts: datetime | None, covered: Sequence[Window]
) -> list[Window]:
    """Return where a run for `window` looks for rows that were committed late.

    Only time that the ledger calls done: a backfill that runs backwards, or several at once, must not swallow
    the rows of a neighbour that was not scored yet. Never before the job's start.
    """
    earliest = max(window.start - late_rows, starts or BEGINNING) if window.start - BEGINNING > late_rows else BEGINNING
    if earliest >= window.start:
        return []
    reach = Window(earliest, window.start)
    return [part for done in covered if (part := reach.overlap(done)) is not None]


def holes(windows: Sequence[Window], within: Window) -> list[Window]:
    """Return the parts of `within` that `windows` (merged) leave open."""
    edges = [within.start]
    for window in windows:
        if (part := within.overlap(window)) is not None:
            edges += [part.start, part.end]
    edges.append(within.end)
    return [Window(start, end) for start, end in list(pairwise(edges))[::2] if start < end]


def local_days(window: Window, zone: tzinfo) -> list[date]:
    """Return the local days that a window touches."""
    start, end = window.start.astimezone(zone), (window.end - timedelta(microseconds=1)).astimezone(zone)
    return [start.date() + timedelta(days=n) for n in range((end.date() - start.date()).days + 1)]


def listed_days(window: Window, zone: tzinfo) -> list[date] | None:
    """Return the local days that a window touches; None when they are too many to be looked at one by one."""
    return local_days(window, zone) if window.end - window.start <= MOST_LISTED else None


def of_days(first: date, last: date, zone: tzinfo) -> Window:
    """Return the local days from `first` to `last` as a window; a day has 23, 24 or 25 hours."""
    start, end = (datetime.combine(day, time(), zone) for day in (first, last + timedelta(days=1)))
    return Window.of(start, end)


# --- words -----------------------------------------------------------------------------------------------------------


def span(length: timedelta) -> str:
    """Return a length of time as a person says it: "3 d 4 h", "2 h 5 min", "40 s"."""
    seconds = max(0, round(length.total_seconds()))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for place, (unit, size) in enumerate(units):
        if seconds >= size or unit == "s":
            whole, rest = divmod(seconds, size)
            smaller = units[place + 1 : place + 2]
            more = f" {rest // smaller[0][1]} {smaller[0][0]}" if smaller and rest // smaller[0][1] else ""
            return f"{whole} {unit}{more}"
    return "0 s"
