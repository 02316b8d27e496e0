"""Whatever a client can put into a table: set aside with its reason or refused in one sentence, and nothing lost."""

from __future__ import annotations

import pytest

from plantao.errors import JobFileError, SourceChanged
from plantao.preflight.check import check
from plantao.run.reconcile import reconcile
from plantao.window import BEGINNING, Window
from world import APRIL, JOB, day

LENIENT = JOB.replace("[score]", "[validate]\nat_most_rejected = 1\n[score]")
ON_DEMAND = LENIENT.replace('schedule = "daily"', 'schedule = "on demand"').replace("starts   = 2013-04-01", "")


def books(report):
    counts = report.counts
    return (counts.read, counts.scored, counts.rejected)


@pytest.mark.parametrize(
    ("kind", "value", "outcome"),
    [
        ("numeric(38,10)", "1234567890123456789.0123456789", (20, 20, 0)),
        ("numeric", "'NaN'", (20, 19, 1)),
        ("numeric", "1e300", (20, 20, 0)),
        ("numeric", "-1e-400", (20, 20, 0)),
        ("numeric", "1e400", (20, 19, 1)),
        ("numeric", "-1e400", (20, 19, 1)),
        ("real", "'-infinity'", (20, 19, 1)),
        ("bigint", "9223372036854775807", (20, 20, 0)),
    ],
)
def test_a_number_of_any_size_is_scored_or_set_aside(world, kind, value, outcome):
    world.fill()
    world.sql(f"alter table readings alter x type {kind}; update readings set x = {value} where id = 1003")
    world.register()
    assert books(world.score(world.job(LENIENT), day(1))) == outcome


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_rows_without_a_timestamp_are_counted_and_told(world, kind):
    job = world.ready()
    world.sql(f"alter table readings alter at drop not null, alter at type {kind}; create index on readings (at)")
    world.sql("update readings set at = null where id % 10 = 3; update readings set at = 'infinity' where id = 2004")
    report = world.score(job, day(1))
    assert report.counts.scored == 18
    assert report.note == "11 rows of the source have no finite at: no run scores them"
    assert world.results("select note from plantao.runs") == [(report.note,)]
    (line,) = [line.answer for line in check(world.place).lines if line.of == "bad_reading: timestamps"]
    assert line.state == "WARN"
    assert "11 of 100 rows (11.00%) have no finite at" in line.what


def test_huge_and_strange_text_arrives_as_it_is(world):
    job = world.ready(LENIENT)
    for key, text in enumerate(["x" * 5_000_000, "\u0001\u007f\ufffd\U0001f600", "", " \n\t", "NULL", "\\N"], 1001):
        world.sql("update readings set city = %s where id = %s", (text, key))
    assert books(world.score(job, day(1))) == (20, 20, 0)


def test_text_where_the_model_wants_numbers_stops_the_run_with_the_column_named(world):
    world.fill()
    world.sql("alter table readings alter x type text")
    world.register()
    with pytest.raises(SourceChanged, match="column 'x' is text, but the model was trained on float"):
        world.score(world.job(LENIENT), day(1))


def test_rows_before_the_calendar_and_at_its_end_belong_to_the_window_they_are_in(world):
    job = world.ready(ON_DEMAND)
    world.sql("update readings set at = '4713-01-01 BC' where id = 1001;"
              " update readings set at = '-infinity' where id = 1002;"
              " update readings set at = 'infinity' where id = 1003;"
              " update readings set at = '0001-01-01' where id = 1004;"
              " update readings set at = '20000-01-01' where id = 1005")  # fmt: skip
    report = world.score(job, Window(BEGINNING, day(1).end))
    assert books(report) == (18, 18, 0)
    assert world.results("select source_timestamp::text from predictions.bad_reading order by 1 limit 2") == [
        ("-infinity",), ("0001-01-01 00:00:00+00",)
    ]  # fmt: skip
    assert world.results("select source_timestamp::text from predictions.bad_reading where id = 1001") == [
        ("4713-01-01 00:00:00+00 BC",)
    ]
    found = reconcile(job, world.place).found
    assert (found.rows_owed, found.rows_gone, found.rows_without_time) == (0, 0, 2)


def test_a_source_that_changes_between_plan_and_read_is_read_as_it_was(world, monkeypatch):
    from plantao.extract import read

    job = world.ready(LENIENT)
    plan = read.plan

    def then_change(*given, **named):
        found = plan(*given, **named)
        world.sql("delete from readings where id = 1001; update readings set x = null where id = 1002")
        world.insert(1, [1900])
        return found

    monkeypatch.setattr(read, "plan", then_change)
    assert books(world.score(job, day(1))) == (20, 20, 0)
    monkeypatch.undo()
    assert books(world.score(job, day(1))) == (20, 1, 0)


@pytest.mark.parametrize("name", ["prediction", "run_id", "score"])
def test_a_key_named_like_a_column_of_ours_is_refused_in_the_job_file(world, name):
    with pytest.raises(JobFileError, match="a column of every prediction table"):
        world.job(JOB.replace('["id"]', f'["{name}"]'))


@pytest.mark.parametrize("name", ["k0", "t", "late", "f0", "s", "p", "c", "doubles", "integers", "slice", "h"])
def test_a_key_named_like_a_name_inside_our_queries_does_no_harm(two_databases, name):
    world = two_databases
    world.fill()
    world.sql(f'alter table readings rename id to "{name}"')
    world.register()
    job = world.job(JOB.replace('["id"]', f'["{name}"]'))
    world.score(job, day(1))
    world.sql(f"insert into readings (\"{name}\", at, x, y, city) values (77, '2013-04-01', 0, 0, 'Porto')")
    assert world.score(job, day(1)).counts.scored == 1
    assert reconcile(job, world.place, Window(APRIL, day(1).end)).found.rows_owed == 0
