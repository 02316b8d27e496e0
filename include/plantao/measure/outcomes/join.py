"""Hold the predictions of some days against what really happened, and keep the sums.

Outcomes are read from the client's database in a snapshot of their own and copied into a temporary table beside the
predictions, so that one database and two are the same. The server joins and adds up; what comes here are sums.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Identifier
from sqlalchemy import text

from plantao import log
from plantao.errors import OutcomeUnreadable, TargetRefused
from plantao.extract.source import path_of
from plantao.load.existing import find_table
from plantao.load.table import shadow_job
from plantao.measure.outcomes import maturity
from plantao.measure.outcomes import query as outcome_query
from plantao.measure.outcomes import tally_sql as outcome_sums
from plantao.measure.outcomes.fetch import STEP, checks, copy_over, open_reading
from plantao.measure.outcomes.maturity import REVISED_WITHIN, Check, Cohort, Predicted, Tallied
from plantao.measure.outcomes.query import Table
from plantao.measure.profile.sketch import added
from plantao.postgres import driver_errors, session
from plantao.postgres.locks import take_lock
from plantao.postgres.replaced import whole_snapshot
from plantao.window import of_days

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import date, datetime

    from psycopg2.sql import Composable
    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.runs import Role
    from plantao.measure.outcomes.query import Reading
    from plantao.models.manifest import Output
    from plantao.runtime import Place
    from plantao.window import Window

# So many predictions are joined at once; a day with more of them is cut by a hash of the key.
ROWS_AT_ONCE = 2_000_000
SAME = 1e-9  # the order in which a server adds numbers up moves their last digits
# (version, segment) -> rows, labelled, state
States = dict[tuple[int, str], tuple[int, int, dict[str, Any]]]


@dataclass(frozen=True, order=True)
class ChangedDay:
    """A day whose sums are other ones than before, over all versions in the role."""

    day: date
    role: Role
    rows: int
    labelled: int


# --- what was predicted, and what was tallied ------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A prediction table of the job as it exists."""

    role: Role
    table: Table
    columns: Mapping[str, str]

    @property
    def of_numbers(self) -> bool:
        """Whether it holds the predictions of a regression."""
        return self.columns["prediction"] == "double precision"


def targets(job: Job, connection: Connection) -> list[Target]:
    """Return the job's prediction tables that exist: the champion's, and the one of versions beside it."""
    result = []
    roles: tuple[tuple[Role, Job], ...] = (("champion", job), ("challenger", shadow_job(job)))
    for role, one in roles:
        if (columns := find_table(connection, one.load.table)) is not None:
            table = Table(Identifier(*one.load.table), job.extract.key, job.timezone, "control_share" in columns)
            result.append(Target(role, table, columns))
    return result


def _predicted(connection: Connection, target: Target, condition: Composable) -> dict[Cohort, Predicted]:
    both = SQL("({}) and {}").format(condition, target.table.within(maturity.ALWAYS))
    with driver_errors.explained(STEP, TargetRefused, "counting predictions"), connection.begin():
        rows = session.fetch(connection, outcome_query.count_predictions(target.table, both))
    return {Cohort(target.role, day, version): Predicted(rows, run) for day, version, rows, run in rows}


def _tallied(connection: Connection, job: Job) -> dict[Cohort, Tallied]:
    query = text(
        "select role, day, model_version, rows, labelled, state -> 'check' as found from daily_outcomes"
        " where job = :job and segment = ''"
    )
    with connection.begin():
        lines = connection.execute(query, {"job": job.name}).all()
    return {
        Cohort(line.role, line.day, line.model_version): Tallied(
            Predicted(line.rows, line.found["run"]),
            line.labelled,
            Check(line.found["outcomes"], line.found["hash"]),
        )
        for line in lines
    }


def days_to_look_at(connection: Connection, job: Job, place: Place, now: datetime) -> list[date]:
    """Return the local days that `tally_days` should look at, oldest first.

    Those with predictions that were never tallied, or whose predictions changed; and those whose outcomes changed,
    asked with one SELECT for all days: of the last month, and as long as some are missing (see `maturity.horizon`).
    Raises OutcomeUnreadable.
    """
    outcome = job.measure.outcome
    if outcome is None:
        return []
    tallied = _tallied(connection, job)
    predicted: dict[Cohort, Predicted] = {}
    existing = targets(job, connection)
    for target in existing:
        predicted |= _recently_predicted(connection, job, target, maturity.horizon(outcome, now), whole=not tallied)
    changed = maturity.changed_days(predicted, tallied)
    probed = maturity.days_to_probe(tallied, outcome, now, job.zone) - changed
    if not probed:
        return sorted(changed)
    windows = maturity.windows_of(probed, job.zone)
    with (
        driver_errors.explained(STEP, OutcomeUnreadable, "connecting to the outcomes"),
        whole_snapshot(place.address(job.extract.connection), f"plantao/{job.name}/measure", path_of(job)) as snapshot,
    ):
        found = open_reading(job, snapshot, connection, as_number=any(target.of_numbers for target in existing))
        looked = checks(found, snapshot, connection, windows)
    return sorted(changed | maturity.days_with_news(tallied, probed, looked))


