"""The ledger: which windows are done, and the only module that changes the state of an attempt.

A state moves by compare-and-swap: every UPDATE names the old state and must change exactly one row. An attempt
holds a lock of its own for as long as its session lives, so the next one can tell a slow process from a dead one.
The lock is on the database's side: it ends with the session, however the process ended.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy.exc
from sqlalchemy import text

from plantao.errors import NotInitialised, Superseded, WindowBusy
from plantao.outbox import run_alerts
from plantao.postgres import driver_errors
from plantao.postgres.locks import LEDGER, end_holders, in_turn
from plantao.window import BEGINNING, Schedule, Window, merged

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, RowMapping

    from plantao.config.job import Job
    from plantao.outbox.alerts import Alert


Trigger = Literal["schedule", "backfill", "manual", "request", "asset"]
Role = Literal["champion", "challenger"]
ROLES: tuple[Role, ...] = ("champion", "challenger")

# An exclusion or unique violation here means that somebody else was faster.
LOST_THE_RACE = {"23P01", "23505", "40P01"}

LIVE = (
    "select run_id, job, role, worker, airflow_run, started_at, window_start, window_end, parts is not null"
    " and greatest(started_at, (select max(changed_at) from parts where parts.run_id = runs.run_id))"
    " > now() - interval '1 hour' as awaits_parts from runs where job = :job and status = 'running'"
)


@dataclass(frozen=True)
class Origin:
    """Who asked for an attempt, and where it runs."""

    trigger: Trigger
    airflow_run: str | None
    """The task instance, without its try number: a retry may take over from its own earlier try, nobody else."""
    worker: str
    code_version: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Counts:
    """Where the rows of a run went; the database checks that they add up."""

    read: int
    scored: int
    rejected: int
    already_scored: int
    late: int
    rescored: int
    conflicting: int = 0
    """Of those already scored: rows whose key has a prediction of another source timestamp."""


def covered(connection: Connection, job: str) -> list[Window]:
    """Return the time that is done for a job, as sorted windows that neither overlap nor touch.

    What a run has covered ends where it began: it cannot have seen a row of a later time.
    """
    query = text(
        "select lower(part) as s, upper(part) as e from (select unnest(done"
        " * tstzmultirange(tstzrange(:beginning, null))) as part from coverage where job = :job) as parts"
    )
    with connection.begin():
        rows = connection.execute(query, {"job": job, "beginning": BEGINNING}).all()
    return merged(Window.of(row.s, row.e) for row in rows)


def start(  # noqa: PLR0913 - what an attempt is known by
    connection: Connection,
    job: Job,
    window: Window,
    version: int | None,
    origin: Origin,
    *,
    role: Role = "champion",
    beside: int | None = None,
) -> int:
    """Write the attempt `running` and return its run_id. Raises WindowBusy when a live attempt holds the window.

    `beside` is the champion's attempt whose parts a challenger scores.
    An attempt whose session is gone is closed as failed. So is an earlier try of the same Airflow task; should its
    process still be alive, frozen or cut off, then its session is ended, because it may hold the locks of a load.
    """
    values = {
        "job": job.name,
        "model": job.score.model,
        "version": version,
        "start": window.start,
        "end": window.end,
        **_next_window(job, window),
        "role": role,
        "beside": beside,
        "trigger": origin.trigger,
        "airflow_run": origin.airflow_run,
        "worker": origin.worker,
        "code_version": origin.code_version,
        "environment": json.dumps(dict(origin.environment)),
    }
    live = text(
        f"{LIVE} and role = :role and (role = 'champion' or model_version = :version)"
        " and tstzrange(window_start, window_end) && tstzrange(:start, :end) order by run_id"
    )
    insert = text(
        "insert into runs (job, model, model_version, role, window_start, window_end, trigger, airflow_run, worker,"
        " code_version, environment, beside, next_window) values (:job, :model, :version, :role, :start, :end,"
        " :trigger, :airflow_run, :worker, :code_version, cast(:environment as jsonb), :beside,"
        " nullif(tstzrange(:next_start, :next_end), '(,)')) returning run_id"
    )
    try:
        with driver_errors.explained("extract", NotInitialised, "starting the attempt"), connection.begin():
            in_turn(connection, f"plantao.start {job.name}")
            for rival in connection.execute(live, values).mappings().all():
                _close_rival(connection, rival, origin)
            run_id: int = connection.execute(insert, values).scalar_one()
            connection.execute(text(f"select pg_advisory_lock({LEDGER})"), {"name": lock_of(run_id)})
    except NotInitialised as error:
        if driver_errors.sqlstate_of(error.__cause__ or error) in LOST_THE_RACE:
            message = f"window {window.shown(job.zone)} of job {job.name} is held by another process, as of just now."
            raise WindowBusy(message, "wait for it; what it scores will not be scored twice", "extract") from error
        raise
    return run_id


def lock_of(run_id: int) -> str:
    """Return the name of the lock that an attempt holds for as long as its session lives."""
    return f"plantao.run {run_id}"


def _next_window(job: Job, window: Window) -> dict[str, datetime | None]:
    """Return the window of the job's schedule that contains the end of another one."""
    if job.cron is None:
        return {"next_start": None, "next_end": None}
    schedule = Schedule(job.cron, job.zone)
    return {"next_start": schedule.at_or_before(window.end), "next_end": schedule.after(window.end)}


