"""The profile a version is compared with: what its inputs and scores looked like when it was right.

Pure. Bins are fixed here once, so that any later day, week or month can be counted into the same ones and compared.
Where the rows carry timestamps, the profile also keeps how much such days differ from one another, because no limit
that assumes independent rows holds on real days; where their outcomes are known and their scores are honest (of rows
the model was not fitted on), it keeps how good the model was on each.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from plantao.measure.detect import drift
from plantao.measure.metrics import quality
from plantao.measure.outcomes.tally import tally_of
from plantao.measure.profile import counts as cells
from plantao.measure.profile.bins import SCORE_BINS, labels, number_cells, score_bin
from plantao.measure.profile.sketch import Sketch
from plantao.score.predict import answers, arrow_type

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, tzinfo

    from plantao.measure.outcomes.tally import Tally
    from plantao.measure.profile.sketch import State
    from plantao.models.contract import Column, Contract
    from plantao.models.manifest import Output
    from plantao.score.predict import Answers

Array = np.ndarray[Any, Any]
NUMBER_BINS = 20
LISTED_VALUES = 50
PERFORMANCE = ("log_loss", "brier", "roc_auc", "accuracy", "bias", "mae", "rmse")


@dataclass(frozen=True)
class Days:
    """When each row of the reference frame was, and what came of it."""

    timestamps: pd.Series[Any]
    """Instants; without a zone they are meant in `zone`."""
    zone: tzinfo
    outcomes: pd.Series[Any] | None = None
    honest: bool = False
    """Whether the scores are of rows that the model was not fitted on."""
    threshold: float = 0.5


@dataclass(frozen=True)
class _Scored:
    """A frame as the scorer would see it: the part of a batch's result that a sketch folds."""

    timestamps: pa.Array
    answers: Answers

    def __len__(self) -> int:
        return len(self.timestamps)


@dataclass(frozen=True)
class _Result:
    scored: _Scored
    features: list[pa.Array]
    segments: tuple[pa.Array, ...] = ()


def reference_profile(
    inputs: pd.DataFrame, contract: Contract, scores: Array, output: Output, days: Days | None = None
) -> dict[str, Any]:
    """Return the profile of a frame, as plain values for the manifest.

    `scores` are the model's raw answers for the rows of the frame, rows by classes or rows by one.
    """
    given = answers(scores, output, days.threshold if days is not None else 0.5)
    columns = {column.name: _column_profile(inputs[column.name], column, given.score) for column in contract.columns}
    profile: dict[str, Any] = {"columns": columns, "score": _score_profile(scores, output)}
    if days is None:
        return profile
    frame = [as_arrow(inputs[column.name], column) for column in contract.columns]
    profile["days"] = _days(frame, given, Sketch(contract, output, profile, days.zone), profile, days)
    if days.outcomes is not None and days.honest and output.kind != "regression":
        profile["calibration"] = _calibration(scores, output, days.outcomes)
    return profile


def as_arrow(series: pd.Series[Any], column: Column) -> pa.Array:
    """Return a column of a frame in the form in which it would arrive from the source."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object)
    array = pa.array(series, from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array if array.type == arrow_type(column) else array.cast(arrow_type(column))


# --- all rows together -----------------------------------------------------------------------------------------------


def _column_profile(series: pd.Series[Any], column: Column, scores: Array) -> dict[str, Any]:
    profile: dict[str, Any] = {"rows": len(series), "missing": int(series.isna().sum())}
    categorical = isinstance(series.dtype, pd.CategoricalDtype)
    known = series.dropna()
    if column.kind in {"float", "integer"} and not categorical:
        values = known.to_numpy(dtype=float)
        profile |= _number_profile(values[np.isfinite(values)])
        places = number_cells(profile).place(as_arrow(series, column))[0]
    elif column.kind in {"text", "boolean"} or categorical:
        counts = known.astype(str).value_counts()
        profile["values"] = {str(k): int(v) for k, v in counts.head(LISTED_VALUES).items()}
        profile["other"] = int(counts.iloc[LISTED_VALUES:].sum())
        places = pd.factorize(series.astype(object))[0] + 1
    else:
        return profile
    profile["link"] = _link(places, scores)
    return profile


def _link(places: Array, scores: Array) -> float:
    """Return which share of the score's variance lies between the cells of a column (the correlation ratio)."""
    total = float(np.var(scores)) * len(scores)
    if total <= 0 or not len(scores):
        return 0.0
    counts = np.bincount(places)
    means = np.bincount(places, scores)[counts > 0] / counts[counts > 0]
    return float(np.sum(counts[counts > 0] * (means - scores.mean()) ** 2) / total)


