"""Registration: what a model must be to be served, in words for the data scientist; and what is learnt about it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from plantao.errors import ModelFailed, UsageError
from plantao.models.manifest import Output, environment_differences
from plantao.release.describe import describe
from plantao.score.predict import answers, predict
from world import classifier, regressor, training_frame


def register(model, frame, **more):
    return describe(
        model,
        frame,
        name="m",
        version=1,
        sha256="0" * 64,
        file="model.joblib",
        created_by="me",
        created_at=dt.datetime(2013, 4, 1, tzinfo=dt.UTC),
        environment={},
        **more,
    )


def test_the_contract_is_that_of_the_training_frame():
    manifest = register(classifier(training_frame()), training_frame())
    x, y, city = manifest.contract.columns
    assert (x.name, x.kind, x.dtype, x.nullable) == ("x", "float", "float64", False)
    assert (y.nullable, y.accepts_null) == (True, True)
    assert city.categories == ("Porto", "Recife", "São Paulo")
    assert city.accepts_unknown
    assert x.min == training_frame()["x"].min()


def test_what_a_model_cannot_bear_is_found_out_by_trying():
    strict = register(classifier(training_frame(), strict=True), training_frame())
    assert not strict.contract.column("city").accepts_unknown
    plain = LogisticRegression().fit(training_frame()[["x"]], training_frame()["bad"])
    assert not register(plain, training_frame()).contract.column("x").accepts_null
    tree = HistGradientBoostingClassifier(max_iter=5).fit(training_frame()[["x"]], training_frame()["bad"])
    assert register(tree, training_frame()).contract.column("x").accepts_null


def test_golden_rows_have_extremes_and_gaps():
    frame = training_frame()
    golden = register(classifier(frame), frame).golden
    assert {row["x"] for row in golden.rows} >= {frame["x"].min(), frame["x"].max()}
    assert None in [row["y"] for row in golden.rows]
    assert len(golden.rows) == len(golden.answers) >= 30


def test_a_frame_of_few_rows_is_enough():
    frame = training_frame(rows=12)
    assert len(register(classifier(frame), frame.head(2)).golden.rows) == 2


def test_the_reference_counts_every_row():
    frame = training_frame()
    reference = register(classifier(frame), frame).reference
    assert sum(reference["columns"]["x"]["counts"]) == len(frame)
    assert reference["columns"]["y"]["missing"] == frame["y"].isna().sum()
    assert sum(reference["columns"]["city"]["values"].values()) == len(frame)
    assert sum(reference["score"]["counts"]) == len(frame)


def test_the_output_is_what_the_model_is():
    frame = training_frame()
    assert register(classifier(frame), frame).output == Output(kind="binary", classes=(False, True), positive=True)
    assert register(regressor(frame), frame).output.kind == "regression"
    frame["three"] = np.arange(len(frame)) % 3
    three = LogisticRegression().fit(frame[["x"]], frame["three"])
    assert register(three, frame).output == Output(kind="multiclass", classes=(0, 1, 2))


def test_the_positive_class_may_be_named_as_text():
    frame = training_frame()
    assert register(classifier(frame), frame, positive="False").output.positive is False
    with pytest.raises(UsageError, match="positive class 'maybe' is not one of the model's classes"):
        register(classifier(frame), frame, positive="maybe")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: LogisticRegression().fit(f[["x"]].to_numpy(), f["bad"]), "fitted on an array"),
        (lambda f: LinearSVC().fit(f[["x"]], f["bad"]), "has no predict_proba.*CalibratedClassifierCV"),
        (lambda f: LinearRegression().fit(f[["x"]], f[["amount", "x"]]), "predicts 2 values a row"),
        (lambda f: LogisticRegression().fit(f[["x"]], f["bad"] * 2.0), "classes are of type float"),
        (lambda f: LogisticRegression().fit(f[["x"]].rename(columns={"x": "z"}), f["bad"]), "lacks columns.*: z"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_served_is_refused_with_the_cure(make, said):
    with pytest.raises(UsageError, match=f"(?s){said}"):
        register(make(training_frame()), training_frame())


def test_an_empty_frame_is_refused():
    with pytest.raises(UsageError, match="no rows"):
        register(classifier(training_frame()), training_frame().head(0))


class TakesAnything:
    """A model for columns that scikit-learn itself would refuse."""

    classes_ = np.array([0, 1])

    def __init__(self, columns):
        self.feature_names_in_ = np.array(columns)

    def predict_proba(self, frame):
        return np.tile([0.25, 0.75], (len(frame), 1))

    def __sklearn_tags__(self):
        return LogisticRegression().__sklearn_tags__()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([Decimal("1.5"), Decimal("2.5")], "holds Decimal"),
        ([1, "a"], "holds int, str"),
        ([None, None], "holds nothing"),
        ([[1], [2]], "holds list"),
    ],
)
def test_a_column_that_no_database_gives_is_refused_by_name(values, said):
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    with pytest.raises(UsageError, match=f"column 'x' of the training frame has dtype object and {said}"):
        register(TakesAnything(["x"]), frame)


@pytest.mark.parametrize(
    ("values", "kind", "dtype"),
    [
        (pd.array([1, None, 3], dtype="Int64"), "integer", "Int64"),
        (pd.array([True, None, False], dtype="boolean"), "boolean", "boolean"),
        (pd.Series([True, None, False], dtype=object), "boolean", "object"),
        (pd.Series(["a", None, "b"], dtype=object), "text", "object"),
        (pd.to_datetime(["2013-04-01", None, "2013-04-02"], utc=True), "timestamp", "datetime64[us, UTC]"),
        (pd.to_datetime(["2013-04-01", None, "2013-04-02"]), "timestamp", "datetime64[us]"),
        (pd.Series([dt.date(2013, 4, 1), None, dt.date(2013, 4, 2)], dtype=object), "date", "object"),
        (pd.Categorical([1, 2, None], categories=[2, 1]), "integer", "category"),
        (np.array([1, 2, 3], dtype="int16"), "integer", "int16"),
        (np.array([1, 2, 3], dtype="float32"), "float", "float32"),
    ],
)
def test_gaps_and_kinds_come_back_as_they_were(values, kind, dtype):
    from plantao.score.predict import arrow_type, to_frame

    frame = pd.DataFrame({"c": values})
    manifest = register(TakesAnything(["c"]), frame)
    (column,) = manifest.contract.columns
    assert (column.kind, column.dtype) == (kind, dtype)
    assert column.nullable is bool(frame["c"].isna().any())
    array = pa.array(
        [None if pd.isna(v) else getattr(v, "item", lambda v=v: v)() for v in frame["c"]], arrow_type(column)
    )
    back = to_frame([array], manifest.contract)["c"]
    assert str(back.dtype) == dtype
    assert [None if pd.isna(v) else v for v in back] == [None if pd.isna(v) else v for v in frame["c"]]


def test_a_manifest_survives_json():
    from plantao.models.manifest import Manifest

    manifest = register(classifier(training_frame()), training_frame(), metrics={"roc_auc": 0.9})
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize("here", ["1.10.0", "1.8.1", "2.9.1", "missing"])
def test_another_minor_scikit_learn_forbids(here):
    trained = {"scikit-learn": "1.9.1", "numpy": "2.0", "python": "3.11.7"}
    forbids, notes = environment_differences(trained, {**trained, "scikit-learn": here, "numpy": "2.4"})
    assert forbids == [f"scikit-learn was 1.9.1 at training and is {here} here"]
    assert notes == ["numpy was 2.0 at training and is 2.4 here"]


def test_other_differences_are_worth_knowing_and_forbid_nothing():
    trained = {"scikit-learn": "1.9.1", "platform": "Linux x86_64", "lock": "sha256:" + "1" * 64, "joblib": "1.5"}
    here = {"scikit-learn": "1.9.2", "platform": "Darwin arm64", "lock": "sha256:" + "2" * 64, "more": "1"}
    forbids, notes = environment_differences(trained, here)
    assert forbids == []
    assert notes == [
        "scikit-learn was 1.9.1 at training and is 1.9.2 here",
        "platform was Linux x86_64 at training and is Darwin arm64 here",
        "lock was sha256:111111111111… at training and is sha256:222222222222… here",
        "joblib was 1.5 at training and is missing here",
    ]
    assert environment_differences(trained, trained) == ([], [])


# --- answers ---------------------------------------------------------------------------------------------------------

BINARY = Output(kind="binary", classes=("no", "yes"), positive="yes")


def test_the_positive_class_begins_at_the_threshold():
    raw = np.array([[0.7, 0.3], [0.5, 0.5], [0.499, 0.501]])
    assert answers(raw, BINARY, 0.5).prediction.tolist() == ["no", "yes", "yes"]
    assert answers(raw, BINARY, 0.501).prediction.tolist() == ["no", "no", "yes"]
    assert answers(raw, BINARY.model_copy(update={"positive": "no"}), 0.6).prediction.tolist() == ["no", "yes", "yes"]


class Raises:
    def __init__(self, bad):
        self.bad = bad

    def predict_proba(self, frame):
        if frame["x"].isin(self.bad).any():
            raise RuntimeError
        return np.column_stack([1 - frame["x"] / 1000, frame["x"] / 1000])


@pytest.mark.parametrize("bad", [[], [0], [99], [3, 4, 50], list(range(0, 100, 7))])
def test_exactly_the_rows_on_which_the_model_raises_are_found(bad):
    frame = pd.DataFrame({"x": np.arange(100.0)})
    raw, rejects = predict(Raises(bad), frame, BINARY)
    assert [(reject.row, reject.reason) for reject in rejects] == [(row, "model_error") for row in bad]
    good = [row for row in range(100) if row not in bad]
    assert raw[good, 1].tolist() == [row / 1000 for row in good]


class Answers:
    def __init__(self, raw):
        self.raw = np.array(raw)

    def predict_proba(self, frame):
        return self.raw[: len(frame)]


def test_an_impossible_answer_is_set_aside():
    frame = pd.DataFrame({"x": range(4)})
    raw = [[0.5, 0.5], [np.nan, np.nan], [-0.1, 1.1], [0.0, 1.0]]
    _, rejects = predict(Answers(raw), frame, BINARY)
    assert [(reject.row, reject.reason) for reject in rejects] == [(1, "bad_output"), (2, "bad_output")]


def test_an_answer_of_the_wrong_shape_fails_the_run():
    with pytest.raises(ModelFailed, match="answered 2 rows with"):
        predict(Answers([[0.1, 0.2, 0.7]] * 2), pd.DataFrame({"x": [1, 2]}), BINARY)


def test_no_rows_are_no_question():
    raw, rejects = predict(Raises([]), pd.DataFrame({"x": []}), BINARY)
    assert (raw.shape, rejects) == ((0, 2), [])
