"""Ask the job's own SQL what the predictions were worth.

The SQL is the job owner's: it reads the rows of `scored` and gives one number. It runs in a transaction that only
reads, with an end to its time, and when it fails nothing else does.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Composable, Identifier
from psycopg2.sql import Literal as Value
from sqlalchemy import text

from plantao.errors import DatabaseUnavailable, ObjectiveFailed, TargetRefused
from plantao.measure.outcomes import maturity
from plantao.measure.outcomes import query as outcome_query
from plantao.measure.outcomes.fetch import STEP, copy_over
from plantao.measure.outcomes.join import targets
from plantao.postgres import driver_errors, pinned, session
from plantao.postgres.replaced import whole_snapshot
from plantao.window import of_days

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.runs import Role
    from plantao.measure.outcomes.join import Target
    from plantao.models.manifest import Output
    from plantao.runtime import Place
    from plantao.window import Window

DAYS_AT_ONCE = 31
BLOCKS = 20
SECONDS = 60
ARMS = {"control": "in_control_group", "treated": "not in_control_group"}


@dataclass(frozen=True)
class Worth:
    """What the predictions of some days by one version were worth, by the job's SQL."""

    role: Role
    version: int
    rows: int
    """Predictions whose outcome is known: the rows of `scored`."""
    value: float | None = None
    """None when the SQL gives NULL, or failed."""
    blocks: tuple[tuple[int, float | None], ...] = ()
    """(rows, value) of disjoint blocks of the rows, by a hash of the key, for an interval. Empty ones are left out.

    None stands for NULL, and for a block on which the SQL failed, by a division for instance.
    """
    arms: Mapping[str, tuple[int, float | None]] = field(default_factory=dict)
    """(rows, value) of the control group ("control") and of the others ("treated"), when the job has the two."""
    problem: str | None = None
    """Why there is no value, when the SQL failed."""


def objective_sql(  # noqa: PLR0913 - what it is asked for
    job: Job,
    place: Place,
    connection: Connection,
    *,
    first: date,
    last: date,
    outputs: Mapping[int, Output],
) -> list[Worth]:
    """Run the SQL of `[measure.objective]` over the local days from `first` to `last`, for each version.

    `scored` has the columns of the prediction table and `outcome`, in the type of `prediction`; its rows are the
    predictions whose outcome is known. `connection` is a session of the ledger with no transaction open. An SQL
    that fails is reported in `problem`. Raises OutcomeUnreadable, and DatabaseUnavailable where a retry can help.
    """
    objective, existing = job.measure.objective, targets(job, connection)
    if objective is None or objective.sql is None or job.measure.outcome is None or not existing:
        return []
    window = of_days(first, last, job.zone)
    copy_over(job, place, connection, window, as_number=existing[0].of_numbers)
    return [worth for target in existing for worth in _over(job, place, connection, target, (window, outputs))]


def objective_by_day(
    job: Job, place: Place, connection: Connection, days: Sequence[date], outputs: Mapping[int, Output]
) -> dict[date, list[Worth]]:
    """Return the same for each of several days on its own; outcomes are copied once for a month of days."""
    objective, existing = job.measure.objective, targets(job, connection)
    found: dict[date, list[Worth]] = {}
    if objective is None or objective.sql is None or job.measure.outcome is None or not existing:
        return found
    for chunk in maturity.chunks(dict.fromkeys(days, 1), DAYS_AT_ONCE, DAYS_AT_ONCE):
        window = of_days(chunk[0], chunk[-1], job.zone)
        copy_over(job, place, connection, window, as_number=existing[0].of_numbers)
        for day in chunk:
            of_day = (of_days(day, day, job.zone), outputs)
            found[day] = [w for target in existing for w in _over(job, place, connection, target, of_day)]
    return found


def _over(
    job: Job, place: Place, connection: Connection, target: Target, of: tuple[Window, Mapping[int, Output]]
) -> list[Worth]:
    """Return what the predictions of a window in one table were worth, once the outcomes are here."""
    objective = job.measure.objective
    assert objective is not None
    assert objective.sql is not None
    with driver_errors.explained(STEP, TargetRefused, "joining predictions with outcomes"), connection.begin():
        session.execute(connection, create(target, *of))
        query = SQL("select model_version, count(*) from {} group by 1 order by 1").format(outcome_query.SCORED)
        versions = session.fetch(connection, query)
    try:
        if versions:
            check(objective.sql, place, job, connection, target)
        return [_asked(connection, job, target, Worth(target.role, *version)) for version in versions]
    except ObjectiveFailed as error:
        return [Worth(target.role, version, rows, problem=str(error)) for version, rows in versions]


def create(target: Target, window: Window, outputs: Mapping[int, Output]) -> Composable:
    """Return the statements that make SCORED from the predictions whose outcome is known and usable."""
    table = target.table
    if target.of_numbers:
        outcome, join = SQL("o.v").format(), SQL("").format()
        usable = SQL("abs(o.v) < {}").format(Value(outcome_query.LARGEST))
    else:
        outcome = SQL("c.label::{}").format(SQL(target.columns["prediction"]))
        join = SQL(" join {} on c.version = p.model_version and c.text = o.v").format(
            outcome_query.known_classes(outputs)
        )
        usable = SQL("true").format()
    return SQL(
        "drop table if exists {scored}; create temporary table {name} as select p.*, {outcome} as plantao_outcome,"
        " {block} as plantao_block from {predictions} as p join {outcomes} as o on {same_key}{join}"
        " where {within} and not o.conflicting and {usable}"
    ).format(
        scored=outcome_query.SCORED,
        name=Identifier(outcome_query.SCORED.strings[-1]),
        outcome=outcome,
        block=table.block(BLOCKS),
        predictions=table.name,
        outcomes=outcome_query.OUTCOMES,
        same_key=table.same_key,
        join=join,
        within=table.within(window),
        usable=usable,
    )


