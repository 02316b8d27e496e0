"""The rows that are set aside: written down with their reason, and closed once they are scored."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlalchemy import text

from plantao.load import table as tables
from plantao.postgres import session
from plantao.score.accounted import Accounted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from plantao.load.table import PredictionTable
    from plantao.score.batch import RejectedRow
    from plantao.window import Window


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
            "late": reject.late,
            "digest": reject.digest,
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
        'insert into rejected_rows (job, key, copy, source_timestamp, reason, column_name, detail, run_id, "row",'
        " digest) select :job, key, copy, source_timestamp, reason, column_name, detail, :run,"
        " nullif(\"row\", 'null'::jsonb), digest from jsonb_to_recordset(cast(:lines as jsonb)) as r (key jsonb,"
        ' copy integer, source_timestamp timestamptz, reason text, column_name text, detail text, "row" jsonb,'
        " digest text)"
        " on conflict (job, key, copy, (case when reason = 'null_key' then source_timestamp else '-infinity' end))"
        " where resolved_at is null do update set reason = excluded.reason, column_name = excluded.column_name,"
        ' detail = excluded.detail, run_id = excluded.run_id, "row" = excluded."row", last_seen_at = now(),'
        " source_timestamp = excluded.source_timestamp, digest = excluded.digest"
    )
    connection.execute(statement, {"job": job, "run": run_id, "lines": json.dumps(numbered, default=str)})


def accounted(connection: Connection, job: str, late: Sequence[Window]) -> Accounted:
    """Return the open rejects of the time in which a run looks for late rows."""
    if not late:
        return Accounted()
    query = text(
        "select digest, (extract(epoch from source_timestamp) * 1000000)::bigint as moment from rejected_rows"
        " where job = :job and source_timestamp >= :start and source_timestamp < :end"
        " and isfinite(source_timestamp) and resolved_at is null and digest is not null"
    )
    bounds = {"start": min(part.start for part in late), "end": max(part.end for part in late)}
    with connection.begin():
        rows = connection.execute(query, {"job": job, **bounds}).all()
    moments = pa.array([row.moment for row in rows], pa.int64())
    return Accounted(frozenset(row.digest for row in rows), moments)


def resolve(connection: Connection, table: PredictionTable, job: str, run_id: int) -> int:
    """Close the open rejects of rows that this run has scored, and return how many."""
    some = text("select exists (select from rejected_rows where job = :job and resolved_at is null)")
    if not connection.execute(some, {"job": job}).scalar():
        return 0
    return session.execute(connection, tables.resolve_rejects(table, job, run_id))
