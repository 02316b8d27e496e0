"""The model's answers for a batch of rows.

Pure. The model gets a pandas DataFrame with the columns, the order and the dtypes of the training frame, and is
asked as scikit-learn would be asked by hand: the scores are bit-identical to `predict_proba` (see also `shortcuts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from plantao.errors import ModelFailed
from plantao.validate.verdict import Reject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.models.contract import Column, Contract
    from plantao.models.manifest import Output

# More rows than this on which the model raises, one by one, is a broken model and not bad rows.
FAILING_ROWS = 100


@dataclass(frozen=True)
class Answers:
    """The model's answers for the rows of a frame, in their order."""

    prediction: np.ndarray[Any, Any]
    """The decision that the client reads: a label, or the value of a regression."""
    score: np.ndarray[Any, np.dtype[np.float64]]
    """Binary: the probability of the positive class. Multiclass: of the predicted one. Regression: the value."""
    scores: np.ndarray[Any, np.dtype[np.float64]] | None = None
    """Multiclass: the probability of each class, rows by classes."""


# --- from Arrow to the training frame --------------------------------------------------------------------------------


def arrow_type(column: Column) -> pa.DataType:
    """Return the Arrow type in which a column arrives from the source."""
    zone = "UTC" if "UTC" in column.dtype or "tz" in column.dtype else None
    return {
        "float": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "text": pa.string(),
        "timestamp": pa.timestamp("us", zone),
        "date": pa.date32(),
    }[column.kind]


def to_frame(features: Sequence[pa.Array], contract: Contract) -> pd.DataFrame:
    """Return the frame the model is given: the contract's columns, order and dtypes."""
    values = {column.name: _to_pandas(array, column) for column, array in zip(contract.columns, features, strict=True)}
    # A copy lays columns of one dtype side by side, as in the training frame: steps that take several need no other.
    return pd.DataFrame(values, copy=True)


def _to_pandas(array: pa.Array, column: Column) -> pd.Series[Any] | np.ndarray[Any, Any]:
    dtype: Any = column.dtype
    if dtype == "category":
        return pd.Series(pd.Categorical(array.to_pandas(), categories=pd.Index(list(column.categories or ()))))
    values: Any
    if dtype == "object":
        values = np.array(array.to_pylist(), dtype=object)
    elif column.kind in {"integer", "boolean"} and array.null_count:
        values = array.to_pylist()  # through NumPy a NULL would make the numbers floats
    elif column.kind in {"float", "integer", "boolean"}:
        numbers: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
        if numbers.dtype == dtype:
            return numbers
        values = numbers
    else:
        values = array.to_pandas()
    series: pd.Series[Any] = pd.Series(values, dtype=dtype, copy=False)
    return series


# --- asking the model ------------------------------------------------------------------------------------------------


def probabilities(model: Any, frame: pd.DataFrame, output: Output) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the model's raw answers, rows by classes, or rows by one for a regression."""
    if output.kind == "regression":
        values = np.asarray(model.predict(frame), dtype=np.float64)
        return values.reshape(len(frame), -1)
    return np.asarray(model.predict_proba(frame), dtype=np.float64)


def answers(raw: np.ndarray[Any, np.dtype[np.float64]], output: Output, threshold: float) -> Answers:
    """Turn raw answers into decisions; the positive class is predicted at and above `threshold`."""
    if output.kind == "regression":
        return Answers(raw[:, 0], raw[:, 0])
    labels = np.array(output.classes, dtype=object if isinstance(output.classes[0], str) else None)
    if output.kind == "multiclass":
        best = raw.argmax(axis=1)
        return Answers(labels[best], raw[np.arange(len(raw)), best], raw)
    positive = output.positive_place
    score = np.ascontiguousarray(raw[:, positive])
    return Answers(labels[np.where(score >= threshold, positive, 1 - positive)], score)


def raw_of(scores: np.ndarray[Any, np.dtype[np.float64]], output: Output) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the raw answers that one score a row stands for: a regression's value, or a class's probability."""
    if output.kind == "regression":
        return scores[:, None]
    return np.stack([scores if label == output.positive else 1 - scores for label in output.classes], axis=1)


def impossible(raw: np.ndarray[Any, np.dtype[np.float64]], output: Output) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the rows whose answer cannot be right: not finite, or a probability outside [0, 1]."""
    possible: np.ndarray[Any, np.dtype[np.bool_]]
    possible = np.isfinite(raw) if output.kind == "regression" else (raw >= 0) & (raw <= 1)  # NaN is neither
    if possible.all():  # as nearly always, and found a dozen times as fast as row by row
        return np.zeros(len(raw), dtype=bool)
    bad: np.ndarray[Any, np.dtype[np.bool_]] = ~np.all(possible, axis=1)
    return bad


def predict(
    model: Any, frame: pd.DataFrame, output: Output
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[Reject]]:
    """Ask the model for every row, and find the rows it cannot answer.

    Returns the raw answers of all rows (NaN where there is none) and the rejects. When the model raises, the
    batch is halved until the rows at fault stand alone, so that one bad row costs no other its prediction.
    Raises ModelFailed when it raises on more than FAILING_ROWS of them, or answers in the wrong shape.
    """
    rejects: list[Reject] = []
    width = 1 if output.kind == "regression" else len(output.classes)
    raw = np.full((len(frame), width), np.nan)
    pending = [(0, len(frame))] if len(frame) else []
    while pending:
        start, end = pending.pop()
        try:
            part = probabilities(model, frame.iloc[start:end] if end - start < len(frame) else frame, output)
        except Exception as error:  # whatever a model raises, the rows at fault are to be found
            if end - start > 1:
                middle = (start + end) // 2
                pending += [(middle, end), (start, middle)]
                continue
            rejects.append(Reject(start, "model_error", None, f"the model raised {type(error).__name__}"))
            if len(rejects) > FAILING_ROWS:
                message = f"the model raised {type(error).__name__} on more than {FAILING_ROWS} rows: {error}."
                raise ModelFailed(message, "look at the rows with the data scientist", "score") from error
            continue
        if part.shape != (end - start, width):
            message = f"the model answered {end - start} rows with {part.shape} values; expected were {width} a row."
            raise ModelFailed(message, "register the model again, its output is not what was registered", "score")
        raw[start:end] = part
    alone = {reject.row for reject in rejects}
    rejects += [
        Reject(int(row), "bad_output", None, "the model's answer is not a possible one")
        for row in np.flatnonzero(impossible(raw, output))
        if int(row) not in alone
    ]
    return raw, rejects