def _recently_predicted(
    connection: Connection, job: Job, target: Target, since: datetime, *, whole: bool
) -> dict[Cohort, Predicted]:
    """Count the predictions per day: since a moment, and of the older days that a run of the last month has touched."""
    if whole:
        return _predicted(connection, target, SQL("true"))
    recent = target.table.within(replace(maturity.ALWAYS, start=since))
    query = text(
        "select run_id from runs where job = :job and started_at > now() - :month order by started_at, run_id limit 1"
    )
    with connection.begin():
        first = connection.execute(query, {"job": job.name, "month": REVISED_WITHIN}).scalar()
    counted = _predicted(connection, target, recent)
    if first is None:
        return counted
    older = target.table.within(replace(maturity.ALWAYS, end=since))
    touched = _predicted(connection, target, SQL("p.run_id >= {} and {}").format(SQL(str(int(first))), older))
    # Whole days: `since` lies somewhere in its day.
    days = {cohort.day for cohort in touched} | {since.astimezone(job.zone).date()}
    windows = maturity.windows_of(days, job.zone)
    again = SQL(" or ").join([SQL("({})").format(target.table.within(window)) for window in windows])
    return counted | _predicted(connection, target, again)


# --- the tally -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """One chunk of days in one role, with everything that its sums rest on."""

    job: Job
    connection: Connection
    target: Target
    reading: Reading
    predicted: Mapping[Cohort, Predicted]
    outputs: Mapping[int, Output]

    def unknown(self, day: date) -> list[int]:
        """Return the versions that have predictions on a day and of which nobody said what they give back."""
        return [cohort.version for cohort in self.predicted if cohort.day == day and cohort.version not in self.outputs]


def tally_days(
    job: Job, place: Place, connection: Connection, days: Collection[date], outputs: Mapping[int, Output]
) -> list[ChangedDay]:
    """Hold the predictions of some local days against their outcomes, and write the sums where they changed.

    `connection` is a session of the ledger (`ledger.session`) with no transaction open; `outputs` says what each
    version gives back, and a version that is not in it is left out. Each run of days is written on its own, so that
    what was done stays done. Raises OutcomeUnreadable, and DatabaseUnavailable where a retry can help.
    """
    existing = targets(job, connection)
    if job.measure.outcome is None or not existing or not days:
        return []
    predicted: dict[Cohort, Predicted] = {}
    wanted = maturity.windows_of(days, job.zone)
    for target in existing:
        condition = SQL(" or ").join([SQL("({})").format(target.table.within(window)) for window in wanted])
        predicted |= _predicted(connection, target, condition)
    rows = dict.fromkeys(days, 0)
    for cohort, found in predicted.items():
        rows[cohort.day] += found.rows
    changed: list[ChangedDay] = []
    for chunk in maturity.chunks(rows, ROWS_AT_ONCE):
        window = of_days(chunk[0], chunk[-1], job.zone)
        reading, looked = copy_over(job, place, connection, window, as_number=existing[0].of_numbers)
        for target in existing:
            here = {c: p for c, p in predicted.items() if c.role == target.role and c.day in set(chunk)}
            tally = Tally(job, connection, target, reading, here, outputs)
            with driver_errors.explained(STEP, TargetRefused, f"adding up {window.shown(job.zone)}"):
                states = _states(tally, window)
                for day in chunk:
                    changed += _replace(tally, day, _with_checks(tally, day, states.get(day, {}), looked))
    fields = {"job": job.name, "step": STEP, "days": len(rows), "predictions": sum(rows.values())}
    log.event("outcomes tallied", {**fields, "changed": len(changed)})
    return sorted(changed)


