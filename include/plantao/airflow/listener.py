"""What Airflow itself sees fail becomes an alert: failed tasks and runs, red DAGs, and DAG files it cannot read.

A hint only: Airflow says nothing of a task that was killed. The ledger tells of the runs, and the watchdog of what is
missing; what they have told is not told again. The scheduler must not wait for a client's database, so there each
alert is written by a thread of its own; a task's process waits, because it ends right afterwards.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.models.dagrun import DagRun

    from plantao.runtime import Place

logger = logging.getLogger(__name__)
OURS = "plantao-"  # the DAGs that belong to no job
told: set[tuple[str, str]] = set()  # what this process has told of files that cannot be read


class TellFailures:
    """Listens for what fails."""

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """Tell of a task that failed and is not tried again; of a job's run, the ledger has told already."""
        del previous_state
        if str(getattr(task_instance.state, "value", task_instance.state)) != "failed" or not is_ours(
            task_instance.dag_id
        ):
            return
        kind = type(error).__name__ if isinstance(error, BaseException) else ""
        facts = {
            "dag": task_instance.dag_id,
            "run": task_instance.run_id,
            "since": task_instance.start_date or datetime.now(UTC),
            "tasks": (task_instance.task_id,),
            "error": kind,
        }
        if type(task_instance).__name__ == "RuntimeTaskInstance":
            tell(facts)
        else:
            in_the_background(lambda: tell(facts))

    @hookimpl
    def on_dag_run_failed(self, dag_run: DagRun, msg: str) -> None:
        """Tell of a run that failed, unless one of its tasks was told of."""
        del msg
        if is_ours(dag_run.dag_id):
            facts = {
                "dag": dag_run.dag_id,
                "run": dag_run.run_id,
                "since": dag_run.start_date or datetime.now(UTC),
                "tasks": failed_tasks(dag_run.dag_id, dag_run.run_id),
                "whole_run": True,
            }
            in_the_background(lambda: tell(facts))
        self._look_for_import_errors()

    @hookimpl
    def on_dag_run_success(self, dag_run: DagRun, msg: str) -> None:
        """Look whether there are files that cannot be read: the DAG processor knows no client to tell it to."""
        del dag_run, msg
        self._look_for_import_errors()

    @hookimpl
    def on_new_dag_import_error(self, filename: str, stacktrace: str) -> None:
        """Tell of a file that cannot be read, where the DAG processor does know the client."""
        in_the_background(lambda: tell_import_error(filename, stacktrace))

    def _look_for_import_errors(self) -> None:
        for file, trace in import_errors():
            in_the_background(partial(tell_import_error, file, trace))


def is_ours(dag_id: str) -> bool:
    """Tell whether a DAG is a job's, or one of Plantão's own."""
    from plantao.config import settings

    return dag_id.startswith(OURS) or (settings.read().jobs / f"{dag_id}.toml").is_file()


def failed_tasks(dag_id: str, run_id: str) -> tuple[str, ...]:
    """Return the tasks of a run that failed."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    from plantao.airflow.metadata import metadata_transaction

    wanted = select(TaskInstance.task_id).where(
        TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.state == "failed"
    )
    with metadata_transaction() as connection:
        return tuple(sorted(set(connection.scalars(wanted))))


def import_errors() -> list[tuple[str, str]]:
    """Return the files that Airflow cannot read now, with the error of each."""
    from airflow.models.errors import ParseImportError
    from sqlalchemy import select

    from plantao.airflow.metadata import metadata_transaction

    wanted = select(ParseImportError.filename, ParseImportError.stacktrace)
    with metadata_transaction() as connection:
        return [(row.filename or "a DAG file", row.stacktrace or "") for row in connection.execute(wanted)]


def tell(facts: dict[str, Any]) -> None:
    """Write the alert about a failed task or run down."""
    from plantao.alert import airflow as hearsay

    guarded(lambda here: hearsay.tell(here, hearsay.Failed(**facts)))


def tell_import_error(file: str, trace: str) -> None:
    """Write the alert about a file that cannot be read down, once in this process and once a day in all."""
    from plantao.alert import airflow as hearsay

    if (file, trace) not in told and guarded(lambda here: hearsay.tell_import_error(here, file, trace)):
        told.add((file, trace))


def guarded(call: Callable[[Place], Any]) -> bool:
    """Let no failure of ours become one of the scheduler's or of the task's; it is in the log."""
    from plantao.airflow.connections import place_of_listener
    from plantao.errors import PlantaoError

    try:
        call(place_of_listener())
    except PlantaoError as error:
        logger.warning("an alert could not be written down: %s", error)
    except Exception:  # a defect of ours may not end the scheduler
        logger.exception("an alert could not be written down")
    else:
        return True
    return False


def in_the_background(call: Callable[[], None]) -> None:
    """Call it in a thread that nobody waits for."""
    threading.Thread(target=call, name="plantao alert", daemon=True).start()
