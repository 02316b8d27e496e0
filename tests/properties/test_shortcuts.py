"""A model that takes our shortcuts answers bit by bit what it answers without them, whatever the rows hold."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from examples import examples
from plantao.score import fast_encoders
from plantao.score.fast_encoders import quicken, side_by_side

CITIES = ["Porto", "São Paulo", "Recife", ""]
COLUMNS = ["x", "y", "city", "month"]
ROWS = st.lists(
    st.tuples(
        st.floats(-1e6, 1e6) | st.just(0.0) | st.just(-0.0),
        st.none() | st.floats(-1e6, 1e6),
        st.sampled_from([*CITIES, "Natal", "\x00", "日本"]) | st.none(),
        st.integers(0, 14),
    ),
    min_size=1,
    max_size=40,
)


def framed(rows):
    return pd.DataFrame(rows, columns=COLUMNS).astype({"x": "float64", "y": "float64", "city": "str", "month": "int64"})


def training():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": rng.normal(size=400), "y": rng.normal(size=400)})
    frame["city"] = pd.Series(rng.choice(CITIES, 400), dtype="str")
    frame["month"] = rng.integers(1, 13, 400)
    return frame, frame["x"] + (frame["city"] == "Porto") > 0.3


def linear(encoder):
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((numbers, ["x", "y"]), (encoder, ["city", "month"]), sparse_threshold=1.0)
    return make_pipeline(columns, LogisticRegression())


def trees(encoder):
    columns = make_column_transformer((encoder, ["city"]), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=20))


MODELS = {
    "one-hot": lambda: linear(OneHotEncoder(handle_unknown="ignore")),
    "one-hot, first dropped": lambda: linear(OneHotEncoder(handle_unknown="ignore", drop="first")),
    "one-hot, rare ones together": lambda: linear(
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=110)
    ),
    "one-hot, strict": lambda: linear(OneHotEncoder()),
    "ordinal": lambda: trees(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
    "ordinal, gaps": lambda: trees(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def both(request):
    frame, label = training()
    plain = MODELS[request.param]().fit(frame, label)
    quick = pickle.loads(pickle.dumps(plain))
    quicken(quick)
    quick.predict_proba(frame[:20])  # the golden rows, on which a stack is compared
    return plain, quick


def answer(model, frame):
    try:
        return model.predict_proba(frame).tobytes()
    except ValueError as error:
        return sorted(re.split(r"[\[\],] ?", str(error)))  # unknown categories are listed in the order of a set


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@given(rows=ROWS)
@settings(max_examples=examples(100), deadline=None)
def test_the_answers_are_the_same_bits(both, rows):
    plain, quick = both
    assert answer(quick, framed(rows)) == answer(plain, framed(rows))
    as_objects = framed(rows).astype({"city": object})
    assert answer(quick, as_objects) == answer(plain, as_objects)


def test_the_shortcuts_are_taken():
    frame, label = training()
    model = MODELS["one-hot"]().fit(frame, label)
    quicken(model)
    columns = model[0]
    encoder = columns.named_transformers_["onehotencoder"]
    model.predict_proba(frame[:20])
    for step in (encoder._transform, columns._hstack):
        step.original = None  # now it would fail
    model.predict_proba(frame)
    assert columns._hstack.agrees


def test_a_model_that_was_quickened_can_be_copied_and_sent_to_other_processes(both):
    plain, quick = both
    frame, _ = training()
    for other in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
        assert answer(other, frame) == answer(plain, frame)


def test_an_encoder_of_another_kind_of_scikit_learn_is_left_as_it_is(monkeypatch):
    frame, label = training()
    model = MODELS["one-hot"]().fit(frame, label)
    encoder = model[0].named_transformers_["onehotencoder"]
    real = OneHotEncoder._transform

    def others_first(self, X, **more):  # noqa: N803
        return tuple(1 - part for part in real(self, X, **more))

    def of_one_argument(self, X):  # noqa: N803
        return real(self, X)

    for other in (others_first, of_one_argument):
        monkeypatch.setattr(OneHotEncoder, "_transform", other)
        quicken(model)
        assert "_transform" not in vars(encoder)


def test_a_stack_that_does_not_agree_is_never_used(monkeypatch):
    frame, label = training()
    plain = MODELS["one-hot"]().fit(frame, label)
    quick = copy.deepcopy(plain)
    quicken(quick)
    monkeypatch.setattr(fast_encoders, "side_by_side", lambda blocks: 2 * side_by_side(blocks))
    for rows in (frame[:20], frame):
        assert answer(quick, rows) == answer(plain, rows)
    assert quick[0]._hstack.agrees is False


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 30), kind=st.sampled_from(["matrix", "array"]))
def test_columns_side_by_side_are_those_of_scipy(seed, rows, kind):
    rng = np.random.default_rng(seed)
    dense = rng.choice([0.0, -0.0, 1.5, np.nan, np.inf], (rows, 3))
    make = scipy.sparse.csr_matrix if kind == "matrix" else scipy.sparse.csr_array
    sparse = [make(rng.choice([0.0, 0.0, 1.0], (rows, width))) for width in (1, 5)]
    blocks = [sparse[0], dense, sparse[1], dense[:, :1]]
    ours, theirs = side_by_side(blocks), scipy.sparse.hstack(blocks).tocsr()
    assert type(ours) is type(theirs)
    assert ours.shape == theirs.shape
    for name in ("data", "indices", "indptr"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
