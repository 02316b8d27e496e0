"""From a fitted model and its training frame to a manifest.

Pure. No file and no database. Everything the gate will later compare is made here, and the gate's own questions
are asked once: does the model answer the same when the columns have travelled as they will from PostgreSQL?
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from plantao.errors import UsageError
from plantao.measure.reference import Days, reference_profile
from plantao.models.contract import Column, Contract, Kind
from plantao.models.manifest import TOLERANCE, Golden, Manifest, Output
from plantao.score.predict import arrow_type, probabilities, raw_of, to_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.models.manifest import FileName

GOLDEN_ROWS = 60
# Rows on which the reference's scores are computed: enough for a histogram, few enough to take a second.
REFERENCE_ROWS = 200_000
LISTED_VALUES = 1_000


def describe(  # noqa: PLR0913 - what a version is known by
    model: Any,
    frame: pd.DataFrame,
    *,
    name: str,
    version: int,
    sha256: str,
    file: FileName,
    created_by: str,
    created_at: dt.datetime,
    environment: Mapping[str, str],
    trusted: Sequence[str] = (),
    positive: bool | int | str | None = None,
    metrics: Mapping[str, float] | None = None,
    training: Mapping[str, Any] | None = None,
    baseline: Baseline | None = None,
) -> Manifest:
    """Return the manifest of `model`, fitted on `frame` (its columns may include others, such as the label).

    `baseline` says when the rows of the reference were and what came of them; without it the reference has no days.

    Raises UsageError, in words for the data scientist, when the model cannot be served.
    """
    inputs = frame[_input_names(model, frame)]
    if inputs.empty:
        message = "the training frame has no rows; the contract and the golden rows are made from it."
        raise UsageError(message)
    output = _output(model, inputs, positive)
    contract = _contract(model, inputs, output)
    golden_frame = _golden_frame(inputs)
    golden = _golden(model, golden_frame, contract, output)
    return Manifest(
        model=name,
        version=version,
        file=file,
        sha256=sha256,
        trusted=tuple(trusted),
        created_at=created_at,
        created_by=created_by,
        environment=dict(environment),
        contract=contract,
        output=output,
        golden=golden,
        reference=_reference(model, frame, contract, output, baseline or Baseline()),
        metrics=dict(metrics or {}),
        training={"rows": len(frame), **(training or {})},
    )


@dataclass(frozen=True)
class Baseline:
    """Which rows later days are compared with, when they were, and what came of them."""

    frame: pd.DataFrame | None = None
    """Rows on which the model was not fitted; None: the training frame itself."""
    timestamp: str | None = None
    """The column of the frame that tells the day of a row; None: the reference has no days."""
    outcome: str | None = None
    score: str | None = None
    """The column of the frame with an honest score (out of fold), where the frame is the training frame."""
    zone: dt.tzinfo = dt.UTC
    threshold: float = 0.5


def _reference(
    model: Any, training: pd.DataFrame, contract: Contract, output: Output, baseline: Baseline
) -> dict[str, Any]:
    frame = training if baseline.frame is None else baseline.frame
    names = [column.name for column in contract.columns]
    wanted = [*names, *(c for c in (baseline.timestamp, baseline.outcome, baseline.score) if c is not None)]
    if missing := [name for name in wanted if name not in frame.columns]:
        message = f"the reference frame lacks the columns {', '.join(missing)}."
        raise UsageError(message)
    frame = frame if len(frame) <= REFERENCE_ROWS else frame.sample(REFERENCE_ROWS, random_state=0)
    if baseline.score is None:
        scores = probabilities(model, frame[names], output)
    else:
        scores = _given_scores(frame[baseline.score], output)
    days = None
    if baseline.timestamp is not None:
        days = Days(
            frame[baseline.timestamp],
            baseline.zone,
            None if baseline.outcome is None else frame[baseline.outcome],
            honest=baseline.score is not None or baseline.frame is not None,
            threshold=baseline.threshold,
        )
    return reference_profile(frame[names], contract, scores, output, days)


def _given_scores(series: pd.Series[Any], output: Output) -> np.ndarray[Any, Any]:
    """Return scores from a column as the model's raw answers."""
    values = series.to_numpy(dtype=float)
    if output.kind == "multiclass":
        message = "a column can hold one score a row, and this model has one per class."
        raise UsageError(message, "give --reference, a frame the model was not fitted on")
    if not np.isfinite(values).all() or (output.kind == "binary" and ((values < 0) | (values > 1)).any()):
        message = f"column {series.name!r} holds values that are no score."
        raise UsageError(message, "give the probability of the positive class, or the predicted value, in every row")
    return raw_of(values, output)


