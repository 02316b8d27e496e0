"""Trees that are asked for rows in another order answer each row bit by bit as before, whatever the rows hold."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from threadpoolctl import threadpool_limits

from examples import examples
from plantao.score import fast_trees
from plantao.score.fast_trees import order, sort_rows

FEATURES = ["a", "b", "c", "month"]
NUMBERS = st.floats(-1e30, 1e30) | st.sampled_from([0.0, -0.0, 0.5])
MANY = {"n_estimators": 25, "random_state": 0}
MODELS = {
    "boosted on histograms": lambda: HistGradientBoostingClassifier(max_iter=25),
    "boosted on histograms, categories first": lambda: HistGradientBoostingClassifier(
        max_iter=25, categorical_features=[3]
    ),
    "boosted on histograms, numbers": lambda: HistGradientBoostingRegressor(max_iter=25),
    "boosted": lambda: GradientBoostingClassifier(**MANY),
    "boosted from nothing": lambda: GradientBoostingRegressor(**MANY, init="zero"),
    "forest": lambda: RandomForestClassifier(**MANY),
    "forest, numbers": lambda: RandomForestRegressor(**MANY),
    "forest with jobs": lambda: RandomForestClassifier(**MANY, n_jobs=2),
    "extra trees": lambda: ExtraTreesClassifier(**MANY),
    "extra trees, numbers": lambda: ExtraTreesRegressor(**MANY),
}
STEPS = ("_predict_iterations", "_raw_predict", "predict_proba", "predict")


def training(classes):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(600, 3)), columns=FEATURES[:3])
    frame["month"] = rng.integers(0, 12, 600).astype(float)
    value = frame["a"] + np.abs(frame["b"]) + 0.3 * (frame["month"] % 3)
    return frame, (pd.qcut(value, classes, labels=False) if classes else value)


def trained(make, classes=2, *, named=False):
    model = make()
    frame, label = training(classes if hasattr(model, "predict_proba") else 0)
    return model.fit(frame if named else frame.to_numpy(), label)


def quickened(model):
    """Return a copy that takes the shortcut, once it has answered its golden rows."""
    quick = pickle.loads(pickle.dumps(model))
    sort_rows(quick)
    frame, _ = training(0)
    answer(quick, frame[:20] if hasattr(model, "feature_names_in_") else frame[:20].to_numpy())
    return quick


def answer(model, rows):
    return (model.predict_proba if hasattr(model, "predict_proba") else model.predict)(rows)


def shortcut(model):
    return next((vars(model)[step] for step in STEPS if step in vars(model)), None)


@pytest.fixture(autouse=True, params=[1, 2], ids=["one thread", "threads"], scope="module")
def threads(request):
    """Let a thread begin for a few rows already, or none."""
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(request.param, "openmp"):
        patch.setattr(fast_trees, "ROWS_PER_THREAD", 2)
        yield request.param


@pytest.fixture(scope="module", params=MODELS)
def both(request):
    plain = trained(MODELS[request.param])
    return plain, quickened(plain)


@given(data=st.data(), size=st.integers(1, 60))
@settings(deadline=None, max_examples=examples(40))
def test_the_answers_are_the_same_bits(both, data, size):
    plain, quick = both
    rows = data.draw(arrays(float, (size, 4), elements=NUMBERS))
    if "HistGradient" in type(plain).__name__:
        rows[data.draw(arrays(bool, (size, 4)))] = np.nan
    rows[:, 3] = np.where(np.isnan(rows[:, 3]), np.nan, np.abs(rows[:, 3]) % 14)
    assert shortcut(quick).agrees
    assert answer(quick, rows).tobytes() == answer(plain, rows).tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_frames_and_several_classes_too(name):
    for classes, named in ((4, False), (2, True)):
        plain = trained(MODELS[name], classes, named=named)
        quick = quickened(plain)
        frame, _ = training(0)
        rows = frame if named else frame.to_numpy()
        assert shortcut(quick).agrees
        assert answer(quick, rows).tobytes() == answer(plain, rows).tobytes()
        if hasattr(plain, "predict_proba"):
            assert plain.predict(rows).tolist() == quick.predict(rows).tolist()


def test_the_trees_see_the_rows_in_the_order_of_their_splits(both, threads):
    plain, quick = both
    frame, _ = training(0)
    rows, seen, step = frame.to_numpy(), [], shortcut(quick)

    def watched(given, *more, **named):
        seen.append(given)
        return step.original(given, *more, **named)

    watching = copy.copy(step)
    watching.original = watched
    name = next(name for name in STEPS if name in vars(quick))
    setattr(quick, name, watching)
    assert answer(quick, rows).tobytes() == answer(plain, rows).tobytes()
    setattr(quick, name, step)
    alone = type(plain).__name__.startswith("Gradient") or getattr(plain, "n_jobs", None) == 2
    assert len(seen) == (1 if alone else threads)
    assert sum(map(len, seen)) == len(rows)
    assert all((np.diff(order(part, step.splits)) == 1).all() for part in seen)
    assert not (np.diff(order(rows, step.splits)) == 1).all()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's threads have priorities of their own")
def test_threads_let_the_reader_go_first_and_the_caller_keeps_its_place(threads):
    model = quickened(trained(MODELS["forest"]))
    seen, step = [], shortcut(model)
    real = step.original

    def watched(rows):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return real(rows)

    step.original = watched
    before = os.getpriority(os.PRIO_PROCESS, 0)
    answer(model, training(0)[0].to_numpy())
    assert seen == ([before] if threads == 1 else [max(before, fast_trees.NICENESS)] * threads)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_the_splits_are_those_that_part_the_most_rows():
    frame, _ = training(0)
    model = HistGradientBoostingRegressor(max_iter=25).fit(frame.to_numpy(), 10 * (frame["b"] > 0.1) + frame["a"] / 100)
    sort_rows(model)
    splits = shortcut(model).splits
    assert len(splits) == fast_trees.SPLITS
    feature, threshold = splits[0]
    assert (feature, round(threshold, 1)) == (1, 0.1)


def test_rows_are_sorted_by_their_sides_and_equal_ones_stay_in_place():
    rows = np.array([[5.0, 0], [1, 9], [5, 0], [np.nan, 9], [1, 0]])
    assert order(rows, [(0, 3.0), (1, 4.0)]).tolist() == [4, 1, 3, 0, 2]
    assert order(rows[:0], [(0, 3.0)]).tolist() == []


class TheirOwn(RandomForestClassifier):
    """A class of the user's, which may do anything."""


