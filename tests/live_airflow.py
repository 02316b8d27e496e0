"""A real Airflow around a world: a scheduler, an API server, and every task in a process of its own."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.stack import Stack
from plantao.config import settings
from world import JOB, World, administer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plantao.postgres import embedded
    from plantao.window import Window

METADATA = "live_airflow"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class LiveAirflow(Stack):
    """The demo's Airflow with a world's job files and connections; its metadata lie on the world's server."""

    world: World

    @property
    def metadata(self) -> str:
        """The URL of Airflow's own database, without a scheme."""
        return self.world.server.address("airflow", METADATA).url().removeprefix("postgresql://")

    @property
    def environment(self) -> dict[str, str]:
        address = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{self.metadata}"}
        return {**super().environment, **self.world.environment, **address, **self.more}

    @classmethod
    @contextmanager
    def create(cls, server: embedded.Server, folder: Path, **more: str) -> Iterator[Any]:
        """Make the world and the metadata database; what was started is stopped at the end."""
        administer(server, f"create database {METADATA}")
        (folder / "world").mkdir()
        try:
            with World.create(server, folder / "world") as world:
                found = cls(settings.read({**world.environment, "PLANTAO_HOME": str(folder)}), world=world, more=more)
                try:
                    yield found
                finally:
                    found.stop()
        finally:
            administer(server, f"drop database {METADATA} with (force)")

    @classmethod
    @contextmanager
    def slow(
        cls, server: embedded.Server, folder: Path, dag_file: str, per_day: int, row_seconds: float, **more: str
    ) -> Iterator[Any]:
        """Start one in which nothing is due by itself, and a job whose source takes a while to be read.

        `dag_file` takes the place of the project's DAGs. It can import these, and change what a test cannot wait for.
        """
        (folder / "dags").mkdir()
        (folder / "dags" / "quick.py").write_text(dag_file)
        more |= {
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "PYTHONPATH": str(ROOT / "include"),
        }
        with cls.create(server, folder, **more) as found:
            found.world.fill(days=2, per_day=per_day)
            found.world.sql(
                "alter table readings rename to slow_readings; create view readings as"
                f" select r.* from slow_readings r, pg_sleep({row_seconds} + 0 * r.x)"
            )
            found.world.register()
            job = JOB.replace('schedule = "daily"', 'schedule = "on demand"')
            found.world.job(job + '[alert]\nchannel = "#on-call"\n')
            found.start()
            yield found

    def trigger(self, window: Window) -> str:
        """Ask for a run of a window, and return its path in Airflow's REST API."""
        interval = {"data_interval_start": window.start.isoformat(), "data_interval_end": window.end.isoformat()}
        run = self.ask("dags/bad_reading/dagRuns", {"logical_date": window.end.isoformat(), **interval}, "POST")
        return f"dags/bad_reading/dagRuns/{run['dag_run_id']}"


def wait_for(what: Callable[[], Any], patience: float = 600) -> Any:
    """Return what `what` returns once that is something."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    msg = f"waited {patience:g} s in vain"
    raise AssertionError(msg)
