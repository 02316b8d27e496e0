"""What is written is what the model says: bit by bit `predict_proba` of the same rows, whatever way they travelled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from examples import examples
from plantao.release.describe import _contract, _output
from plantao.score.predict import arrow_type, predict, to_frame
from world import classifier, training_frame

COLUMNS = ["x", "y", "city"]
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)
ROWS = st.lists(
    st.tuples(FLOATS, st.none() | FLOATS, st.sampled_from(["Porto", "São Paulo", "Recife", "Natal", ""])),
    min_size=1,
    max_size=60,
)


def trees(frame: pd.DataFrame):
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    prepared = make_column_transformer((encode, ["city"]), remainder="passthrough")
    return make_pipeline(prepared, HistGradientBoostingClassifier(max_iter=20)).fit(frame[COLUMNS], frame["bad"])


@pytest.fixture(scope="module", params=[classifier, trees], ids=["linear", "trees"])
def trained(request):
    frame = training_frame()
    model, inputs = request.param(frame), frame[COLUMNS]
    output = _output(model, inputs, None)
    return model, output, _contract(model, inputs, output)


@given(rows=ROWS, cut=st.integers(0, 60))
@settings(max_examples=examples(100), deadline=None)
def test_predictions_are_bit_identical_however_the_rows_are_cut_into_batches(trained, rows, cut):
    model, output, contract = trained
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"x": "float64", "y": "float64", "city": "str"})
    with np.errstate(all="ignore"):
        expected = model.predict_proba(frame)
        arrays = [
            pa.array([row[place] for row in rows], arrow_type(column)) for place, column in enumerate(contract.columns)
        ]
        found = [
            predict(model, to_frame([array.slice(start, length) for array in arrays], contract), output)[0]
            for start, length in ((0, cut), (cut, None))
            if start < len(rows) and length != 0
        ]
    answered = np.concatenate(found)
    assert answered.tobytes() == expected.tobytes()
