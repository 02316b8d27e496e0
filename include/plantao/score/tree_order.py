"""Rows in the order in which they take the same way through a model's trees: the same answers, in less time.

Pure. At each split a processor guesses the side that the next row takes, and goes on before it knows. With rows as they
come from a table it is wrong at every second or third split, and that costs about as much as the rest of the way. So
the rows are sorted by their sides of the splits that part the most of them, asked for in this order, and the answers
are put back into their places. A row's way and the sum over its leaves know nothing of the rows beside it, so each
answer has the same bits; and as with every shortcut, both ways have to agree on the first rows, which are the golden
ones, before this one is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Array = np.ndarray[Any, Any]
    Nodes = tuple[Array, Array, Array]
    Split = tuple[int, float]

SPLITS = 16
"""As many as the bits of the longest integer that NumPy sorts by its digits, in a time that grows with the rows."""
FEWEST_TREES = 20
"""With fewer trees the sorting costs what it saves."""
LEAST_SHARE = 0.01
"""A split that sends fewer of the training rows than this to its smaller side is not looked at."""


def sort_rows(model: Any) -> None:
    """Let a fitted ensemble of trees be asked for rows in the order of its splits; leave any other model as it is."""
    kind = type(model)
    way: type[_InOrder]
    if not kind.__module__.startswith("sklearn.ensemble.") or getattr(model, "n_outputs_", 1) > 1:
        return
    if kind.__name__.startswith("HistGradientBoosting"):
        step, way, nodes_of = "_predict_iterations", _Adding, _of_histograms
    elif kind.__name__.startswith("GradientBoosting") and model.init in {None, "zero"}:  # another may see neighbours
        step, way, nodes_of = "_raw_predict", _Answering, _of_trees
    elif kind.__name__ in {"RandomForestClassifier", "ExtraTreesClassifier"}:
        step, way, nodes_of = "predict_proba", _Answering, _of_trees
    elif kind.__name__ in {"RandomForestRegressor", "ExtraTreesRegressor"}:
        step, way, nodes_of = "predict", _Answering, _of_trees
    else:
        return
    try:
        nodes = list(nodes_of(model))
    except (AttributeError, LookupError, TypeError, ValueError):  # not fitted, or of another scikit-learn
        return
    if len(nodes) >= FEWEST_TREES and (splits := _most_parting(nodes)):
        setattr(model, step, way(getattr(model, step), splits))


# --- the splits ------------------------------------------------------------------------------------------------------


def _of_histograms(model: Any) -> Iterator[Nodes]:
    """Yield the splits of each tree: feature, threshold, and how many training rows took the less usual side."""
    for predictor in (predictor for iteration in model._predictors for predictor in iteration):  # noqa: SLF001
        nodes = predictor.nodes
        inner = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)]
        fewer = np.minimum(nodes["count"][inner["left"]], nodes["count"][inner["right"]])
        chosen = fewer >= LEAST_SHARE * nodes["count"][0]
        yield inner["feature_idx"][chosen], inner["num_threshold"][chosen], fewer[chosen]


def _of_trees(model: Any) -> Iterator[Nodes]:
    """Yield the same of an ensemble of scikit-learn's older trees."""
    for tree in (estimator.tree_ for estimator in np.ravel(model.estimators_)):
        inner, rows = np.flatnonzero(tree.children_left >= 0), tree.n_node_samples
        fewer = np.minimum(rows[tree.children_left[inner]], rows[tree.children_right[inner]])
        chosen = fewer >= LEAST_SHARE * rows[0]
        yield tree.feature[inner][chosen], tree.threshold[inner][chosen], fewer[chosen]


def _most_parting(nodes: Sequence[Nodes]) -> list[Split]:
    """Return the splits at which the most guesses would be wrong, over all trees."""
    feature, threshold, fewer = map(np.concatenate, zip(*nodes, strict=True))
    frame = pd.DataFrame({"feature": feature, "threshold": threshold, "fewer": fewer.astype(np.int64)})
    together = frame.groupby(["feature", "threshold"])["fewer"].sum()
    return [(int(place), float(value)) for place, value in together.nlargest(SPLITS).index]


def order(rows: Array, splits: Sequence[Split]) -> Array:
    """Return the places of the rows, sorted by their sides of the splits."""
    sides = np.zeros(len(rows), np.uint16)
    for feature, threshold in splits:
        sides <<= 1
        sides |= rows[:, feature] > threshold
    return np.argsort(sides, kind="stable")


# --- in place of scikit-learn's steps --------------------------------------------------------------------------------


class _InOrder:
    """In place of a step that asks the trees: the same step, for the rows in another order."""

    def __init__(self, original: Callable[..., Any], splits: Sequence[Split]) -> None:
        self.original, self.splits = original, splits
        self.agrees: bool | None = None


class _Adding(_InOrder):
    """A step that adds what the trees answer to an array, rows first."""

    def __call__(self, X: Array, predictors: Any, sums: Array, *args: Any, **kwargs: Any) -> None:  # noqa: N803
        if self.agrees is False:
            self.original(X, predictors, sums, *args, **kwargs)
            return
        theirs = None
        if self.agrees is None:
            theirs = sums.copy()
            self.original(X, predictors, theirs, *args, **kwargs)
        places = order(X, self.splits)
        ours = sums[places]
        self.original(X[places], predictors, ours, *args, **kwargs)
        sums[places] = ours
        if theirs is not None:
            self.agrees = sums.tobytes() == theirs.tobytes()
            sums[:] = theirs


class _Answering(_InOrder):
    """A step that returns what the trees answer, rows first."""

    def __call__(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        values = X.to_numpy() if isinstance(X, pd.DataFrame) else X
        if self.agrees is False or not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
            return self.original(X)
        places = order(values, self.splits)
        found = self.original(X.take(places, axis=0))
        answers = np.empty_like(found)
        answers[places] = found
        if self.agrees is None:
            theirs = self.original(X)
            # Not to the bit, because a forest of several jobs adds its trees up in the order in which they end.
            self.agrees = np.allclose(answers, theirs, rtol=1e-12, atol=0, equal_nan=True)
            return theirs
        return answers
