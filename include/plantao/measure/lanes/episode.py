"""A stretch of days on which a condition held, from its opening to its recovery.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date


REFERENCE_DAYS = 30
"""With fewer days of a reference it is not known how much days differ, and there is no statistical limit."""


@dataclass(frozen=True)
class Episode:
    """A condition that was noticed on a day and, perhaps, was over on another."""

    opened: date
    closed: date | None
    worst: float
    """How bad it was at its worst, in the unit of the rule that opened it; the larger, the worse."""
    worst_day: date
    reason: str
