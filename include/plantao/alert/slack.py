"""Slack, which only this module knows.

The variable AIRFLOW_CONN_SLACK holds Airflow's own connection to Slack, in either of two forms. A bot, which can reply
in a thread and send pictures: `slack://:TOKEN@`, or JSON with the password TOKEN; its extra `base_url` may name another
address than Slack's, and `channel` the channel of jobs that name none. Or an incoming webhook: JSON with the conn_type
`slackwebhook` and the webhook's whole URL as the password, or `slackwebhook://:T0%2FB0%2FXX@hooks.slack.com/services`.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from plantao import log
from plantao.config import address
from plantao.errors import AlertRefused, AlertUnavailable, PlantaoError, UsageError
from plantao.postgres.timeout import NotInTimeError, in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from slack_sdk import WebClient

VARIABLE = "AIRFLOW_CONN_SLACK"
SET_IT = f"set {VARIABLE} to slack://:TOKEN@, TOKEN being the bot's (xoxb-…)"
URL = "https://slack.com/api/"
HOOKS = "https://hooks.slack.com/services"
SECONDS = 10
"""How long one wait on the network may take."""
DEADLINE = 30
"""How long one call may take in all: a server that sends a byte now and then ends no wait of its own."""
# What the library would log as an error, ours says; and at the level of DEBUG it would log the token.
# A filter, since Airflow's configuration of logging enables every logger that was disabled.
SILENT = logging.getLogger("plantao.slack.sdk")
SILENT.addFilter(lambda _: False)
# What Slack says when the same call may succeed later.
PASSING = {
    *("fatal_error", "internal_error", "ratelimited", "rate_limited", "request_timeout", "service_unavailable"),
    *("team_added_to_org", "rollup_error", "channel_is_limited_access_temporarily"),
}
OF_THE_TOKEN = {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope"}
OF_THE_CHANNEL = {
    *("channel_not_found", "is_archived", "not_in_channel", "channel_is_archived", "restricted_action"),
    *("no_channel", "no_service", "no_active_hooks", "posting_to_general_channel_denied", "user_not_found"),
}

Blocks: TypeAlias = "Sequence[Mapping[str, Any]]"
Answer = TypeVar("Answer")


class Messenger(Protocol):
    """Somewhere messages go. What is not refused and not unavailable has been acknowledged."""

    name: str
    """Where they go, in one word: slack, webhook or log."""
    threads: bool
    """Whether it can reply to an earlier message and take pictures."""

    def post(self, channel: str | None, text: str, blocks: Blocks, *, thread: str | None = None) -> str:
        """Send a message and return its ts, by which replies find it ('' where there are none).

        Raises AlertUnavailable, with `retry_after` when the place said so, or AlertRefused.
        """
        ...

    def upload(self, channel: str | None, png: bytes, title: str, *, thread: str | None = None) -> None:
        """Send a picture. Raises as `post` does."""
        ...

    def called(self, channel: str | None) -> str | None:
        """Return what the place itself calls a channel to which something was posted."""
        ...


def messenger(environment: Mapping[str, str] | None = None) -> Messenger:
    """Return where alerts go: the bot or the webhook that AIRFLOW_CONN_SLACK names, else the log.

    Raises UsageError when the variable is set to something that is neither.
    """
    found = from_environment(environment)
    if found is None:
        return Console()
    return Webhook(found) if found.webhook else Bot(found)


@dataclass(frozen=True)
class Slack:
    """Where Slack is, and the token that opens it; for a webhook, its URL is both."""

    token: str = field(repr=False)
    url: str = field(default=URL, repr=False)
    channel: str | None = None
    webhook: bool = False


def from_environment(environment: Mapping[str, str] | None = None) -> Slack | None:
    """Return the Slack that AIRFLOW_CONN_SLACK names, or None when it is not set (or set to nothing)."""
    text = (os.environ if environment is None else environment).get(VARIABLE)
    if not text:
        return None
    try:
        found = address.fields(text)
        token, extra = found["password"], found["extra"]
        if found.get("conn_type") == "slackwebhook":
            return _webhook(token, found.get("host"))
        url, channel = extra.get("base_url") or URL, extra.get("channel")
    except (ValueError, TypeError, AttributeError, KeyError):
        token, url, channel = None, URL, None
    if not token:
        message = f"{VARIABLE} holds no token."
        raise UsageError(message, SET_IT)
    return Slack(token, url if url.endswith("/") else f"{url}/", channel)


def _webhook(token: str | None, host: str | None) -> Slack:
    if not token:
        raise KeyError
    if token.startswith(("https://", "http://")):
        return Slack(token, token, webhook=True)
    place = host if host and "/" in host else HOOKS
    return Slack(token, f"{place.rstrip('/')}/{token.strip('/')}", webhook=True)


def who_am_i(slack: Slack) -> str:
    """Return the bot's name and its workspace. Raises AlertRefused or AlertUnavailable.

    A webhook cannot be asked anything without posting.
    """
    if slack.webhook:
        return "a webhook, which only a message can try: plantao alerts test"
    found = Bot(slack).call(lambda client: client.auth_test())
    return f"{found.get('user')} in {found.get('team')}"


class Bot:
    """Slack by a bot's token: messages, replies and pictures."""

    name, threads = "slack", True

    def __init__(self, slack: Slack) -> None:
        try:
            from slack_sdk import WebClient
        except ImportError as error:
            message = f"{VARIABLE} is set, but the package slack-sdk is not installed."
            raise UsageError(message, "pip install slack-sdk, or install requirements.txt") from error
        # By default the library sends a message again whose answer was lost, and nobody would know of the repeat.
        handlers: list[Any] = []
        self._client = WebClient(
            slack.token, base_url=slack.url, timeout=SECONDS, logger=SILENT, retry_handlers=handlers
        )
        self._default = slack.channel
        self._ids: dict[str, str] = {}

    def post(self, channel: str | None, text: str, blocks: Blocks, *, thread: str | None = None) -> str:
        """Send a message and return its ts."""
        where = self._where(channel)
        found = self.call(
            lambda client: client.chat_postMessage(
                channel=where,
                text=text,
                blocks=[dict(block) for block in blocks] or None,
                thread_ts=thread,
                unfurl_links=False,
                unfurl_media=False,
            )
        )
        self._ids[where] = str(found["channel"])
        return str(found["ts"])

    def upload(self, channel: str | None, png: bytes, title: str, *, thread: str | None = None) -> None:
        """Send a picture; Slack takes it under the channel's id, which the answer to a message tells."""
        where = self._where(channel)
        self.call(
            lambda client: client.files_upload_v2(
                channel=self._ids.get(where, where),
                content=png,
                filename=f"{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')[:60] or 'chart'}.png",
                title=title,
                thread_ts=thread,
            )
        )

    def called(self, channel: str | None) -> str | None:
        """Return the channel's id, once something was posted there."""
        where = channel or self._default
        return self._ids.get(where, where) if where else None

    def call(self, ask: Callable[[WebClient], Answer]) -> Answer:
        """Return Slack's answer. Raises AlertRefused or AlertUnavailable."""
        from slack_sdk.errors import SlackApiError, SlackRequestError

        try:
            return _in_time(lambda: ask(self._client))
        except SlackApiError as error:
            answer = error.response
            status, headers = int(answer.status_code or 0), dict(answer.headers or {})
            raise _explained(str(answer.get("error")), status, headers) from None
        except SlackRequestError as error:  # what took the picture is no API, and answers with a status
            said = re.search(r"status: (\d+)", str(error))
            found = _explained("upload_failed", int(said[1]) if said else 500, {})
            raise found from None
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error, self._client.base_url) from error

    def _where(self, channel: str | None) -> str:
        where = channel or self._default
        if where is None:
            message = "no channel is named, so Slack cannot be told."
            advice = f'write [alert] channel = "#…" in the job file, or the extra `channel` in {VARIABLE}'
            raise AlertRefused(message, advice, reason="no_channel", of="channel")
        return where


