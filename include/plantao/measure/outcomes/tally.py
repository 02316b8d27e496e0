"""Predictions held against what really happened, as counts and sums that add up: what a row of `daily_outcomes` says.

Pure. The database counts the same with SQL; `tally_of` is the definition. The layout of a state:

- `kind`; `conflicting` and `unusable` outcomes, which count as not known; with arrival times `lags` (whole days: rows);
  for classes `decided` (decision: rows, labelled or not); of the control group and the others `assigned` (how many
  control rows are to be expected, and the variance of that, by the share with which each row was drawn).
- binary: `bins` (score bin: decision: [negatives, positives, sum of the score of each]), `sums` of log_loss,
  squared_error and residual (score - outcome), each [sum, sum of squares].
- multiclass: `confusion` (decision: outcome: rows), `bins` (class: bin of its probability: [others, this class]),
  `sums` of log_loss and squared_error (over the classes).
- regression: `sums` of absolute_error, squared_error, residual (prediction - outcome) and outcome; `errors`
  (power of 1.02 that the absolute error does not exceed: rows; `zero` for none).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from plantao.measure.profile.bins import SCORE_BINS, label, score_bin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["binary", "multiclass", "regression"]
Label = bool | int | str
Numbers = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.intp]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

CLIP = 1e-15
"""A probability this close to 0 or 1 is taken for it in the log loss, so that one wrong row cannot make it infinite."""
GROWTH = 1.02
"""The ratio of the edges of neighbouring bins of the absolute error, so that a quantile is known to 1 %."""
MISSING, UNUSABLE = -1, -2


@dataclass(frozen=True)
class Tally:
    """What came of the predictions of any period: a day, or a sum of days."""

    rows: int
    """Predictions."""
    labelled: int
    """Those whose outcome is known and usable."""
    state: Mapping[str, Any] = field(default_factory=dict)


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies of one kind, which is the tally of all their rows.

    Raises:
        ValueError: The tallies are of different kinds.
    """
    rows, labelled, state = 0, 0, dict[str, Any]()
    for one in tallies:
        rows, labelled = rows + one.rows, labelled + one.labelled
        _add(state, one.state)
    return Tally(rows, labelled, state)


def _add(total: dict[str, Any], state: Mapping[str, Any]) -> None:
    """Add in place; nothing of `state` itself is kept, so that it stays as it was."""
    for name, value in state.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        elif isinstance(value, list):
            here = total.get(name)
            total[name] = list(value) if here is None else [a + b for a, b in zip(here, value, strict=True)]
        elif isinstance(value, str):
            if total.setdefault(name, value) != value:
                message = f"tallies of different kinds do not add up: {total[name]} and {value}"
                raise ValueError(message)
        else:
            total[name] = total.get(name, 0) + value


def tally_of(  # noqa: PLR0913 - what a prediction and its outcome consist of
    kind: Kind,
    decisions: Sequence[Any] | np.ndarray[Any, Any] | None,
    scores: np.ndarray[Any, Any],
    outcomes: Sequence[Any] | np.ndarray[Any, Any],
    *,
    classes: Sequence[Label] = (),
    positive: Label | None = None,
    lags: np.ndarray[Any, Any] | None = None,
    conflicting: np.ndarray[Any, Any] | None = None,
) -> Tally:
    """Return the tally of rows, one entry of each array per prediction.

    Args:
        kind: What the model gives back.
        decisions: The class that was written to the client; not looked at for a regression.
        scores: The probability of `positive`; rows by classes in the order of `classes`; or the prediction.
        outcomes: What really happened. None (or pandas' NA) is not known yet; what is no class, NaN or infinite is
            unusable.
        classes: The labels of a classifier.
        positive: Binary: the label whose probability is the score.
        lags: Days from each row's timestamp to the arrival of its outcome, NaN where that is not known.
        conflicting: Marks rows with several outcomes that contradict each other; these count as not known.

    Raises:
        ValueError: A decision is no class, or a score is no probability.
    """
    values = _listed(outcomes)
    scores = np.asarray(scores, dtype=float)
    contradicted = np.zeros(len(values), dtype=bool) if conflicting is None else np.asarray(conflicting, dtype=bool)
    state: dict[str, Any] = {"kind": kind, "conflicting": int(contradicted.sum())}
    if kind == "regression":
        known, counted = _regression(scores, values, contradicted)
    else:
        if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
            message = "a score is no probability between 0 and 1"
            raise ValueError(message)
        codes = _codes(values, classes)
        chosen = _codes(_listed([] if decisions is None else decisions), classes)
        if (chosen < 0).any() or len(chosen) != len(values):
            message = f"every row needs a decision that is one of the classes {', '.join(map(label, classes))}"
            raise ValueError(message)
        names = [label(name) for name in classes]
        state["decided"] = _named(names, np.bincount(chosen, minlength=len(names)))
        usable = (codes >= 0) & ~contradicted
        known = np.where(contradicted | (codes == MISSING), MISSING, np.where(usable, 0, UNUSABLE))
        if kind == "binary":
            truth = (codes[usable] == names.index(label(positive))).astype(float)
            counted = _binary(scores[usable], chosen[usable], truth, names)
        else:
            counted = _multiclass(scores[usable], chosen[usable], codes[usable], names)
    state |= counted | {"unusable": int((known == UNUSABLE).sum())}
    if lags is not None:
        days = np.floor(np.asarray(lags, dtype=float)[known == 0])
        found, times = np.unique(days[np.isfinite(days)], return_counts=True)
        state["lags"] = {str(int(day)): int(count) for day, count in zip(found, times, strict=True)}
    return Tally(len(values), int((known == 0).sum()), state)


