"""What the watchdog asks of the outside: Airflow's health, and a page elsewhere that misses it when it is silent."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from plantao import log
from plantao.errors import AlertUnavailable, UsageError

SECONDS = 10
HEALTH = "/api/v2/monitor/health"


def airflow_health(url: str) -> dict[str, Any]:
    """Return what Airflow says of itself, without a login. Raises AlertUnavailable when it says nothing."""
    try:
        found = json.loads(_get(url.rstrip("/") + HEALTH))
    except (OSError, ValueError) as error:
        raise AlertUnavailable(_reason(error), "see whether Airflow's api-server runs") from error
    if not isinstance(found, dict):
        message = "what answers is not Airflow."
        raise AlertUnavailable(message, "correct PLANTAO_AIRFLOW_URL")
    return found


def ping(url: str | None, suffix: str = "") -> bool:
    """Tell the page elsewhere that the watchdog lives (or `/start`, or `/fail`); what comes of it is only logged."""
    if not url:
        return True
    try:
        _get(url.rstrip("/") + suffix)
    except (OSError, ValueError) as error:
        # The address is a secret: whoever knows it can keep the page quiet.
        fields = {"host": urlsplit(url).hostname, "reason": _reason(error)}
        log.event("the page that watches the watchdog did not answer", fields, log.WARNING)
        return False
    return True


def require_http(name: str, url: str | None) -> str | None:
    """Return an address that is one, or None. Raises UsageError."""
    if url and urlsplit(url).scheme not in {"http", "https"}:
        message = f"{name} is no address that begins with http:// or https://."
        raise UsageError(message)
    return url or None


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - require_http has looked at it
        content: bytes = answer.read(1 << 20)
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    return str(getattr(error, "reason", None) or type(error).__name__)
