"""A real PostgreSQL for the session, a fresh client for every test that asks, and a world to act in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plantao import embedded, log
from world import World, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[1]


def pytest_configure(config) -> None:
    """Keep the machine's own set-up away from the tests; and should one import Airflow, let it be a fresh one."""
    for name in [name for name in os.environ if name.startswith(("PLANTAO_", "AIRFLOW"))]:
        del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="plantao-airflow-")
    config.add_cleanup(home.cleanup)
    os.environ |= {
        "AIRFLOW_HOME": home.name,
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home.name}/airflow.db",
        # Tests run side by side: two that start an Airflow at the same moment must not choose the same port.
        "PLANTAO_DEMO_PORT": str(8080 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])),
    }


@pytest.fixture(autouse=True)
def places_of_the_log() -> Iterator[None]:
    """Close what a test opened for the log: a terminal that pytest has captured ends with the test.

    And the table of a database that is gone: its thread would try for ever, and the end of all tests wait for each.
    """
    logger = log.logger
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    opened = [handler for handler in logger.handlers if handler not in handlers]
    logger.handlers[:], logger.propagate = handlers, propagate
    for handler in opened:
        handler.close()
    logger.setLevel(level)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[embedded.Server]:
    """The embedded PostgreSQL."""
    with serving(tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture
def world(server, tmp_path) -> Iterator[World]:
    """A client with an empty database, a folder for job files and an empty model store."""
    with World.create(server, tmp_path) as created:
        yield created


@pytest.fixture
def two_databases(server, tmp_path) -> Iterator[World]:
    """The same, but predictions and ledger go to another database, `results_db`."""
    with World.create(server, tmp_path, results="results_db") as created:
        yield created


@pytest.fixture
def standby(server, tmp_path) -> Iterator[embedded.Server]:
    """A hot standby of the session's server, as a client lends it for reading."""
    copy = embedded.Server(tmp_path / "standby")
    for folder in (copy.state / "postgres", copy.socket_folder):
        embedded._own(folder, embedded._account())
    run = embedded._Runner(copy)
    source = ["-h", str(server.socket_folder), "-U", embedded.USER]
    run("pg_basebackup", *source, "-D", str(copy.data), "-R", "-X", "stream", "-c", "fast")
    embedded.start(copy, databases=())
    yield copy
    embedded.stop(copy)
