"""Every kind of model, key and column that is promised, through a real database and back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from psycopg2.sql import SQL
from psycopg2.sql import Literal as Value
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from plantao.errors import SourceChanged, TargetRefused, UsageError
from plantao.extract.read import read_frame
from plantao.extract.source import as_double
from plantao.postgres import session as database
from plantao.postgres.pinned import LOGIN_PATH
from plantao.postgres.replaced import whole_snapshot
from world import JOB, day, regressor, training_frame


def test_a_regression_writes_its_value_as_prediction_and_score(world):
    world.fill()
    world.register(regressor(training_frame()))
    world.score(world.job(), day(1))
    assert all(prediction == score for _, prediction, score, _ in world.predictions())


def test_a_multiclass_model_writes_the_class_and_every_probability(world):
    frame = training_frame()
    frame["mood"] = pd.cut(frame["x"], [-9, -0.5, 0.5, 9], labels=["low", "fair", "high"]).astype(str)
    model = LogisticRegression().fit(frame[["x"]], frame["mood"])
    world.fill()
    world.register(model, frame)
    world.score(world.job(), day(1))
    for prediction, score, scores in world.predictions("prediction, score, scores"):
        assert set(scores) == {"low", "fair", "high"}
        assert max(scores, key=scores.get) == prediction
        assert scores[prediction] == score
        assert sum(scores.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "positive", "kind"),
    [((0, 1), 1, "bigint"), (("no", "yes"), "yes", "text"), ((False, True), True, "boolean")],
)
def test_a_binary_label_keeps_its_type(world, labels, positive, kind):
    frame = training_frame()
    frame["label"] = np.where(frame["bad"], labels[1], labels[0])
    model = LogisticRegression().fit(frame[["x"]], frame["label"])
    world.fill()
    world.register(model, frame)
    world.score(world.job(), day(1))
    assert world.results("select distinct pg_typeof(prediction)::text from predictions.bad_reading") == [(kind,)]
    assert {row[1] for row in world.predictions() if row[2] >= 0.5} == {positive}


def test_the_positive_class_can_be_named(world):
    frame = training_frame()
    frame["label"] = np.where(frame["bad"], "bad", "good")
    model = LogisticRegression().fit(frame[["x"]], frame["label"])
    world.fill()
    import io

    import joblib

    from plantao.release.register import register

    content = io.BytesIO()
    joblib.dump(model, content)
    manifest, _ = register(content.getvalue(), frame, world.place, name="bad_reading", positive="bad")
    assert (manifest.output.classes, manifest.output.positive) == (("bad", "good"), "bad")
    world.score(world.job(), day(1))
    assert {row[1] for row in world.predictions() if row[2] >= 0.5} == {"bad"}


@pytest.mark.parametrize(
    ("kind", "expression"),
    [
        ("smallint", "i::smallint"),
        ("integer", "i"),
        ("bigint", "9007199254740993 + i"),
        ("text", "'00' || i"),
        ("text", "E'tab\\there, \"quoted\", ü' || i"),
        ("character varying(20)", "'x' || i"),
        ("uuid", "md5(i::text)::uuid"),
        ("date", "date '2013-01-01' + i"),
    ],
)
def test_a_key_arrives_exactly_as_it_left(world, kind, expression):
    world.sql(f"create table readings (id {kind} primary key, at timestamptz, x float8, y float8, city text)")
    world.sql(
        f"insert into readings select {expression}, '2013-04-01 08:00Z', i, 1, 'Porto' from generate_series(1, 50) i"
    )
    world.register()
    job = world.job()
    assert world.score(job, day(1)).counts.scored == 50
    assert world.score(job, day(1)).counts.already_scored == 50
    unmatched = (
        "select count(*) from readings full join predictions.bad_reading using (id) where score is null or x is null"
    )
    assert world.sql(unmatched) == [(0,)]


def test_a_key_type_that_cannot_be_compared_exactly_is_refused_with_the_cure(world):
    world.sql("create table readings (id numeric primary key, at timestamptz, x float8, y float8, city text)")
    world.register()
    with pytest.raises(SourceChanged, match=r"key column 'id' is numeric; accepted are .* \(cast it in a query\)"):
        world.score(world.job(), day(1))


def test_features_of_every_kind_reach_the_model_as_in_training(world):
    """The model is trained on a frame that the run's own reader made, then asked by hand on the same rows."""
    world.sql("create type colour as enum ('red', 'green')")
    world.sql(
        "create table readings (id integer primary key, at timestamptz not null, small smallint, price numeric(10, 2),"
        " ratio real, flag boolean, maybe boolean, code varchar(3), shade colour, day date, moment timestamp,"
        " instant timestamptz, late boolean)"
    )
    world.sql(
        "insert into readings select i, '2013-04-01Z'::timestamptz + i * interval '1 minute', i % 7, i * 1.25, i / 3.0,"
        " i % 2 = 0, nullif(i % 3, 0) = 1, 'c' || i % 4, (array['red', 'green'])[1 + i % 2]::colour,"
        " date '2013-01-01' + i % 30, timestamp '2013-01-01 10:00' + i * interval '1 hour',"
        " timestamptz '2013-01-01 10:00Z' + i * interval '1 hour', (i * 7919) % 5 < 2 from generate_series(1, 600) i"
    )
    job = world.job()
    with (
        database.session(world.address("client_db"), "plantao") as session,
        whole_snapshot(world.address("client_db"), path=LOGIN_PATH) as snapshot,
    ):
        frame = read_frame(snapshot, session, "select * from readings order by id")
    columns = ["small", "price", "ratio", "flag", "maybe", "code", "shade", "day", "moment", "instant"]

    def numbers(part):
        days = pd.to_datetime(part["day"])
        return pd.DataFrame(
            {
                "small": part["small"],
                "price": part["price"],
                "ratio": part["ratio"],
                "flag": part["flag"].astype(int),
                "maybe": part["maybe"].map({True: 1.0, False: 0.0}).astype(float),
                "weekday": days.dt.day_of_week,
                "hour": part["moment"].dt.hour,
                "utc": part["instant"].dt.tz_convert("UTC").dt.hour,
            }
        )

    prepare = make_column_transformer(
        (FunctionTransformer(numbers), [c for c in columns if c not in {"code", "shade"}]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["code", "shade"]),
    )
    model = make_pipeline(prepare, HistGradientBoostingClassifier(max_iter=20)).fit(frame[columns], frame["late"])
    import cloudpickle  # the pipeline holds a function of this test

    from plantao.release.register import register

    manifest, _ = register(cloudpickle.dumps(model), frame, world.place, name="bad_reading", connections=["client_db"])
    assert [c.kind for c in manifest.contract.columns] == [
        *("integer", "float", "float", "boolean", "boolean", "text", "text", "date", "timestamp", "timestamp")
    ]
    world.score(job, day(1))
    expected = model.predict_proba(frame[columns])[:, 1]
    assert [row[2] for row in world.predictions()] == expected.tolist()