LEFT = {
    "too few trees": (HistGradientBoostingClassifier(max_iter=5), 1),
    "begins with an estimator of the user's": (GradientBoostingClassifier(**MANY, init=DummyClassifier()), 1),
    "several answers for a row": (RandomForestClassifier(**MANY), 2),
    "a class of the user's": (TheirOwn(**MANY), 1),
}


@pytest.mark.parametrize("name", LEFT)
def test_other_models_are_left_as_they_are(name):
    model, outputs = LEFT[name]
    frame, label = training(2)
    model.fit(frame.to_numpy(), label if outputs == 1 else np.stack([label, label], axis=1))
    sort_rows(model)
    assert shortcut(model) is None


def test_a_model_without_trees_or_without_splits_is_left_as_it_is():
    alike = HistGradientBoostingClassifier(max_iter=25).fit(np.zeros((50, 4)), np.arange(50) % 2)
    for model in (HistGradientBoostingClassifier(max_iter=25), RandomForestRegressor(**MANY), alike):
        sort_rows(model)
        assert shortcut(model) is None


def test_a_step_of_another_scikit_learn_is_left_as_it_is(monkeypatch):
    model = trained(MODELS["boosted"])
    real = GradientBoostingClassifier._raw_predict
    monkeypatch.setattr(GradientBoostingClassifier, "_raw_predict", lambda self, rows, more=0: real(self, rows) + more)
    sort_rows(model)
    assert shortcut(model) is None


def test_sparse_rows_are_left_in_their_order():
    plain = trained(MODELS["forest"])
    quick = quickened(plain)
    rows = scipy.sparse.csr_matrix(training(0)[0].to_numpy())
    assert answer(quick, rows).tobytes() == answer(plain, rows).tobytes()


@pytest.mark.parametrize("shape", [(7, 1), (7,), (7, 4, 2)])
def test_what_is_no_table_of_the_features_is_refused_as_before(shape):
    plain = trained(MODELS["forest"])
    quick, told = quickened(plain), []
    for model in (plain, quick):
        with pytest.raises(ValueError, match=r"\w") as caught:
            model.predict(np.zeros(shape))
        told.append(str(caught.value))
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["boosted on histograms", "forest"])
def test_an_order_that_changes_an_answer_is_never_used(name, monkeypatch):
    plain = trained(MODELS[name])
    monkeypatch.setattr(fast_trees, "order", lambda rows, _: np.zeros(len(rows), int))
    quick = quickened(plain)
    frame, _ = training(0)
    for rows in (frame.to_numpy()[:20], frame.to_numpy()):
        assert answer(quick, rows).tobytes() == answer(plain, rows).tobytes()
    assert shortcut(quick).agrees is False
