"""A watchdog that takes any moment for the time, and somewhere for it to speak."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plantao.alert.slack import plain
from plantao.errors import AlertUnavailable
from plantao.ledger import session as ledger_session
from plantao.watch.watchdog import Watchdog

if TYPE_CHECKING:
    from plantao.runtime import Place


class Voice:
    """Somewhere messages go; it may be down."""

    name, threads = "slack", True

    def __init__(self) -> None:
        self.said: list[tuple[str | None, str, str | None]] = []
        self.is_down = False

    def post(self, channel: str | None, text: str, blocks: Any, *, thread: str | None = None) -> str:
        if self.is_down:
            message = "nobody answers."
            raise AlertUnavailable(message)
        self.said.append((channel, plain(blocks) or text, thread))
        return f"ts {len(self.said)}"

    def called(self, channel: str | None) -> str | None:
        return channel

    def upload(self, *_: object, **__: object) -> None:
        raise NotImplementedError


def dog(world: Any, voice: Voice, now: datetime | None = None, place: Place | None = None, **more: Any) -> Watchdog:
    """Return a watchdog that takes `now` for the time, and that does not wait."""
    clock = (lambda: datetime.now(UTC)) if now is None else (lambda: now)
    of_ledger = ledger_session.now if now is None else (lambda _: now)
    return Watchdog(place or world.place, voice, environment=more, clock=clock, ledger_clock=of_ledger,
                    pause=lambda _: None)  # fmt: skip
