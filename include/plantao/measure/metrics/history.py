"""Keep the figures with their earlier values: what has not changed is not written again."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao.measure.metrics.metric import Metric
from plantao.postgres import session
from plantao.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.measure.metrics.metric import Key

ROWS_AT_ONCE = 5_000
COLUMNS = "model_version, role, window_start, window_end, name, column_name, segment"
FIGURES = "value, lower, upper, n, maturity, status, detectable"


def keep(connection: Connection, job: Job, metrics: Iterable[Metric]) -> int:
    """Write the metrics that differ from the newest ones, and return how many did.

    In the caller's transaction, or in one of its own.
    """
    given = list(metrics)
    with session.transaction(connection):
        known = {metric.key: metric for metric in newest(connection, job, {metric.window for metric in given})}
        new = [metric for metric in given if not _same(known.get(metric.key), metric)]
        for start in range(0, len(new), ROWS_AT_ONCE):
            lines = json.dumps([_line(metric) for metric in new[start : start + ROWS_AT_ONCE]])
            connection.execute(INSERT, {"job": job.name, "lines": lines})
    return len(new)


INSERT = text(
    f"insert into metrics (job, {COLUMNS}, {FIGURES}) select :job, {COLUMNS}, {FIGURES}"
    " from jsonb_to_recordset(cast(:lines as jsonb)) as l (model_version integer, role text,"
    " window_start timestamptz, window_end timestamptz, name text, column_name text, segment text,"
    " value double precision, lower double precision, upper double precision, n bigint,"
    " maturity double precision, status text, detectable double precision)"
)


def newest(connection: Connection, job: Job, windows: Iterable[Window]) -> list[Metric]:
    """Return the newest measurement of each thing in these windows."""
    wanted = set(windows)
    starts = sorted({window.start for window in wanted})
    found = _newest(connection, job, "window_start = any(cast(:starts as timestamptz[]))", starts=starts)
    return [metric for metric in found if metric.window in wanted]


def series(connection: Connection, job: Job, names: Sequence[str], since: datetime) -> list[Metric]:
    """Return the newest measurements of some names for all rows, from windows that start at or after a moment."""
    condition = "window_start >= :since and name = any(:names) and segment = ''"
    return _newest(connection, job, condition, since=since, names=list(names))


def checks_of(connection: Connection, job: Job, window: Window) -> list[Metric]:
    """Return what is kept of the champion's checks of a window (see `lanes.evidence`)."""
    condition = f"{CHECKS} and window_start = :start and window_end = :end"
    return _newest(connection, job, condition, start=window.start, end=window.end)


def checks_since(connection: Connection, job: Job, since: datetime) -> list[Metric]:
    """Return what is kept of the champion's checks of windows that start at or after a moment."""
    return _newest(connection, job, f"{CHECKS} and window_start >= :since", since=since)


CHECKS = "role = 'champion' and starts_with(name, 'check_')"


def _newest(connection: Connection, job: Job, condition: str, **values: object) -> list[Metric]:
    query = text(
        f"select distinct on (window_start, name, column_name, segment, model_version, role, window_end)"
        f" {COLUMNS}, {FIGURES} from metrics where job = :job and {condition}"
        " order by window_start, name, column_name, segment, model_version, role, window_end, metric_id desc"
    )
    with session.transaction(connection):
        rows = connection.execute(query, {**values, "job": job.name}).mappings().all()
    return [_metric(dict(row)) for row in rows]


def _metric(fields: dict[str, Any]) -> Metric:
    window = Window.of(fields.pop("window_start"), fields.pop("window_end"))
    return Metric(window, column=fields.pop("column_name"), **fields)


def _same(one: Metric | None, other: Metric) -> bool:
    if one is None or one.status != other.status or one.n != other.n:
        return False
    pairs = [(getattr(one, name), getattr(other, name)) for name in FLOATS]
    return all(a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9)) for a, b in pairs)


FLOATS = ("value", "lower", "upper", "maturity", "detectable")


def _line(metric: Metric) -> dict[str, object]:
    key: Key = metric.key
    names = ("model_version", "role", "name", "column_name", "segment")
    line: dict[str, object] = dict(zip(names, key, strict=False))
    line |= {"window_start": metric.window.start.isoformat(), "window_end": metric.window.end.isoformat()}
    return line | {name: getattr(metric, name) for name in (*FLOATS, "n", "status")}
