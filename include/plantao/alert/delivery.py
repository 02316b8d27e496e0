"""Send what waits, in order, and believe only what was acknowledged.

A sender claims a message in a transaction of its own, posts it with no transaction open, and then marks it sent. One
that dies in between leaves its claim: who takes it over cannot know whether Slack has the message, and says so in it.
Nothing is dropped after any number of tries.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao import log
from plantao.alert import slack
from plantao.alert.compose import compose
from plantao.alert.plan import Addressees, plan
from plantao.errors import AlertRefused, AlertUnavailable
from plantao.ledger import session
from plantao.outbox.incident import Condition, fingerprint
from plantao.outbox.incidents import settle
from plantao.postgres import locks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from plantao.alert.digest import Addressee, Message
    from plantao.alert.slack import Messenger

SYSTEM = "plantao-alerts"
"""What stands in the place of a job for a token that is refused; no job can have this name."""
LEASE = timedelta(minutes=3)
"""How long a sender that lives may keep a message to itself: longer than any call to Slack lasts."""
FIRST_WAIT, LONGEST_WAIT, LONGEST_REFUSED = 10.0, 300.0, 3600.0
ROUNDS = 3
"""A message that is sent may close an incident, of which the next round tells."""

QUEUE = text(
    "select digest_id, job, next_try_at, waits_for, claimed_by, claimed_until from digests where sent_at is null"
    " order by digest_id limit 1000"
)
CLAIM = text(
    "update digests set claimed_by = :me, claimed_until = :until, tries = tries + 1,"
    " possible_repeat = possible_repeat or in_doubt, in_doubt = true where digest_id = :digest and sent_at is null"
    " and claimed_by is not distinct from :before returning *"
)
SENT = text(
    "update digests set sent_at = :now, destination = :destination, channel = :channel, message_ts = :ts,"
    " claimed_by = null, claimed_until = null, in_doubt = false, waits_for = null, next_try_at = null,"
    " picture = :picture where digest_id = :digest and claimed_by = :me and sent_at is null"
)
TOLD = text("update alerts set sent_at = :now where (page_id = :digest or digest_id = :digest) and sent_at is null")
THREAD = text(
    "update incidents set thread_ts = :ts where thread_ts is null and incident_id in"
    " (select incident_id from alerts where page_id = :digest)"
)
FAILED = text(
    "update digests set claimed_by = null, claimed_until = null, next_try_at = :next, waits_for = :waits_for,"
    " last_error = :error, in_doubt = :in_doubt, logged_at = case when :logged then coalesce(logged_at, :now)"
    " else logged_at end where digest_id = :digest and claimed_by = :me and sent_at is null"
)
DEGRADED = text("select exists (select from alerts where page_id = :digest and kind = 'degraded')")
REFUSALS = text("select job, fingerprint from incidents where lane = 'delivery' and state = 'open'")
REFUSED = text("select exists (select from digests where job = :job and sent_at is null and waits_for = 'message')")
LOCK, UNLOCK = f"pg_try_advisory_lock({locks.LEDGER})", f"pg_advisory_unlock({locks.LEDGER})"


def _lock_of(digest: int) -> str:
    return f"plantao.digest {digest}"


@dataclass
class Outcome:
    """What became of the messages that waited."""

    sent: list[int] = field(default_factory=list)
    failed: dict[int, AlertUnavailable | AlertRefused] = field(default_factory=dict)
    """Why a message could not be sent, for those that were tried."""
    waiting: int = 0
    """Messages that still wait, tried or not."""


def deliver(  # noqa: PLR0913 - what is sent, to whom, and when
    connection: Connection,
    to: Addressees,
    messenger: Messenger,
    now: datetime | None = None,
    *,
    airflow_url: str | None = None,
    patience: float = 0,
) -> Outcome:
    """Send what waits in a ledger. What cannot be sent stays, and is tried again by a later call.

    When Slack asks to be left alone for a moment, this waits `patience` seconds in all before it leaves the rest.
    """
    outcome = Outcome()
    sender = _Sender(connection, to, messenger, airflow_url, outcome, patience)
    for _ in range(ROUNDS):
        moment = now or session.now(connection)
        plan(connection, to, moment)
        if not sender.send_all(moment):
            break
    with connection.begin():
        outcome.waiting = connection.execute(text("select count(*) from digests where sent_at is null")).scalar_one()
    return outcome


@dataclass
class _Sender:
    connection: Connection
    to: Addressees
    messenger: Messenger
    airflow_url: str | None
    outcome: Outcome
    patience: float
    me: str = field(default_factory=lambda: uuid.uuid4().hex)

    def send_all(self, now: datetime) -> bool:
        """Send in order until something stands in the way; tell whether an incident opened or closed."""
        blocked: set[str | None] = set()
        changed = False
        while (row := self._claim(now, blocked)) is not None:
            whom = self.to.of(row["job"])
            try:
                changed |= self._send(row, whom, now)
            except AlertUnavailable as error:
                self._unavailable(row, error, now)
                if error.retry_after is None or error.retry_after > self.patience:
                    break
                self._wait(row, error.retry_after)
                now += timedelta(seconds=error.retry_after)
            except AlertRefused as error:
                changed |= self._refused(row, whom, error, now)
                if error.of == "token":
                    break
                if error.of == "channel":
                    blocked.add(whom.channel)
            finally:
                self._unlock(row["digest_id"])
        return changed

    def _wait(self, row: Mapping[str, Any], seconds: float) -> None:
        self.patience -= seconds
        del self.outcome.failed[row["digest_id"]]
        time.sleep(seconds)

    # --- claiming -------------------------------------------------------------------------------------------------

    def _claim(self, now: datetime, blocked: set[str | None]) -> Mapping[str, Any] | None:
        """Return the next message that may be sent, claimed; None when there is none, or another sender is at it."""
        with self.connection.begin():
            for row in self.connection.execute(QUEUE).mappings().all():
                channel = self.to.of(row["job"]).channel
                if row["digest_id"] in self.outcome.failed or channel in blocked:
                    continue
                if row["next_try_at"] is not None and row["next_try_at"] > now:
                    if row["waits_for"] == "slack":
                        return None
                    if row["waits_for"] == "channel":
                        blocked.add(channel)
                    continue
                return self._take(dict(row), now)
        return None

    def _take(self, row: Mapping[str, Any], now: datetime) -> Mapping[str, Any] | None:
        """Claim a message, unless its sender lives and is not overdue; a lock that is free tells of one that died."""
        values = {"digest": row["digest_id"], "name": _lock_of(row["digest_id"])}
        locked = self.connection.execute(text(f"select {LOCK}"), values).scalar_one()
        if not locked and (row["claimed_by"] is None or row["claimed_until"] > now):
            return None
        claim = {**values, "me": self.me, "until": now + LEASE, "before": row["claimed_by"]}
        taken = self.connection.execute(CLAIM, claim).mappings().first()
        if taken is None and locked:
            self.connection.execute(text(f"select {UNLOCK}"), values)
        return None if taken is None else dict(taken)

    def _unlock(self, digest: int) -> None:
        if self.connection.closed or self.connection.invalidated:
            return
        if self.connection.in_transaction():
            self.connection.rollback()
        with self.connection.begin():
            self.connection.execute(text(f"select {UNLOCK}"), {"name": _lock_of(digest)})

    # --- sending --------------------------------------------------------------------------------------------------

    def _send(self, row: Mapping[str, Any], whom: Addressee, now: datetime) -> bool:
        with self.connection.begin():
            message = compose(self.connection, row, whom, self.airflow_url)
            degraded = self.connection.execute(DEGRADED, {"digest": row["digest_id"]}).scalar_one()
        ts, thread = self._post(row, whom, message)
        values = {
            "digest": row["digest_id"],
            "me": self.me,
            "now": now,
            "destination": self.messenger.name,
            "channel": self.messenger.called(whom.channel),
            "ts": ts or None,
            "picture": "waiting" if degraded and self.messenger.threads and row["job"] in self.to.known else None,
        }
        with self.connection.begin():
            # Where another sender has taken over, it marks its own; what is here was sent all the same.
            self.connection.execute(SENT, values)
            self.connection.execute(TOLD, values)
            if ts and row["kind"] == "page":
                self.connection.execute(THREAD, {**values, "ts": thread or ts})
            closed = self._accepted(whom)
        self.outcome.sent.append(row["digest_id"])
        fields = {
            "job": row["job"] or None,
            "message": row["digest_id"],
            "kind": row["kind"],
            "to": self.messenger.name,
        }
        log.event("alerts sent", {**fields, "notifications": row["notifications"]})
        return closed

    def _post(self, row: Mapping[str, Any], whom: Addressee, message: Message) -> tuple[str, str | None]:
        thread = row["thread_ts"] if self.messenger.threads else None
        try:
            return self.messenger.post(whom.channel, message.text, message.blocks, thread=thread), thread
        except AlertRefused as error:
            if thread is None or error.reason not in {
                "thread_not_found",
                "message_not_found",
                "cannot_reply_to_message",
            }:
                raise
            return self.messenger.post(whom.channel, message.text, message.blocks), None

    # --- what went wrong --------------------------------------------------------------------------------------------

    def _unavailable(self, row: Mapping[str, Any], error: AlertUnavailable, now: datetime) -> None:
        wait = error.retry_after
        if wait is None:
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(row["tries"] - 1, 10)) * random.uniform(0.8, 1)  # noqa: S311
        self._failed(row, error, now, wait=wait, waits_for="slack", in_doubt=error.in_doubt)

    def _refused(self, row: Mapping[str, Any], whom: Addressee, error: AlertRefused, now: datetime) -> bool:
        """Let the message wait, say in the log what it says, and open the incident that its refusal is."""
        wait = min(LONGEST_REFUSED, LONGEST_WAIT * 2 ** min(row["tries"] - 1, 10))
        waits_for = {"token": "slack"}.get(error.of, error.of)
        if row["logged_at"] is None:
            with self.connection.begin():
                message = compose(self.connection, row, whom, self.airflow_url)
            fields = {"job": row["job"] or None, "message": row["digest_id"], "error": error.what}
            log.event("Slack refuses a message; what it says follows", fields, log.ERROR)
            log.logger.error("%s", slack.plain(message.blocks))
        self._failed(row, error, now, wait=wait, waits_for=waits_for, in_doubt=False)
        job, mark = _of_refusal(row["job"], whom, error.of)
        about = f"{error.what} {'Its alerts wait' if error.of != 'token' else 'All alerts wait'}, and are in the log."
        condition = Condition("delivery", mark, "refused", None, now.date(), about, error.next_step)
        with self.connection.begin():
            others = {one for of, one in self._open_refusals() if of == job} - {mark}
            return bool(settle(self.connection, job, "delivery", [condition], unjudged=others))

    def _failed(  # noqa: PLR0913 - how it went, and what follows
        self, row: Mapping[str, Any], error: AlertUnavailable | AlertRefused, now: datetime, *, wait: float,
        waits_for: str, in_doubt: bool,
    ) -> None:  # fmt: skip
        values = {
            "digest": row["digest_id"],
            "me": self.me,
            "now": now,
            "next": now + timedelta(seconds=wait),
            "waits_for": waits_for,
            "error": error.what,
            "in_doubt": in_doubt,
            "logged": isinstance(error, AlertRefused),
        }
        with self.connection.begin():
            self.connection.execute(FAILED, values)
        self.outcome.failed[row["digest_id"]] = error
        fields = {"message": row["digest_id"], "tries": row["tries"], "again in": f"{wait:.0f} s", "error": error.what}
        log.event("alerts not sent", fields, log.WARNING)

    def _accepted(self, whom: Addressee) -> bool:
        """Close the incidents of refusals that a message which was taken proves to be over."""
        found = self._open_refusals()
        if not found:
            return False
        over = {_of_refusal(whom.job, whom, of) for of in ("token", "channel")}
        if not self.connection.execute(REFUSED, {"job": whom.job}).scalar_one():
            over.add(_of_refusal(whom.job, whom, "message"))
        for job in {job for job, _ in found & over}:
            still = {mark for of, mark in found - over if of == job}
            settle(self.connection, job, "delivery", [], unjudged=still)
        return bool(found & over)

    def _open_refusals(self) -> set[tuple[str, str]]:
        return {(row[0], row[1]) for row in self.connection.execute(REFUSALS)}


def _of_refusal(job: str, whom: Addressee, of: str) -> tuple[str, str]:
    """Return the job and the fingerprint of the incident that a refusal is."""
    if of == "token":
        return SYSTEM, fingerprint("delivery", "token")
    if of == "channel":
        return job or SYSTEM, fingerprint("delivery", "channel", whom.channel or "default")
    return job or SYSTEM, fingerprint("delivery", "message")
