"""Set up `.venv`: the Makefile runs this file with a plain Python, before any package is installed.

Standard library only. The environment has a record of what it was made for. An environment without a record, or with
one that no longer fits, is made from scratch: packages of an interrupted installation look complete to pip, and a
folder that was moved leaves paths behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

PROJECT = Path(__file__).resolve().parents[1]
VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
RECORD = VENV / "set-up.json"
LOG = VENV / "set-up.log"
LOCKS = {"demo": ("requirements.txt",), "test": ("requirements.txt", "tests/requirements.txt")}


class SetUpFailed(Exception):
    """The set-up did not succeed; the message says why and what to do next."""


@dataclass(frozen=True)
class Record:
    """What an environment was made for."""

    folder: str
    python: str
    version: str
    installed: dict[str, str] = field(default_factory=dict)
    """Digests of the files that were installed, by the names of LOCKS and `project`."""


class Cause(NamedTuple):
    """A reason for a failed installation, recognised in the installer's output."""

    pattern: str
    words: str
    next: str


UNREACHABLE = Cause(
    r"ConnectionError|Timeout|[Tt]imed out|ProxyError|SSLError|[Nn]ame resolution|not known|Connection refused"
    r"|error sending request|dns error|tcp connect|from versions: none",
    "The package index cannot be reached.",
    "check the network, the proxy (HTTPS_PROXY) and the index (`pip config list`), then run make again",
)
CAUSES = (
    Cause(
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "make room (`df -h . /tmp` shows where), then run make again",
    ),
    Cause(
        r"DO NOT MATCH THE HASHES|Hash mismatch",
        "The package index gave a file that differs from the lock, so it was not installed.",
        "run make again; if the message stays, use another package index",
    ),
    Cause(
        r"ensurepip is not available|No module named '?(venv|ensurepip)",
        "This Python lacks the module venv. Debian and Ubuntu have it in a package of its own.",
        "sudo apt-get install python{}.{}-venv".format(*sys.version_info),
    ),
    UNREACHABLE,
    Cause(
        r"Failed building|metadata-generation-failed|subprocess-exited-with-error|[Ff]ailed to build",
        "A package could not be built; most have a wheel for Linux (glibc, x86_64 or aarch64) and macOS.",
        "read the file above; on another system, run make in a container",
    ),
    Cause(
        r"No matching distribution|no version of|no wheels? with a matching",
        "The package index lacks a package of the lock, or has none for this machine.",
        "use another package index (`pip config list` shows yours), then run make again",
    ),
    Cause(
        r"Permission denied|Read-only file system",
        "A folder cannot be written.",
        "clone into a folder of your own, then run make again",
    ),
)
UNKNOWN = Cause("", "The reason is not a known one.", "rm -r .venv, then run make again")


def cause(output: str) -> Cause:
    """Return the cause of a failed installation. Pure."""
    return next((known for known in CAUSES if re.search(known.pattern, output)), UNKNOWN)


def last_error(output: str) -> str:
    """Return the last line of the output that states an error, else the last line. Pure."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|error)\b|\w*Error:", line)]
    return (errors or lines or ["no output"])[-1][:300]


def reason_to_start_over(record: Record | None, aim: Record, *, runs: bool) -> str | None:
    """Return why an environment must be made from scratch; None when it can stay. Pure."""
    if record is None:
        return "the last set-up did not finish"
    if record.folder != aim.folder:
        return f"it was made in {record.folder}"
    if record.version != aim.version:
        return f"it was made for Python {record.version}"
    if record.python != aim.python:
        return f"it was made with the Python in {record.python}"
    return None if runs else "its Python is gone"


# --- the environment and its record ----------------------------------------------------------------------------------


def aimed_at() -> Record:
    """Return what the environment must have been made for."""

    def digest(*names: str) -> str:
        return hashlib.sha256(b"".join((PROJECT / name).read_bytes() for name in names)).hexdigest()

    installed = {name: digest(*locks) for name, locks in LOCKS.items()} | {"project": digest("pyproject.toml")}
    return Record(str(PROJECT), sys.base_prefix, "{}.{}".format(*sys.version_info), installed)


def read_record() -> Record | None:
    """Return what the environment was made for; None when it is absent or unfinished."""
    try:
        return Record(**json.loads(RECORD.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(record: Record) -> None:
    """Mark the environment as finished."""
    fresh = RECORD.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record), indent=2), encoding="utf-8")
    fresh.replace(RECORD)


# --- installing ------------------------------------------------------------------------------------------------------


def variables() -> dict[str, str]:
    """Return the variables for the installers, without those that lead to another environment."""
    led_away = ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
    kept = {name: value for name, value in os.environ.items() if name not in led_away}
    return {**kept, "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(*command: str | Path) -> tuple[int, str]:
    """Run a command, append its output to the log where there is one, and return status and output."""
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env=variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if VENV.is_dir():
        with LOG.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(map(str, command))}\n{done.stdout}")
    return done.returncode, done.stdout


def call(*command: str | Path) -> None:
    """Run a step that must succeed. Raises SetUpFailed with the cause that its output shows."""
    status, output = run(*command)
    if status != 0:
        fail(output)


def fail(output: str) -> NoReturn:
    """Raise SetUpFailed with the cause that the output shows."""
    found = cause(output)
    where = f"\n  (the whole output: {LOG})" if LOG.exists() else ""
    message = f"{found.words}\n  {last_error(output)}{where}\nNext: {found.next}"
    raise SetUpFailed(message)


def find_uv() -> str | None:
    """Return uv where a working one is on the PATH; a shim may lead nowhere."""
    uv = shutil.which("uv")
    return uv if uv is not None and run(uv, "--version")[0] == 0 else None


def writable(folder: Path) -> bool:
    """Return whether a folder can be written, or made."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return os.access(there, os.W_OK)


