"""A stand-in for Slack: a small HTTP server that checks requests as Slack does, and shows what was posted.

Run it by itself with `python tests/slack_stand_in.py [PORT]` and open its address in a browser.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

TOKEN = "xoxb-1-secret"
HOOK = "/services/T0001/B0001/secretsecret"
# How long a text may be, by what holds it.
LIMITS = {"header": 150, "section": 3000, "field": 2000, "context": 3000, "button": 75, "alt_text": 2000}
MOST_BLOCKS, MOST_TEXT = 50, 40_000


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request. `lost` does as it was asked, and then says nothing."""

    how: str  # rate_limited, error, hang, reset, lost, refuse, html, slow
    seconds: float = 1
    word: str = "internal_error"
    status: int = 500


def rate_limited(seconds: float = 1) -> Fault:
    return Fault("rate_limited", seconds)


def error(status: int = 500) -> Fault:
    return Fault("error", status=status)


def hang(seconds: float = 60) -> Fault:
    return Fault("hang", seconds)


def reset() -> Fault:
    return Fault("reset")


def lost() -> Fault:
    return Fault("lost")


def refuse(word: str) -> Fault:
    return Fault("refuse", word=word)


@dataclass
class Posted:
    """A message, or a picture, that was accepted."""

    channel: str
    text: str
    blocks: list[dict[str, Any]]
    ts: str
    thread: str | None = None
    at: float = field(default_factory=time.time)
    picture: bytes | None = None
    acknowledged: bool = True

    @property
    def words(self) -> str:
        """All that it says, one line per text."""
        found: list[str] = []
        for block in self.blocks:
            parts = [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]
            found += [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return "\n".join(found) or self.text


class SlackStandIn:
    """The server, within a context; `fault` is what happens to every request, `faults` to the next ones."""

    def __init__(self, port: int = 0, channels: tuple[str, ...] = ("#on-call", "#ops")) -> None:
        self.channels = {name: f"C{number:08d}" for number, name in enumerate(channels, 1)}
        self.archived: set[str] = set()
        self.posted: list[Posted] = []
        self.asked: list[tuple[float, str, str]] = []
        """When, which method, and how it was answered."""
        self.faults: deque[Fault] = deque()
        self.fault: Fault | None = None
        self.only = ""
        """Faults concern only methods with this in their name."""
        self.lock = threading.Lock()
        self.uploads: dict[str, bytes] = {}
        self._number = 0
        self._closing = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"slack": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.server.shutdown()
        self.server.server_close()

    # --- what AIRFLOW_CONN_SLACK says -----------------------------------------------------------------------------

    def connection(self, *, token: str = TOKEN, channel: str | None = "#on-call") -> str:
        extra = {"base_url": f"{self.url}/api/", **({"channel": channel} if channel else {})}
        return json.dumps({"conn_type": "slack", "password": token, "extra": extra})

    def webhook(self) -> str:
        return json.dumps({"conn_type": "slackwebhook", "password": f"{self.url}{HOOK}"})

    # --- what the tests look at -----------------------------------------------------------------------------------

    @property
    def messages(self) -> list[Posted]:
        return [one for one in self.posted if one.picture is None]

    @property
    def pictures(self) -> list[Posted]:
        return [one for one in self.posted if one.picture is not None]

    def said(self) -> str:
        return "\n---\n".join(one.words for one in self.messages)

    # --- what it does ---------------------------------------------------------------------------------------------

    def next_fault(self, method: str) -> Fault | None:
        with self.lock:
            if self.only and self.only not in method:
                return None
            return self.faults.popleft() if self.faults else self.fault

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def ts(self) -> str:
        with self.lock:
            self._number += 1
            return f"{int(time.time())}.{self._number:06d}"

    def answer(self, method: str, given: dict[str, Any], token: str) -> dict[str, Any]:
        """Return Slack's answer to a call of its API."""
        if not token:
            return _no("not_authed")
        if token != TOKEN:
            return _no("invalid_auth")
        call = getattr(self, "do_" + method.replace(".", "_"), None)
        return call(given) if call else _no("unknown_method")

    def do_auth_test(self, given: dict[str, Any]) -> dict[str, Any]:
        del given
        return {"ok": True, "user": "plantao", "team": "Ops"}

    def do_chat_postMessage(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - Slack's name
        channel, blocks, thread = given.get("channel"), given.get("blocks") or [], given.get("thread_ts")
        identity = self._id(channel)
        problem = identity if identity and not identity.startswith("C") else _problem(given.get("text"), blocks)
        if thread and not problem and thread not in {one.ts for one in self.posted}:
            problem = "thread_not_found"
        if problem or identity is None:
            return _no(problem or "channel_not_found")
        message = Posted(_name(self.channels, identity), given["text"], blocks, self.ts(), thread)
        self.posted.append(message)
        return {"ok": True, "channel": identity, "ts": message.ts, "message": {"text": message.text}}

    def do_files_getUploadURLExternal(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - Slack's name
        if not given.get("filename") or not str(given.get("length", "")).isdigit():
            return _no("invalid_arguments")
        identity = f"F{len(self.uploads) + 1:08d}"
        self.uploads[identity] = b""
        return {"ok": True, "file_id": identity, "upload_url": f"{self.url}/upload/{identity}"}

    def do_files_completeUploadExternal(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - Slack's name
        files = json.loads(given["files"]) if isinstance(given.get("files"), str) else given.get("files")
        identity = given.get("channel_id") or given.get("channels") or ""
        if identity not in self.channels.values():
            return _no("channel_not_found")  # a name is not enough here
        for one in files or []:
            content = self.uploads.get(one["id"])
            if not content:
                return _no("file_not_found")
            name = _name(self.channels, identity)
            self.posted.append(
                Posted(name, one.get("title", ""), [], self.ts(), given.get("thread_ts"), picture=content)
            )
        return {"ok": True, "files": files}

    def hook(self, given: dict[str, Any]) -> tuple[int, str]:
        """Return status and body of Slack's answer to a webhook."""
        if _problem(given.get("text"), given.get("blocks") or []):
            return 400, "invalid_blocks" if given.get("blocks") else "no_text"
        channel = next(iter(self.channels))
        if channel in self.archived:
            return 410, "channel_is_archived"
        self.posted.append(Posted(channel, given.get("text", ""), given.get("blocks") or [], self.ts()))
        return 200, "ok"

    def _id(self, channel: Any) -> str | None:
        if not channel:
            return None
        name = channel if channel in self.channels else f"#{channel}"
        if name in self.archived or _name(self.channels, channel) in self.archived:
            return "is_archived"
        return self.channels.get(name) or (channel if channel in self.channels.values() else None)


def _no(word: str) -> dict[str, Any]:
    return {"ok": False, "error": word}


def _name(channels: dict[str, str], identity: str) -> str:
    return next((name for name, one in channels.items() if one == identity), identity)


def _problem(text: Any, blocks: Any) -> str | None:
    """Return what Slack would say of a message; None when it would take it."""
    if not text and not blocks:
        return "no_text"
    if text is not None and (not isinstance(text, str) or len(text) > MOST_TEXT):
        return "msg_too_long"
    if not isinstance(blocks, list) or len(blocks) > MOST_BLOCKS:
        return "invalid_blocks"
    return None if all(_is_block(block) for block in blocks) else "invalid_blocks"


def _is_block(block: dict[str, Any]) -> bool:
    kind = block.get("type")
    if kind == "divider":
        return True
    if kind == "header":
        return _is_text(block.get("text"), LIMITS["header"], {"plain_text"})
    if kind == "section":
        fields = block.get("fields", [])
        good = all(_is_text(one, LIMITS["field"]) for one in fields) and len(fields) <= 10
        return (
            good
            and ("text" not in block or _is_text(block["text"], LIMITS["section"]))
            and bool({"text", "fields"} & set(block))
        )
    if kind == "context":
        elements = block.get("elements", [])
        return 1 <= len(elements) <= 10 and all(_is_text(one, LIMITS["context"]) for one in elements)
    if kind == "actions":
        return 1 <= len(block.get("elements", [])) <= 25 and all(_is_button(one) for one in block["elements"])
    return False


def _is_button(one: dict[str, Any]) -> bool:
    return (
        one.get("type") == "button"
        and _is_text(one.get("text"), LIMITS["button"], {"plain_text"})
        and len(one.get("url", "")) <= 3000
    )


def _is_text(text: Any, limit: int, kinds: frozenset[str] | set[str] = frozenset({"plain_text", "mrkdwn"})) -> bool:
    return (
        isinstance(text, dict)
        and text.get("type") in kinds
        and isinstance(text.get("text"), str)
        and 1 <= len(text["text"]) <= limit
    )


class _Handler(BaseHTTPRequestHandler):
    slack: ClassVar[SlackStandIn]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Keep the tests' output quiet."""

    def do_GET(self) -> None:
        picture = re.fullmatch(r"/picture/([\d.]+)", self.path)
        if picture:
            found = [one for one in self.slack.pictures if one.ts == picture[1]]
            self._send(200 if found else 404, found[0].picture or b"" if found else b"", "image/png")
        else:
            self._send(200, page(self.slack).encode(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        method = parts.path.removeprefix("/api/")
        fault = self.slack.next_fault(method)
        self.slack.asked.append((time.time(), method, fault.how if fault else "ok"))
        if fault is not None and not self._goes_on(fault):
            return
        before = len(self.slack.posted)
        if parts.path.startswith("/upload/"):
            self.slack.uploads[parts.path.rpartition("/")[2]] = body
            answer = (200, b"OK", "text/plain")
        elif parts.path.startswith("/services/"):
            status, said = self.slack.hook(json.loads(body)) if parts.path == HOOK else (404, "no_service")
            answer = (status, said.encode(), "text/plain")
        else:
            given = {**dict(parse_qsl(parts.query)), **self._given(body)}
            token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            answer = (200, json.dumps(self.slack.answer(method, given, token)).encode(), "application/json")
        if fault is not None and fault.how == "lost":
            for one in self.slack.posted[before:]:
                one.acknowledged = False
            self._reset()
            return
        self._send(*answer)

    def _given(self, body: bytes) -> dict[str, Any]:
        if "json" in self.headers.get("Content-Type", ""):
            return dict(json.loads(body or b"{}"))
        return dict(parse_qsl(body.decode()))

    def _goes_on(self, fault: Fault) -> bool:
        """Do what the fault says; tell whether the request is carried out all the same."""
        if fault.how in {"lost", "slow"}:
            if fault.how == "slow":
                self.slack.wait(fault.seconds)
            return True
        hook = self.path.startswith("/services/")
        if fault.how == "rate_limited":
            body = b"rate_limited" if hook else json.dumps(_no("ratelimited")).encode()
            self._send(429, body, "application/json", {"Retry-After": f"{fault.seconds:g}"})
        elif fault.how == "error":
            self._send(fault.status, b"<html>something broke</html>", "text/html")
        elif fault.how == "refuse":
            status, body = (403, fault.word.encode()) if hook else (200, json.dumps(_no(fault.word)).encode())
            self._send(status, body, "application/json")
        elif fault.how == "html":
            self._send(200, b"<html>log in to the network</html>", "text/html")
        else:
            if fault.how == "hang":
                self.slack.wait(fault.seconds)
            self._reset()
        return False

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        with contextlib.suppress(OSError):  # whoever asked may be gone
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


# --- its page --------------------------------------------------------------------------------------------------------

STYLE = """
body{font:15px/1.45 -apple-system,"Segoe UI",Lato,Helvetica,Arial,sans-serif;color:#1d1c1d;background:#fff;margin:0}
header{background:#4a154b;color:#fff;padding:12px 24px;font-weight:700}
main{max-width:760px;padding:8px 24px 40px}
article{display:grid;grid-template-columns:40px 1fr;gap:10px;padding:10px 0}
article.reply{margin-left:50px;border-left:3px solid #eee;padding-left:12px}
.who{width:36px;height:36px;border-radius:6px;background:#0072b2;color:#fff;font-weight:700;text-align:center;line-height:36px}
.name{font-weight:700} .app{background:#eee;font-size:10px;padding:1px 4px;border-radius:3px;color:#616061}
time{color:#616061;font-size:12px}
h2{font-size:18px;margin:6px 0} section{margin:4px 0;white-space:pre-wrap;overflow-wrap:anywhere}
small{color:#616061;display:block;white-space:pre-wrap} hr{border:0;border-top:1px solid #ddd;margin:10px 0}
img{max-width:440px;border:1px solid #ddd;border-radius:8px;margin-top:4px;display:block}
.button{display:inline-block;border:1px solid #bbb;border-radius:4px;padding:3px 10px;font-weight:700;color:#1d1c1d;
text-decoration:none;margin:4px 6px 4px 0}
code{background:#f6f6f6;border:1px solid #ddd;border-radius:3px;padding:0 3px;color:#c01343;font-size:12px}
"""


def page(slack: SlackStandIn) -> str:
    """Return what was posted, as Slack would show it."""
    tops = [one for one in slack.posted if one.thread is None]
    parts = []
    for top in tops:
        parts.append(_article(top))
        parts += [_article(one, reply=True) for one in slack.posted if one.thread == top.ts]
    channel = ", ".join(sorted({one.channel for one in tops})) or "nothing was posted yet"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Slack stand-in</title><style>{STYLE}</style>"
        f"<header>{html.escape(channel)}</header><main>{''.join(parts)}</main></html>"
    )


def _article(one: Posted, *, reply: bool = False) -> str:
    body = "".join(map(_block, one.blocks)) or f"<section>{_marked(one.text)}</section>"
    if one.picture is not None:
        body = f'<small>{html.escape(one.text)}</small><img src="/picture/{one.ts}" alt="{html.escape(one.text)}">'
    moment = time.strftime("%H:%M", time.localtime(one.at))
    return (
        f"<article{' class=reply' if reply else ''}><div class=who>P</div><div><span class=name>Plantão</span>"
        f" <span class=app>APP</span> <time>{moment}</time>{body}</div></article>"
    )


def _block(block: dict[str, Any]) -> str:
    kind = block["type"]
    if kind == "divider":
        return "<hr>"
    if kind == "header":
        return f"<h2>{html.escape(block['text']['text'])}</h2>"
    if kind == "context":
        return "".join(f"<small>{_marked(one['text'])}</small>" for one in block["elements"])
    if kind == "actions":
        return "".join(
            f'<a class=button href="{html.escape(one.get("url", ""))}">{html.escape(one["text"]["text"])}</a>'
            for one in block["elements"]
        )
    texts = [block["text"]] if "text" in block else block.get("fields", [])
    return "".join(f"<section>{_marked(one['text'])}</section>" for one in texts)


def _marked(text: str) -> str:
    """Return Slack's mark-up as HTML; its escapes are those of HTML, so a bracket that is left is a mark of Slack's."""
    text = re.sub(r"\*([^*\n]+)\*", r"<b>\1</b>", re.sub(r"`([^`\n]+)`", r"<code>\1</code>", text))
    text = re.sub(r"(?m)^_(.+)_$", r"<i>\1</i>", text)
    return re.sub(r"<(?!/?(?:b|i|code)>)([^>]*)>", _mark, text)


def _mark(found: re.Match[str]) -> str:
    target, _, shown = found[1].partition("|")
    if target.startswith(("http://", "https://")):
        return f'<a href="{target}">{shown or target}</a>'
    return f"<b>{'' if target[:1] in '@!#' else '@'}{target.lstrip('!')}</b>"


if __name__ == "__main__":
    with SlackStandIn(int(sys.argv[1]) if len(sys.argv) > 1 else 8765) as running:
        print(f"{running.url}\nAIRFLOW_CONN_SLACK='{running.connection()}'", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
