"""A real PostgreSQL for the session, a fresh client for every test that asks, and a world to act in."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

import debian_packages
import reaper
from plantao import log
from plantao.postgres import embedded
from world import World, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[1]
ROOM_FOR_SERVERS = 6 * 2**30
# No example counts on the speed of the machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


# What the machine, its user or a shell has set must not reach a test.
OF_THE_MACHINE = (
    "PLANTAO_", "AIRFLOW", "PG", "GIT_", "MAKE", "MFLAGS", "LC_", "LANG", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
)  # fmt: skip


def pytest_configure(config) -> None:
    """Keep the machine's own set-up away from the tests; and should one import Airflow, let it be a fresh one."""
    if not hasattr(config, "workerinput"):
        _isolate()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    home = Path(tempfile.gettempdir(), f"airflow-{worker}")
    home.mkdir(exist_ok=True)
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        # Tests run side by side: two that start an Airflow at the same moment must not choose the same port.
        "PLANTAO_DEMO_PORT": str(8080 + 200 * int(worker[2:])),
    }


def pytest_terminal_summary(terminalreporter) -> None:
    """Name the missing Debian packages once, with the command that installs them."""
    skipped = terminalreporter.stats.get("skipped", [])
    for line in debian_packages.summary([str(report.longrepr[-1]) for report in skipped]):
        terminalreporter.write_line(line, yellow=True)


def _isolate() -> None:
    """Give this run an environment and a folder for temporary files of its own, which end with it."""
    for name in [name for name in os.environ if name.upper().startswith(OF_THE_MACHINE)]:
        del os.environ[name]
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # what a failed test leaves can be looked at
    folder = Path(tempfile.mkdtemp(prefix="plantao-tests-", dir=_in_memory()))
    folder.chmod(0o711)  # the account of a server has to pass through
    (folder / "home").mkdir()
    tempfile.tempdir = str(folder)
    os.environ |= {"TMPDIR": str(folder), "HOME": str(folder / "home"), "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    time.tzset()
    os.umask(0o022)
    reaper.watch_over(folder)


def _in_memory() -> Path | None:
    """Return where files lie in memory, when there is room: a server makes a database there in a third of the time."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_FOR_SERVERS
    return memory if roomy else None


# What takes longest begins first, so that the processes end together; then the files in the order of `testpaths`.
FIRST = (
    "day1", "test_demo.py", "day60", "test_killed_worker.py", "test_frozen_server.py", "airflow in one process", "day0",
    "day2", "test_crash.py", "test_reaper.py", "test_every_row", "crash/test_alerts.py", "test_names_are",
    "test_values_are",
)  # fmt: skip
# Files that share one process, for its migrated database, and files of long tests that share nothing.
AIRFLOW_IN_ONE_PROCESS = {"test_dags.py", "test_runs.py", "test_plugins.py", "test_failure_listener.py"}
ONE_BY_ONE = {"test_every_row_once.py", "test_injection.py"}


def group_of(nodeid: str) -> str:
    """Return what has to stay in one process with a test: its file, unless the lists say otherwise."""
    path, _, name = nodeid.partition("::")
    file = path.rpartition("/")[2]
    if file in AIRFLOW_IN_ONE_PROCESS:
        return "airflow in one process"
    if file == "test_days.py":
        return name[name.index("[") + 1 : -1] if "[" in name else "day0"
    return name if file in ONE_BY_ONE else path


class Groups(LoadScopeScheduling):
    """Shares the tests out by group. (xdist's own marks of groups do nothing under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config, log) -> Groups:
    """Share the tests out by group."""
    return Groups(config, log)


def pytest_collection_modifyitems(items) -> None:
    """Put the groups that take longest first."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(group_of(item.nodeid), []).append(item)
    order = {name: next((place for place, one in enumerate(FIRST) if one in name), len(FIRST)) for name in groups}
    items[:] = [item for name in sorted(groups, key=order.__getitem__) for item in groups[name]]


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
def server() -> Iterator[embedded.Server]:
    """The embedded PostgreSQL."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)  # the account of the server has to pass through
    with serving(folder / "state") as found:
        yield found


@pytest.fixture
def world(server, tmp_path) -> Iterator[World]:
    """A client with an empty database, a folder for job files and an empty model store."""
    with World.create(server, tmp_path) as created:
        yield created


@pytest.fixture
def plantao(world, monkeypatch, capsys):
    """Return a function that runs a command and gives back (exit status, output, errors)."""
    from plantao import cli

    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["plantao", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.entry()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


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
