"""The daily state of a job in the database: added to by the runs, in the transaction that makes their rows visible.

A row that is scored for the first time adds to its day. Where that is not the whole truth, because an earlier
prediction was replaced or another run was faster, the day is marked as stale and the next measurement counts it anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import text

from plantao.measure.profile.sketch import MISSING, OTHER, SEGMENT_VALUES, added
from plantao.postgres import session
from plantao.window import of_days

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.request import Request
    from plantao.ledger.runs import Counts, Role
    from plantao.measure.profile.sketch import Key, State
    from plantao.window import Window

ROWS_AT_ONCE = 2_000
MOVED = "predictions left it for another day, with their rows"
Profile: TypeAlias = "Mapping[str, Any]"
"""What a reference says, as `measure.reference` makes it."""


@dataclass(frozen=True)
class Series:
    """Whose state it is: the days of one model version in one role, counted in the cells of one reference."""

    job: Job
    role: Role
    model_version: int
    reference_version: int = 1

    @property
    def values(self) -> dict[str, Any]:
        """The series as the values of a statement."""
        return {
            "job": self.job.name,
            "role": self.role,
            "version": self.model_version,
            "reference": self.reference_version,
        }


@dataclass(frozen=True)
class Reference:
    """What a version is compared with: the profile stored with the model (1), or a later one from production."""

    version: int
    profile: Profile


def reference_of(connection: Connection, job: Job, version: int, number: int | None = None) -> Reference:
    """Return the reference in force for a job and a model version: the newest one from production, or the model's.

    With a `number`, that one.
    """
    if number is not None:
        return Reference(number, reference_numbered(connection, job, version, number))
    query = text(
        "select reference_version, reference from reference_versions where job = :job and model_version = :version"
        " union all select 1, reference from models where model = :model and version = :version"
        " order by reference_version desc limit 1"
    )
    with session.transaction(connection):
        found = connection.execute(query, {"job": job.name, "model": job.score.model, "version": version}).one()
    return Reference(found[0], found[1])


def reference_numbered(connection: Connection, job: Job, version: int, number: int) -> Profile:
    """Return one reference of a model version by its number."""
    query = text(
        "select reference from reference_versions where job = :job and model_version = :version"
        " and reference_version = :number union all select reference from models where :number = 1"
        " and model = :model and version = :version"
    )
    values = {"job": job.name, "model": job.score.model, "version": version, "number": number}
    with session.transaction(connection):
        found: Profile = connection.execute(query, values).scalar_one()
    return found


def known_segments(connection: Connection, job: Job, names: Sequence[str]) -> dict[str, list[str]]:
    """Return, for each segment column, the values that are counted apart by now."""
    if not names:
        return {}
    recent = text(
        "select distinct segment from daily_state where job = :job and segment <> '' and column_name = ''"
        " and day > (select max(day) from daily_state where job = :job) - 60 order by segment"
    )
    with session.transaction(connection):
        segments = list(connection.execute(recent, {"job": job.name}).scalars())
    found: dict[str, list[str]] = {}
    for name in names:
        values = [s.removeprefix(f"{name}=") for s in segments if s.startswith(f"{name}=")]
        found[name] = [value for value in values if value not in {OTHER, MISSING}][:SEGMENT_VALUES]
    return found


def whole_days(days: Sequence[date], window: Window, job: Job) -> list[date]:
    """Return the local days that lie within a window from midnight to midnight."""
    spans = {day: of_days(day, day, job.zone) for day in days}
    return [day for day, span in spans.items() if window.start <= span.start and span.end <= window.end]


def add(
    connection: Connection,
    series: Series,
    states: Mapping[Key, tuple[int, State]],
    *,
    replaced: Window | None = None,
    stale: str | None = None,
) -> None:
    """Add a run's states to their days, inside the caller's transaction.

    The whole days of `replaced`, a window that was scored again from end to end, begin anew; `stale` says why the other
    days have to be counted again.
    """
    days = sorted({day for day, _, _ in states})
    anew = whole_days(days, replaced, series.job) if replaced is not None else []
    if anew:
        forget(connection, series.job, series.role, anew, series.model_version)
    others = sorted(set(days).difference(anew))
    _upsert(connection, series, _with_what_is_there(connection, series, states, others))
    if stale is not None:
        mark(connection, series.job, series.role, others, stale)


def mark(connection: Connection, job: Job, role: Role, days: Collection[date], why: str) -> None:
    """Mark days whose sums are not the whole truth, inside the caller's transaction, to be counted again."""
    if not days:
        return
    statement = text(
        "insert into stale_days (job, role, day, why) select :job, :role, day, :why"
        " from unnest(cast(:days as date[])) as day on conflict (job, role, day) do nothing"
    )
    connection.execute(statement, {"job": job.name, "role": role, "days": sorted(days), "why": why})