def make_empty(uv: str | None) -> None:
    """Make an empty environment in place of the one that is there. uv needs no pip in it."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    call(base, "-m", "venv", "--clear", *(["--without-pip"] if uv else []), VENV)


def install(uv: str | None, locks: tuple[str, ...]) -> None:
    """Install the locks, if any, and the project.

    The locks are complete, so no installer looks for more: pip up to 23.2 does not see that a package with an extra is
    pinned. Bytecode is compiled now, or every start of Airflow would compile ten thousand modules.
    """
    compiled = os.environ.get("BYTECODE") != "no"
    if uv:
        command = [uv, "pip", "install", "--quiet", "--python", PYTHON, *(["--compile-bytecode"] if compiled else [])]
        status, cache = run(uv, "cache", "dir")
        if status != 0 or not writable(Path(cache.strip())):
            command.append("--no-cache")
    else:
        command = [PYTHON, "-m", "pip", "install", "--quiet", "--no-compile"]
        if run(PYTHON, "-c", "import pip")[0] != 0:  # uv made this environment and is gone
            call(PYTHON, "-m", "ensurepip", "--default-pip")
    if locks:
        call(*command, "--require-hashes", "--no-deps", *(part for lock in locks for part in ("-r", lock)))
    call(*command, "--no-deps", "--no-build-isolation", "-e", ".")
    if compiled and not uv:  # on all cores; pip takes one. Some packages have templates that are no Python.
        run(PYTHON, "-m", "compileall", "-q", "-j", "0", VENV / "lib")


def set_up(name: str) -> None:
    """Bring the environment up to date with the locks of `demo` or `test`. Raises SetUpFailed."""
    aim, record = aimed_at(), read_record()
    reason = reason_to_start_over(record, aim, runs=os.access(PYTHON, os.X_OK))
    installed = {} if reason or record is None else record.installed
    stale = {part for part in (name, "project") if installed.get(part) != aim.installed[part]}
    if not stale:
        return
    began = time.monotonic()
    uv = find_uv()
    afresh = f" from scratch, because {reason}" if reason and VENV.exists() else ""
    slow = "" if uv else " (some minutes)"
    print(f"setting up .venv with {'uv' if uv else 'pip'} for Python {aim.version}{afresh}{slow}", flush=True)
    RECORD.unlink(missing_ok=True)
    if reason:
        make_empty(uv)
    try:
        install(uv, LOCKS[name] if name in stale else ())
    except SetUpFailed as error:
        if not reason and record and UNREACHABLE.words in str(error):  # nothing is installed before all is downloaded
            write_record(record)
        raise
    fresh = {"project", *(part for part in LOCKS if set(LOCKS[part]) <= set(LOCKS[name]) and name in stale)}
    write_record(replace(aim, installed={**installed, **{part: aim.installed[part] for part in fresh}}))
    print(f"set up in {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    """Set up what the command line names, one process at a time, and return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)  # the embedded PostgreSQL of root runs under another account, which must read its programs
    lock = os.open(PROJECT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another make that sets up .venv", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        set_up(sys.argv[1])
    except SetUpFailed as error:
        print(f"The set-up failed. {error}", file=sys.stderr)
        return 1
    except OSError as error:
        found = cause(str(error))
        print(f"The set-up failed. {found.words}\n  {error}\nNext: {found.next}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe set-up was interrupted. Next: run make again; it starts from scratch.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