def _close_rival(connection: Connection, rival: RowMapping, origin: Origin) -> None:
    if _is_gone(connection, rival):
        reason = _gone(rival)
    elif origin.airflow_run is not None and rival["airflow_run"] == origin.airflow_run:
        reason = f"superseded by a newer try of the same task ({origin.airflow_run})"
        # A session that is not ours to end is only kept from writing, by the fence.
        end_holders(connection, lock_of(rival["run_id"]))
    else:
        window = Window.of(rival["window_start"], rival["window_end"])
        holder = f"run {rival['run_id']} of {rival['worker']}, since {rival['started_at']:%Y-%m-%d %H:%M:%S%z}"
        message = f"the window is held by {holder}, which scores {window.shown()}. Nothing was written."
        raise WindowBusy(message, "wait for it; what it scores will not be scored twice", "extract")
    _close(connection, rival, reason, "a newer attempt has the window")


def close_dead(connection: Connection, job: str) -> list[int]:
    """Close the attempts of a job whose process is gone, and return their run_ids; inside the caller's transaction.

    Airflow finds out by itself that a task is gone, within minutes, and tries it again; elsewhere nobody does.
    """
    values = {"job": job}
    in_turn(connection, f"plantao.start {job}")
    query = text(f"{LIVE} and beside is null order by run_id")  # those beside end with their champion's
    gone = [run for run in connection.execute(query, values).mappings().all() if _is_gone(connection, run)]
    for run in gone:
        _close(connection, run, _gone(run), "Airflow finds the dead task" if run["airflow_run"] else "")
    return [run["run_id"] for run in gone]


def _is_gone(connection: Connection, run: RowMapping) -> bool:
    lock = text(f"select pg_try_advisory_xact_lock({LEDGER})")
    unlocked = bool(connection.execute(lock, {"name": lock_of(run["run_id"])}).scalar_one())
    return unlocked and not run["awaits_parts"]  # between two parts nobody needs to hold the lock


def _gone(run: RowMapping) -> str:
    return f"its process ({run['worker']}) ended without a word; nothing of it was written"


def _close(connection: Connection, run: RowMapping, reason: str, retried: str) -> None:
    statement = text(
        "update runs set status = 'failed', finished_at = clock_timestamp(), error_kind = 'transient',"
        " error = :reason where run_id = :run and status = 'running'"
    )
    changed = connection.execute(statement, {"run": run["run_id"], "reason": reason}).rowcount
    if changed == 1 and run["role"] == "champion":  # a challenger comes with its champion's next try
        window = Window.of(run["window_start"], run["window_end"]).shown()
        run_alerts.tell(
            connection, run["run_id"], run_alerts.of_dead(run["job"], window, run["run_id"], reason, retried)
        )
    close_orphans(connection, run["run_id"])


def close_orphans(connection: Connection, run_id: int) -> None:
    """Close the challengers' attempts that a champion's of the same job has left behind, in the caller's transaction.

    One whose row is held right now waits for the next plan, because the champion waits for no challenger.
    """
    statement = text(
        "update runs set status = 'failed', finished_at = clock_timestamp(), error_kind = 'transient',"
        " error = 'the champion''s run ' || beside || ' has ended without it; nothing of it was written'"
        " where run_id in (select k.run_id from runs k join runs c on c.run_id = k.beside"
        " where k.status = 'running' and c.job = (select job from runs where run_id = :run)"
        " and (c.status = 'failed' or c.finished_at < now() - interval '1 day') for update of k skip locked)"
    )
    connection.execute(statement, {"run": run_id})


