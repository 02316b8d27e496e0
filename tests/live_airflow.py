"""A real Airflow around a world: a scheduler, an API server, and every task in a process of its own."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.stack import Stack
from plantao import settings
from world import World, administer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from plantao import embedded

METADATA = "live_airflow"


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


def wait_for(what: Callable[[], Any], patience: float = 150) -> Any:
    """Return what `what` returns once that is something."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    msg = f"waited {patience:g} s in vain"
    raise AssertionError(msg)
