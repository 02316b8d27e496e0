"""The watchdog: it runs outside of Airflow, and speaks for whatever fell silent.

It asks job files and ledger which windows are owed, and Airflow how it is. What it finds are incidents in the ledger;
who empties the outbox tells them. When nobody empties it, the watchdog does; when the ledger itself cannot be reached,
it speaks from memory. That it is alive itself, it tells `plantao.heartbeats` and a page elsewhere.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from plantao import log
from plantao.alert.delivery import deliver
from plantao.alert.send import addressees
from plantao.config.job import Job
from plantao.config.job_file import read_folder
from plantao.errors import JobFileError, PlantaoError, TargetRefused, described
from plantao.ledger import heartbeats, runs
from plantao.ledger import jobs as declared
from plantao.ledger import session as ledger_session
from plantao.ledger.migrate import require_current
from plantao.outbox.incidents import settle
from plantao.postgres import driver_errors, session
from plantao.runtime import DEFAULT_CONNECTION
from plantao.watch import facts, liveness, overdue, probes
from plantao.watch.outages import Outages, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from plantao.alert.delivery import Outcome
    from plantao.alert.slack import Messenger
    from plantao.outbox.incident import Change, Condition, Incident, Lane
    from plantao.runtime import Place
    from plantao.watch.overdue import JobFacts


Files = dict[str, "Job | JobFileError"]

LOOK_SECONDS = 240
"""How long a look at one ledger may take."""
AGAIN_SECONDS = 5
"""A database that is only restarted answers again by then."""
START = "start the database, or correct its connection; missed windows are caught up by themselves."
ASK = "ask which right is missing; the watchdog's log has the rest:\nplantao check"
MOST_REASONS = 3


@dataclass
class Look:
    """What one look found."""

    changes: list[str] = field(default_factory=list)
    """What opened, worsened or ended, in words."""
    unreachable: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why a ledger cannot be used, or what of it cannot be watched, each with what to do."""
    told: bool = True
    """Whether everybody could be told that had to be."""

    @property
    def is_complete(self) -> bool:
        """Whether everything could be looked at, and told."""
        return self.told and not self.problems


@dataclass
class Watchdog:
    """Looks again and again. The clocks, the pause and the addresses can be others in a test."""

    place: Place
    voice: Messenger
    every: float = 60
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ledger_clock: Callable[[Connection], datetime] = ledger_session.now
    pause: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        """Refuse addresses that are none. Raises UsageError."""
        self.ping_url = probes.require_http("PLANTAO_PING_URL", self.environment.get("PLANTAO_PING_URL"))
        self.airflow_url = probes.require_http("PLANTAO_AIRFLOW_URL", self.place.settings.airflow_url)
        settings = self.place.settings
        self.outages = Outages(self.voice, settings.watch_file or settings.state / "watch.json")
        self._stumbled: datetime | None = None

    def run(self) -> None:
        """Look for ever. An error of its own is told, and does not end it."""
        log.event("the watchdog looks", {"every": self.every, "jobs": str(self.place.settings.jobs)})
        while True:
            began = time.monotonic()
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the watchdog must not die of what it watches; it says so
                self._stumble(error)
            self.pause(max(1.0, self.every - (time.monotonic() - began)))

    def look(self) -> Look:
        """Look once, and return what was found; the page elsewhere hears of the beginning and of the end."""
        probes.ping(self.ping_url, "/start")
        try:
            found = self._look()
        except BaseException:
            probes.ping(self.ping_url, "/fail")
            raise
        probes.ping(self.ping_url, "" if found.is_complete else "/fail")
        return found

    def _look(self) -> Look:
        files, look = read_folder(self.place.settings.jobs), Look()
        ledgers: dict[str, list[Job]] = {}
        for job in files.values():
            if isinstance(job, Job):
                ledgers.setdefault(job.load.connection, []).append(job)
        if not ledgers:
            ledgers[DEFAULT_CONNECTION] = []
        home = DEFAULT_CONNECTION if DEFAULT_CONNECTION in ledgers else min(ledgers)
        for connection, jobs in sorted(ledgers.items()):
            self._look_at(connection, jobs, files, look, is_home=connection == home)
        self.outages.save()
        return look

    def _look_at(self, name: str, jobs: Sequence[Job], files: Files, look: Look, *, is_home: bool) -> None:
        """Look at one ledger; what cannot be used or watched, also at the second try, is told from memory."""
        for again in (True, False):
            try:
                address, schema = self.place.address(name), self.place.settings.schema
                with (
                    session.session(address, schema, "plantao/watch") as connection,
                    session.deadline(connection, LOOK_SECONDS),
                ):
                    require_current(connection, schema, str(address))
                    round_ = _Round(self, connection, files, look)
                    round_.run(jobs, is_home=is_home)
                    self.outages.known[name] = round_.known
            except PlantaoError as error:
                if again:
                    self.pause(AGAIN_SECONDS)
                    continue
                log.event("the ledger cannot be watched", {"connection": name, "error": str(error)}, log.ERROR)
                look.unreachable.append(name)
                retried = error.next_step.startswith("nothing")
                self._tell(name, jobs, look, liveness.Trouble(error.what, START if retried else error.next_step))
                return
            break
        for said in (
            self.outages.end(name, jobs, self.clock()),
            None if round_.unwatched else self.outages.end(name, jobs, self.clock(), in_part=True),
        ):
            look.changes += [] if said is None else [said]
        if round_.unwatched:
            self._tell(name, jobs, look, _in_part(round_.unwatched))

    def _tell(self, name: str, jobs: Sequence[Job], look: Look, trouble: liveness.Trouble) -> None:
        of = f"{name} ({', '.join(trouble.subjects)})" if trouble.subjects else name
        look.problems.append(f"{of}: {trouble.reason} Next: {trouble.next_step}")
        look.told &= self.outages.begin(name, jobs, trouble, self.clock())

    def _stumble(self, error: Exception) -> None:
        """Say that a look failed for a reason of its own, at most every hour."""
        log.event("the watchdog stumbled", {"error": f"{type(error).__name__}: {error}"}, log.ERROR)
        now = self.clock()
        if self._stumbled is None or now - self._stumbled >= liveness.REMIND_FIRST:
            message = f"The watchdog stumbled over an unexpected {type(error).__name__}; it goes on. Its log says more."
            if say(self.voice, None, message)[0]:
                self._stumbled = now