def name_version(connection: Connection, run_id: int, version: int, note: str | None) -> None:
    """Write down which model version the attempt uses, and what is worth knowing of how it was chosen."""
    with connection.begin():
        swap(
            connection,
            "update runs set model_version = :version, note = :note where run_id = :run and status = 'running'",
            run=run_id,
            version=version,
            note=note,
        )


def hold(connection: Connection, run_id: int) -> None:
    """Lock the attempt inside the load's transaction. Raises Superseded when another one has replaced it."""
    query = text("select run_id from runs where run_id = :run and status = 'running' for update")
    if connection.execute(query, {"run": run_id}).first() is None:
        raise superseded(run_id)


def superseded(run_id: int) -> Superseded:
    """Return the error of an attempt that a newer one has replaced."""
    message = f"run {run_id} was replaced by a newer attempt while it worked. It wrote nothing."
    return Superseded(message, "nothing: the newer attempt has the window", "load")


def succeed(  # noqa: PLR0913 - what a success consists of
    connection: Connection,
    run_id: int,
    counts: Counts,
    *,
    snapshot: str,
    seconds: Mapping[str, float],
    profile: Mapping[str, Any],
) -> None:
    """Close the attempt as succeeded, or empty when there was no row; inside the load's transaction."""
    swap(
        connection,
        "update runs set status = case when :read = 0 then 'empty' else 'succeeded' end,"
        " finished_at = clock_timestamp(), rows_read = :read, rows_scored = :scored, rows_rejected = :rejected,"
        " rows_already_scored = :already_scored, rows_late = :late, rows_rescored = :rescored,"
        " rows_conflicting = :conflicting,"
        " source_snapshot = :snapshot, seconds = cast(:seconds as jsonb), profile = cast(:profile as jsonb)"
        " where run_id = :run and status = 'running'",
        run=run_id,
        **asdict(counts),
        snapshot=snapshot,
        seconds=json.dumps({step: round(value, 3) for step, value in seconds.items()}),
        profile=json.dumps(dict(profile)),
    )


def fail(connection: Connection, run_id: int, reason: str, *, permanent: bool, alert: Alert | None = None) -> bool:
    """Close the attempt as failed, with the alert that reports it; False when a newer attempt has done so already.

    One that succeeded, though the answer to its commit was lost, stays a success; the retry finds its rows.
    """
    statement = text(
        "update runs set status = 'failed', finished_at = clock_timestamp(), error = :reason, error_kind = :kind"
        " where run_id = :run and status = 'running'"
    )
    values = {"run": run_id, "reason": reason[:4000], "kind": "permanent" if permanent else "transient"}
    replaced = text("select exists (select from runs where run_id = :run and status = 'failed')")
    with connection.begin():
        if connection.execute(statement, values).rowcount == 1:
            close_orphans(connection, run_id)
            if alert is not None:
                run_alerts.tell(connection, run_id, alert)
            return True
        return not connection.execute(replaced, values).scalar_one()


def swap(connection: Connection, statement: str, **values: Any) -> None:
    """Run an UPDATE that must change exactly one row. Raises Superseded when the state was another one."""
    try:
        changed = connection.execute(text(statement), values).rowcount
    except sqlalchemy.exc.IntegrityError as error:
        driver_errors.raise_explained(error, "load", NotInitialised, "closing the books")
    if changed != 1:
        raise superseded(values["run"])


def attempt(connection: Connection, run_id: int) -> dict[str, Any]:
    """Return one attempt. Raises Superseded when there is none."""
    with connection.begin():
        found = connection.execute(text("select * from runs where run_id = :run"), {"run": run_id}).mappings().first()
    if found is None:
        raise superseded(run_id)
    return dict(found)


def counts_of(run: Mapping[str, Any]) -> Counts:
    """Return the books of an attempt that has ended well."""
    return Counts(**{field.name: run[f"rows_{field.name}"] for field in fields(Counts)})