def _input_names(model: Any, frame: pd.DataFrame) -> list[str]:
    """Return the model's own input columns; a model that was fitted on a bare array has no names to align by."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        message = (
            "the model was fitted on an array, so its columns have no names and could be given in another order "
            "without anyone noticing."
        )
        raise UsageError(message, "fit the pipeline on a DataFrame")
    missing = [str(column) for column in names if column not in frame.columns]
    if missing:
        message = f"the training frame lacks columns of the model: {', '.join(missing)}."
        raise UsageError(message, "give the frame the model was fitted on")
    return [str(column) for column in names]


def _output(model: Any, inputs: pd.DataFrame, positive: bool | int | str | None) -> Output:
    from sklearn.base import is_classifier

    if not is_classifier(model):
        raw = np.asarray(model.predict(inputs.head(2)))
        if raw.ndim > 1 and raw.shape[1] > 1:
            message = f"the model predicts {raw.shape[1]} values a row; one is supported."
            raise UsageError(message, "register one model per target")
        return Output(kind="regression")
    if not hasattr(model, "predict_proba"):
        message = "the classifier has no predict_proba, so there would be no score to set a threshold on or to monitor."
        raise UsageError(message, "wrap it in sklearn.calibration.CalibratedClassifierCV")
    classes = tuple(label.item() if isinstance(label, np.generic) else label for label in model.classes_)
    if not all(isinstance(label, (bool, int, str)) for label in classes):
        message = f"the classes are of type {type(classes[0]).__name__}; accepted are whole numbers, booleans and text."
        raise UsageError(message, "convert the label before fitting")
    if len(classes) != 2:
        return Output(kind="multiclass", classes=classes)
    chosen = classes[1] if positive is None else next((c for c in classes if str(c) == str(positive)), None)
    if chosen is None:
        message = f"the positive class {positive!r} is not one of the model's classes {list(classes)}."
        raise UsageError(message)
    return Output(kind="binary", classes=classes, positive=chosen)


# --- the contract ----------------------------------------------------------------------------------------------------


def _contract(model: Any, inputs: pd.DataFrame, output: Output) -> Contract:
    columns = [_column(inputs[name]) for name in inputs.columns]
    row = inputs.dropna().head(1) if len(inputs.dropna()) else inputs.head(1)
    return Contract(
        columns=tuple(
            column.model_copy(
                update={
                    "accepts_null": column.nullable or _answers(model, row, column, None, output),
                    "accepts_unknown": column.kind != "text"
                    or (column.dtype != "category" and _answers(model, row, column, "\x01 never seen", output)),
                }
            )
            for column in columns
        )
    )


def _answers(model: Any, row: pd.DataFrame, column: Column, value: str | None, output: Output) -> bool:
    """Tell whether the model answers at all with `value` in this column."""
    changed = row.copy()
    try:
        changed[column.name] = pd.Series([value] * len(row), index=row.index, dtype=column.dtype)
        return bool(np.isfinite(probabilities(model, changed, output)).all())
    except Exception:  # noqa: BLE001 - a model may raise anything, and any of it means no
        return False


def _column(series: pd.Series[Any]) -> Column:
    kind = _kind(series)
    known = series.dropna()
    categories = None
    if isinstance(series.dtype, pd.CategoricalDtype):
        categories = tuple(v.item() if isinstance(v, np.generic) else v for v in series.cat.categories)
    elif kind == "text":
        distinct = sorted(known.unique())
        categories = tuple(distinct) if len(distinct) <= LISTED_VALUES else None
    numeric = kind in {"float", "integer"} and not isinstance(series.dtype, pd.CategoricalDtype)
    finite = known[np.isfinite(known.astype(float))] if numeric else known
    return Column(
        name=str(series.name),
        kind=kind,
        dtype=str(series.dtype),
        nullable=bool(series.isna().any()),
        accepts_null=False,
        categories=categories,
        min=float(finite.min()) if numeric and len(finite) else None,
        max=float(finite.max()) if numeric and len(finite) else None,
    )


def _kind(series: pd.Series[Any]) -> Kind:
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _kind(pd.Series(dtype.categories, name=series.name))
    checks: list[tuple[Kind, bool]] = [
        ("boolean", pd.api.types.is_bool_dtype(dtype)),
        ("integer", pd.api.types.is_integer_dtype(dtype)),
        ("float", pd.api.types.is_float_dtype(dtype)),
        ("timestamp", pd.api.types.is_datetime64_any_dtype(dtype)),
        ("text", isinstance(dtype, pd.StringDtype)),
    ]
    for kind, holds in checks:
        if holds:
            return kind
    held = {type(value) for value in series.dropna()}
    by_type: dict[type, Kind] = {str: "text", bool: "boolean", np.bool_: "boolean", dt.date: "date"}
    if len(held) == 1 and (found := by_type.get(next(iter(held)))) is not None:
        return found
    names = ", ".join(sorted(t.__name__ for t in held)) or "nothing"
    message = (
        f"column {series.name!r} of the training frame has dtype {dtype} and holds {names}, which is no input type."
    )
    raise UsageError(message, "convert it to numbers, text, booleans, dates or timestamps before fitting")


# --- golden rows -----------------------------------------------------------------------------------------------------


def _golden_frame(inputs: pd.DataFrame) -> pd.DataFrame:
    """Choose the golden rows: spread over the frame, and for every column its extremes and a gap."""
    places = set(np.linspace(0, len(inputs) - 1, min(GOLDEN_ROWS // 2, len(inputs))).astype(int).tolist())
    for name in inputs.columns:
        series = inputs[name].reset_index(drop=True)
        if series.isna().any():
            places.add(int(series.isna().to_numpy().argmax()))
        if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
            values = series.to_numpy(dtype=float, na_value=np.nan)
            finite = np.flatnonzero(np.isfinite(values))
            places |= (
                {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])} if len(finite) else set()
            )
    return inputs.iloc[sorted(places)[: 4 * GOLDEN_ROWS]]


def _golden(model: Any, frame: pd.DataFrame, contract: Contract, output: Output) -> Golden:
    direct = probabilities(model, frame, output)
    arrays = [_to_arrow(frame[column.name], column) for column in contract.columns]
    travelled = probabilities(model, to_frame(arrays, contract), output)
    if not np.allclose(direct, travelled, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        message = (
            "the model answers differently when its columns come from PostgreSQL: a gap may be None in the training "
            "frame where a database gives NaN, or a number may be kept in a column of objects."
        )
        raise UsageError(message, "train on the frame that `plantao models register --query` would read")
    usable = np.isfinite(direct).all(axis=1)
    rows = [
        {column.name: _to_json(value) for column, value in zip(contract.columns, values, strict=True)}
        for values in zip(*(array.to_pylist() for array in arrays), strict=True)
    ]
    return Golden(
        rows=tuple(row for row, ok in zip(rows, usable, strict=True) if ok),
        answers=tuple(tuple(float(v) for v in line) for line, ok in zip(direct, usable, strict=True) if ok),
    )


def _to_arrow(series: pd.Series[Any], column: Column) -> pa.Array:
    values: Sequence[Any] = [None if pd.isna(value) else value for value in series]
    return pa.array([v.item() if isinstance(v, np.generic) else v for v in values], arrow_type(column))


def _to_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else value