def _number_profile(values: Array) -> dict[str, Any]:
    if not len(values):
        return {}
    # Edges at quantiles give every bin the same weight; ties make some of them fall together.
    edges = np.unique(np.quantile(values, np.linspace(0, 1, NUMBER_BINS + 1)))
    mean = float(values.mean())
    codes, distance = number_cells({"edges": edges, "mean": mean}).place(pa.array(values))
    bins = max(len(edges) - 1, 1)
    return {
        "edges": edges.tolist(),
        "counts": np.bincount(codes, minlength=bins + 2)[1 : bins + 1].tolist(),
        "sums": np.bincount(codes, distance, minlength=bins + 2)[1 : bins + 1].tolist(),
        "mean": mean,
        "std": float(values.std()),
    }


def _score_profile(scores: Array, output: Output) -> dict[str, Any]:
    if output.kind == "regression":
        return _number_profile(scores[:, 0])

    def histogram(values: Array) -> dict[str, Any]:
        counts = np.bincount(score_bin(values), minlength=SCORE_BINS)
        return {"bins": SCORE_BINS, "counts": counts.tolist(), "mean": float(values.mean()), "std": float(values.std())}

    if output.kind == "binary":
        return histogram(scores[:, output.positive_place])
    each = {name: histogram(scores[:, k]) for k, name in enumerate(labels(output.classes))}
    return {**histogram(scores.max(axis=1)), "classes": each}


def _calibration(scores: Array, output: Output, outcomes: pd.Series[Any]) -> dict[str, Any]:
    """Return, for each class that is counted, how many rows there were in each score bin and how many were of it."""
    counted = [output.positive] if output.kind == "binary" else list(output.classes)
    known = outcomes.notna().to_numpy()
    found = {}
    places = [output.positive_place] if output.kind == "binary" else range(len(output.classes))
    for name, label, place in zip(labels(counted), counted, places, strict=True):
        codes = score_bin(scores[known, place])
        is_it = (outcomes[known] == label).to_numpy(dtype=float)
        found[name] = {
            "n": np.bincount(codes, minlength=SCORE_BINS).tolist(),
            "positives": np.bincount(codes, is_it, minlength=SCORE_BINS).astype(int).tolist(),
        }
    return found


# --- day by day ------------------------------------------------------------------------------------------------------


def _days(
    frame: list[pa.Array], given: Answers, sketch: Sketch, profile: Mapping[str, Any], days: Days
) -> dict[str, Any]:
    stamps, contract, output = _instants(days), sketch.contract, sketch.output
    sketch.add(_Result(_Scored(stamps, given), frame))  # type: ignore[arg-type]
    states = sketch.states()
    found = sketch.days
    rows: dict[str, list[int]] = {}
    for day in found:
        rows.setdefault(str(day.isoweekday()), []).append(states[day, "", ""][0])
    result: dict[str, Any] = {
        "count": len(found),
        "from": found[0].isoformat(),
        "until": found[-1].isoformat(),
        "rows": rows,
        "columns": {
            column.name: limits(profile["columns"][column.name], [states[day, "", column.name][1] for day in found])
            for column in contract.columns
        },
        "score": limits(profile["score"], [states[day, "", ""][1] for day in found]),
    }
    if days.outcomes is not None and days.honest:
        local = pd.Series(stamps.to_pandas()).dt.tz_convert(days.zone).dt.date
        result["performance"] = [
            _performance(day, given, output, days.outcomes, (local == day).to_numpy()) for day in found
        ]
    return result


def limits(profile: Mapping[str, Any], days: list[State]) -> dict[str, Any]:
    """Return between which limits the days of a column, or of the score, vary."""
    pairs = [cells.paired(profile, day) for day in days]
    return drift.day_limits(pairs[0][0], np.array([current for _, current in pairs]), seed=0)


def _performance(day: date, given: Answers, output: Output, outcomes: pd.Series[Any], chosen: Array) -> dict[str, Any]:
    scores = given.score if given.scores is None else given.scores
    found = tally_of(
        output.kind,
        given.prediction[chosen],
        scores[chosen],
        outcomes.to_numpy(dtype=object)[chosen],
        classes=output.classes,
        positive=output.positive,
    )
    return performance_of(day, found, output)


def performance_of(day: date, tally: Tally, output: Output) -> dict[str, Any]:
    """Return how good the model was on one day of a reference; a figure that cannot be told is left out."""
    measured = quality.measure_tally(tally, output.kind, output.positive, PERFORMANCE, mature=True)
    figures = {one.name: one.value for one in measured if not one.column and one.status == "ok"}
    return {"day": day.isoformat(), "n": tally.labelled, **figures}


def _instants(days: Days) -> pa.Array:
    stamps = pd.to_datetime(days.timestamps)
    if stamps.dt.tz is None:
        stamps = stamps.dt.tz_localize(days.zone, ambiguous=True, nonexistent="shift_forward")
    return pa.array(stamps.dt.tz_convert(UTC), pa.timestamp("us", "UTC"))