class Webhook:
    """Slack by an incoming webhook: messages to the one channel that it was made for; no replies and no pictures."""

    name, threads = "webhook", False

    def __init__(self, slack: Slack) -> None:
        from slack_sdk.webhook import WebhookClient

        self._client = WebhookClient(slack.url, timeout=SECONDS, logger=SILENT, retry_handlers=[])

    def post(self, channel: str | None, text: str, blocks: Blocks, *, thread: str | None = None) -> str:
        """Send a message; there is no ts to return."""
        del channel, thread
        sent = [dict(block) for block in blocks] or None
        try:
            answer = _in_time(lambda: self._client.send(text=text, blocks=sent, unfurl_links=False))
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error, "the webhook") from error
        # The library raises nothing by itself; only the word "ok" is an acknowledgement.
        if answer.status_code != 200 or answer.body.strip() != "ok":
            raise _explained(answer.body.strip(), answer.status_code, dict(answer.headers))
        return ""

    def upload(self, channel: str | None, png: bytes, title: str, *, thread: str | None = None) -> None:
        """Refuse: a webhook takes no pictures."""
        del channel, png, title, thread
        message = "a webhook takes no pictures."
        raise AlertRefused(message, "use a bot's token", reason="no_pictures")

    def called(self, channel: str | None) -> str | None:
        """Return the channel that was asked for; the webhook alone knows where it leads."""
        return channel


