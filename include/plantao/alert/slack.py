"""Slack, which only this module knows.

The variable AIRFLOW_CONN_SLACK holds the bot's token in the form of Airflow's own Slack connection: `slack://:TOKEN@`,
or JSON with the password TOKEN. Its extra `base_url` may name another address than Slack's.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plantao import address
from plantao.errors import AlertRefused, AlertUnavailable, PlantaoError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "AIRFLOW_CONN_SLACK"
SET_IT = f"set {VARIABLE} to slack://:TOKEN@, TOKEN being the bot's (xoxb-…)"
URL = "https://slack.com/api/"
SECONDS = 10
# What the library would log as an error, ours says; and at the level of DEBUG it would log the token.
SILENT = logging.getLogger("plantao.slack.sdk")
SILENT.disabled = True
# What Slack says when the same call may succeed later.
PASSING = {"fatal_error", "internal_error", "ratelimited", "request_timeout", "service_unavailable"}


@dataclass(frozen=True)
class Slack:
    """Where Slack is, and the token that opens it."""

    token: str = field(repr=False)
    url: str = URL


def from_environment(environment: Mapping[str, str] | None = None) -> Slack | None:
    """Return the Slack that AIRFLOW_CONN_SLACK names, or None when it is not set (or set to nothing)."""
    text = (environment or os.environ).get(VARIABLE)
    if not text:
        return None
    try:
        found = address.fields(text)
        token, url = found["password"], found["extra"].get("base_url") or URL
    except (ValueError, TypeError, AttributeError, KeyError):
        token, url = None, URL
    if not token:
        message = f"{VARIABLE} holds no token."
        raise UsageError(message, SET_IT)
    return Slack(token, url)


def who_am_i(slack: Slack) -> str:
    """Return the bot's name and its workspace. Raises AlertRefused or AlertUnavailable."""
    try:
        from slack_sdk import WebClient
        from slack_sdk.errors import SlackApiError
    except ImportError as error:
        message = f"{VARIABLE} is set, but the package slack-sdk is not installed."
        raise UsageError(message, "pip install slack-sdk, or install requirements.txt") from error
    client = WebClient(slack.token, base_url=slack.url, timeout=SECONDS, logger=SILENT)
    try:
        found = client.auth_test()
    except SlackApiError as error:
        raise _explained(str(error.response.get("error"))) from None
    except OSError as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        message = f"Slack cannot be reached: {reason}."
        advice = f"let this machine reach {client.base_url}; HTTPS_PROXY names a proxy"
        raise AlertUnavailable(message, advice) from error
    return f"{found.get('user')} in {found.get('team')}"


def _explained(said: str) -> PlantaoError:
    """Return our error for what Slack has said, which is one word."""
    if re.fullmatch(r"[a-z_]+", said) is None:
        message = "something that is not Slack answered in its place."
        return AlertUnavailable(message, "see which proxy is in between, and what base_url says if it is set")
    if said in PASSING:
        return AlertUnavailable(
            f"Slack answered {said}.", "ask again in a minute; Slack's status page tells of outages"
        )
    advice = f"copy the token from the app's page at Slack, then {SET_IT}"
    return AlertRefused(f"Slack refuses the token: {said}.", advice)
