"""One event per step, with the same fields everywhere.

The sentence is constant and carries no figures; the fields carry all of them, so that a person can read the line and
a program can count it. Events go to the logger `plantao`; who runs the program decides where that leads.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR
logger = logging.getLogger("plantao")


class Fields(dict[str, Any]):
    """The fields of an event, printed as `name=value` pairs; those without a value are left out."""

    def __str__(self) -> str:
        return " ".join(f"{name}={_shown(value)}" for name, value in self.items() if value is not None)


def event(sentence: str, fields: Mapping[str, Any], level: int = logging.INFO) -> None:
    """Write one event down."""
    logger.log(level, "%s: %s", sentence, Fields(fields))


def to_terminal(level: int = logging.INFO) -> None:
    """Send events to standard error, for the command line."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


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
