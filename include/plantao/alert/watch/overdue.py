"""What should be there by now and is not: windows that are late, runs that take too long, jobs whose file is gone.

Pure. The job files say what is owed, the ledger says what is done, and `now` is the ledger's own time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from plantao.extract.window import Schedule, Window, holes, is_covered
from plantao.measure.lanes.conditions import Condition, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plantao.job import Job
    from plantao.measure.lanes.conditions import Incident

MOST_WINDOWS = 1000
"""Of a job that owes more windows than this, the first thousand are enough to speak of."""
LONGEST_ERROR = 400
HISTORY = 20
LEAST_HISTORY = 5
TIMES_TOO_LONG = 3.0
NEVER_TOO_LONG = timedelta(minutes=10)


@dataclass(frozen=True)
class Running:
    """An attempt that the ledger calls running."""

    run_id: int
    window: Window
    started_at: datetime
    worker: str


@dataclass(frozen=True)
class JobFacts:
    """A job file, and what the ledger says about it."""

    job: Job
    covered: Sequence[Window]
    """The time that is done, as `ledger.covered` returns it."""
    first_seen: datetime
    """When the watchdog or the ledger first met the job: nothing was due before."""
    last_success_at: datetime | None = None
    running: Sequence[Running] = ()
    seconds: Sequence[float] = ()
    """How long the last successes took, the newest first."""


@dataclass(frozen=True)
class Declared:
    """A job as the ledger remembers it, whose file may be gone."""

    name: str
    ends: datetime | None
    period: timedelta | None
    updated_at: datetime
    covered_until: datetime | None

    @property
    def is_over(self) -> bool:
        """Whether no window of it can be owed any more."""
        if self.ends is None or self.covered_until is None:
            return False
        return self.covered_until + (self.period or timedelta()) > self.ends


# --- late windows ----------------------------------------------------------------------------------------------------


def late_windows(job: Job, covered: Sequence[Window], first_seen: datetime, now: datetime) -> list[Window]:
    """Return the windows that ended `late_after` ago or longer and that no success covers, oldest first.

    A job that was met less than `late_after` ago owes nothing yet, however old its windows are. At most MOST_WINDOWS.
    """
    if job.cron is None or job.starts_at is None or now < first_seen + job.alert.late_after:
        return []
    until = now - job.alert.late_after
    if job.ends_at is not None:
        until = min(until, job.ends_at)
    return list(islice(_open_windows(Schedule(job.cron, job.zone), job.starts_at, until, covered), MOST_WINDOWS))


def _open_windows(schedule: Schedule, starts: datetime, until: datetime, covered: Sequence[Window]) -> Iterator[Window]:
    """Yield the windows that have a part which nobody has scored, without walking through what is done."""
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


def late(facts: JobFacts, windows: Sequence[Window], error: str | None, before: Incident | None) -> Condition:
    """Return the condition that the late windows of a job are.

    `error` is what the newest attempt at the first of them failed with; None when there was none. `before` is the open
    incident: the windows that were missed since it opened are kept, for its end.
    """
    job, first = facts.job, windows[0]
    many = f"at least {MOST_WINDOWS}" if len(windows) == MOST_WINDOWS else str(len(windows))
    what = "1 window is" if len(windows) == 1 else f"{many} windows are"
    why, next_step = _why(facts, first, error)
    success = f"the last success was at {_at(facts.last_success_at)}" if facts.last_success_at else "it never succeeded"
    message = (
        f"{what} not scored {span(job.alert.late_after)} after the end, the first is {first.shown(job.zone)};"
        f" {why}; {success}"
    )
    missed = merge_missed(before.details.get("windows", ()) if before else (), windows)
    since = first.end + job.alert.late_after
    details = {"late_since": since.isoformat(), "windows": [[w.start.isoformat(), w.end.isoformat()] for w in missed]}
    if before is not None and "late_since" in before.details:
        details["late_since"] = min(str(before.details["late_since"]), since.isoformat())
    severity = float(len(windows))
    mark = fingerprint("late", "windows")
    return Condition("late", mark, "late", severity, since.astimezone(job.zone).date(), message, next_step, details)


def merge_missed(before: Sequence[Sequence[str]], now: Sequence[Window]) -> list[Window]:
    """Return the windows that were missed until now, each once, oldest first, at most MOST_WINDOWS."""
    known = {Window.of(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in before}
    return sorted(known | set(now))[:MOST_WINDOWS]


def caught_up(incident: Incident, job: Job, covered: Sequence[Window], now: datetime) -> str:
    """Return what there is to say when no window of a job is late any more."""
    missed = merge_missed(incident.details.get("windows", ()), ())
    filled = sum(is_covered(window, covered) for window in missed)
    since = datetime.fromisoformat(str(incident.details.get("late_since", now.isoformat())))
    windows = "1 window was" if len(missed) == 1 else f"{len(missed)} windows were"
    rest = f", {len(missed) - filled} no longer owed" if filled < len(missed) else ""
    first = f", the first {missed[0].shown(job.zone)}" if missed else ""
    are = "is" if filled == 1 else "are"
    lasted = span(now - since)
    return f"no window is late any more; it lasted {lasted}. {windows} missed{first}; {filled} {are} filled now{rest}"


def _why(facts: JobFacts, first: Window, error: str | None) -> tuple[str, str]:
    """Return why the first late window is not there, as far as the ledger knows, and what to do."""
    name, zone = facts.job.name, facts.job.zone
    start, end = (edge.astimezone(zone).replace(tzinfo=None).isoformat() for edge in (first.start, first.end))
    by_hand = f"plantao run {name} --from {start} --to {end} scores it by hand"
    if any(run.window.overlap(first) for run in facts.running):
        return "a run is working on it", f"wait for it; plantao status {name} shows how long others took"
    if error is not None:
        said = error if len(error) <= LONGEST_ERROR else f"{error[:LONGEST_ERROR]} … (plantao status {name} shows all)"
        return f"its last try failed: {said}", f"mend what it says, then let it run again; {by_hand}"
    where = "see whether Airflow's scheduler runs and the DAG is neither paused nor broken"
    return "no run was ever started for it", f"{where}; {by_hand}"


# --- runs that take too long -----------------------------------------------------------------------------------------


def longest(job: Job, seconds: Sequence[float]) -> timedelta:
    """Return how long a run may take: three times what 95 % of its last successes took, and at least ten minutes.

    With fewer than five successes nobody knows, and it may take as long as a window may be late.
    """
    if len(seconds) < LEAST_HISTORY:
        return max(NEVER_TOO_LONG, job.alert.late_after)
    ordered = sorted(seconds[:HISTORY])
    usual = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return max(NEVER_TOO_LONG, timedelta(seconds=TIMES_TOO_LONG * usual))


def too_long(facts: JobFacts, now: datetime) -> Condition | None:
    """Return the condition that runs are which take too long against their own history; None when there is none."""
    limit = longest(facts.job, facts.seconds)
    slow = [run for run in facts.running if now - run.started_at > limit]
    if not slow:
        return None
    first = min(slow, key=lambda run: run.started_at)
    others = "" if len(slow) == 1 else f" and {len(slow) - 1} others"
    message = (
        f"run {first.run_id}{others} ({first.window.shown(facts.job.zone)}, on {first.worker}) has been running since"
        f" {_at(first.started_at)}; the limit from its own history is {span(limit)}"
    )
    details: dict[str, Any] = {"runs": [run.run_id for run in slow], "limit_seconds": limit.total_seconds()}
    next_step = "look at its task log and at what the client's database is doing; clear the task to start it again"
    since = first.started_at.astimezone(facts.job.zone).date()
    return Condition("watch", fingerprint("watch", "slow"), "slow", None, since, message, next_step, details)


# --- job files -------------------------------------------------------------------------------------------------------


def file_gone(declared: Declared, now: datetime) -> Condition | None:
    """Return the condition that a job is which ran before and has no file any more; None when it had come to its end.

    The caller knows that there is no file.
    """
    if declared.is_over:
        return None
    message = f"the job ran before and its file {declared.name}.toml is gone, so nothing of it is scheduled any more"
    next_step = (
        "put the file back; a job that shall end gets `ends` first, and loses its file when its last window is scored"
        f" (or, as the owner: delete from plantao.jobs where job = '{declared.name}')"
    )
    return Condition("watch", fingerprint("watch", "file"), "gone", None, now.date(), message, next_step)


def file_broken(name: str, complaints: Sequence[str], now: datetime) -> Condition:
    """Return the condition that a job file with mistakes is."""
    more = f" (and {len(complaints) - 3} more)" if len(complaints) > 3 else ""
    listed = "; ".join(complaints[:3])
    message = f"the job file has mistakes, so the job does not run: {listed}{more}"
    next_step = f"mend {name}.toml; plantao jobs list shows all mistakes"
    return Condition("watch", fingerprint("watch", "file"), "broken file", None, now.date(), message, next_step)


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


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}".strip()
