"""What should be there by now and is not: windows that are late, runs that take too long, jobs whose file is gone.

Pure. The job files say what is owed, the ledger says what is done, and `now` is the ledger's own time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from plantao.outbox.incident import Condition, fingerprint
from plantao.window import Schedule, Window, holes, is_covered, owed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.config.job import Job
    from plantao.ledger.jobs import Declared
    from plantao.outbox.incident import Incident
from plantao.window import span

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
    first_starts: datetime | None = None
    """The earliest `starts` that the job file ever had, as far as the ledger knows."""
    last_success_at: datetime | None = None
    running: Sequence[Running] = ()
    seconds: Sequence[float] = ()
    """How long the last successes took, the newest first."""


# --- late windows ----------------------------------------------------------------------------------------------------


def late_windows(job: Job, covered: Sequence[Window], first_seen: datetime, now: datetime) -> list[Window]:
    """Return the windows that ended `late_after` ago or longer and that no success covers, oldest first.

    A job that was met less than `late_after` ago owes nothing yet, however old its windows are. At most MOST_WINDOWS.
    """
    if job.cron is None or job.starts_at is None or now < first_seen + job.alert.late_after:
        return []
    due = now - job.alert.late_after
    return list(islice(owed(Schedule(job.cron, job.zone), job.starts_at, job.ends_at, covered, due), MOST_WINDOWS))


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


def starts_moved(facts: JobFacts, now: datetime) -> Condition | None:
    """Return a condition if `starts` was moved behind successes and windows before it are missing; else None.

    These windows are due no more, which is no recovery.
    """
    job, before, starts = facts.job, facts.first_starts, facts.job.starts_at
    if job.cron is None or before is None or starts is None or before >= starts:
        return None
    schedule = Schedule(job.cron, job.zone)
    began, until = schedule.at_or_after(before), min(schedule.at_or_after(starts), now)
    given_up = holes(facts.covered, Window.of(began, until)) if began < until else []
    if not given_up or all(done.start >= starts for done in facts.covered):
        return None
    first, last = given_up[0].start.astimezone(job.zone), given_up[-1].end.astimezone(job.zone)
    moved_to = f"{starts.astimezone(job.zone):%Y-%m-%d %H:%M}"
    message = (
        f"`starts` was moved from {before.astimezone(job.zone):%Y-%m-%d %H:%M} to {moved_to}, behind successes of the"
        f" job: what is missing between {first:%Y-%m-%d %H:%M} and {last:%Y-%m-%d %H:%M} is due no more"
    )
    next_step = (
        f"put `starts` back in {job.name}.toml; or score what is missing, and this closes: plantao backfill {job.name}"
        f" --from-date {first:%Y-%m-%dT%H:%M} --to-date {last:%Y-%m-%dT%H:%M}; or acknowledge it: plantao alerts ack"
    )
    return Condition("watch", fingerprint("watch", "starts"), "starts moved", None, now.date(), message, next_step)


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


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}".strip()
