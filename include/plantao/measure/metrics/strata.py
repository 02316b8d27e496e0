"""Labelled rows that stand for all rows with the same decision, and how far a figure from them may be off.

Pure. Where the client acts on a decision, its outcome may never be seen; then the rows of the control group, which
nobody acts on, stand for the others. Like rows are kept together as cells with a count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plantao.measure.metrics.interval import of_share
from plantao.measure.outcomes.tally import CLIP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.measure.outcomes.tally import Codes, Numbers, Tally

Row = tuple[str, str, int, int, float, float]
"""A decision, an outcome, the score's bin, how many rows, the sum of their scores, and of their log losses."""
FEW = 10
"""Fewer rows than this must not stand for more than twice as many."""


@dataclass(frozen=True)
class Stratum:
    """All rows with one decision, in both groups."""

    decision: str
    rows: int
    treated: int
    """Labelled rows of the treated group."""
    control: int
    withheld: bool
    """Whether the treated group's outcomes are not seen (see `is_withheld`), so that only control rows count."""

    @property
    def labelled(self) -> int:
        """The labelled rows that count."""
        return self.control if self.withheld else self.control + self.treated

    @property
    def is_thin(self) -> bool:
        """Whether a handful of rows would have to stand for many others."""
        return self.labelled < FEW and self.rows > 2 * self.labelled


@dataclass(frozen=True)
class Sample:
    """The labelled rows that count, as cells."""

    strata: Sequence[Stratum]
    stratum: Codes
    """Of each cell, the place of its decision among the strata."""
    count: Numbers
    decisions: Sequence[str]
    outcomes: Sequence[str]
    place: Codes
    score: Numbers
    """The mean score of each cell."""
    log_loss: Numbers

    @property
    def rows(self) -> int:
        """The rows that are stood for."""
        return sum(stratum.rows for stratum in self.strata)

    @property
    def weight(self) -> Numbers:
        """The rows that each cell stands for."""
        each = np.array([stratum.rows / max(stratum.labelled, 1) for stratum in self.strata])
        weight: Numbers = self.count * each[self.stratum]
        return weight

    def mean(self, values: Numbers) -> float:
        """Return the mean of a value of each cell over all the rows that are stood for."""
        return float(self.weight @ values) / self.rows

    def error(self, influence: Numbers) -> float | None:
        """Return the standard error of a figure from the influence of a row of each cell on it.

        The labelled rows of a decision are a random part of all with that decision, and these decisions one of those
        that could have been met: the variance has the part within and the part between strata. None when a stratum has
        fewer than two labelled rows. Source: Cochran 1977, Sampling Techniques, section 12.2; linearisation: Särndal,
        Swensson and Wretman 1992, section 5.5.
        """
        labelled = np.array([stratum.labelled for stratum in self.strata], dtype=float)
        if not len(labelled) or labelled.min() < 2:
            return None
        part = np.array([stratum.rows for stratum in self.strata]) / self.rows
        total = np.bincount(self.stratum, self.count * influence, minlength=len(labelled))
        squares = np.bincount(self.stratum, self.count * influence**2, minlength=len(labelled))
        within = np.maximum(squares - total**2 / labelled, 0.0) / (labelled - 1)
        means = total / labelled
        between = max(float(part @ means**2) - float(part @ means) ** 2, 0.0) / self.rows
        return math.sqrt(float(part**2 @ (within / labelled)) + between)


def is_withheld(treated: tuple[int, int], control: tuple[int, int]) -> bool:
    """Tell whether outcomes of the treated group are kept from sight, each group given as (labelled, rows).

    Outcomes that are only late are so in both groups alike. They are withheld when less than half as many are known as
    in the control group, and chance (the limits of both shares) does not explain it. What the treated group then has
    is a choice of the client's, and does not count.
    """
    _, most = of_share(*treated)
    least, _ = of_share(*control)
    if most is None or least is None or not treated[1] or not control[1]:
        return False
    return most < least and treated[0] / treated[1] < control[0] / control[1] / 2


def strata_of(treated: Tally, control: Tally) -> list[Stratum]:
    """Return the strata of a classifier's decisions, those that occur, by their names."""
    decided = [tally.state.get("decided", {}) for tally in (treated, control)]
    known = [_labelled(tally.state) for tally in (treated, control)]
    found = []
    for decision in sorted({*decided[0], *decided[1]}):
        rows = [counts.get(decision, 0) for counts in decided]
        labelled = [counts.get(decision, 0) for counts in known]
        withheld = is_withheld((labelled[0], rows[0]), (labelled[1], rows[1]))
        found.append(Stratum(decision, sum(rows), labelled[0], labelled[1], withheld))
    return [stratum for stratum in found if stratum.rows]


def sample_of(treated: Tally, control: Tally) -> Sample:
    """Return the labelled rows that count, of both groups."""
    strata = strata_of(treated, control)
    places = {stratum.decision: place for place, stratum in enumerate(strata)}
    rows = [row for row in _rows(treated.state) if not strata[places[row[0]]].withheld] + _rows(control.state)
    counts = np.array([row[3] for row in rows], dtype=float)
    return Sample(
        strata,
        np.array([places[row[0]] for row in rows], dtype=np.intp),
        counts,
        [row[0] for row in rows],
        [row[1] for row in rows],
        np.array([row[2] for row in rows], dtype=np.intp),
        np.array([row[4] for row in rows], dtype=float) / counts,
        np.array([row[5] for row in rows], dtype=float) / counts,
    )


def _labelled(state: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in _rows(state):
        found[row[0]] = found.get(row[0], 0) + row[3]
    return found


def _rows(state: Mapping[str, Any]) -> list[Row]:
    """Return the cells of a state; outcomes of a binary one are `1` and `0`."""
    if state.get("kind") == "multiclass":
        table = state.get("confusion", {})
        return [(d, o, 0, n, 0.0, 0.0) for d, counts in table.items() for o, n in counts.items() if n]
    found: list[Row] = []
    for place, decisions in state.get("bins", {}).items():
        for decision, (negatives, positives, below, above) in decisions.items():
            if negatives:
                loss = -math.log(max(1 - below / negatives, CLIP))
                found.append((decision, "0", int(place), negatives, below, negatives * loss))
            if positives:
                loss = -math.log(max(above / positives, CLIP))
                found.append((decision, "1", int(place), positives, above, positives * loss))
    # The loss at the mean score of a bin is a little too small; the whole is known exactly, so share out the rest.
    approximate = math.fsum(row[5] for row in found)
    factor = state["sums"]["log_loss"][0] / approximate if approximate > 0 else 1.0
    return [(*row[:5], factor * row[5]) for row in found]
