"""Airflow on this machine, for the demo: started, watched and stopped as one.

The four parts of a production set-up, with LocalExecutor. State, logs and the login live under `.plantao/airflow`, the
metadata in a database of its own in the embedded PostgreSQL. Everything listens on the loopback address only, which
`airflow standalone` does not: its log servers listen on every address of the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import psutil

from plantao.errors import DatabaseUnavailable, UsageError
from plantao.postgres import embedded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plantao.config.settings import Settings

PROJECT = Path(__file__).parents[2]
START_SECONDS = 420
STOP_SECONDS = 60


@dataclass(frozen=True)
class Stack:
    """The Airflow of one state folder."""

    settings: Settings
    more: Mapping[str, str] = field(default_factory=dict)
    """Variables of this set-up alone; they come before all others."""

    @property
    def commands(self) -> dict[str, list[str]]:
        """The parts that are started, name to Airflow's command."""
        return PARTS

    @property
    def home(self) -> Path:
        """AIRFLOW_HOME."""
        return self.settings.state / "airflow"

    @property
    def facts(self) -> dict[str, Any]:
        """What was chosen once and stays: ports and secrets, readable by their owner only."""
        path = self.home / "stack.json"
        if path.exists():
            return json.loads(path.read_text())
        self.home.mkdir(parents=True, exist_ok=True)
        return self._write_facts(
            {
                "port": free_port(wanted_port()),
                "password": secrets.token_urlsafe(9),
                "jwt": secrets.token_hex(48),
                "secret": secrets.token_hex(24),
            }
        )

    def _write_facts(self, found: dict[str, Any]) -> dict[str, Any]:
        with os.fdopen(os.open(self.home / "stack.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(found, file)
        return found

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://127.0.0.1:{self.facts['port']}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that Airflow's parts and its command line need."""
        facts, metadata = self.facts, embedded.Server(self.settings.state).address("airflow", "airflow")
        passwords = self.home / "passwords.json"
        if not passwords.exists():
            with os.fdopen(os.open(passwords, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                json.dump({"admin": facts["password"]}, file)
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(PROJECT / "include"),
            "PLANTAO_HOME": str(self.settings.home),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            # Each task is forked from a server that has loaded what tasks import: seconds less for every task.
            "AIRFLOW__CORE__MP_START_METHOD": "forkserver",
            "AIRFLOW__CORE__MP_FORKSERVER_PRELOAD": PRELOAD,
            "OMP_WAIT_POLICY": "passive",  # has to be there before the libraries are
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata.url().replace("postgresql://", "postgresql+psycopg2://"),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            **RETAKEN_SOON,
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "20",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(facts["port"]),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": facts["secret"],
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": facts["jwt"],
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            **self.more,
        }

    @property
    def _pid_file(self) -> Path:
        return self.home / "parts.json"

    @property
    def parts(self) -> dict[str, int]:
        """The parts that run, name to process."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._pid_file.read_text())
            return {name: pid for name, (pid, started) in found.items() if process_start(pid) == started}
        return {}

    def start(self) -> bool:
        """Start what does not run and return when all parts are healthy; whether something had to be started."""
        running = self.parts
        missing = {name: command for name, command in self.commands.items() if name not in running}
        if missing:
            if not running:
                self._airflow("db", "migrate")
                self._leave_a_taken_port()
            running |= {name: self._spawn(name, command) for name, command in missing.items()}
            self._pid_file.write_text(json.dumps({name: (pid, process_start(pid)) for name, pid in running.items()}))
        self._wait_until_healthy()
        return bool(missing)

    def _leave_a_taken_port(self) -> None:
        """Take another port when somebody has taken ours since it was chosen."""
        port = self.facts["port"]
        if (free := free_port(port)) != port:
            self._write_facts({**self.facts, "port": free})

    def _spawn(self, name: str, command: list[str]) -> int:
        environment = self.environment
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                start_new_session=True,
            ).pid

    def kill(self, name: str) -> None:
        """Kill a part and all its processes with a signal that they cannot hear coming; `start` brings it back."""
        os.killpg(self.parts[name], signal.SIGKILL)

    def log(self, name: str) -> Path:
        """Return the file with what a part says."""
        return self.home / f"{name}.log"

    def _airflow(self, *command: str) -> None:
        environment = self.environment
        with self.log("commands").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *command], env=environment, stdout=log, stderr=log, check=False
            )
        if done.returncode != 0:
            message = f"`airflow {' '.join(command)}` failed."
            raise DatabaseUnavailable(message, f"read {self.log('commands')}")

    def _wait_until_healthy(self) -> None:
        until = time.monotonic() + START_SECONDS
        health: dict[str, str] = {}
        while time.monotonic() < until and len(self.parts) == len(self.commands):
            with contextlib.suppress(OSError, ValueError):
                found = self._call("/api/v2/monitor/health", None, "GET", {})
                health = {name: part.get("status") for name, part in found.items()}
                if all(health.get(name) == "healthy" for name in HEALTHY_PARTS):
                    self.ask("version")  # only ours knows the password: another Airflow may have been faster
                    return
            time.sleep(0.3)
        gone = ", ".join(name for name in self.commands if name not in self.parts)
        message = f"Airflow did not become healthy ({f'{gone} ended' if gone else health or 'no answer'})."
        raise DatabaseUnavailable(message, f"read the logs in {self.home}")

    def ask(self, path: str, body: dict[str, Any] | None = None, method: str = "GET") -> Any:
        """Return Airflow's answer to a call of its REST API."""
        login = {"username": "admin", "password": self.facts["password"]}
        token = self._call("/auth/token", login, "POST", {})["access_token"]
        return self._call(f"/api/v2/{path}", body, method, {"Authorization": f"Bearer {token}"})

    def _call(self, path: str, body: dict[str, Any] | None, method: str, headers: dict[str, str]) -> Any:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = Request(self.url + path, content, headers, method=method)  # noqa: S310 - an address made here
        with urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def stop(self) -> bool:
        """Stop every process that `start` started; whether there was one."""
        groups = set(self.parts.values())
        stopped = bool(groups)
        # A signal that comes just after a start can get lost, so it is sent again; the last kind cannot be ignored.
        for sent in (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            for group in groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, sent)
            until = time.monotonic() + STOP_SECONDS / 4
            while groups and time.monotonic() < until:
                groups = {group for group in groups if group_is_alive(group)}
                time.sleep(0.1)
            if not groups:
                break
        self._pid_file.unlink(missing_ok=True)
        return stopped


# What is started, and what of it the health page must call healthy.
PARTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
# What a killed scheduler or worker leaves behind is taken again within a minute; by default it takes five.
RETAKEN_SOON = {
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
}
HEALTHY_PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
HIGHEST_PORT = 65_000  # some are left after it, to look for a free one
PRELOAD = ",".join(
    (
        *("pandas", "pyarrow.compute", "joblib", "psycopg2", "sqlalchemy", "adbc_driver_postgresql.dbapi"),
        *("sklearn.pipeline", "sklearn.compose", "sklearn.ensemble", "sklearn.linear_model"),
        *("airflow.dag_processing.dagbag", "plantao.airflow.service_dags", "plantao.airflow.plugin"),
        *("plantao.run.run", "plantao.run.reconcile", "plantao.measure.measure", "plantao.measure.performance"),
    )
)


def wanted_port() -> int:
    """Return the port from which on a free one is looked for. Raises UsageError when PLANTAO_DEMO_PORT is none."""
    given = os.environ.get("PLANTAO_DEMO_PORT") or "8080"
    if not given.isdecimal() or not 1024 <= int(given) <= HIGHEST_PORT:
        message = f"PLANTAO_DEMO_PORT is {given!r}; accepted is a whole number from 1024 to {HIGHEST_PORT}."
        raise UsageError(message, "export PLANTAO_DEMO_PORT=9000, for instance, or unset it")
    return int(given)


def free_port(wanted: int) -> int:
    """Return the first port at or after `wanted` that nobody on this machine listens on."""
    for port in range(wanted, wanted + 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("", port))
                return port
    return wanted


def process_start(pid: int) -> float | None:
    """Return when a process was started; with its number that names a process which may be gone by now."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.create_time()
    return None


def group_is_alive(group: int) -> bool:
    """Tell whether a process of the group is left; one that has ended and was ours is taken note of."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