def error_bin(error: float) -> str:
    """Return the name of the bin of an absolute error."""
    return str(math.ceil(math.log(error) / math.log(GROWTH))) if error else "zero"


def edges_of_error(name: str) -> tuple[float, float]:
    """Return the limits of a bin of the absolute error: above the first, up to the second."""
    if name == "zero":
        return 0.0, 0.0
    return math.exp((int(name) - 1) * math.log(GROWTH)), math.exp(int(name) * math.log(GROWTH))


def _listed(values: Sequence[Any] | np.ndarray[Any, Any]) -> list[Any]:
    return np.asarray(values, dtype=getattr(values, "dtype", object)).tolist()  # type: ignore[no-any-return]


def _is_missing(value: object) -> bool:
    # pandas' NA and NaT are told by their names, so that counting does not need pandas.
    return value is None or type(value).__name__ in {"NAType", "NaTType"}


def _codes(values: Sequence[Any], classes: Sequence[Label]) -> Codes:
    """Return the place of each value among the classes; 1, 1.0 and true are one value, as in a boolean column."""
    places: dict[Any, int] = {label(name): place for place, name in enumerate(classes)}
    places |= {name: place for place, name in enumerate(classes)}
    found = [MISSING if _is_missing(value) else places.get(value, UNUSABLE) for value in values]
    return np.array(found, dtype=np.intp)


def _named(names: Sequence[str], counts: Codes) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def _sums(values: Numbers) -> list[float]:
    with np.errstate(over="ignore"):
        return [float(values.sum()), float((values * values).sum())]


def _binary(scores: Numbers, chosen: Codes, truth: Numbers, names: Sequence[str]) -> dict[str, Any]:
    cells = score_bin(scores) * len(names) + chosen
    size = SCORE_BINS * len(names)
    every = np.stack(
        [np.bincount(cells, weights, minlength=size) for weights in (1 - truth, truth)]
        + [np.bincount(cells, weights, minlength=size) for weights in (scores * (1 - truth), scores * truth)],
        axis=1,
    )
    bins: dict[str, dict[str, list[float]]] = {}
    for cell in np.unique(cells):
        place, decision = divmod(int(cell), len(names))
        negatives, positives, below, above = every[cell].tolist()
        bins.setdefault(str(place), {})[names[decision]] = [int(negatives), int(positives), below, above]
    residual = scores - truth
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    losses = -np.log(np.where(truth == 1, clipped, 1 - clipped))
    sums = {"log_loss": _sums(losses), "squared_error": _sums(residual**2), "residual": _sums(residual)}
    return {"bins": bins, "sums": sums}


def _multiclass(scores: Numbers, chosen: Codes, truth: Codes, names: Sequence[str]) -> dict[str, Any]:
    count = len(names)
    scores = scores.reshape(-1, count)
    confusion: dict[str, dict[str, int]] = {}
    table = np.bincount(chosen * count + truth, minlength=count * count).reshape(count, count)
    for decision, row in zip(names, table, strict=True):
        if row.any():
            confusion[decision] = _named(names, row)
    bins: dict[str, dict[str, list[int]]] = {}
    for place, name in enumerate(names):
        cells = score_bin(scores[:, place]) * 2 + (truth == place)
        pairs = np.bincount(cells, minlength=2 * SCORE_BINS).reshape(SCORE_BINS, 2)
        bins[name] = {str(at): pairs[at].tolist() for at in np.flatnonzero(pairs.sum(axis=1))}
    own = scores[np.arange(len(truth)), truth]
    squared = ((scores - np.eye(count)[truth]) ** 2).sum(axis=1)
    return {
        "confusion": confusion,
        "bins": bins,
        "sums": {"log_loss": _sums(-np.log(np.clip(own, CLIP, 1 - CLIP))), "squared_error": _sums(squared)},
    }


def _regression(predictions: Numbers, outcomes: Sequence[Any], contradicted: Mask) -> tuple[Codes, dict[str, Any]]:
    missing = np.array([_is_missing(value) for value in outcomes], dtype=bool) | contradicted
    truth = np.array([math.nan if gone else float(v) for v, gone in zip(outcomes, missing, strict=True)])
    with np.errstate(over="ignore", invalid="ignore"):
        residual = predictions - truth
    known = np.where(missing, MISSING, np.where(np.isfinite(residual), 0, UNUSABLE))
    truth, residual = truth[known == 0], residual[known == 0]
    errors = Counter(error_bin(error) for error in np.abs(residual).tolist())
    with np.errstate(over="ignore"):
        squared = residual**2
    return known, {
        "sums": {
            "absolute_error": _sums(np.abs(residual)),
            "squared_error": _sums(squared),
            "residual": _sums(residual),
            "outcome": _sums(truth),
        },
        "errors": dict(errors),
    }
