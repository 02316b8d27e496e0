"""One pool per client connection, made when it is first needed.

A pool bounds how many tasks read one client's database at once, whatever the number of jobs. Airflow never schedules a
task whose pool does not exist and only says so in a log, so the pool is made before the run's first task is scheduled.
The number of slots can be changed in the UI afterwards and stays.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl
from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import insert, select

from plantao.airflow.metadata import metadata_transaction

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

SLOTS = int(os.environ.get("PLANTAO_POOL_SLOTS") or 4)


class MakePools:
    """Listens for runs that start."""

    @hookimpl
    def on_dag_run_running(self, dag_run: DagRun, msg: str) -> None:
        """Make the pools of the run's tasks that do not exist yet."""
        del msg
        wanted = select(TaskInstance.pool).where(
            TaskInstance.dag_id == dag_run.dag_id, TaskInstance.run_id == dag_run.run_id
        )
        with metadata_transaction() as connection:
            names = set(connection.scalars(wanted))
        make_pools(names)


def make_pools(names: set[str]) -> None:
    """Make the pools that do not exist yet; one that does stays as it is."""
    with metadata_transaction() as connection:
        for name in names - set(connection.scalars(select(Pool.pool))):
            description = f"how many tasks read the connection {name} at once"
            pool = {"pool": name, "slots": SLOTS, "description": description, "include_deferred": False}
            connection.execute(insert(Pool).values(pool))
