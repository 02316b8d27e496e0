"""What the watchdog does when nobody empties the outbox: it sends what waits itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao.alert.outages import say

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from plantao.alert.slack import Messenger

SHOWN = 10


def drain(connection: Connection, voice: Messenger) -> bool:
    """Send what waits in the outbox as one message, and mark it sent once it was acknowledged; False if it was not."""
    query = text("select alert_id, message from alerts where sent_at is null order by alert_id")
    sent = text("update alerts set sent_at = clock_timestamp() where alert_id = any(:ids) and sent_at is null")
    with connection.begin():
        waiting = connection.execute(query).all()
    if not waiting:
        return True
    lines = [f"Nobody empties the outbox, so the watchdog does: {len(waiting)} notifications."]
    lines += [f"- {row.message}"[:250] for row in waiting[:SHOWN]]
    if len(waiting) > SHOWN:
        lines.append(f"Another {len(waiting) - SHOWN} notifications: plantao alerts list")
    acknowledged, _ = say(voice, None, "\n".join(lines))
    if acknowledged:
        with connection.begin():
            ids = [row.alert_id for row in waiting]
            connection.execute(sent, {"ids": ids})
    return acknowledged