def test_numbers_reach_the_model_unchanged_to_the_ends_of_their_types(world):
    world.sql("create domain tiny as smallint")
    types = {"x": "smallint", "y": "integer", "z": "bigint", "d": "tiny", "p": "numeric(38, 10)", "r": "real"}
    columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
    world.sql(f"create table readings (id integer primary key, at timestamptz not null, {columns})")
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": rng.integers(-99, 99, 200), "d": rng.integers(-9, 9, 200)})
    frame["y"], frame["z"] = frame["x"] * 1_000_003, frame["d"] * 10**15 + 1
    frame["p"], frame["r"] = rng.normal(size=200).round(10), rng.normal(size=200).astype(np.float32).astype(float)
    frame = frame[list(types)]
    frame.loc[0] = [-(2**15), -(2**31), -(2**63), -(2**15), 1e27, -3.0e38]
    frame.loc[1] = [2**15 - 1, 2**31 - 1, 2**63 - 1, 2**15 - 1, -1e-10, 3.0e38]
    frame = frame.astype(dict.fromkeys(("x", "y", "z", "d"), "int64"))
    for key, row in enumerate(frame.itertuples(index=False)):
        world.sql("insert into readings values (%s, '2013-04-01T12:00Z', %s, %s, %s, %s, %s, %s)", (key, *row))
    result = frame["x"] / 100 + frame["d"]
    model = HistGradientBoostingRegressor(max_iter=20).fit(frame, result)
    world.register(model, frame.assign(bad=result))
    assert world.score(world.job(), day(1)).counts.scored == len(frame)
    assert [prediction for _, prediction, *_ in world.predictions()] == model.predict(frame).tolist()


def test_a_numeric_of_any_size_is_the_nearest_double(world):
    small = ["0", "1e-400", "-1e-400", "2.4e-324", "2.6e-324", "-5e-324", "0.1", "-123456789.123456789", "NaN"]
    large = ["1.7976931348623157e308", "1.79769313486231575e308", "1.8e308", "1e400", "-1e400", "Infinity"]
    numbers = [*small, *large]
    statement = SQL("select {} as found from unnest({}::numeric[]) with ordinality as n (v, i) order by i")
    with (
        database.session(world.address("client_db"), "plantao") as session,
        whole_snapshot(world.address("client_db")) as snapshot,
    ):
        quoted = database.quoted(session, statement.format(as_double(SQL("v"), "numeric"), Value(numbers)))
        found = snapshot.table(quoted).column("found").to_numpy()
    np.testing.assert_array_equal(found, [float(number) for number in numbers])