class _Round:
    """One look at one ledger, over an open session."""

    def __init__(self, dog: Watchdog, connection: Connection, files: Files, look: Look) -> None:
        self.dog, self.connection, self.files, self.look = dog, connection, files, look
        self.now = dog.ledger_clock(connection)
        self.known: dict[str, JobFacts] = {}
        self.unwatched: dict[str, Exception] = {}
        """What could not be watched, by subject."""

    def run(self, jobs: Sequence[Job], *, is_home: bool) -> None:
        self._guarded("runs whose process is gone", self._close_all_dead)
        for job in jobs:
            self._guarded(job.name, partial(self._judge, job))
        self._guarded("job files", lambda: self._judge_files(is_home=is_home))
        self._guarded(liveness.SYSTEM, lambda: self._judge_system(is_home=is_home))
        self._guarded("the outbox", self._tell)
        self._guarded("the watchdog's sign of life", lambda: self._beat(len(jobs)))

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        """Let one subject that cannot be watched now, for whatever reason, not hide the others."""
        try:
            with driver_errors.explained("", TargetRefused, f"watching {name}"):
                call()
        except Exception as error:
            if self.connection.closed or self.connection.invalidated:
                raise
            self.connection.rollback()
            log.event("a subject could not be watched", {"subject": name, "error": described(error)}, log.WARNING)
            self.unwatched[name] = error

    def _beat(self, jobs: int) -> None:
        with self.connection.begin():
            details = {"every": self.dog.every, "jobs": jobs, "changes": len(self.look.changes)}
            heartbeats.beat(self.connection, "watchdog", details)

    def _close_all_dead(self) -> None:
        for name in facts.dead_candidates(self.connection):
            self._guarded(name, partial(self._close_dead, name))

    def _close_dead(self, name: str) -> None:
        with self.connection.begin():
            for run_id in runs.close_dead(self.connection, name):
                self.look.changes.append(f"{name}: run {run_id} had lost its process and is closed as failed")

    def _judge(self, job: Job) -> None:
        """Settle what is late, what takes too long, and what is due no more though it is missing."""
        with self.connection.begin():
            first_seen = heartbeats.seen(self.connection, f"file {job.name}")
        found = facts.of_job(self.connection, job, first_seen)
        self.known[job.name] = found
        windows = overdue.late_windows(job, found.covered, found.first_seen, self.now)
        late: list[Condition] = []
        if windows:
            before = facts.open_incident(self.connection, job.name, "late windows")
            error = facts.last_error(self.connection, job.name, windows[0])
            late = [overdue.late(found, windows, error, before)]
        others = (overdue.too_long(found, self.now), overdue.starts_moved(found, self.now))
        self._settle(job.name, "late", late, lambda i: overdue.caught_up(i, job, found.covered, self.now))
        self._settle(job.name, "watch", [condition for condition in others if condition is not None])

    def _judge_files(self, *, is_home: bool) -> None:
        """Settle job files that are gone or broken, and close what was open of jobs that nobody owes any more."""
        with self.connection.begin():
            known = declared.known(self.connection)
        gone = {name: overdue.file_gone(job, self.now) for name, job in known.items() if name not in self.files}
        broken = {
            name: overdue.file_broken(name, error.complaints, self.now)
            for name, error in self.files.items()
            if isinstance(error, JobFileError) and (name in known or is_home)
        }
        found: dict[str, Condition | None] = {**gone, **broken}
        readable = {name for name, job in self.files.items() if isinstance(job, Job)}
        for name in sorted({*found, *facts.watched(self.connection)} - readable - {liveness.SYSTEM}):
            condition = found.get(name)
            self._settle(name, "watch", [] if condition is None else [condition])
            if condition is None:  # else what is late stays late
                self._settle(name, "late", [])

    def _judge_system(self, *, is_home: bool) -> None:
        """Settle what concerns all jobs: Airflow, the outbox and the clock."""
        found = self._airflow() if is_home and self.dog.airflow_url else []
        box = facts.outbox(self.connection)
        stuck = liveness.outbox_stuck(box.waiting, box.oldest, box.sender_at, self.now)
        skew = liveness.skewed(self.dog.clock(), self.dog.ledger_clock(self.connection))
        found += [condition for condition in (stuck, skew) if condition is not None]
        self._settle(liveness.SYSTEM, "watch", found)

    def _tell(self) -> None:
        """Send what was found just now, and all that waits while nobody else sends: the sender may be what has died."""
        box = facts.outbox(self.connection)
        alone = liveness.is_silent(box.sender_at, self.now)
        if box.waiting and (alone or self.look.changes):
            url = self.dog.place.settings.airflow_page
            outcome = drain(self.connection, self.files, self.dog.voice, url, self.now)
            self.look.told &= not outcome.failed and not (alone and outcome.waiting)

    def _airflow(self) -> list[Condition]:
        url = self.dog.airflow_url or ""
        try:
            health: Mapping[str, Any] = probes.airflow_health(url)
        except PlantaoError as error:
            return [liveness.airflow_silent(url, error.what, self.now)]
        heard = liveness.heartbeat_of(health, "scheduler")
        if heard is not None:
            with self.connection.begin():
                heartbeats.beat(self.connection, "airflow scheduler", {"health": health}, heard)
        return liveness.airflow_conditions(health, self.now)

    def _settle(
        self, job: str, lane: Lane, conditions: Iterable[Condition], over: Callable[[Incident], str] | None = None
    ) -> None:
        words = over or (lambda incident: liveness.over(incident.opened_at, incident.message, self.now))
        with self.connection.begin():
            changes = settle(self.connection, job, lane, list(conditions), over=words)
        self.look.changes += [f"{job}: {_said(change, words)}" for change in changes]


