"""What the scored rows looked like, folded together day by day while they are in memory.

Pure. Everything in it is a count or a sum, so that sketches add up: batches to a run, runs and parts to a day, days
to a month. The layout of a day, as it is kept in `daily_state`, is described in docs/measuring.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from plantao.measure.profile.bins import (
    SCORE_BINS,
    NumberCells,
    PresenceCells,
    ValueCells,
    cells_of,
    labels,
    number_cells,
    score_bin,
    tally,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import tzinfo

    from plantao.measure.profile.bins import Cells, Codes, Numbers
    from plantao.models.contract import Contract
    from plantao.models.manifest import Output
    from plantao.score.batch import BatchResult
    from plantao.score.predict import Answers

SEGMENT_VALUES = 50
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MICROSECONDS = 86_400_000_000
EARLIEST, LATEST = (
    (moment - EPOCH) // timedelta(microseconds=1)
    for moment in (datetime(1, 1, 4, tzinfo=UTC), datetime(9999, 12, 28, tzinfo=UTC))
)
MANY_DAYS = 62
OTHER, MISSING = "(other)", "(missing)"
Key = tuple[date, str, str]
"""A day, a segment (empty: all rows) and a column (empty: the score and the decision)."""
State = dict[str, Any]


def added(values: Sequence[Mapping[str, Any]]) -> State:
    """Return the sum of states, name by name: numbers add, lists place by place, objects by name; text stays."""
    result: State = {}
    for one in values:
        for name, value in one.items():
            result[name] = _sum(result[name], value) if name in result else value
    return result


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return added([one, other])
    if isinstance(one, list):
        return [_sum(a, b) for a, b in zip(one, other, strict=True)]
    return one if isinstance(one, str) else one + other


@dataclass
class Sketch:
    """Daily counts and sums over scored rows, in the cells of a reference."""

    contract: Contract
    output: Output
    reference: Mapping[str, Any]
    zone: tzinfo
    segments: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The columns by whose values the score is counted apart too, each with the values that are known by now."""
    rows: int = 0
    score_sum: float = 0.0
    _cells: list[Cells] = field(init=False)
    _days: dict[date, _Day] = field(default_factory=dict)
    _values: dict[str, dict[str, int]] = field(init=False)
    _bounds: tuple[list[date], np.ndarray[Any, Any]] | None = None

    def __post_init__(self) -> None:
        profiles = self.reference.get("columns", {})
        self._cells = [cells_of(column, profiles.get(column.name, {})) for column in self.contract.columns]
        self._score = _ScoreCells(self.output, self.reference.get("score", {}))
        self._values = {
            name: {value: place for place, value in enumerate(list(known)[:SEGMENT_VALUES])}
            for name, known in self.segments.items()
        }

    @property
    def mean_score(self) -> float | None:
        """The mean score, None when no row was scored."""
        return self.score_sum / self.rows if self.rows else None

    @property
    def days(self) -> list[date]:
        """The local days that have rows."""
        return sorted(self._days)

    def add(self, result: BatchResult) -> None:
        """Fold one batch in."""
        scored = result.scored
        if not len(scored):
            return
        self.rows += len(scored)
        self.score_sum += float(scored.answers.score.sum())
        days, places = self._days_of(scored.timestamps)
        states = [self._days.setdefault(day, _Day()) for day in days]
        for state, count in zip(states, [len(scored)] if places is None else np.bincount(places), strict=True):
            state.rows += int(count)
        for i, (cells, array) in enumerate(zip(self._cells, result.features, strict=True)):
            for state, folded in zip(states, _folded(cells, array, places, len(days)), strict=True):
                state.columns[i] = folded if i not in state.columns else _both(state.columns[i], folded)
        for state, folded in zip(states, self._score.fold(scored.answers, places, len(days)), strict=True):
            state.score = folded if state.score is None else _both(state.score, folded)
        for name, array in zip(self._values, result.segments, strict=True):
            self._add_segment(name, array, scored.answers, (states, places))

    def _add_segment(
        self, name: str, array: pa.Array, answers: Answers, where: tuple[list[_Day], Codes | None]
    ) -> None:
        states, places = where
        codes, names = self._segment_codes(name, array)
        days = np.zeros(len(codes), np.intp) if places is None else places
        together = days * len(names) + codes
        present = np.bincount(together, minlength=len(states) * len(names))
        folded = self._score.fold(answers, together, len(present))
        for at in np.flatnonzero(present):
            day, value = divmod(int(at), len(names))
            segment = states[day].segments
            key = f"{name}={names[value]}"
            rows = int(present[at])
            if (before := segment.get(key)) is None:
                segment[key] = (rows, folded[at])
            else:
                segment[key] = (before[0] + rows, _both(before[1], folded[at]))

    def _segment_codes(self, name: str, array: pa.Array) -> tuple[Codes, list[str]]:
        """Return the place of each row's value among the names; at most SEGMENT_VALUES have one of their own."""
        known = self._values[name]
        encoded = array.dictionary_encode()
        for value in sorted(encoded.dictionary.to_pylist()):
            if value not in known and len(known) < SEGMENT_VALUES:
                known[value] = len(known)
        table = np.array([known.get(value, SEGMENT_VALUES) for value in encoded.dictionary.to_pylist()] + [0], np.intp)
        codes = table[encoded.indices.fill_null(len(table) - 1).to_numpy()]
        names = [*known, *([""] * (SEGMENT_VALUES - len(known))), OTHER, MISSING]
        if array.null_count:
            codes[array.is_null().to_numpy(zero_copy_only=False)] = SEGMENT_VALUES + 1
        return codes, names

    def _days_of(self, timestamps: pa.Array) -> tuple[list[date], Codes | None]:
        """Return the local days of a batch, and the place of each row's day among them (None: all are of one day)."""
        moments = timestamps.cast(pa.int64()).to_numpy(zero_copy_only=False)
        lowest, highest = int(moments.min()), int(moments.max())
        if lowest < EARLIEST or highest > LATEST:  # before year 1 and after 9999 there are no dates to write down
            moments = np.clip(moments, EARLIEST, LATEST)
            lowest, highest = int(moments.min()), int(moments.max())
        first, last = (
            (EPOCH + timedelta(microseconds=edge)).astimezone(self.zone).date() for edge in (lowest, highest)
        )
        if first == last:
            return [first], None
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        if len(days) > MANY_DAYS:  # those around the days that occur in UTC, so that one stray row does not cost years
            near = np.unique(moments // DAY_MICROSECONDS)
            places = np.unique(np.concatenate([near - 1, near, near + 1]))
            days = [EPOCH.date() + timedelta(days=int(place)) for place in places]
        starts = [datetime.combine(day, time(), self.zone).astimezone(UTC) for day in days[1:]]
        bounds = pa.array(starts, pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
        places = np.searchsorted(bounds, moments, side="right")
        present = np.unique(places)
        if len(present) < len(days):
            table = np.zeros(len(days), np.intp)
            table[present] = np.arange(len(present))
            return [days[p] for p in present], table[places]
        return days, places

    def states(self) -> dict[Key, tuple[int, State]]:
        """Return what is known of each day, segment and column, with its number of rows, as plain values."""
        found: dict[Key, tuple[int, State]] = {}
        for day, state in sorted(self._days.items()):
            for i, column in enumerate(self.contract.columns):
                found[day, "", column.name] = (state.rows, _plain_column(self._cells[i], state.rows, state.columns[i]))
            assert state.score is not None
            found[day, "", ""] = (state.rows, self._score.plain(state.rows, state.score))
            for segment, (rows, folded) in sorted(state.segments.items()):
                found[day, segment, ""] = (rows, self._score.plain(rows, folded))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the sums over all days, for the ledger: rows, the sum of the scores, the gaps of each column."""
        # Whatever cells a column has, the last one holds its gaps.
        gaps = {
            column.name: sum(int(day.columns[place][0][-1]) for day in self._days.values())
            for place, column in enumerate(self.contract.columns)
        }
        return {"rows": self.rows, "score_sum": self.score_sum, "missing": gaps if self._days else {}}


@dataclass
class _Day:
    rows: int = 0
    columns: dict[int, _Folded] = field(default_factory=dict)
    score: _Folded | None = None
    segments: dict[str, tuple[int, _Folded]] = field(default_factory=dict)


_Folded = tuple[np.ndarray[Any, Any], ...]
"""Counts by cell, and where values have a size their sums by cell and the sum of their squares."""


def _both(one: _Folded, other: _Folded) -> _Folded:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _folded(cells: Cells, array: pa.Array, places: Codes | None, days: int) -> list[_Folded]:
    if isinstance(cells, NumberCells):
        codes, distance = cells.place(array)
        counts = tally(codes, places, cells.count, days)
        sums = tally(codes, places, cells.count, days, distance)
        return list(zip(counts, sums, _squares(distance, places, days), strict=True))
    return [(counts,) for counts in tally(cells.place(array), places, cells.count, days)]


def _squares(distance: Numbers, places: Codes | None, days: int) -> np.ndarray[Any, Any]:
    if places is None:
        return np.array([np.dot(distance, distance)])
    return np.bincount(places, distance * distance, minlength=days)


def _plain_column(cells: Cells, rows: int, folded: _Folded) -> State:
    counts = folded[0].tolist()
    if isinstance(cells, NumberCells):
        *valued, other, missing = counts
        sums, squares = folded[1][: cells.valued].tolist(), float(folded[2])
        return {
            "rows": rows,
            "missing": missing,
            "counts": valued,
            "sums": sums,
            "squares": squares,
            "other": other,
        }
    if isinstance(cells, ValueCells):
        *listed, other, unseen, missing = counts
        return {"rows": rows, "missing": missing, "counts": listed, "other": other, "unseen": unseen}
    assert isinstance(cells, PresenceCells)
    return {"rows": rows, "missing": counts[1]}


@dataclass
class _ScoreCells:
    """The cells of the score and the decision, by what the model gives back."""

    output: Output
    profile: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.classes = list(self.output.classes)
        self.centre = float(self.profile.get("mean", 0.0))
        self.cells = number_cells(self.profile) if self.output.kind == "regression" else None

    def fold(self, answers: Answers, places: Codes | None, days: int) -> list[_Folded]:
        """Return the folded score of each day."""
        if self.cells is not None:
            return _folded(self.cells, pa.array(answers.score), places, days)
        distance = answers.score - self.centre
        sums = np.bincount(places, distance, minlength=days) if places is not None else np.array([distance.sum()])
        squares = _squares(distance, places, days)
        histograms = [
            tally(score_bin(scores) + SCORE_BINS * chosen, places, 2 * SCORE_BINS, days)
            for scores, chosen in self._by_class(answers)
        ]
        return [(np.stack([h[day] for h in histograms]), sums[day], squares[day]) for day in range(days)]

    def _by_class(self, answers: Answers) -> list[tuple[Numbers, Codes]]:
        """Return, for each class that is counted, its probability and whether it is the decision."""
        if answers.scores is None:
            positive = answers.prediction == self.output.positive
            return [(answers.score, np.asarray(positive, np.intp))]
        best = answers.scores.argmax(axis=1)
        return [(answers.scores[:, k], (best == k).astype(np.intp)) for k in range(len(self.classes))]

    def plain(self, rows: int, folded: _Folded) -> State:
        """Return the folded score as plain values."""
        if self.cells is not None:
            return _plain_column(self.cells, rows, folded)
        counted = [self.output.positive] if self.output.kind == "binary" else self.classes
        chosen = {name: h[SCORE_BINS:].tolist() for name, h in zip(labels(counted), folded[0], strict=True)}
        every = {
            name: (h[:SCORE_BINS] + h[SCORE_BINS:]).tolist() for name, h in zip(labels(counted), folded[0], strict=True)
        }
        decisions = {name: sum(counts) for name, counts in chosen.items()}
        if self.output.kind == "binary":
            negative = next(c for c in self.classes if c != self.output.positive)
            decisions |= {labels([negative])[0]: rows - sum(decisions.values())}
        return {
            "rows": rows,
            "scores": every,
            "chosen": chosen,
            "decisions": decisions,
            "sum": float(folded[1]),
            "squares": float(folded[2]),
        }
