"""What Airflow says has failed, written into the outbox; the ledger stays the truth, and what it has told is not told.

Airflow's word is only a hint: it says nothing of a task that was killed, and comes twice for some. So each is told
once, and the watchdog does not rely on any.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao import log
from plantao.config.job import Job
from plantao.config.job_file import read_folder
from plantao.errors import JobFileError
from plantao.ledger.migrate import require_current
from plantao.outbox.alerts import Alert, raise_alert
from plantao.outbox.run_alerts import FOR_THE_DIGEST
from plantao.postgres import session
from plantao.postgres.locks import in_turn
from plantao.runtime import DEFAULT_CONNECTION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection

    from plantao.runtime import Place

LONGEST, SECONDS = 300, 10
# The ledger has told that an attempt of this run failed for good.
TOLD_BY_LEDGER = text(
    "select exists (select from runs join alerts using (run_id) where airflow_run = :airflow_run"
    " and alerts.kind <> all(:quiet))"
)
TOLD_BEFORE = text(
    "select exists (select from alerts where starts_with(fingerprint, :start) and raised_at >= :since"
    " and (cast(:message as text) is null or message = :message))"
)
A_DAY = "clock_timestamp() - interval '1 day'"


@dataclass(frozen=True)
class Failed:
    """A task, or a whole run, of which Airflow says that it has failed and is not tried again."""

    dag: str
    run: str
    since: datetime
    """When the run began."""
    tasks: tuple[str, ...]
    error: str = ""
    """The class of the error; its words may quote rows, and stay in the task's log."""
    whole_run: bool = False


def tell(place: Place, failed: Failed) -> bool:
    """Raise the alert about a failed task or run, unless it was told; return whether it was raised."""
    found = read_folder(place.settings.jobs).get(failed.dag)
    if isinstance(found, JobFileError):
        return _tell_red(place, failed.dag, found)
    with _session(place, found) as connection:
        airflow_run = {"airflow_run": f"{failed.dag}/{failed.run}", "quiet": sorted(FOR_THE_DIGEST | {"recovered"})}
        if connection.execute(TOLD_BY_LEDGER, airflow_run).scalar_one():
            return False
        start = f"failed {failed.dag} task"
        if failed.whole_run and _told(connection, start, failed.since):
            return False
        listed = ", ".join(failed.tasks) or "no task of its own"
        what = f"the run {failed.run} failed ({listed})" if failed.whole_run else f"the task {listed} failed"
        why = f" with {failed.error}" if failed.error else ""
        message = f"{failed.dag}: {what}{why}, and Airflow does not try it again by itself."
        next_step = f"read the log of the task in Airflow (run {failed.run}), mend the cause, then clear the task"
        about = f"{failed.dag} run" if failed.whole_run else f"{failed.dag} task {listed}"
        if _told(connection, f"failed {about}", failed.since, message):
            return False
        raise_alert(connection, Alert("failed", about, message, next_step, failed.dag))
    return True


def tell_import_error(place: Place, file: str, trace: str) -> bool:
    """Raise the alert about a DAG file that Airflow cannot read, once a day for the same error."""
    last = next((line.strip() for line in reversed(trace.splitlines()) if line.strip()), "an unknown error")
    message = f"Airflow cannot read {file}: {log.masked(last)[:LONGEST]}. Its DAGs go on as they were, or stand still."
    next_step = "mend the file; airflow dags list-import-errors shows the whole error"
    with _session(place, None) as connection:
        if _told(connection, f"import_error {file}", None, message):
            return False
        raise_alert(connection, Alert("import_error", file, message, next_step))
    return True


def _tell_red(place: Place, name: str, error: JobFileError) -> bool:
    """Raise the alert about a job file with mistakes, once a day for the same mistakes."""
    message = f"{name}: the job file has mistakes, so the job does not run: {'; '.join(error.complaints[:3])}"
    with _session(place, None) as connection:
        if _told(connection, f"broken_file {name}", None, message):
            return False
        next_step = f"mend {name}.toml; plantao jobs list shows all mistakes"
        raise_alert(connection, Alert("broken_file", name, message, next_step, name))
    return True


def _told(connection: Connection, start: str, since: datetime | None, message: str | None = None) -> bool:
    if since is None:
        since = connection.execute(text(f"select {A_DAY}")).scalar_one()
    values = {"start": start, "since": since, "message": message}
    return bool(connection.execute(TOLD_BEFORE, values).scalar_one())


@contextlib.contextmanager
def _session(place: Place, job: Job | JobFileError | None) -> Iterator[Connection]:
    """Open a session and a transaction on the ledger of a job, or of the first job that can be read."""
    name = job.load.connection if isinstance(job, Job) else _home(place)
    address, schema = place.address(name), place.settings.schema
    with session.session(address, schema, "plantao/airflow") as connection, session.deadline(connection, SECONDS):
        require_current(connection, schema, str(address))
        with connection.begin():
            # One at a time, so that what two processes hear at once is told once.
            in_turn(connection, "plantao.from_airflow")
            yield connection


def _home(place: Place) -> str:
    ledgers = {job.load.connection for job in read_folder(place.settings.jobs).values() if isinstance(job, Job)}
    return DEFAULT_CONNECTION if DEFAULT_CONNECTION in ledgers or not ledgers else min(ledgers)
