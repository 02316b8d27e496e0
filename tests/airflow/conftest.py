"""An Airflow of the tests' own: a migrated metadata database, no scheduler, no server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from world import World


OURS = "plantao|demo|scoring_jobs|world"


def pytest_collection_modifyitems(items) -> None:
    """Airflow and the libraries it pins warn of each other; in here only warnings of our own are errors."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore"))
            item.add_marker(pytest.mark.filterwarnings(f"error:::({OURS})"))


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory) -> Path:
    """Migrate the metadata database that `tests/conftest.py` has pointed Airflow to, once."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    return Path(os.environ["AIRFLOW_HOME"])


@pytest.fixture
def airflow_world(world, monkeypatch, airflow_home) -> World:
    """A world that Airflow's tasks find through their connections and settings."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    return world


def load_dags(folder: Path | None = None) -> dict:
    """Parse the DAG files as the DAG processor does, and return the DAGs by name."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(folder or os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    assert bag.import_errors == {}
    return bag.dags
