"""Podman: that it is there, and how it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# Podman as Debian packages it, with networks in which containers find each other by name.
PODMAN = ("podman", "runc", "netavark", "aardvark-dns", "iptables", "catatonit")
PROJECTS_OWN = ("AIRFLOW_", "PLANTAO_", "POSTGRES_", "COMPOSE_", "BASE_IMAGE")


class Failed(Exception):
    """Something is not as it must be; the message says what."""


def environment() -> dict[str, str]:
    """Return the variables for podman: without those that would speak louder than an env file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PROJECTS_OWN)}
    if not Path("/run/systemd/system").exists():
        kept.setdefault("CONTAINERS_CONF", str(Path(__file__).with_name("containers.conf")))
        kept["DISABLE_HC_SYSTEMD"] = "true"  # nobody is there to run a timer; see Project.start
    return kept


def require(command: str, *others: str) -> None:
    """Install what is missing of a command's package and others, which takes root on Debian.

    Elsewhere packages have other names, and the command must be there. Raises Failed when it is not.
    """
    on_debian = Path("/etc/debian_version").exists()
    if on_debian:
        missing = [name for name in (command, *others) if not _installed(name)]
    else:
        missing = [command] if shutil.which(command) is None else []
    if not missing:
        return
    if not on_debian or os.geteuid() != 0:
        message = f"missing: {' '.join(missing)}. Install it, or run this as root on Debian, which installs it."
        raise Failed(message)
    print(f"installing {' '.join(missing)}", flush=True)
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-qq", "--yes", "--no-install-recommends", *missing)


def _installed(package: str) -> bool:
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    found = subprocess.run(command, capture_output=True, check=False)
    return found.stdout == b"installed"


def podman(*arguments: str, given: str = "") -> str:
    """Run podman and return what it printed. Raises Failed with what it complained about."""
    return run("podman", *arguments, given=given)


def run(*command: str, given: str = "") -> str:
    """Run a command, with something to read, and return what it printed. Raises Failed with its complaint."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), input=given, check=False)
    if done.returncode:
        message = f"{' '.join(command)[:400]}\nended with {done.returncode}: {(done.stdout + done.stderr)[-4000:]}"
        raise Failed(message)
    return done.stdout
