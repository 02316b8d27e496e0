"""One event per step and per decision, with the same fields everywhere.

The sentence is constant and carries no figures; the fields carry all of them, so that a person can read the line and
a program can count it. Events go to the logger `plantao` and from there to several places, each with a level of its
own out of debug, info, warning, error and fatal:

    terminal                        PLANTAO_LOG_TERMINAL_LEVEL (default: info); in Airflow it is the task's log
    a rotating file of JSON lines   PLANTAO_LOG_FILE names it, PLANTAO_LOG_FILE_LEVEL (default: debug)
    the table plantao.log_events    PLANTAO_LOG_TABLE_LEVEL (default: info), see `log_table`

`off` closes a place. No secret gets into any of them.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plantao.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEBUG, INFO, WARNING, ERROR, FATAL = (
    *(logging.DEBUG, logging.INFO, logging.WARNING),
    *(logging.ERROR, logging.CRITICAL),
)
OFF = FATAL + 10
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR, "fatal": FATAL, "off": OFF}
FILE_BYTES, FILES = 10 << 20, 5
logger = logging.getLogger("plantao")

# What is a secret wherever it stands: passwords in addresses and DSNs, Slack's tokens and webhooks, bearers.
SECRETS = re.compile(
    r"(?P<url>\w://[^\s:/@]*:)[^\s/]+(?=@)"
    r"|(?P<dsn>\b(?:password|passwd|pwd|secret|token|api_?key)['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;&)}\]]+)"
    r"|(?P<slack>\bx(?:ox[a-z]|app)-)[\w-]+"
    r"|(?P<hook>hooks\.slack\.com/(?:services|workflows|triggers)/)[\w/]+"
    r"|(?P<bearer>\bBearer\s+)[\w.~+/=-]+",
    re.IGNORECASE,
)
_hidden: set[str] = set()


class Fields(dict[str, Any]):
    """The fields of an event, printed as `name=value` pairs; those without a value are left out."""

    def __str__(self) -> str:
        return " ".join(f"{name}={_shown(value)}" for name, value in self.items() if value is not None)


def event(sentence: str, fields: Mapping[str, Any], level: int = logging.INFO) -> None:
    """Write one event down."""
    if logger.isEnabledFor(level):
        safe = Fields({name: _masked_value(value) for name, value in fields.items()})
        logger.log(level, "%s: %s", sentence, safe, extra={"plantao_event": sentence, "plantao_fields": safe})


# --- secrets ---------------------------------------------------------------------------------------------------------


def hide(secret: str | None) -> None:
    """Let a secret that this process has met never be shown again, wherever it stands."""
    if secret and len(secret) >= 8:
        _hidden.add(secret)


def masked(text: str) -> str:
    """Return a text without its secrets."""
    for secret in _hidden:
        text = text.replace(secret, "***")
    return SECRETS.sub(lambda found: f"{found[str(found.lastgroup)]}***", text)


def _masked_value(value: Any) -> Any:
    return masked(value) if isinstance(value, str) else value


# --- the places ------------------------------------------------------------------------------------------------------


def level_of(name: str, default: str, environment: Mapping[str, str] | None = None) -> int:
    """Return the level that an environment variable names. Raises UsageError when it names none."""
    given = ((environment or os.environ).get(name) or default).lower()
    if given not in LEVELS:
        message = f"{name} is {given!r}; accepted are {', '.join(LEVELS)}."
        raise UsageError(message)
    return LEVELS[given]


def to_terminal(level: int = logging.INFO) -> None:
    """Send events to standard error, for the command line, and to nothing else."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    handler.setLevel(level)
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def to_file(path: str, level: int) -> None:
    """Send events to a file as JSON lines too; full at 10 MB it becomes `path.1`, and the sixth is thrown away."""
    if level >= OFF:
        return
    try:
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8", delay=False
        )
    except OSError as error:
        message = f"PLANTAO_LOG_FILE: {path} cannot be written: {error.strerror}."
        raise UsageError(message, "name a file in a folder that is there and may be written to") from error
    handler.setFormatter(_Json())
    add(handler, level)


def from_environment(*, quiet: bool = False, environment: Mapping[str, str] | None = None) -> None:
    """Open the terminal and, where one is named, the file, each with its level; `quiet` is for the terminal."""
    env = os.environ if environment is None else environment
    level = level_of("PLANTAO_LOG_TERMINAL_LEVEL", "info", env)
    to_terminal(max(level, WARNING) if quiet else level)
    if path := env.get("PLANTAO_LOG_FILE"):
        to_file(path, level_of("PLANTAO_LOG_FILE_LEVEL", "debug", env))


def add(handler: logging.Handler, level: int) -> None:
    """Send events from `level` on to one place more."""
    handler.setLevel(level)
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > level:
        logger.setLevel(level)


def record_as_dict(record: logging.LogRecord) -> dict[str, Any]:
    """Return an event as plain values: at, level, event, job, run_id, step, and all other fields."""
    sentence = getattr(record, "plantao_event", None)
    fields = dict(getattr(record, "plantao_fields", {}))
    if sentence is None:
        sentence = masked(record.getMessage())
    return {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
        "level": name_of(record.levelno),
        "event": sentence,
        "job": fields.pop("job", None),
        "run_id": fields.pop("run", None),
        "step": fields.pop("step", None),
        "fields": {name: value for name, value in fields.items() if value is not None},
    }


def name_of(level: int) -> str:
    """Return the name of a level; what is between two is the lower one."""
    return next((name for name, number in reversed(LEVELS.items()) if number <= level and number < OFF), "debug")


class _Line(logging.Formatter):
    """A line for a person."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the gravest level is called fatal."""
        if record.levelno == FATAL:
            record.levelname = "FATAL"
        return masked(super().format(record))


class _Json(logging.Formatter):
    """A line for a program."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one JSON object, without a line break in it."""
        return json.dumps(record_as_dict(record), ensure_ascii=False, default=str)


# --- time ------------------------------------------------------------------------------------------------------------


@dataclass
class Stopwatch:
    """Seconds spent in each step, by the thread that asks."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time of the context for the step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def _shown(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return f'"{text}"' if " " in text else text
