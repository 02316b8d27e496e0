"""Bring what really happened beside the predictions, wherever the two are.

Outcomes are read from the client's database in a snapshot of their own and copied into a temporary table of the
target's session, so that one database and two are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.sql import SQL

from plantao.errors import OutcomeUnreadable, TargetRefused
from plantao.extract import read
from plantao.extract.source import path_of
from plantao.ledger.grants import reading
from plantao.load import copy_format
from plantao.measure.outcomes import query as outcome_query
from plantao.measure.outcomes.maturity import Check
from plantao.measure.outcomes.query import Reading
from plantao.postgres import driver_errors, session, sqlstate
from plantao.postgres import snapshot as snapshots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.config.table_name import Table
    from plantao.postgres.snapshot import Snapshot
    from plantao.runtime import Place
    from plantao.window import Window

STEP = "measure"


def open_reading(job: Job, snapshot: Snapshot, connection: Connection, *, as_number: bool) -> Reading:
    """Return what is to be read of the outcomes. Raises OutcomeUnreadable with all that is wrong with the tables."""
    outcome, action = job.measure.outcome, job.measure.action
    assert outcome is not None
    source = read.source_of(job, snapshot, connection)
    found = Reading(
        source,
        _columns(outcome.table, snapshot, connection),
        _columns(action.table, snapshot, connection) if action is not None else {},
        as_number,
    )
    if problems := outcome_query.problems(found):
        message = f"the outcomes of job {job.name} cannot be read: {'; '.join(problems)}."
        raise OutcomeUnreadable(message, "correct [measure] in the job file, or ask the client", STEP)
    return found


def _columns(table: Table, snapshot: Snapshot, connection: Connection) -> dict[str, str]:
    with driver_errors.explained(STEP, OutcomeUnreadable, f"looking at {table}"):
        schema = snapshot.schema(session.quoted(connection, outcome_query.select_all(table)))
    return {column.name: str((column.metadata or {}).get(b"POSTGRESQL:type", b"").decode()) for column in schema}


def checks(found: Reading, snapshot: Snapshot, connection: Connection, windows: Sequence[Window]) -> dict[date, Check]:
    """Return a check of the outcomes of each local day in `windows` that has a row. Raises OutcomeUnreadable."""
    statement = session.quoted(connection, outcome_query.select_checks(found, windows))
    try:
        with driver_errors.explained(STEP, OutcomeUnreadable, "looking for new outcomes"):
            rows = snapshot.table(statement).to_pylist()
    except OutcomeUnreadable as error:
        raise _advised(error, found) from error.__cause__
    return {row["day"]: Check(row["outcomes"], int(row["hash"])) for row in rows}


def _advised(error: OutcomeUnreadable, found: Reading) -> OutcomeUnreadable:
    state = driver_errors.sqlstate_of(error.__cause__ or error)
    if state == "42501":
        tables = [found.outcome.table, *([found.action.table] if found.action is not None else [])]
        return OutcomeUnreadable(
            error.what, "; ".join([grant for t in tables for _, grant in reading(t)] + [sqlstate.cure(state)]), STEP
        )
    if state == "42883":
        advice = "give the key columns of the outcome (and action) table the source's types, or name others in `key`"
        return OutcomeUnreadable(f"the types of the key columns do not compare: {error.what}", advice, STEP)
    return error


def copy_over(
    job: Job, place: Place, connection: Connection, window: Window, *, as_number: bool
) -> tuple[Reading, dict[date, Check]]:
    """Fill the temporary table OUTCOMES from the rows of `window`; also return a check of each of its days.

    The temporary table lives as long as the session, and no transaction is open while the source is waited for.
    """
    address = place.address(job.extract.connection)
    with driver_errors.explained(STEP, OutcomeUnreadable, f"connecting to {address}"):
        snapshot = snapshots.open_snapshot(address, f"plantao/{job.name}/measure", path=path_of(job))
    try:
        found = open_reading(job, snapshot, connection, as_number=as_number)
        looked = checks(found, snapshot, connection, [window])
        statement = session.quoted(connection, outcome_query.select_outcomes(found, window))
    except BaseException:
        snapshot.close()
        raise
    spool = read.read(snapshot, snapshot.close, statement)
    try:
        with driver_errors.explained(STEP, TargetRefused, "copying outcomes to the predictions"):
            with connection.begin():
                session.execute(connection, outcome_query.create_outcomes(found))
            for batch in spool.batches(session.STATEMENT_SECONDS):
                if batch.num_rows:
                    columns = [copy_format.column(kind, batch.column(name)) for name, kind in found.columns]
                    with connection.begin():
                        session.copy_in(connection, outcome_query.copy_outcomes(found), copy_format.encode(columns))
            with connection.begin():
                session.execute(connection, SQL("analyze {}").format(outcome_query.OUTCOMES))
    finally:
        spool.abandon()
    return found, looked
