"""From alerts to messages that wait: what goes out at once, and the digests whose interval is over.

Everything happens under one lock, so two senders that plan at once plan the same once. A message
that is still waiting, and of which nobody can have seen anything, takes in what comes after it: an outage of Slack ends
in few messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao.alert.digest import QUIET, Addressee, interval
from plantao.alert.routing import Raised, routes
from plantao.outbox.alerts import Alert, raise_alert
from plantao.outbox.incidents import record
from plantao.postgres.locks import in_turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

MOST_AT_ONCE = 10_000
"""Alerts routed in one transaction; the next ones follow in the next."""

ALERT = (
    "a.alert_id, a.raised_at as at, coalesce(a.job, '') as job, a.kind, substr(a.fingerprint, length(a.kind) + 2)"
    " as subject, a.incident_id"
)
WAITING = text(
    f"select {ALERT}, coalesce(i.silenced_until > :now, false) as silenced, a.route is not null as held, i.thread_ts"
    # However many are held, the next ones have their turn.
    " from (select alert_id from alerts where route = 'held' union all (select alert_id from alerts where route is null"
    " order by alert_id limit :most)) as waits join alerts as a using (alert_id)"
    " left join incidents as i using (incident_id) order by a.alert_id"
)
TOLD = text(
    f"select {ALERT} from alerts as a where a.route = 'page' and coalesce(a.job, '') = any(:jobs)"
    " and a.raised_at > cast(:now as timestamptz) - interval '60 days' order by a.alert_id"
)
ROUTE = text("update alerts set route = :route, page_id = :page where alert_id = any(:alerts)")
# Of a message that was perhaps seen nothing may change; one that Slack refuses for its form must not grow.
UNSEEN = "sent_at is null and claimed_by is null and not in_doubt and waits_for is distinct from 'message'"
GROW_PAGE = text(
    "update digests set notifications = notifications + :count where digest_id = (select max(digest_id) from digests"
    f" where kind = 'page' and job = :job and thread_ts is not distinct from :thread and {UNSEEN}) and {UNSEEN}"
    " returning digest_id"
)
NEW_PAGE = text(
    "insert into digests (job, kind, notifications, thread_ts, created_at) values (:job, 'page', :count, :thread, :now)"
    " returning digest_id"
)
UNCOUNTED = text(
    "select coalesce(job, '') as job, min(raised_at) as oldest from alerts where digest_id is null group by 1"
    " order by 1"
)
LAST = text("select max(interval_end) from digests where job = :job and kind = :kind")
GROW = text(
    "update digests set interval_end = :end, notifications = notifications + :count where digest_id = (select"
    f" max(digest_id) from digests where kind = :kind and job = :job and {UNSEEN}) and {UNSEEN} returning digest_id"
)
NEW = text(
    "insert into digests (job, kind, interval_start, interval_end, notifications, created_at)"
    " values (:job, :kind, :start, :end, :count, :now) returning digest_id"
)
COUNT = text("select count(*) from alerts where digest_id is null and coalesce(job, '') = :job and raised_at < :end")
COUNTED = text(
    "update alerts set digest_id = :digest where digest_id is null and coalesce(job, '') = :job and raised_at < :end"
)
HAS_RUN = text("select exists (select from runs where job = :job and started_at < :before)")
REMIND = text(
    "select i.incident_id, i.job, i.lane, i.fingerprint, i.message, a.next_step,"
    " greatest(i.opened_at, i.worsened_at, i.reminded_at) as last from incidents as i"
    " cross join lateral (select next_step, kind, run_id from alerts where incident_id = i.incident_id"
    " and kind <> 'reminder' order by alert_id desc limit 1) as a"
    " where i.state = 'open' and i.acknowledged_at is null and coalesce(i.silenced_until < :now, true)"
    " and a.kind <> all(:quiet)"
    " and exists (select from alerts where incident_id = i.incident_id and route = 'page' and sent_at is not null)"
    " order by i.incident_id for update of i"
)
REMINDED = text("update incidents set reminded_at = :now where incident_id = :incident")


@dataclass(frozen=True)
class Addressees:
    """Whom each job tells; a job without a readable file tells whom the connection to Slack names."""

    known: Mapping[str, Addressee]

    def of(self, job: str) -> Addressee:
        """Return whom a job tells."""
        return self.known.get(job) or Addressee(job)


def plan(connection: Connection, to: Addressees, now: datetime) -> None:
    """Make messages of all that waits, oldest first, in short transactions of its own."""
    with connection.begin():
        in_turn(connection, "plantao.alerts")
        _remind(connection, to, now)
    there_are_more = True
    while there_are_more:
        with connection.begin():
            in_turn(connection, "plantao.alerts")
            there_are_more = _route(connection, to, now)
    with connection.begin():
        in_turn(connection, "plantao.alerts")
        _digests(connection, to, now)
        _days(connection, to, now)


def _remind(connection: Connection, to: Addressees, now: datetime) -> None:
    for row in connection.execute(REMIND, {"now": now, "quiet": sorted(QUIET)}).mappings().all():
        if now - row["last"] < to.of(row["job"]).remind:
            continue
        connection.execute(REMINDED, {"now": now, "incident": row["incident_id"]})
        record(connection, row["incident_id"], "reminded")
        about, message = f"{row['job']} {row['fingerprint']}", f"{row['job']}: still open: {row['message']}"
        alert = Alert("reminder", about, message, row["next_step"], row["job"], incident_id=row["incident_id"])
        raise_alert(connection, alert)


def _route(connection: Connection, to: Addressees, now: datetime) -> bool:
    """Route the oldest alerts that have no route; tell whether there may be more of them."""
    rows = connection.execute(WAITING, {"now": now, "most": MOST_AT_ONCE}).mappings().all()
    if not rows:
        return False
    waiting = [Raised(**{name: value for name, value in row.items() if name != "thread_ts"}) for row in rows]
    jobs = sorted({one.job for one in waiting})
    told = [Raised(**row) for row in connection.execute(TOLD, {"jobs": jobs, "now": now}).mappings()]
    found = routes(waiting, told, {job: to.of(job).remind for job in jobs}, now)
    threads = {row["alert_id"]: row["thread_ts"] for row in rows}
    for route in ("counted", "held"):
        _set(connection, route, [alert for alert, one in found.items() if one == route])
    groups: dict[tuple[str, str | None], list[int]] = {}
    for one in waiting:
        if found[one.alert_id] == "page":
            groups.setdefault((one.job, threads[one.alert_id]), []).append(one.alert_id)
    for (job, thread), alerts in groups.items():
        values = {"job": job, "thread": thread, "count": len(alerts), "now": now}
        page = connection.execute(GROW_PAGE, values).scalar() or connection.execute(NEW_PAGE, values).scalar_one()
        _set(connection, "page", alerts, page)
    return sum(not one.held for one in waiting) >= MOST_AT_ONCE


def _set(connection: Connection, route: str, alerts: Sequence[int], page: int | None = None) -> None:
    if alerts:
        connection.execute(ROUTE, {"route": route, "page": page, "alerts": list(alerts)})


def _digests(connection: Connection, to: Addressees, now: datetime) -> None:
    """Make the digests of intervals that are over; those of a day come with the day itself."""
    for row in connection.execute(UNCOUNTED).mappings().all():
        whom = to.of(row["job"])
        if whom.every == "daily" and row["job"] in to.known:
            continue
        end = interval(now, whom.every, whom.zone)[0]
        start = interval(row["oldest"], whom.every, whom.zone)[0]
        _digest(connection, {"job": row["job"], "kind": "digest", "start": start, "end": end, "now": now})


def _days(connection: Connection, to: Addressees, now: datetime) -> None:
    """Make the daily digest of every job that runs, also when there is nothing to tell: silence is never good news."""
    for job, whom in to.known.items():
        end = interval(now, "daily", whom.zone)[0]
        values = {"job": job, "kind": "daily", "end": end, "now": now}
        last = connection.execute(LAST, values).scalar()
        if last is not None and last >= end:
            continue
        if not connection.execute(HAS_RUN, {"job": job, "before": end}).scalar_one():
            continue
        yesterday = interval(last or end - timedelta(seconds=1), "daily", whom.zone)[0]
        _digest(connection, {**values, "start": yesterday}, counts=whom.every == "daily")


def _digest(connection: Connection, values: dict[str, Any], *, counts: bool = True) -> None:
    """Count what is not yet counted into a digest; what was committed late is in the next one."""
    last = connection.execute(LAST, values).scalar()
    start = values["start"] if last is None else max(values["start"], last)
    if start >= values["end"]:
        return
    values = {**values, "start": start, "count": connection.execute(COUNT, values).scalar_one() if counts else 0}
    found = connection.execute(GROW, values).scalar() or connection.execute(NEW, values).scalar_one()
    if counts:
        connection.execute(COUNTED, {**values, "digest": found})
