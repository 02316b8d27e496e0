"""Rows that other pipelines lose, change or stumble over: each is scored as it is, or set aside with its reason."""

from __future__ import annotations

import unicodedata

import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from plantao.errors import PlantaoError
from plantao.run.reconcile import reconcile
from plantao.window import BEGINNING, Window
from world import APRIL, JOB, administer, day, training_frame

LENIENT = JOB.replace("[score]", "[validate]\nat_most_rejected = 1\n[score]")


def rejects(world):
    return world.results("select key, reason, column_name from plantao.rejected_rows order by reject_id")


# --- when rows come --------------------------------------------------------------------------------------------------


def test_a_row_of_a_savepoint_that_is_committed_late_is_not_lost(world):
    """Its transaction number is not that of its transaction: what compares such numbers loses it."""
    job = world.ready()
    writer = world.connect()
    insert = "insert into readings (id, at, x, y, city) values (%s, '2013-04-01 12:00Z', 0, 0, 'Porto')"
    with writer.cursor() as cursor:
        cursor.execute(insert, (1500,))
        cursor.execute("savepoint inner_one")
        cursor.execute(insert, (1501,))
        cursor.execute("release savepoint inner_one")
        cursor.execute("savepoint undone")
        cursor.execute(insert, (1502,))
        cursor.execute("rollback to savepoint undone")
    world.insert(1, [1600])  # a younger transaction, committed before
    assert world.score(job, day(1)).counts.scored == 21
    writer.commit()
    assert world.score(job, day(2)).counts.late == 2
    assert {1500, 1501, 1600} <= {row[0] for row in world.predictions()}


def test_a_row_of_the_far_future_stops_no_other_and_waits_for_its_time(world):
    job = world.ready()
    world.sql(
        "update readings set at = '9999-12-31' where id = 1003; update readings set at = 'infinity' where id = 1004"
    )
    assert world.score(job, day(1)).counts.read == 18
    assert world.score(job, day(2)).counts.read == 20
    world.insert(3, [3900])
    assert world.score(job, day(3)).counts.read == 21
    found = reconcile(job, world.place, Window(APRIL, day(3).end)).found
    assert (found.rows_owed, found.rows_without_time) == (0, 1)
    world.sql("update readings set at = '2013-04-03 10:00Z' where id in (1003, 1004)")
    assert world.score(job, day(4)).counts.late == 2


@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Asia/Tokyo"])
def test_the_time_zone_of_the_clients_database_moves_no_row_into_another_window(world, zone):
    world.fill(days=3)
    world.sql("alter table readings alter at type timestamp using at at time zone 'UTC'")
    world.sql(f"alter database {world.databases['client_db']} set timezone = '{zone}'")
    world.register()
    assert world.score(world.job(), day(2)).counts.scored == 20
    assert [row[0] for row in world.predictions()] == list(range(2000, 2020))


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_beyond_the_precision_of_a_float_is_exact_beside_a_null(world):
    world.fill(days=1)
    world.sql("update readings set id = 9007199254740993 + id where id between 1001 and 1005")
    query = "select nullif(id, 1000) as id, at, x, y, city from readings"
    job = world.job(LENIENT.replace('table     = "public.readings"', f'query = "{query}"'))
    world.register()
    world.score(job, day(1))
    assert world.attempts() == [("succeeded", 20, 19, 1, 0)]
    assert rejects(world) == [({"id": None}, "null_key", None)]
    assert [row[0] for row in world.predictions()][-5:] == [9007199254740993 + n for n in range(1001, 1006)]
    world.score(job, day(1))
    assert world.attempts()[-1] == ("succeeded", 20, 0, 1, 19)


def test_text_keys_that_look_like_something_else_stay_what_they_are(two_databases):
    world = two_databases
    composed = "São"
    strange = ["00123", "123", "123 ", "NA", "nan", "null", "None", "", " ", "1e3", "1.0", "true", "\\N", "\t\r\n",
               composed, unicodedata.normalize("NFD", composed)]  # fmt: skip
    world.sql("create table readings (id text primary key, at timestamptz, x float8, y float8, city text)")
    for key in strange:
        world.sql("insert into readings values (%s, '2013-04-01 08:00Z', 1, 1, 'Porto')", (key,))
    world.register()
    job = world.job()
    assert world.score(job, day(1)).counts.scored == len(strange)
    assert {row[0] for row in world.predictions()} == set(strange)
    assert world.score(job, day(1)).counts.already_scored == len(strange)


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_cell_of_64_megabytes_is_a_row_like_any_other(world):
    job = world.ready(LENIENT)
    world.sql("update readings set city = repeat('x', 64000000) where id = 1003")
    world.score(job, day(1))
    assert world.attempts() == [("succeeded", 20, 20, 0, 0)]


def test_columns_in_another_order_reach_the_model_by_their_names(world):
    job = world.ready()
    world.score(job, day(1))
    expected = world.predictions("id, score")
    world.sql("alter table readings rename to shuffled;"
              " create view readings as select city, 7 as more, y, at, x, id from shuffled")  # fmt: skip
    world.grant()
    world.score(job, day(1), rescore=True)
    assert world.predictions("id, score") == expected


