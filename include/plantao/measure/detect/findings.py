"""What the checks of a run say: what is broken, and what could not be judged.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from scipy.special import bdtrc

if TYPE_CHECKING:
    from collections.abc import Mapping

    Json: TypeAlias = Mapping[str, Any]
    from datetime import date


# A share may be beyond its limit by the luck of few rows; less likely than this, it is not luck.
CHANCE = 1e-4
FROZEN, VARIED = 0.99, 0.90

LOOK_AT = {
    "row_count": "see whether the client's load of that day is complete, or was loaded twice",
    "null_share": "see whether the source stopped filling the column, or a join in the query lost its partner",
    "unseen_share": "see whether the source renamed its values; if they are new for good, train with them",
    "frozen_column": "see whether the source still updates the column, or a default has taken its place",
    "range": "see whether the unit or the scale of the column changed in the source",
    "score": "see which features stopped varying, and whether the right model version is loaded",
}


@dataclass(frozen=True)
class Break:
    """One thing that is broken: `value` is beyond `limit`, as seen in `n` rows. `column` is empty for the whole run."""

    check: str
    column: str
    value: float
    limit: float
    n: int
    message: str

    @property
    def severity(self) -> float:
        """How many times beyond the limit the value is; only a number of rows can be below it."""
        if self.limit <= 0:
            return 1.0
        return self.value / self.limit if self.value > self.limit else self.limit / max(self.value, 1.0)


@dataclass(frozen=True)
class NotJudged:
    """A check that could not be made, and why. This is shown, because missing evidence is news too."""

    check: str
    column: str
    status: Literal["not_enough", "provisional", "undefined", "failed"]
    message: str


@dataclass
class Findings:
    """What the checks of a run have found."""

    breaks: list[Break] = field(default_factory=list)
    not_judged: list[NotJudged] = field(default_factory=list)
    looked: bool = False
    """Whether there were rows to look at: without one nothing is broken, and nothing has recovered."""

    def take(self, found: Break | NotJudged | None) -> None:
        """Put a finding in its place."""
        if isinstance(found, Break):
            self.breaks.append(found)
        elif found is not None:
            self.not_judged.append(found)


@dataclass(frozen=True)
class Column:
    """A column of a run and of the reference; `worst` is what `drift.day_limits` says of its days."""

    name: str
    state: Json
    profile: Json
    worst: Json

    @property
    def rows(self) -> int:
        """All rows of the run."""
        return int(self.state["rows"])

    @property
    def known(self) -> int:
        """The rows of the run with a value."""
        return self.rows - int(self.state["missing"])

    @property
    def has_days(self) -> bool:
        """Whether the reference has enough days to have a worst one."""
        return (self.worst.get("count") or 0) >= REFERENCE_DAYS

    def worst_share(self, name: str) -> float:
        """Return the largest share of a reference day; 0 where it is not known."""
        return float(self.worst.get(name) or 0.0) if self.has_days else 0.0

    def found(self, check: str, value: float, limit: float, seen: str, n: int | None = None) -> Break:
        """Return a break with a message that says what was seen, the limit, and what to look at."""
        n = self.rows if n is None else n
        since = "" if self.has_days else " (the reference has too few days; its whole is the measure)"
        message = f"{self.name or 'score'}: {seen}{since}. Next: {LOOK_AT[check]}"
        return Break(check, self.name, value, limit, n, message)


def fullest_cell(state: Json) -> tuple[int, int] | None:
    """Return the rows in the fullest cell of a state and the rows with a value, or None for a state without cells."""
    if "scores" in state:
        fullest = [max(counts) for counts in state["scores"].values() if len(counts)]
        # Of several classes the one that varies most: the score is constant only when all of them are.
        return (min(fullest), state["rows"]) if fullest else None
    cells = list(state.get("counts", ()))
    if not cells and not state.get("other"):
        return None
    if "unseen" in state:
        cells.append(state.get("other", 0))
    return max(cells, default=0), state["rows"] - state.get("missing", 0)


def is_luck(count: int, n: int, share: float) -> bool:
    """Tell whether so many of `n` independent rows or more, each with the probability `share`, may be luck."""
    return count <= 0 or float(bdtrc(count - 1, n, min(share, 1.0))) > CHANCE


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