def lines_of(states: Mapping[Key, tuple[int, State]]) -> list[dict[str, Any]]:
    """Return states as plain values, one line for each day, segment and column."""
    return [
        {"day": day.isoformat(), "segment": segment, "column_name": column, "rows": rows, "state": state}
        for (day, segment, column), (rows, state) in states.items()
    ]


def merged(several: Sequence[Sequence[Mapping[str, Any]]]) -> dict[Key, tuple[int, State]]:
    """Return the sum of states that were folded apart, each given as its lines."""
    found: dict[Key, tuple[int, State]] = {}
    for lines in several:
        for line in lines:
            key = (date.fromisoformat(line["day"]), line["segment"], line["column_name"])
            rows, state = found.get(key, (0, {}))
            found[key] = (rows + line["rows"], added([state, line["state"]]))
    return found


def add_run(  # noqa: PLR0913 - what was folded, and what became of the rows
    connection: Connection,
    series: Series,
    states: Mapping[Key, tuple[int, State]],
    request: Request,
    *,
    counts: Counts,
    dropped: int,
) -> None:
    """Add what a run has folded, inside the transaction that makes its rows visible.

    `dropped` rows were folded, but another run had been faster. When a newer baseline was drawn since the run began,
    its days have to be counted again too.
    """
    why = None
    if dropped:
        why = f"{dropped} rows had been scored by another run"
    elif counts.rescored:
        why = f"{counts.rescored} rows were scored again"
    add(connection, series, states, replaced=request.window if request.rescore and not dropped else None, stale=why)
    outdated = text(
        "insert into stale_days (job, role, day, why) select :job, :role, day, 'a newer baseline has bins of its own'"
        " from unnest(cast(:days as date[])) as day where exists (select from reference_versions where job = :job"
        " and model_version = :version and reference_version > :reference and from_day <= day)"
        " on conflict (job, role, day) do nothing"
    )
    connection.execute(outdated, {**series.values, "days": sorted({day for day, _, _ in states})})


def forget(connection: Connection, job: Job, role: Role, days: Sequence[date], version: int | None = None) -> None:
    """Delete days, inside the caller's transaction.

    In the champion's table a row has one prediction, so they go for every version; beside it for `version` alone, when
    one is named.
    """
    statement = text(
        "delete from daily_state where job = :job and role = :role and day = any(cast(:days as date[]))"
        " and (role = 'champion' or cast(:version as integer) is null or model_version = :version)"
    )
    connection.execute(statement, {"job": job.name, "role": role, "days": list(days), "version": version})


def stale(connection: Connection, job: Job, role: Role) -> list[date]:
    """Return the days whose state has to be counted again."""
    query = text("select day from stale_days where job = :job and role = :role order by day")
    with session.transaction(connection):
        return list(connection.execute(query, {"job": job.name, "role": role}).scalars())


def freshen(connection: Connection, job: Job, role: Role, days: Sequence[date]) -> None:
    """Say that the state of these days is right again, inside the caller's transaction."""
    statement = text("delete from stale_days where job = :job and role = :role and day = any(cast(:days as date[]))")
    connection.execute(statement, {"job": job.name, "role": role, "days": list(days)})


def _with_what_is_there(
    connection: Connection, series: Series, states: Mapping[Key, tuple[int, State]], days: Sequence[date]
) -> dict[Key, tuple[int, State]]:
    query = text(
        "select day, segment, column_name, rows, state from daily_state where job = :job and role = :role"
        " and model_version = :version and reference_version = :reference and day = any(cast(:days as date[]))"
    )
    merged = dict(states)
    if days:
        for row in connection.execute(query, {**series.values, "days": list(days)}):
            key = (row.day, row.segment, row.column_name)
            if key in merged:
                rows, state = merged[key]
                merged[key] = (rows + row.rows, added([row.state, state]))
    return merged


def _upsert(connection: Connection, series: Series, states: Mapping[Key, tuple[int, State]]) -> None:
    statement = text(
        "insert into daily_state (job, role, model_version, reference_version, day, segment, column_name, rows, state)"
        " select :job, :role, :version, :reference, day, segment, column_name, rows, state"
        " from jsonb_to_recordset(cast(:lines as jsonb)) as l (day date, segment text, column_name text, rows bigint,"
        " state jsonb) on conflict (job, role, day, model_version, reference_version, segment, column_name)"
        " do update set rows = excluded.rows, state = excluded.state"
    )
    lines = lines_of(states)
    for start in range(0, len(lines), ROWS_AT_ONCE):
        connection.execute(statement, {**series.values, "lines": json.dumps(lines[start : start + ROWS_AT_ONCE])})
