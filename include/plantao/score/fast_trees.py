"""Rows in the order in which they take the same way through a model's trees: the same answers, in less time.

At each split a processor guesses the side that the next row takes, and goes on before it knows. With rows as they come
from a table it is wrong at every second or third split, and that costs about as much as the rest of the way. So the
rows are sorted by their sides of the splits that part the most of them, asked for in this order, and the answers are
put back into their places. A row's way and the sum over its leaves know nothing of the rows beside it, so each answer
has the same bits; and as with every shortcut, both ways have to agree on the first rows, which are the golden ones,
before this one is taken.

Each thread is given rows of its own, for all trees. scikit-learn's own threads share the rows of one tree, and wait for
each other before they begin the next: a thread that sleeps while it waits, as it has to beside other work, takes about
as long to wake as a tree takes for a thousand rows. Forests are asked by several threads unless they have jobs.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plantao.score.fast_encoders import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Array = np.ndarray[Any, Any]
    Nodes = tuple[Array, Array, Array]
    Split = tuple[int, float]

SPLITS = 16
"""As many as the bits of the longest integer that NumPy sorts by its digits, in a time that grows with the rows."""
FEWEST_TREES = 20
"""With fewer trees the sorting costs what it saves."""
ROWS_PER_THREAD = 1000
"""A thread that is started for fewer costs more than it saves."""
NICENESS = 10
"""Of the threads: enough for the reader to let go of the source about as soon as without them."""
LEAST_SHARE = 0.01
"""A split that sends fewer of the training rows than this to its smaller side is not looked at."""


def sort_rows(model: Any) -> None:
    """Let the fitted ensembles of trees in a model be asked for rows in the order of their splits."""
    for part in parts(model):
        _sort(part)


def _sort(model: Any) -> None:
    kind = type(model)
    way: type[_InOrder]
    if not kind.__module__.startswith("sklearn.ensemble.") or getattr(model, "n_outputs_", 1) > 1:
        return
    if kind.__name__.startswith("HistGradientBoosting"):
        step, way, nodes_of = "_predict_iterations", _Adding, _of_histograms
    elif kind.__name__.startswith("GradientBoosting") and model.init in {None, "zero"}:  # another may see neighbours
        step, way, nodes_of = "_raw_predict", _Answering, _of_trees
    elif kind.__name__.startswith(("RandomForest", "ExtraTrees")):
        step = "predict_proba" if kind.__name__.endswith("Classifier") else "predict"
        way, nodes_of = (_Threaded if model.n_jobs in {None, 1} else _Answering), _of_trees
    else:
        return
    try:
        nodes = list(nodes_of(model))
        known = tuple(signature(getattr(model, step)).parameters) == way.takes
    except (AttributeError, LookupError, TypeError, ValueError):  # not fitted, or of another scikit-learn
        return
    if known and len(nodes) >= FEWEST_TREES and (splits := _most_parting(nodes)):
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

    takes: tuple[str, ...]
    """The parameters of the step as it is known here."""

    def __init__(self, original: Callable[..., Any], splits: Sequence[Split]) -> None:
        self.original, self.splits = original, splits
        self.agrees: bool | None = None

    def each(self, ask: Callable[[Array], Any], rows: Array, threads: int) -> tuple[list[Array], list[Any]]:
        """Return the places of the rows in their new order, some for each thread, and what `ask` returns for them."""
        places = order(rows, self.splits)
        threads = max(1, min(threads, len(rows) // ROWS_PER_THREAD))
        dealt = [places[i::threads] for i in range(threads)]  # in order too, and with as many long ways as the others
        if threads == 1:
            return dealt, [ask(places)]
        with ThreadPoolExecutor(threads, "plantao-trees", _give_way) as pool:
            return dealt, list(pool.map(ask, dealt))


def _give_way() -> None:
    """Let the threads go first that read and load: they need little time, and meanwhile a database is kept waiting."""
    if sys.platform == "linux":  # where each thread has a priority of its own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))


class _Adding(_InOrder):
    """A step that adds what the trees answer to an array, rows first."""

    takes = ("X", "predictors", "raw_predictions", "is_binned", "n_threads")

    def __call__(self, X: Array, predictors: Any, sums: Array, is_binned: bool, threads: int) -> None:  # noqa: N803
        def ask(places: Array) -> None:
            ours = sums[places]
            self.original(X[places], predictors, ours, is_binned, 1)
            sums[places] = ours

        if self.agrees is False:
            self.original(X, predictors, sums, is_binned, threads)
        elif self.agrees:
            self.each(ask, X, threads)
        else:
            theirs = sums.copy()
            self.original(X, predictors, theirs, is_binned, threads)
            self.each(ask, X, threads)
            self.agrees = sums.tobytes() == theirs.tobytes()
            sums[:] = theirs


class _Answering(_InOrder):
    """A step that returns what the trees answer, rows first."""

    takes = ("X",)

    def __call__(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        values = X.to_numpy() if isinstance(X, pd.DataFrame) else X
        if self.agrees is False or not self._can_be_sorted(values):
            return self.original(X)
        dealt, found = self.each(lambda places: self.original(X.take(places, axis=0)), values, self._threads())
        answers = np.empty((len(values), *found[0].shape[1:]), found[0].dtype)
        answers[np.concatenate(dealt)] = np.concatenate(found)
        if self.agrees is None:
            theirs = self.original(X)
            # Not to the bit, because a forest with jobs adds its trees up in the order in which they end.
            self.agrees = np.allclose(answers, theirs, rtol=1e-12, atol=0, equal_nan=True)
            return theirs
        return answers

    def _can_be_sorted(self, values: Any) -> bool:
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub" or values.ndim != 2:
            return False
        return bool(values.shape[1] > max(feature for feature, _ in self.splits))

    def _threads(self) -> int:
        return 1


class _Threaded(_Answering):
    """The same where the trees let other threads run."""

    def _threads(self) -> int:
        from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

        return int(_openmp_effective_n_threads())
