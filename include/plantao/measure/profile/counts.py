"""The counts of a column in one layout, whatever the column is: what two days are compared by.

Pure. A cell vector is `[below, the reference's bins or values …, above, other, unseen, missing]`:
below and above the range of the reference (numbers and scores); other: not finite, or a value that the reference had
without listing it; unseen: a value that the reference never had. Cells that a kind of column does not have stay 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plantao.measure.profile.bins import Atoms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.measure.profile.bins import Counts

BELOW, ABOVE, OTHER, UNSEEN, MISSING = 0, -4, -3, -2, -1
FOLDED = 20
"""Cells that the 200 bins of a score are folded into, about as many as a number column has."""


@dataclass(frozen=True)
class Shares:
    """What a cell vector says about the quality of a column, each from 0 to 1."""

    missing: float
    unseen: float
    largest_cell: float
    """The fullest cell, among the rows that have a value: 1 when a column is frozen."""
    outside: float
    """Below or above the range of the reference."""


def cells(state: Mapping[str, Any]) -> Counts:
    """Return the cell vector of a day's state of a column (or of a regression's score).

    A state without counts (a date, or a column of which the reference knows no value) has one cell for all it knows.
    """
    counts = state.get("counts")
    other, unseen, missing = (state.get(name, 0) for name in ("other", "unseen", "missing"))
    if not counts:
        return _vector([state["rows"] - other - unseen - missing], other=other, unseen=unseen, missing=missing)
    if "sums" in state:
        return _vector(counts[1:-1], (counts[0], counts[-1]), other, unseen, missing)
    return _vector(counts, other=other, unseen=unseen, missing=missing)


def reference_cells(profile: Mapping[str, Any]) -> Counts:
    """Return the cell vector of a column's reference (or of a regression's score), laid out as those of its days."""
    missing = profile.get("missing", 0)
    values, counts = profile.get("values"), profile.get("counts")
    if values:
        return _vector(list(values.values()), other=profile.get("other", 0), missing=missing)
    if not counts:
        return _vector([profile["rows"] - missing], missing=missing)
    known = profile["rows"] - missing if "rows" in profile else sum(counts)
    return _vector(counts, other=max(known - sum(counts), 0), missing=missing)


def score_cells(profile: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[Counts, Counts]:
    """Return the cell vectors of a classifier's reference scores and of a day's, both folded the same way.

    The 200 bins become about 20 cells of equal reference weight, and one below and one above the reference's range.
    With several classes the cells of all of them stand side by side, so that a row counts once per class: the squared
    Jensen-Shannon distance is then the mean of those of the classes.
    """
    theirs: Mapping[str, Any] = state["scores"]
    ours = profile.get("classes")
    pairs = (
        [(ours[label]["counts"], theirs[label]) for label in ours]
        if ours is not None
        else [(profile["counts"], counts) for counts in theirs.values()]
    )
    if ours is None and len(pairs) != 1:
        message = f"one score in the reference, {len(pairs)} in the state"
        raise ValueError(message)
    folded = [_folded(np.asarray(one, dtype=float), np.asarray(other, dtype=float)) for one, other in pairs]
    return _side_by_side([one for one, _ in folded]), _side_by_side([other for _, other in folded])


def paired(profile: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[Counts, Counts]:
    """Return the cell vectors of a reference and of a day's state, of any kind, in the same cells.

    Raises ValueError when the state was counted in the bins of another reference.
    """
    if "scores" in state:
        return score_cells(profile, state)
    reference, current = reference_cells(profile), cells(state)
    if not (profile.get("counts") or profile.get("values")):
        # The reference knows no value, so whatever bins the state has mean nothing: there is a value, or there is none.
        other, unseen, missing = current[OTHER:]
        current = _vector([current[:OTHER].sum()], other=other, unseen=unseen, missing=missing)
    if reference.shape != current.shape:
        message = f"{len(reference)} cells in the reference, {len(current)} in the state"
        raise ValueError(message)
    return reference, current


def atoms(record: Mapping[str, Any], centre: float) -> Atoms | None:
    """Return the bin means of a number column's reference or state, with their rows; None where there are none.

    `centre` is what the record's sums are taken about: the mean of the reference.
    """
    if not record.get("counts") or len(record.get("sums", ())) != len(record["counts"]):
        return None
    counts, sums = np.asarray(record["counts"], dtype=float), np.asarray(record["sums"], dtype=float)
    there = counts > 0
    return Atoms(sums[there] / counts[there] + centre, counts[there]) if there.any() else None


def shares(vector: Counts) -> Shares | None:
    """Return what a cell vector says about the quality of its column; None for a vector without rows."""
    total = vector.sum()
    if not total > 0:
        return None
    known = total - vector[MISSING]
    largest = float(vector[:MISSING].max() / known) if known > 0 else 0.0
    missing, unseen = float(vector[MISSING] / total), float(vector[UNSEEN] / total)
    return Shares(missing, unseen, largest, float((vector[BELOW] + vector[ABOVE]) / total))


def _vector(
    inner: Sequence[float] | Counts,
    outside: tuple[float, float] = (0, 0),
    other: float = 0,
    unseen: float = 0,
    missing: float = 0,
) -> Counts:
    vector: Counts = np.array([outside[0], *inner, outside[1], other, unseen, missing], dtype=float)
    if not (np.isfinite(vector).all() and vector.min() >= 0):
        message = "a count is not a finite number from 0"
        raise ValueError(message)
    return vector


def _folded(reference: Counts, current: Counts) -> tuple[Counts, Counts]:
    """Fold two histograms in the same bins into below, cells of about equal reference weight, and above."""
    if reference.shape != current.shape:
        message = f"{len(reference)} bins in the reference, {len(current)} in the state"
        raise ValueError(message)
    (there,) = reference.nonzero()
    if not len(there):
        message = "a reference without scores"
        raise ValueError(message)
    first, end = there[0], there[-1] + 1
    inner = reference[first:end]
    # A bin belongs to the cell that the middle of its weight falls into; one without weight to the cell before it.
    place = (FOLDED * (inner.cumsum() - inner / 2) / inner.sum()).astype(int)
    cell = np.unique(np.maximum.accumulate(np.where(inner > 0, place, 0)), return_inverse=True)[1]

    def fold(counts: Counts) -> Counts:
        within = np.bincount(cell, counts[first:end])
        return np.concatenate(([counts[:first].sum()], within, [counts[end:].sum()]))

    return fold(reference), fold(current)


def _side_by_side(parts: Sequence[Counts]) -> Counts:
    below, above = sum(float(part[0]) for part in parts), sum(float(part[-1]) for part in parts)
    return _vector(np.concatenate([part[1:-1] for part in parts]), (below, above))
