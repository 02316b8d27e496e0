"""Waits that end, for calls into C code and libraries that nothing can interrupt."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class NotInTimeError(Exception):
    """A call has not come back, and was left. What the call itself raises is raised as it is."""


def in_time(seconds: float, call: Callable[[], Result], late: Callable[[], object] = lambda: None) -> Result:
    """Return what `call` returns, or raise NotInTimeError after `seconds`.

    The call runs in a thread of its own, which is left behind when it does not come back. When it does so after all,
    `late` is called there: what the call works with may be thrown away only then.
    """
    answer: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
    deciding = threading.Lock()
    left = False

    def run() -> None:
        try:
            found: tuple[Result | None, BaseException | None] = (call(), None)
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting thread, which raises it
            found = (None, error)
        with deciding:
            if not left:
                answer.put(found)
                return
        with contextlib.suppress(Exception):
            late()

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = answer.get(timeout=seconds)
    except queue.Empty:
        with deciding:
            left = answer.empty()
        if left:
            raise NotInTimeError from None
        value, error = answer.get()
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
