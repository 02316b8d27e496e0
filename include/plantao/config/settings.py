"""Where things are: job files, model store, ledger schema, and the connections' addresses.

Everything comes from the environment, so that laptop, staging and production differ by an env file
and by nothing else:

    PLANTAO_HOME         the project (default: the nearest folder upwards with include/jobs or .plantao)
    PLANTAO_JOBS         the folder of job files           (default: HOME/include/jobs)
    PLANTAO_MODEL_STORE  the model versions: a folder or a URL such as s3://bucket/models
                                                           (default: HOME/.plantao/models)
    PLANTAO_CACHE        what was fetched from a bucket    (default: HOME/.plantao/cache)
    PLANTAO_LOCK         the lock that was installed from  (default: HOME/requirements.txt)
    PLANTAO_SCHEMA       the schema of the ledger          (default: plantao)
    PLANTAO_THREADS      threads a model may use           (default: every core if OpenMP waits asleep, else half)
    OMP_WAIT_POLICY      how OpenMP's threads wait         (default: passive, which is asleep)
    PLANTAO_WATCH_FILE   what the watchdog remembers       (default: HOME/.plantao/watch.json)
    PLANTAO_PING_URL     a page elsewhere that misses the watchdog when it is silent (see docs/watching.md)
    PLANTAO_LOG_…        where events go, from which level on (see `log`)
    PLANTAO_AIRFLOW_URL  where Airflow answers, for `plantao check` and the watchdog  (default: AIRFLOW__API__BASE_URL)
    AIRFLOW__API__BASE_URL  where people open Airflow: messages link there   (default: PLANTAO_AIRFLOW_URL)
    AIRFLOW_CONN_NAME    the connection `name`, as Airflow spells it: a URI or JSON
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plantao.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ModelStore:
    """Where model versions are found."""

    address: str
    """A folder, or a URL for fsspec. New versions are written here."""
    beside_code: Path
    """The folder of the versions that travel with the code, for what the store at `address` lacks. Only read."""
    cache: Path
    """The folder for what was fetched from a store that is no folder."""

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class Settings:
    """The places one process works with."""

    home: Path
    jobs: Path
    model_store: ModelStore
    schema: str
    threads: int
    lock: Path
    """The lock file that this environment was installed from, if it is there."""
    airflow_url: str | None = None
    """Where programs ask Airflow."""
    airflow_page: str | None = None
    """Where people open Airflow."""
    watch_file: Path | None = None
    """What the watchdog remembers of databases that do not answer; it is touched at every look."""

    @property
    def state(self) -> Path:
        """The folder for everything that is made here and can be thrown away."""
        return self.home / ".plantao"


def find_home(start: Path) -> Path:
    """Return the nearest folder at or above `start` that looks like a Plantão project, else `start`."""
    for folder in (start, *start.parents):
        if (folder / "include" / "jobs").is_dir() or (folder / ".plantao").is_dir():
            return folder
    return start


def usable_cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for each other; it has to be said before scikit-learn loads OpenMP.

    By default they spin, and on a busy machine they spin away the very cores that they wait for: three models with
    two threads each took seven times as long on two cores as with one thread each, and with this setting less.
    """
    if "sklearn" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def read(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment. An empty variable counts as one that is not set."""
    env = {name: value for name, value in (environment or os.environ).items() if value}
    home = Path(env["PLANTAO_HOME"]).absolute() if "PLANTAO_HOME" in env else find_home(Path.cwd())
    return Settings(
        home=home,
        jobs=Path(env.get("PLANTAO_JOBS", home / "include" / "jobs")).absolute(),
        model_store=ModelStore(
            address=env.get("PLANTAO_MODEL_STORE", str(home / ".plantao" / "models")),
            beside_code=home / "include" / "models",
            cache=Path(env.get("PLANTAO_CACHE", home / ".plantao" / "cache")).absolute(),
        ),
        schema=env.get("PLANTAO_SCHEMA", "plantao"),
        threads=_threads(env.get("PLANTAO_THREADS"), asleep=env.get("OMP_WAIT_POLICY", "").lower() == "passive"),
        lock=Path(env.get("PLANTAO_LOCK", home / "requirements.txt")).absolute(),
        airflow_url=env.get("PLANTAO_AIRFLOW_URL") or env.get("AIRFLOW__API__BASE_URL"),
        airflow_page=env.get("AIRFLOW__API__BASE_URL") or env.get("PLANTAO_AIRFLOW_URL"),
        watch_file=Path(env.get("PLANTAO_WATCH_FILE", home / ".plantao" / "watch.json")).absolute(),
    )


def _threads(given: str | None, *, asleep: bool) -> int:
    if given is None:
        return usable_cores() if asleep else max(1, usable_cores() // 2)
    if not given.isdigit() or int(given) < 1:
        message = f"PLANTAO_THREADS is {given!r}; accepted is a whole number from 1 on."
        raise UsageError(message)
    return int(given)
