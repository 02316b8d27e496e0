"""Model files that were fetched from a bucket, kept on this machine, each under its own SHA-256.

Any number of workers use it at once, without a lock: an entry appears whole, by a rename, and is compared with its name
whenever it is read. Workers that miss the same one each fetch it, and the last to come replaces it by the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import time
from typing import TYPE_CHECKING

from plantao import log
from plantao.models.store_folder import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = 86_400.0
# An entry is removed when nobody has read it for this long, and what a killed worker has left unfinished sooner.
UNUSED, UNFINISHED = 30 * DAY, DAY


def read(folder: Path, sha256: str, fetch: Callable[[], bytes]) -> bytes:
    """Return the bytes with this hash, from the folder or else by `fetch`.

    What `fetch` brings is returned even when its hash is another, and then not kept: the gate says what is wrong with
    it. A folder that cannot be written costs the next worker another fetch, and nothing else.
    """
    kept = _kept(folder / sha256)
    if kept is not None:
        return kept
    content = fetch()
    if hashlib.sha256(content).hexdigest() == sha256:
        try:
            _keep(folder, sha256, content)
        except OSError as error:
            fields = {"folder": folder, "error": error.strerror, "cure": "set PLANTAO_CACHE"}
            log.event("the model cache cannot be written", fields, logging.WARNING)
    return content


def _kept(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != path.name:
        log.event("a damaged model was thrown out of the cache", {"path": path}, logging.WARNING)
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it was read now
    return content


def _keep(folder: Path, sha256: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{secrets.token_hex(8)}"
    try:
        write_durably(unfinished, content)
        unfinished.replace(folder / sha256)
    finally:
        unfinished.unlink(missing_ok=True)
    _prune(folder, time.time())


def _prune(folder: Path, now: float) -> None:
    """Remove what nobody has read for long, and what killed workers have left."""
    for path in folder.iterdir():
        if re.fullmatch(r"[0-9a-f]{64}|\.[0-9a-f]{16}", path.name) is None:
            continue  # not ours
        with contextlib.suppress(OSError):  # another worker was faster
            if now - path.stat().st_mtime > (UNFINISHED if path.name.startswith(".") else UNUSED):
                path.unlink()