def _in_part(unwatched: Mapping[str, Exception]) -> liveness.Trouble:
    """Return what there is to say of the subjects that could not be watched."""
    reasons = sorted(
        {error.what if isinstance(error, PlantaoError) else described(error) for error in unwatched.values()}
    )
    more = f" (and {len(reasons) - MOST_REASONS} more)" if len(reasons) > MOST_REASONS else ""
    may_pass = all(isinstance(error, PlantaoError) and not error.permanent for error in unwatched.values())
    return liveness.Trouble("\n".join(reasons[:MOST_REASONS]) + more, ASK, tuple(sorted(unwatched)), may_pass)


def _said(change: Change, over: Callable[[Incident], str]) -> str:
    from plantao.outbox.incident import Close

    return over(change.incident) if isinstance(change, Close) else change.condition.message


def drain(
    connection: Connection, files: Mapping[str, object], voice: Messenger, airflow_url: str | None, now: datetime
) -> Outcome:
    """Send what waits in a ledger, as the DAG plantao-alerts does, and return what became of it."""
    jobs = {name: job for name, job in files.items() if isinstance(job, Job)}
    outcome = deliver(connection, addressees(jobs), voice, now, airflow_url=airflow_url)
    fields = {
        "sent": len(outcome.sent),
        "waiting": outcome.waiting,
        "reasons": sorted(set(map(str, outcome.failed.values()))),
    }
    log.event("the watchdog empties the outbox", fields)
    return outcome
