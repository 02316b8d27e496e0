"""What this process runs on: Python, platform, libraries, and the lock file they were installed from."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from plantao.models.manifest import LIBRARIES

if TYPE_CHECKING:
    from pathlib import Path


def current_environment(lock: Path | None = None) -> dict[str, str]:
    """Return what a manifest and the ledger say of this process; where there is no lock file, nothing of one."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    found |= {library: _version(library) for library in LIBRARIES}
    if lock is not None:
        with contextlib.suppress(OSError):
            found["lock"] = f"sha256:{hashlib.sha256(lock.read_bytes()).hexdigest()}"
    return found


@cache
def _version(library: str) -> str:
    """Return the version that is installed; a process goes on with the one it started with."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"