def test_training_data_of_types_that_no_run_can_read_are_refused(world):
    world.fill()
    query = "select x, 1::money as price, '{}'::jsonb as more, 7::oid as number, array[1] as list, y from readings"
    with (
        database.session(world.owner("client_db"), "plantao") as session,
        whole_snapshot(world.owner("client_db"), path=LOGIN_PATH) as snapshot,
        pytest.raises(UsageError, match=r"price \(money\), more \(jsonb\), number \(oid\), list") as refused,
    ):
        read_frame(snapshot, session, query)
    assert "amount::numeric" in refused.value.next_step


def test_a_categorical_column_keeps_its_categories(world):
    frame = training_frame()
    frame["city"] = frame["city"].astype(pd.CategoricalDtype(["Recife", "Porto", "São Paulo"]))
    model = HistGradientBoostingClassifier(max_iter=10, categorical_features="from_dtype")
    world.fill()
    world.register(model.fit(frame[["x", "city"]], frame["bad"]), frame)
    world.sql("update readings set city = 'Atlantis' where id = 1003")
    world.score(world.job(), day(1))
    assert world.results("select reason from plantao.rejected_rows") == [("unknown_category",)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("alter table readings rename x to x_new", r"'x' is missing \(there is a column 'x_new': was it renamed\?\)"),
        ("alter table readings drop y", "column 'y' is missing"),
        ("alter table readings alter x type text", "column 'x' is text, but the model was trained on float"),
        ("alter table readings rename id to number", "key column 'id' is missing"),
        ("alter table readings rename at to moment", "timestamp column 'at' is missing"),
    ],
)
def test_a_changed_source_stops_the_run_before_a_row_is_read(world, change, said):
    job = world.ready()
    world.sql(change)
    with pytest.raises(SourceChanged, match=said):
        world.score(job, day(1))
    assert world.attempts("status, error_kind") == [("failed", "permanent")]
    assert world.results("select to_regclass('predictions.bad_reading')") == [(None,)]


def test_a_new_column_of_the_client_does_not_matter(world):
    job = world.ready()
    world.sql("alter table readings add more text")
    assert world.score(job, day(1)).status == "succeeded"


def test_a_table_that_cannot_take_the_predictions_is_left_alone(world):
    job = world.ready()
    world.sql("create table predictions.bad_reading (id bigint primary key, score text)")
    with pytest.raises(TargetRefused, match="column 'score' is text, needed is double precision"):
        world.score(job, day(1))


def test_quoted_and_foreign_names_are_names_like_any_other(world):
    world.fill()
    world.sql('create schema "Ünï ""Quelle"""; alter table readings set schema "Ünï ""Quelle"""')
    world.sql('alter table "Ünï ""Quelle""".readings rename to "select; drop"')
    world.sql('alter table "Ünï ""Quelle"""."select; drop" rename id to "id; --"')
    world.register()
    source, target = '"Ünï ""Quelle"""."select; drop"', '"Die ""Vorhersagen"""."wo; drop"'
    text = JOB.replace('"public.readings"', f"'{source}'").replace('["id"]', "['id; --']")
    job = world.job(text.replace('"predictions.bad_reading"', f"'{target}'"))
    assert world.score(job, day(1)).counts.scored == 20
    assert world.score(job, day(1)).counts.already_scored == 20
    assert world.sql('select count(*) from "Die ""Vorhersagen"""."wo; drop" where "id; --" > 0') == [(20,)]


@pytest.mark.parametrize("kind", ["view", "partitioned table", "materialized view"])
def test_other_kinds_of_relations_are_sources_too(world, kind):
    world.fill(days=2)
    if kind == "partitioned table":
        world.sql(
            "alter table readings rename to readings_all;"
            " create table readings (like readings_all) partition by range (at);"
            " create table april partition of readings for values from ('2013-04-01Z') to ('2013-05-01Z');"
            " insert into readings select * from readings_all"
        )
    else:
        world.sql(f"alter table readings rename to readings_all; create {kind} readings as select * from readings_all")
    world.register()
    job = world.job()
    assert world.score(job, day(1)).counts.scored == 20
    world.sql("select 1")
    assert world.score(job, day(1)).counts.already_scored == 20


def test_a_model_without_column_names_is_refused_at_registration(world):
    frame = training_frame()
    with pytest.raises(UsageError, match="fitted on an array"):
        world.register(LogisticRegression().fit(frame[["x", "y"]].fillna(0).to_numpy(), frame["bad"]), frame)
