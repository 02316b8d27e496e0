"""Read what a message is about, and put it into words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import text

from plantao import log
from plantao.alert.digest import FAILURES, Addressee, Day, Frame, Message, Notification, digest, page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

NOTIFICATIONS = text(
    "select a.kind, a.fingerprint, substr(a.fingerprint, length(a.kind) + 2) as subject, a.message, a.next_step,"
    " a.raised_at, i.opened_at as since, r.airflow_run from alerts as a left join incidents as i using (incident_id)"
    " left join runs as r on r.run_id = a.run_id where a.page_id = :digest or a.digest_id = :digest order by a.alert_id"
)
BEFORE = text(
    "select fingerprint, count(*) from alerts where fingerprint = any(:marks) and alert_id < (select min(alert_id)"
    " from alerts where page_id = :digest or digest_id = :digest) group by 1"
)
RUNS = text(
    "select count(*) from runs where job = :job and role = 'champion' and finished_at >= :start and finished_at < :end"
    " and status in ('succeeded', 'empty')"
)
OWED = text(
    "select lower(part), upper(part) from (select unnest(owed) as part from status where job = :job) as p order by 1"
)
OPEN = text("select fingerprint from incidents where job = :job and state = 'open' order by incident_id")
TOLD = text(
    "select count(*) from alerts where job = :job and raised_at >= :start and raised_at < :end"
    " and digest_id is distinct from :digest"
)
MOST_OWED = 3


# What can be wrong with figures or words; a database that does not answer is another matter.
MISTAKES = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError)


def compose(connection: Connection, row: Mapping[str, Any], to: Addressee, airflow_url: str | None) -> Message:
    """Return the message of a row of `plantao.digests`."""
    frame = Frame(to, row["digest_id"], repeats=row["possible_repeat"])
    if row["waits_for"] == "message":  # Slack has refused its form, so it comes without any
        return _bare(frame, row["notifications"])
    try:
        return _composed(connection, row, frame, airflow_url)
    except MISTAKES as error:
        log.event(
            "a message could not be put into words", {"message": row["digest_id"], "error": repr(error)}, log.ERROR
        )
        return _bare(frame, row["notifications"])


def _bare(frame: Frame, count: int) -> Message:
    number, job = frame.number, frame.to.job
    said = f"Plantão: message {number} with {count} notifications cannot be shown here: plantao alerts list {job}"
    return Message(said, [])


def _composed(connection: Connection, row: Mapping[str, Any], frame: Frame, airflow_url: str | None) -> Message:
    to = frame.to
    some = _notifications(connection, row["digest_id"], airflow_url)
    if row["kind"] == "page":
        return page(frame, some)
    start, end = row["interval_start"], row["interval_end"]
    if row["kind"] == "digest":
        return digest(frame, start, end, some)
    return digest(frame, start, end, some, every="daily", day=_day(connection, row, to))


def preview(connection: Connection, to: Addressee, start: Any, end: Any, airflow_url: str | None) -> Message:
    """Return the digest of an interval as it would be now, whatever was sent of it."""
    found = _rows(
        connection,
        "where a.job = :job and a.raised_at >= :start and a.raised_at < :end",
        {"job": to.job, "start": start, "end": end},
    )
    return digest(Frame(to, 0), start, end, [_notification(row, {}, airflow_url) for row in found])


def _rows(connection: Connection, where: str, values: Mapping[str, Any]) -> list[Any]:
    query = str(NOTIFICATIONS).partition(" where ")[0] + f" {where} order by a.alert_id"
    return list(connection.execute(text(query), values).mappings())


def _notifications(connection: Connection, number: int, airflow_url: str | None) -> list[Notification]:
    rows = connection.execute(NOTIFICATIONS, {"digest": number}).mappings().all()
    marks = sorted({row["fingerprint"] for row in rows})
    found = connection.execute(BEFORE, {"marks": marks, "digest": number})
    before = {str(row[0]): int(row[1]) for row in found}
    return [_notification(row, before, airflow_url) for row in map(dict, rows)]


def _notification(row: Mapping[str, Any], before: Mapping[str, int], airflow_url: str | None) -> Notification:
    retried = row["kind"] == "retrying" if row["kind"] in FAILURES else None
    return Notification(
        row["kind"], row["subject"], row["message"], row["next_step"], row["raised_at"], row["since"],
        before.get(row["fingerprint"], 0), run_url(airflow_url, row["airflow_run"]), retried,
    )  # fmt: skip


def run_url(airflow_url: str | None, airflow_run: str | None) -> str | None:
    """Return the address of a run in Airflow's pages; `airflow_run` is DAG/RUN, as the ledger keeps it."""
    if not airflow_url or not airflow_run or "/" not in airflow_run:
        return None
    dag, run = airflow_run.split("/", 1)
    return f"{airflow_url.rstrip('/')}/dags/{quote(dag, safe='')}/runs/{quote(run, safe='')}"


def _day(connection: Connection, row: Mapping[str, Any], to: Addressee) -> Day:
    values = {"job": to.job, "start": row["interval_start"], "end": row["interval_end"], "digest": row["digest_id"]}
    owed = [tuple(part) for part in connection.execute(OWED, values)]
    shown = [" .. ".join(_moment(edge, to) for edge in part) for part in owed[:MOST_OWED]]
    more = f" (+{len(owed) - MOST_OWED})" if len(owed) > MOST_OWED else ""
    return Day(
        runs=connection.execute(RUNS, values).scalar_one(),
        owed=", ".join(shown) + more,
        open=tuple(connection.execute(OPEN, values).scalars()),
        told=connection.execute(TOLD, values).scalar_one() if to.every != "daily" else 0,
    )


def _moment(moment: Any, to: Addressee) -> str:
    return "…" if moment is None else f"{moment.astimezone(to.zone):%Y-%m-%d %H:%M}"
