"""Who asked for an attempt, where it runs, and which code it is."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from plantao import __version__
from plantao.ledger import runs
from plantao.models.environment import current_environment

if TYPE_CHECKING:
    from plantao.ledger.request import Request
    from plantao.runtime import Place


def origin_of(request: Request, place: Place) -> runs.Origin:
    """Return who asked for an attempt, and where it runs."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    return runs.Origin(
        request.trigger, request.airflow_run, worker, code_version(), current_environment(place.settings.lock)
    )


@cache
def code_version() -> str:
    """Return which code this is: PLANTAO_CODE_VERSION, or the commit of the checkout, or the package's version."""
    if given := os.environ.get("PLANTAO_CODE_VERSION"):
        return given
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return f"{__version__}+{done.stdout.strip()}"
    return __version__
