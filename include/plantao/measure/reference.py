"""The training-time profile pinned to a version: what its inputs and scores looked like when it was right.

Pure. Bins are fixed here once, so that any later day, week or month can be counted into the same ones and compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from plantao.score.manifest import Output
    from plantao.validate.contract import Contract

NUMBER_BINS = 20
SCORE_BINS = 200
LISTED_VALUES = 50


def reference_profile(
    inputs: pd.DataFrame, contract: Contract, scores: np.ndarray[Any, Any], output: Output
) -> dict[str, Any]:
    """Return the profile of the training frame, as plain values for the manifest.

    `scores` are the model's raw answers for (a sample of) these rows, rows by classes or rows by one.
    """
    columns: dict[str, Any] = {}
    for column in contract.columns:
        series = inputs[column.name]
        profile: dict[str, Any] = {"rows": len(series), "missing": int(series.isna().sum())}
        known = series.dropna()
        if column.kind in {"float", "integer"} and not isinstance(series.dtype, pd.CategoricalDtype):
            profile |= _number_profile(known.to_numpy(dtype=float))
        elif column.kind in {"text", "boolean"} or isinstance(series.dtype, pd.CategoricalDtype):
            counts = known.astype(str).value_counts()
            profile["values"] = {str(k): int(v) for k, v in counts.head(LISTED_VALUES).items()}
            profile["other"] = int(counts.iloc[LISTED_VALUES:].sum())
        columns[column.name] = profile
    return {"columns": columns, "score": _score_profile(scores, output)}


def _number_profile(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    # Edges at quantiles give every bin the same weight; ties make some of them fall together.
    edges = np.unique(np.quantile(values, np.linspace(0, 1, NUMBER_BINS + 1)))
    counts = np.histogram(values, edges)[0] if len(edges) > 1 else np.array([len(values)])
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "mean": float(values.mean()),
        "std": float(values.std()),
    }


def _score_profile(scores: np.ndarray[Any, Any], output: Output) -> dict[str, Any]:
    if output.kind == "regression":
        return _number_profile(scores[:, 0])
    place = list(output.classes).index(output.positive) if output.kind == "binary" else None  # type: ignore[arg-type]
    values = scores[:, place] if place is not None else scores.max(axis=1)
    counts = np.histogram(values, SCORE_BINS, (0.0, 1.0))[0]
    return {"bins": SCORE_BINS, "counts": counts.tolist(), "mean": float(values.mean()), "std": float(values.std())}
