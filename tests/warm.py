"""Processes that begin warm: forked from one that has the heavy libraries loaded, instead of loading them for seconds.

Each is a process of its own all the same: with its environment, its folder, its output and its exit status.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PRELOADED = ("crash.victim", "plantao.cli", "plantao.run.run", "plantao.run.reconcile", "plantao.measure.data_quality",
             "plantao.measure.performance", "plantao.release.register", "sklearn.ensemble", "demo.train")  # fmt: skip


AT_FIRST = dict(os.environ)
"""What no test has changed yet."""


@cache
def processes() -> Any:
    """Return the context of processes that are forked from one with the heavy libraries."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    now = dict(os.environ)
    try:
        os.environ.clear()
        # Without the path it would load nothing, without a word.
        os.environ |= {**AT_FIRST, "PYTHONPATH": os.pathsep.join(sys.path)}
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ |= now
    return found


def module(
    name: str, *arguments: str, environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Do as `python -m NAME ARGUMENTS` would, and return what came of it.

    For commands about which nothing depends on how Python itself starts.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        given = (name, arguments, dict(environment), str(folder or Path.cwd()), files)
        process = processes().Process(target=_become, args=given)
        process.start()
        process.join()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
        return subprocess.CompletedProcess([name, *arguments], process.exitcode, *texts)


def _become(name: str, arguments: Sequence[str], environment: dict[str, str], folder: str, files: list[str]) -> None:
    """Be that command, in the forked process."""
    for number, file in enumerate(files, 1):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ |= environment
    os.chdir(folder)
    sys.path[:0] = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.argv = [name, *arguments]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
