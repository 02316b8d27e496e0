"""The picture of a degradation, sent into the thread of the message that tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao import log
from plantao.alert.words import say
from plantao.errors import AlertRefused, AlertUnavailable
from plantao.postgres import locks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from plantao.alert.slack import Messenger
    from plantao.config.job import Job

WIDTH, SCALE = 440, 3.0
"""A message shrinks a picture to a phone's width, so it is drawn for one, with three pixels for each of its own."""
MOST_AT_ONCE = 5
WAITING = text(
    "select digest_id, job, channel, coalesce(thread_ts, message_ts) as thread from digests where picture = 'waiting'"
    " and sent_at is not null order by digest_id limit :most"
)
DONE = text("update digests set picture = :state where digest_id = :digest")


def send_pictures(connection: Connection, messenger: Messenger, jobs: Mapping[str, Job]) -> int:
    """Send the pictures that wait, and return how many were taken; what Slack cannot take now waits on."""
    states: list[str] = []
    with locks.alone(connection, "plantao.pictures") as taken:
        if not taken:
            return 0
        with connection.begin():
            waiting = [dict(row) for row in connection.execute(WAITING, {"most": MOST_AT_ONCE}).mappings()]
        for row in waiting:
            try:
                states.append(_sent(connection, messenger, jobs.get(row["job"]), row))
            except AlertUnavailable as error:
                log.event("a picture has to wait", {"job": row["job"], "error": error.what}, log.WARNING)
                break
            with connection.begin():
                connection.execute(DONE, {"digest": row["digest_id"], "state": states[-1]})
    return states.count("sent")


def _sent(connection: Connection, messenger: Messenger, job: Job | None, row: Mapping[str, Any]) -> str:
    """Draw a picture and send it; return what became of it. The message has gone out whatever happens here."""
    png = None if job is None else _drawn(connection, job)
    if job is None or png is None:
        return "refused"
    try:
        messenger.upload(row["channel"], png, say("picture", job.alert.language, job=job.name), thread=row["thread"])
    except AlertRefused as error:
        log.event("a picture was refused", {"job": row["job"], "error": str(error)}, log.ERROR)
        return "refused"
    return "sent"


def _drawn(connection: Connection, job: Job) -> bytes | None:
    """Return what happened over time as PNG; None where it cannot be drawn, for the message must not hang on it."""
    # These draw; nobody else should wait for them.
    from plantao.report.chart import style
    from plantao.report.charts import what_happened
    from plantao.report.read import read_report

    try:
        return style.png(what_happened(read_report(connection, job), WIDTH), SCALE)
    except Exception as error:  # noqa: BLE001 - a picture is extra: without it the message still says everything
        log.event("a picture could not be drawn", {"job": job.name, "error": repr(error)}, log.ERROR)
        return None
