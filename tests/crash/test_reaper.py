"""An interrupted run of the tests leaves no process behind, whichever signal ends it and whichever process gets it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
OURS = "OF_THE_TEST_OF_THE_REAPER"
PATIENCE_SECONDS = 120

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")

# What such a run has started: the server of the tests, and as Airflow does a part in a session of its own. The part's
# worker writes over its environment with a title, and one of the workers outlives its part.
TEST = '''
import os, subprocess, sys, time
from pathlib import Path

PART = """
import os, subprocess, sys
title = "worker " + os.environ["OF_THE_TEST_OF_THE_REAPER"]
worker = "import sys, time; from setproctitle import setproctitle; time.sleep(2); setproctitle(sys.argv[1]);"
worker += "print(flush=True); time.sleep(600)"
command = [sys.executable, "-c", worker, title]
child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print("up", flush=True)
if sys.argv[1] == "stays":
    child.wait()
"""

def test_waits(request):
    if "server" in os.environ["WHAT_IS_STARTED"]:
        request.getfixturevalue("server")
    for how in ("ends", "stays"):
        command = [sys.executable, "-c", PART, how]
        part = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert part.stdout.readline()
    Path(__file__).with_name("ready").touch()
    time.sleep(600)
'''


def started(mark: str) -> set[psutil.Process]:
    """Return the living processes of a run: by the mark in environment or title, or by what they descend from."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            if mark.encode() in environment or any(mark in part for part in process.cmdline()):
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if lives(process)}


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def names(processes: set[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.add(process.name())
    return found


@contextlib.contextmanager
def running(folder: Path, command: list[str], what: str):
    """Start a run whose test waits; give its first process and its mark once the test has started all."""
    (folder / "test_waits.py").write_text(TEST)
    mark = secrets.token_hex(8)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {
        OURS: mark,
        "WHAT_IS_STARTED": what,
        "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT / 'include'}",
    }
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while not (folder / "ready").exists():
            assert process.poll() is None, (folder / "said").read_text()
            assert time.monotonic() < until, (folder / "said").read_text()
            time.sleep(0.1)
        yield process, mark
    finally:
        for one in started(mark):
            with contextlib.suppress(psutil.Error):
                one.kill()
        if process.poll() is None:
            process.kill()
        process.wait()


def pytest_of(folder: Path) -> list[str]:
    options = ["-p", "conftest", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull]
    return [*options, f"--rootdir={folder}", f"--basetemp={folder / 'temporary'}", str(folder / "test_waits.py")]


def nothing_is_left(before: set[psutil.Process], mark: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while left := started(mark) | {process for process in before if lives(process)}:
        assert time.monotonic() < until, names(left)
        process = next(iter(left))
        psutil.wait_procs([process], timeout=0.2)


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        pytest.param(signal.SIGTERM, "parts", marks=pytest.mark.release),
        pytest.param(signal.SIGINT, "parts", marks=pytest.mark.release),
        pytest.param(signal.SIGHUP, "parts", marks=pytest.mark.release),
        (signal.SIGKILL, "parts, server"),
    ],
    ids=["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"],
)
def test_a_signal_to_the_first_process_ends_all_that_was_started(tmp_path, sent, what):
    command = [sys.executable, "-m", "pytest", "-n", "1", *pytest_of(tmp_path)]
    with running(tmp_path, command, what) as (process, mark):
        before = started(mark)
        assert len(before) > 5
        assert ("postgres" in names(before)) == ("server" in what)
        process.send_signal(sent)
        process.wait(PATIENCE_SECONDS)
        nothing_is_left(before, mark)


@pytest.mark.skipif(not (ROOT / ".venv" / "bin" / "python").exists(), reason="make uses .venv")
@pytest.mark.parametrize(
    ("sent", "to"),
    [(signal.SIGTERM, os.kill), pytest.param(signal.SIGINT, os.killpg, marks=pytest.mark.release)],
    ids=["TERM", "Ctrl-C"],
)
def test_a_signal_to_make_ends_all_that_was_started(tmp_path, sent, to):
    as_it_is = [f"--assume-old={target}" for target in (".venv/test", ".venv/demo", ".venv/bin/python")]
    make = shutil.which("make")
    command = [make, *as_it_is, "test", f"TESTS={' '.join(pytest_of(tmp_path))}"]
    with running(tmp_path, command, "parts") as (process, mark):
        before = started(mark)
        to(process.pid, sent)
        process.wait(PATIENCE_SECONDS)
        nothing_is_left(before, mark)