class Console:
    """The log and the console, where no Slack is configured: the same message, for whoever looks."""

    name, threads = "log", False

    def post(self, channel: str | None, text: str, blocks: Blocks, *, thread: str | None = None) -> str:
        """Write the message to the log."""
        del thread
        said = plain(blocks) or text
        log.logger.warning("no Slack is configured; this is for %s:\n%s", channel or "whoever is on call", said)
        return ""

    def upload(self, channel: str | None, png: bytes, title: str, *, thread: str | None = None) -> None:
        """Refuse: a log takes no pictures."""
        del channel, png, title, thread
        message = "a log takes no pictures."
        raise AlertRefused(message, "configure Slack", reason="no_pictures")

    def called(self, channel: str | None) -> str | None:
        """Return the channel it would have been."""
        return channel


def plain(blocks: Blocks) -> str:
    """Return what a message says, without its form. Pure."""
    lines: list[str] = []
    for block in blocks:
        parts = [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]
        lines += [str(part["text"]) for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(lines).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _in_time(call: Callable[[], Answer]) -> Answer:
    """Return what `call` returns, or raise AlertUnavailable after DEADLINE seconds."""
    try:
        return in_time(DEADLINE, call)
    except NotInTimeError:
        message = f"Slack did not answer for {DEADLINE} s."
        raise AlertUnavailable(message, "nothing: it is sent later") from None


def _unreachable(error: Exception, where: str) -> AlertUnavailable:
    reason = getattr(error, "reason", None) or type(error).__name__
    message = f"Slack cannot be reached: {reason}."
    # Who was never reached has taken nothing.
    reached = not isinstance(getattr(error, "reason", error), (ConnectionRefusedError, socket.gaierror))
    return AlertUnavailable(message, f"let this machine reach {where}; HTTPS_PROXY names a proxy", in_doubt=reached)


def _explained(said: str, status: int = 200, headers: Mapping[str, str] | None = None) -> PlantaoError:
    """Return our error for what Slack has said, which is one word."""
    wait = next((text for name, text in (headers or {}).items() if name.lower() == "retry-after"), "")
    after = float(wait) if re.fullmatch(r"\d{1,6}(\.\d+)?", wait.strip()) else None
    if status == 429 or status >= 500 or said in PASSING:
        word = said if re.fullmatch(r"[a-z_]+", said) else f"with status {status}"
        message, advice = f"Slack answered {word}.", "ask again in a minute; Slack's status page tells of outages"
        return AlertUnavailable(message, advice, retry_after=after, in_doubt=status >= 500)
    if re.fullmatch(r"[a-z_]+", said) is None:
        message = "something that is not Slack answered in its place."
        return AlertUnavailable(message, "see which proxy is in between, and what base_url says if it is set")
    if said in OF_THE_TOKEN:
        advice = f"copy the token from the app's page at Slack, then {SET_IT}"
        return AlertRefused(f"Slack refuses the token: {said}.", advice, reason=said, of="token")
    if said in OF_THE_CHANNEL:
        advice = (
            "invite the bot to the channel, or name another one under [alert] channel; make a new webhook if it is one"
        )
        return AlertRefused(f"Slack refuses the channel: {said}.", advice, reason=said, of="channel")
    advice = "send it again after an update of Plantão; the message itself stands in the table alerts"
    return AlertRefused(f"Slack refuses the message: {said}.", advice, reason=said)
