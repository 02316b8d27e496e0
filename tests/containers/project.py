"""One compose project: the containers of docker-compose.yml under one env file."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Event
from typing import Any

import yaml

from containers.engine import Failed, environment, podman, run

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 900


@dataclass
class Project:
    """The project of an env file; `ready` says after how many seconds each service was."""

    env_file: Path
    ready: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = [line.partition("=") for line in self.env_file.read_text().splitlines() if not line.startswith("#")]
        self.env = {name: value for name, _, value in lines if name}
        self.name = self.env["COMPOSE_PROJECT_NAME"]

    def compose(self, *arguments: str, options: tuple[str, ...] = ()) -> str:
        """Run podman-compose on the project. Without a pod, so that every container has an address, as under Docker."""
        command = [sys.executable, "-m", "podman_compose", "--in-pod", "false", "--env-file", str(self.env_file)]
        return run(*command, "--file", str(ROOT / "docker-compose.yml"), *options, *arguments)

    def create(self) -> None:
        """Make the network, the volumes and the containers, and start none of them."""
        self.compose("up", "--no-start", "--no-deps")  # podman 4.3 itself cannot start what rests on what has ended
        self.services: dict[str, Any] = yaml.safe_load(self.compose("config"))["services"]
        self.began = time.monotonic()

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{self.name}_{service}_1"

    # --- starting: what Docker's daemon and `docker compose up` do ----------------------------------------------------

    def start(self, *only: str) -> None:
        """Start the services, or some and what they rest on, each once what it rests on is ready.

        podman-compose starts a service before its dependencies are healthy where podman is older than 4.6, and waits
        for ever where no systemd runs the checks. Raises Failed when one does not become healthy or does not succeed.
        """
        rests_on = {
            name: set(service.get("depends_on", {})) & set(self.services) for name, service in self.services.items()
        }
        wanted = list(only or rests_on)
        for name in wanted:
            wanted += rests_on[name] - set(wanted)
        becoming: dict[str, Future[None]] = {}
        given_up = Event()
        with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
            for name in TopologicalSorter(rests_on).static_order():
                if name in wanted and name not in self.ready:
                    before = [becoming[other] for other in rests_on[name] if other in becoming]
                    becoming[name] = pool.submit(self._bring_up, name, before, given_up)
            try:
                done, _ = futures.wait(becoming.values(), return_when=futures.FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                given_up.set()

    def _bring_up(self, service: str, before: list[Future[None]], given_up: Event) -> None:
        for future in before:
            future.result()
        container = self.container(service)
        podman("start", container)
        watched = "healthcheck" in self.services[service]
        # Its own check in its own interval, the first one after an interval, as Docker does.
        interval = int(look(container, "{{json .Config.Healthcheck.Interval}}")) / 1e9 if watched else 0.5
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not given_up.wait(interval):
            if watched:
                subprocess.run(
                    ["podman", "healthcheck", "run", container], capture_output=True, env=environment(), check=False
                )
            state = look(container, "{{.State.Health.Status}}" if watched else "{{.State.Status}} {{.State.ExitCode}}")
            if state == ("healthy" if watched else "exited 0"):
                self.ready[service] = time.monotonic() - self.began
                return
            if state == "unhealthy" or state.startswith("exited") or time.monotonic() > deadline:
                message = f"{container} is {state}; it said:\n{log(container)}"
                raise Failed(message)
        message = f"{container} was given up"
        raise Failed(message)

    # --- looking ------------------------------------------------------------------------------------------------------

    def inside(self, service: str, *command: str, given: str = "") -> str:
        """Run a command in a service's container, with something to read, and return what it printed."""
        return podman("exec", "--interactive", self.container(service), *command, given=given)

    def psql(self, service: str, statement: str, *options: str) -> str:
        """Return what psql prints of a statement on the database that a service is."""
        user = self.services[service]["environment"]["POSTGRES_USER"]
        return self.inside(service, "psql", "--username", user, "--no-psqlrc", *options, "--command", statement)

    def rows(self, service: str, statement: str) -> list[list[str]]:
        """Return the rows of a query on the database that a service is."""
        return list(csv.reader(self.psql(service, statement, "--csv", "--tuples-only").splitlines()))

    def not_confined(self) -> dict[str, str]:
        """Return what the kernel says of the containers that run, where it is not what it must be."""
        wrong = {}
        for service, description in self.services.items():
            if "healthcheck" not in description:
                continue
            lines = [line.split() for line in self.inside(service, "cat", "/proc/1/status").splitlines()]
            status = {words[0]: words[1:] for words in lines if words}
            mounts = [line.split() for line in self.inside(service, "cat", "/proc/1/mounts").splitlines()]
            root = next(options.split(",") for _, place, _, options, *_ in mounts if place == "/")
            faults = {
                "runs as root": "0" in status["Uid:"] + status["Gid:"],
                "may gain privileges": status["NoNewPrivs:"] != ["1"],
                "has capabilities": any(int(status[f"Cap{kind}:"][0], 16) for kind in ("Inh", "Prm", "Eff", "Bnd")),
                "can write to its root file system": "ro" not in root,
            }
            if found := [fault for fault, is_there in faults.items() if is_there]:
                wrong[service] = ", ".join(found)
        return wrong

    # --- the end ------------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Stop and remove every container, volume and network of the project. Raises Failed when something stays."""
        label = f"label=io.podman.compose.project={self.name}"
        if containers := podman("ps", "--all", "--quiet", "--filter", label).split():
            podman("rm", "--force", "--ignore", "--time=10", "--volumes", *containers)
        for kind in ("volume", "network"):
            for name in podman(kind, "ls", "--quiet", "--filter", label).split():
                podman(kind, "rm", name)


def look(container: str, template: str) -> str:
    """Return what podman knows of a container."""
    return podman("inspect", container, "--format", template).strip()


def log(container: str) -> str:
    """Return the last lines that a container has printed."""
    command = ["podman", "logs", "--tail", "40", container]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), check=False
    ).stdout