@pytest.fixture
def latin(world):
    """A client whose database knows no encoding, so that its texts may be any bytes."""
    name = f"{world.databases['client_db']}_latin"
    administer(world.server, f"create database {name} template template0 encoding 'SQL_ASCII' locale 'C'")
    world.databases["latin"] = name
    world.sql(
        "create table readings (id bigint primary key, at timestamptz, x float8, y float8, city text)", at="latin"
    )
    world.sql("insert into readings select 1000 + i, '2013-04-01 08:00Z', i, 1, 'Porto' from generate_series(1, 20) i",
              at="latin")  # fmt: skip
    world.register()
    text = LENIENT.replace("[extract]", '[extract]\nconnection = "latin"').replace(
        "at_most", "keep_rejected_rows = true\nat_most"
    )
    return world.job(text.replace("[load]", '[load]\nconnection = "client_db"'))


def test_bytes_that_are_no_text_set_their_row_aside_and_no_other(world, latin):
    world.sql(r"update readings set city = E'S\xe3o Paulo' where id = 1003", at="latin")
    world.score(latin, day(1))
    assert world.attempts() == [("succeeded", 20, 19, 1, 0)]
    assert rejects(world) == [({"id": 1003}, "out_of_range", "city")]
    assert world.results("select detail, \"row\" ->> 'city' from plantao.rejected_rows") == [
        ("its bytes are no text in UTF-8", "S\ufffdo Paulo")
    ]


def test_a_key_whose_bytes_are_no_text_stops_the_run(world, latin):
    text = (world.folder / "jobs" / "bad_reading.toml").read_text()
    world.sql("alter table readings drop id; alter table readings add code text", at="latin")
    world.sql(r"update readings set code = E'S\xe3o ' || x", at="latin")
    with pytest.raises(PlantaoError, match="invalid byte sequence") as caught:
        world.score(world.job(text.replace('["id"]', '["code"]')), day(1))
    assert caught.value.permanent
    assert world.attempts("status, error_kind") == [("failed", "permanent")]
    assert world.predictions("code") == []


MOMENTS = {
    "moment": ("timestamp", "timestamp '2013-01-01 10:00'"),
    "instant": ("timestamptz", "timestamptz '2013-01-01 10:00Z'"),
    "day": ("date", "date '2013-01-01'"),
}


OUTCOMES = [  # a value, and for which columns and with which reason its row is set aside
    ("infinity", {"moment": "not_finite", "instant": "not_finite", "day": "not_finite"}),
    ("-infinity", {"moment": "not_finite", "instant": "not_finite", "day": "not_finite"}),
    ("20000-01-01", {"day": "out_of_range"}),
    ("0044-03-15 BC", {"day": "out_of_range"}),
    ("1500-01-01", {}),
]


def dated(world, column, unit="us"):
    """Register a model that looks at a date or a moment, and fill its source with the same one in every row."""
    kind, usual = MOMENTS[column]
    world.sql(f"create table readings (id bigint primary key, at timestamptz, x float8, {column} {kind})")
    world.sql(f"insert into readings select i, '2013-04-01 08:00Z', i, {usual} from generate_series(1, 20) i")
    frame = training_frame()[["x", "bad"]]
    moments = pd.Series(pd.date_range("2013-01-01", periods=len(frame), tz="UTC" if column == "instant" else None))
    frame[column] = moments.dt.date if column == "day" else moments.dt.as_unit(unit)
    looks_at_x = make_column_transformer((FunctionTransformer(), ["x"]))
    model = make_pipeline(looks_at_x, LogisticRegression()).fit(frame[["x", column]], frame["bad"])
    world.register(model, frame)
    return world.job(LENIENT.replace("[score]", "keep_rejected_rows = true\n[score]"))


@pytest.mark.parametrize(("value", "reasons"), OUTCOMES)
@pytest.mark.parametrize("column", MOMENTS)
def test_a_date_that_a_frame_cannot_hold_costs_no_other_row_its_prediction(world, column, value, reasons):
    job = dated(world, column)
    world.sql(f"update readings set {column} = %s where id = 3", (value,))
    world.score(job, day(1))
    aside = [({"id": 3}, reasons[column], column)] if column in reasons else []
    assert rejects(world) == aside
    assert world.attempts() == [("succeeded", 20, 20 - len(aside), len(aside), 0)]
    for (kept,) in world.results(f"select \"row\" ->> '{column}' from plantao.rejected_rows"):
        assert kept == value


def test_nanoseconds_of_the_training_end_in_the_year_2262(world):
    job = dated(world, "instant", unit="ns")
    world.sql("update readings set instant = '2500-01-01' where id = 3")
    world.score(job, day(1))
    assert rejects(world) == [({"id": 3}, "out_of_range", "instant")]


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        ("-infinity", "-infinity"),
        ("0044-03-15 13:14:15.678+00 BC", "0044-03-15 13:14:15.678+00 BC"),
        ("0001-01-01 00:00:00+00", "0001-01-01 00:00:00+00"),
    ],
)
def test_a_bad_row_from_before_the_calendar_is_set_aside_like_any_other(world, moment, written):
    job = world.ready(LENIENT.replace('"daily"', '"on demand"').replace("starts   = 2013-04-01\n", ""))
    world.sql("update readings set at = %s, x = null where id = 1003", (moment,))
    world.score(job, Window(BEGINNING, day(1).end))
    assert rejects(world) == [({"id": 1003}, "null_feature", "x")]
    assert world.results("select source_timestamp::text from plantao.rejected_rows") == [(written,)]