def over(sql: str, target: Target, rows: Composable, outcome: Composable, condition: Composable) -> Composable:
    """Return the job's SQL with `scored` in front of it: the columns of the prediction table and the outcome."""
    columns = SQL(", ").join([Identifier(name) for name in target.columns])
    # An SQL that begins with relations of its own goes on with them.
    following = re.sub(r"^with\b", ",", sql.strip().rstrip(";"), flags=re.IGNORECASE)
    return SQL("select * from (with scored as (select {}, {} as outcome from {} where {})\n{}\n) as x limit 2").format(
        columns, outcome, rows, condition, SQL(following)
    )


def check(sql: str, place: Place, job: Job, connection: Connection, target: Target) -> None:
    """Let the server look at the SQL without running it. Raises ObjectiveFailed unless it is one SELECT of a value.

    Only in this way is it sure to be one statement: what comes after a semicolon could end our transaction first.
    """
    nothing = SQL("null::{}").format(SQL(target.columns["prediction"]))
    statement = over(sql, target, target.table.name, nothing, SQL("false"))
    address = place.address(job.load.connection)
    with (
        driver_errors.explained(STEP, ObjectiveFailed, "looking at the SQL of [measure.objective]"),
        whole_snapshot(address, f"plantao/{job.name}/measure", pinned.LOGIN_PATH) as snapshot,
    ):
        columns = snapshot.schema(session.quoted(connection, statement))
    if len(columns) != 1:
        message = f"the SQL of [measure.objective] gives {len(columns)} columns."
        raise ObjectiveFailed(message, "let it give one number", STEP)


def _asked(connection: Connection, job: Job, target: Target, worth: Worth) -> Worth:
    of_version = SQL("model_version = {}").format(Value(worth.version))
    try:
        value = _value(connection, job, target, of_version)
    except ObjectiveFailed as error:
        return replace(worth, problem=str(error))
    blocks = []
    for block, rows in _sizes(connection, of_version):
        of_block = SQL("{} and plantao_block = {}").format(of_version, Value(block))
        blocks.append((rows, _value_if_any(connection, job, target, of_block)))
    arms = {}
    if job.measure.control_group > 0:
        for arm, condition in ARMS.items():
            of_arm = SQL("{} and {}").format(of_version, SQL(condition))
            rows = sum(rows for _, rows in _sizes(connection, of_arm))
            arms[arm] = (rows, _value_if_any(connection, job, target, of_arm))
    return replace(worth, value=value, blocks=tuple(blocks), arms=arms)


def _value_if_any(connection: Connection, job: Job, target: Target, condition: Composable) -> float | None:
    try:
        return _value(connection, job, target, condition)
    except ObjectiveFailed:
        return None  # a quotient, for instance, that some rows alone have not


def _sizes(connection: Connection, condition: Composable) -> list[tuple[Any, ...]]:
    query = SQL("select plantao_block, count(*) from {} where {} group by 1 order by 1")
    with driver_errors.explained(STEP, TargetRefused, "counting known outcomes"), connection.begin():
        return session.fetch(connection, query.format(outcome_query.SCORED, condition))


def _value(connection: Connection, job: Job, target: Target, condition: Composable) -> float | None:
    objective = job.measure.objective
    assert objective is not None
    assert objective.sql is not None
    statement = over(objective.sql, target, outcome_query.SCORED, SQL("plantao_outcome"), condition)
    try:
        with (
            driver_errors.explained(STEP, ObjectiveFailed, "running the SQL of [measure.objective]"),
            session.deadline(connection, 2 * SECONDS),
            connection.begin(),
        ):
            # The search path as where the job's query runs: the client's tables need no schema, the ledger's do.
            for setting in (
                "set transaction read only",
                f"set local statement_timeout = '{SECONDS}s'",
                *pinned.follow_login(),
            ):
                connection.execute(text(setting))
            rows = session.fetch(connection, statement)
    except DatabaseUnavailable as error:
        if driver_errors.sqlstate_of(error.__cause__ or error) != "57014":
            raise
        message = f"the SQL of [measure.objective] took more than {SECONDS} s."
        raise ObjectiveFailed(message, "make it cheaper", STEP) from error
    return number(rows)


def number(rows: list[tuple[Any, ...]]) -> float | None:
    """Return the one number of a result. Raises ObjectiveFailed when it is none."""
    if len(rows) != 1:
        message = f"the SQL of [measure.objective] gives {'more than one row' if rows else 'no row'}."
        raise ObjectiveFailed(message, "let it give one number", STEP)
    found = rows[0][0]
    if found is None:
        return None
    try:
        value = float(found)
    except (TypeError, ValueError) as error:
        message = f"the SQL of [measure.objective] gives a {type(found).__name__}."
        raise ObjectiveFailed(message, "let it give one number", STEP) from error
    if isinstance(found, (bool, str)) or not math.isfinite(value):
        message = f"the SQL of [measure.objective] gives {found!r}."
        raise ObjectiveFailed(message, "let it give one finite number", STEP)
    return value