def _states(tally: Tally, window: Window) -> dict[date, States]:
    """Return the sums of the predictions of a window, by day."""
    job, connection, reading, here = tally.job, tally.connection, tally.reading, tally.predicted
    result: dict[date, States] = {}
    rows = sum(predicted.rows for predicted in here.values())
    parts = max(1, math.ceil(rows / ROWS_AT_ONCE))
    values: dict[str, list[str]] | None = None
    for some in _by_kind({cohort.version for cohort in here}, tally.outputs):
        for part in range(parts):
            with connection.begin():
                session.execute(connection, outcome_sums.create_scored(
                    tally.target.table, window, some, len(reading.segments), (part, parts)))  # fmt: skip
                values = values or _listed_values(job, connection, reading)
                segments = outcome_sums.segments_of(
                    values, arms=tally.target.table.has_shares, actions=reading.action is not None
                )
                select = outcome_sums.select_states(some, segments, lags=reading.outcome.arrived_at is not None)
                for version, day, segment, count, labelled, state in session.fetch(connection, select):
                    of_day = result.setdefault(day, {})
                    before = of_day.get((version, segment), (0, 0, {}))
                    both = (before[0] + count, before[1] + labelled, added([before[2], state]))
                    of_day[version, segment] = both
    return result


def _by_kind(versions: Collection[int], outputs: Mapping[int, Output]) -> Iterator[dict[int, Output]]:
    known = {version: outputs[version] for version in sorted(versions) if version in outputs}
    for kind in sorted({output.kind for output in known.values()}):
        yield {version: output for version, output in known.items() if output.kind == kind}


def _listed_values(job: Job, connection: Connection, reading: Reading) -> dict[str, list[str]]:
    """Return the values of each segment that are counted on their own: those known before, then the most frequent."""
    result = {}
    for place, column in enumerate(reading.segments):
        known = [value for (value,) in session.fetch(connection, outcome_sums.known_values(job.name, column))]
        new = [value for (value,) in session.fetch(connection, outcome_sums.frequent_values(place))]
        result[column] = list(dict.fromkeys([*known, *new]))[: outcome_sums.MOST_VALUES]
    return result


def _with_checks(tally: Tally, day: date, states: States, looked: Mapping[date, Check]) -> States:
    """Note down, beside the sums of all rows, what the tally rests on."""
    check = asdict(looked.get(day, Check()))
    runs = {cohort.version: found.last_run for cohort, found in tally.predicted.items() if cohort.day == day}
    return {
        (version, segment): (
            rows, labelled, state if segment else {**state, "check": {**check, "run": runs.get(version, 0)}}
        )
        for (version, segment), (rows, labelled, state) in states.items()
    }  # fmt: skip


def _replace(tally: Tally, day: date, states: States) -> list[ChangedDay]:
    """Write the sums of a day where they differ from those that are there; report what is not only another check."""
    job, connection, role = tally.job, tally.connection, tally.target.role
    values = {"job": job.name, "role": role, "day": day, "unknown": tally.unknown(day)}
    this_day = "job = :job and role = :role and day = :day and model_version <> all(cast(:unknown as integer[]))"
    query = text(f"select model_version, segment, rows, labelled, state from daily_outcomes where {this_day}")
    insert = text(
        "insert into daily_outcomes (job, role, day, model_version, segment, rows, labelled, state)"
        " select :job, :role, :day, version, segment, rows, labelled, state from"
        " jsonb_to_recordset(cast(:lines as jsonb)) as line"
        " (version integer, segment text, rows bigint, labelled bigint, state jsonb)"
    )
    with connection.begin():
        take_lock(connection, f"plantao.outcomes {job.name}")
        before: States = {
            (row.model_version, row.segment): (row.rows, row.labelled, row.state)
            for row in connection.execute(query, values)
        }
        if same(before, states):
            return []
        connection.execute(text(f"delete from daily_outcomes where {this_day}"), values)
        lines = [
            {"version": version, "segment": segment, "rows": rows, "labelled": labelled, "state": state}
            for (version, segment), (rows, labelled, state) in states.items()
        ]
        connection.execute(insert, {**values, "lines": json.dumps(lines)})
    if same(_without_checks(before), _without_checks(states)):
        return []
    all_rows = [states[of] for of in states if of[1] == ""]
    return [ChangedDay(day, role, sum(one[0] for one in all_rows), sum(one[1] for one in all_rows))]


def _without_checks(states: States) -> States:
    return {
        of: (rows, labelled, {name: value for name, value in state.items() if name != "check"})
        for of, (rows, labelled, state) in states.items()
    }


def same(one: Any, other: Any) -> bool:
    """Tell whether two nested values are equal but for the last digits of a sum."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, float) or isinstance(other, float):
        return math.isclose(one, other, rel_tol=SAME, abs_tol=SAME)
    return bool(one == other)
