"""The rows that are set aside: written down with their reason, and closed once they are scored."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao import database
from plantao.load import table as tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from plantao.load.table import PredictionTable
    from plantao.score.batch import RejectedRow


def lines_of(rejects: Sequence[RejectedRow]) -> list[dict[str, Any]]:
    """Return rejects as plain values, as they are written down."""
    return [
        {
            "key": dict(reject.key),
            "source_timestamp": reject.source_timestamp,
            "reason": reject.reason,
            "column_name": reject.column,
            "detail": reject.detail,
            "row": None if reject.row is None else dict(reject.row),
        }
        for reject in rejects
    ]


def write(connection: Connection, job: str, run_id: int, lines: Sequence[dict[str, Any]]) -> None:
    """Write down the rows that are set aside: one open entry per source row, refreshed when it is met again."""
    if not lines:
        return
    seen: Counter[str] = Counter()
    numbered = []
    for line in lines:
        key = json.dumps(line["key"], default=str)
        identity = f"{key} {line['source_timestamp'] if line['reason'] == 'null_key' else ''}"
        seen[identity] += 1
        numbered.append({**line, "copy": seen[identity]})
    statement = text(
        'insert into rejected_rows (job, key, copy, source_timestamp, reason, column_name, detail, run_id, "row")'
        " select :job, key, copy, source_timestamp, reason, column_name, detail, :run,"
        " nullif(\"row\", 'null'::jsonb) from jsonb_to_recordset(cast(:lines as jsonb)) as r (key jsonb, copy integer,"
        ' source_timestamp timestamptz, reason text, column_name text, detail text, "row" jsonb)'
        " on conflict (job, key, copy, (case when reason = 'null_key' then source_timestamp else '-infinity' end))"
        " where resolved_at is null do update set reason = excluded.reason, column_name = excluded.column_name,"
        ' detail = excluded.detail, run_id = excluded.run_id, "row" = excluded."row", last_seen_at = now(),'
        " source_timestamp = excluded.source_timestamp"
    )
    connection.execute(statement, {"job": job, "run": run_id, "lines": json.dumps(numbered, default=str)})


def resolve(connection: Connection, table: PredictionTable, job: str, run_id: int) -> int:
    """Close the open rejects of rows that this run has scored, and return how many."""
    some = text("select exists (select from rejected_rows where job = :job and resolved_at is null)")
    if not connection.execute(some, {"job": job}).scalar():
        return 0
    return database.execute(connection, tables.resolve_rejects(table, job, run_id))
