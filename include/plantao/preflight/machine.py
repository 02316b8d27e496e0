"""This machine, and what it talks to besides databases: room on the disk, Airflow, Slack."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plantao.alert import slack
from plantao.models import store
from plantao.preflight.result import fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plantao.config.settings import Settings
    from plantao.preflight.result import Answer, Page

GIB = 1 << 30
WARN_BYTES, FAIL_BYTES = 2 * GIB, GIB // 4
SECONDS = 10


@dataclass(frozen=True)
class Use:
    """What a folder is for, and the setting that names another one."""

    what: str
    setting: str


SPILL = Use("where batches wait that do not fit into memory", "TMPDIR")
CACHE = Use("where models are kept that came from a bucket", "PLANTAO_CACHE")


def ask(page: Page, settings: Settings) -> None:
    """Ask about this machine and its neighbours."""
    page.ask("disk", lambda: (_room(Path(tempfile.gettempdir()), SPILL), True))
    if store.is_fetched(settings.model_store):
        page.ask("model cache", lambda: (_room(_existing(settings.model_store.cache), CACHE), True))
    page.ask("airflow", lambda: (_airflow(settings.airflow_url), True))
    page.ask("slack", lambda: (_slack(), True))


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there: it is made when it is first needed."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _room(folder: Path, use: Use) -> Answer:
    """Ask for room in a folder, and whether this user may write there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return room_answer(str(folder), shutil.disk_usage(folder).free, use)
    except OSError as error:
        cure = f"set {use.setting} to a folder on a disk with room that this user may write to"
        return fail(f"no temporary file can be made: {error.strerror or error} ({folder}, {use.what})", cure)


def room_answer(folder: str, free: int, use: Use) -> Answer:
    """Judge how much room there is for what goes there. Pure."""
    said = f"{free / GIB:,.1f} GiB free in {folder}, {use.what}"
    if free >= WARN_BYTES:
        return ok(said)
    cure = f"make room there, or set {use.setting} to a folder that has it"
    return (warn if free >= FAIL_BYTES else fail)(said, cure)


def _airflow(url: str | None) -> Answer:
    if url is None:
        return ok("not configured here (PLANTAO_AIRFLOW_URL)")
    cure = "start the api-server, or correct PLANTAO_AIRFLOW_URL (else AIRFLOW__API__BASE_URL counts)"
    if not url.startswith(("http://", "https://")):
        return fail(f"{url!r} is no http address", cure)
    address = f"{url.rstrip('/')}/api/v2/monitor/health"
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - http or https, see above
            health = json.load(answer)
        return airflow_answer(url, health)
    except urllib.error.HTTPError as error:
        return fail(f"{address} answers {error.code}", cure)
    except (OSError, ValueError, AttributeError) as error:
        return fail(f"{address} cannot be read: {getattr(error, 'reason', None) or error}", cure)


def airflow_answer(url: str, health: Mapping[str, Any]) -> Answer:
    """Judge what Airflow says of its parts; it says so with status 200, whatever it is. Pure."""
    ill = {name: part for name, part in health.items() if part.get("status") == "unhealthy"}
    if not ill and health.get("scheduler", {}).get("status") == "healthy":
        return ok(f"{url}: {', '.join(name for name, part in health.items() if part.get('status'))} healthy")
    ill = ill or {"scheduler": {}}
    beats = (part.get(f"latest_{name}_heartbeat") for name, part in ill.items())
    listed = ", ".join(
        f"{name} (last heard of {beat or 'never'})" if name != "metadatabase" else name
        for name, beat in zip(ill, beats, strict=True)
    )
    services = " ".join("postgres" if name == "metadatabase" else name.replace("_", "-") for name in ill)
    cure = f"start it again; its log says why it ended: docker compose logs {services}"
    return fail(f"{url}: unhealthy: {listed}", cure)


def _slack() -> Answer:
    found = slack.from_environment()
    if found is None:
        return warn("not configured: alerts go to the log and to the table alerts, and reach nobody", slack.SET_IT)
    return ok(f"logged in as {slack.who_am_i(found)}")
