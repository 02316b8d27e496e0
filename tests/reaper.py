"""The end of everything that a run of the tests has started, however the run itself ends.

    python tests/reaper.py PID MARK FOLDER

A run that is killed can clean up nothing. So its first process starts this one, which waits for its end, and then ends
what is left: the processes with the run's mark in their environment, and all that descend from these. Some programs
write over their environment, as Airflow's and PostgreSQL's do, and a process can outlive the one that it descends from.
That is why they are looked for all the time, and remembered.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil

MARK = "MARK_OF_THE_TESTS"
LOOK_EVERY_SECONDS = 1.0
PATIENCE_SECONDS = 30.0


def watch_over(folder: Path) -> None:
    """Let this process, all that it starts and, at their end, `folder` be cleaned away when this process has ended."""
    if not sys.platform.startswith("linux"):
        return
    mark = os.environ[MARK] = secrets.token_hex(16)
    command = [sys.executable, __file__, str(os.getpid()), mark, str(folder)]
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "LD_LIBRARY_PATH"}}
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)]
    # In a session of its own no signal of the terminal reaches it.
    os.posix_spawn(sys.executable, command, environment, file_actions=quiet, setsid=True)


def carries(process: psutil.Process, mark: str) -> bool:
    """Tell whether a process was started with the mark in its environment."""
    with contextlib.suppress(OSError):
        return f"{MARK}={mark}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    return False


class Family:
    """The processes of a run, as far as they have been seen."""

    def __init__(self, first: psutil.Process, mark: str) -> None:
        self.mark, self.members, self.others = mark, {first}, set[psutil.Process]()

    def look(self) -> set[psutil.Process]:
        """Return those that live, after a look for new ones."""
        there = set(psutil.process_iter())
        self.members &= there
        self.others &= there
        new = there - self.members - self.others
        parents = {}
        for process in new:
            with contextlib.suppress(psutil.Error):
                parents[process] = process.ppid()
        # A child can be listed before its parent, so that one pass may find a generation only.
        found = {process for process in new if carries(process, self.mark)}
        while found:
            self.members |= found
            known = {process.pid for process in self.members}
            found = {process for process, parent in parents.items() if parent in known} - self.members
            found = {process for process in found if __file__ not in _command(process)}
        # A new process has not always its program yet; of an older one that is decided for good.
        self.others |= {process for process in new - self.members if time.time() - process.create_time() > 5}
        return self.members


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def end(family: Family) -> None:
    """End what is left of a family; a PostgreSQL in its own way, since a killed one leaves its shared memory behind."""
    until = time.monotonic() + PATIENCE_SECONDS
    asked = set[psutil.Process]()
    while left := {process for process in family.look() if process.pid != os.getpid() and _lives(process)}:
        for process in left:
            with contextlib.suppress(psutil.Error):
                if process.name() != "postgres" or time.monotonic() > until:
                    process.kill()
                elif process.parent() not in left and process not in asked:
                    process.send_signal(signal.SIGQUIT)
                    asked.add(process)
        if time.monotonic() > until + PATIENCE_SECONDS:
            break
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def main() -> None:
    """Wait for the end of a process, and end what it has left."""
    pid, mark, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        ends = select.poll()
        ends.register(os.pidfd_open(pid), select.POLLIN)
        family = Family(psutil.Process(pid), mark)
        while not ends.poll(LOOK_EVERY_SECONDS * 1000):
            family.look()
    except (ProcessLookupError, psutil.NoSuchProcess):
        family = Family(psutil.Process(), mark)
    end(family)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
