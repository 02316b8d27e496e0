"""A stretch of days on which something held.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date


@dataclass(frozen=True)
class Episode:
    """From the day it was noticed to the day it was over; `closed` is None while it lasts."""

    opened: date
    closed: date | None
    worst: float
    worst_day: date
    reason: str
