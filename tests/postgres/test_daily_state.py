"""The daily state in the database: it follows the predictions, whatever the runs did."""

from __future__ import annotations

from datetime import date

import pytest

from plantao.extract import read
from plantao.ledger.request import Request
from plantao.measure.measure import freshen
from plantao.measure.profile import daily_state
from plantao.measure.profile.recount import recount
from plantao.release import promotion
from plantao.run import parallel, publish
from world import JOB, World, day, training_frame

SPLIT = JOB + '\n[measure]\nsegments = ["city"]\n'
FIRST = date(2013, 4, 1)


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def states(client, role="champion"):
    lines = client.results(
        "select model_version, day, segment, column_name, rows, state from plantao.daily_state where role = %s"
        " order by 1, 2, 3, 4",
        (role,),
    )
    return {tuple(line[:4]): (line[4], line[5]) for line in lines}


def per_day(client, table="predictions.bad_reading", role="champion"):
    """Return how many rows each day and version has, by the state and by the predictions."""
    counted = {key[:2]: rows for key, (rows, _) in states(client, role).items() if key[2:] == ("", "")}
    select = "select model_version, (source_timestamp at time zone 'UTC')::date, count(*) from {} group by 1, 2"
    return counted, {line[:2]: line[2] for line in client.results(select.format(table))}


def same(one, other):
    assert one.keys() == other.keys()
    for key, (rows, folded) in one.items():
        assert other[key][0] == rows
        for name, value in folded.items():
            assert other[key][1][name] == pytest.approx(value) if name in {"sums", "sum", "squares"} else (
                other[key][1][name] == value), key  # fmt: skip


def test_the_state_of_a_run_commits_with_its_rows(client):
    job = client.ready(SPLIT)
    client.score(job, day(1))
    found = states(client)
    assert {key[2:] for key in found} == {
        ("", ""), ("", "x"), ("", "y"), ("", "city"), ("city=Porto", ""), ("city=Recife", "")}  # fmt: skip
    assert found[1, FIRST, "", ""][0] == 20
    assert found[1, FIRST, "city=Porto", ""][0] == 10
    decisions = found[1, FIRST, "", ""][1]["decisions"]
    assert decisions["true"] == sum(row[1] for row in client.predictions())
    counted, predicted = per_day(client)
    assert counted == predicted
    # One that fails in the end leaves none.
    client.sql("update readings set x = 'NaN' where id >= 2000 and id < 2020")
    with pytest.raises(Exception, match="set aside"):
        client.score(job, day(2))
    assert states(client) == found


def test_late_rows_add_to_their_day_and_a_run_again_changes_nothing(client):
    job = client.ready(SPLIT)
    for number in (1, 2):
        client.score(job, day(number))
    client.insert(1, [1900, 1901, 1902])
    client.score(job, day(3))
    counted, predicted = per_day(client)
    assert counted == predicted
    assert counted[1, FIRST] == 23
    before = states(client)
    client.score(job, day(3))
    assert states(client) == before
    recount(job, client.place, "champion", [FIRST])
    same(before, states(client))


def test_a_window_that_is_scored_again_begins_its_days_anew(client):
    job = client.ready(SPLIT)
    for number in (1, 2):
        client.score(job, day(number))
    before = states(client)
    client.score(job, day(1), rescore=True)
    same(before, states(client))
    assert client.results("select count(*) from plantao.stale_days") == [(0,)]
    # With another version the old one's rows are no longer predictions, so its day is gone.
    client.register(frame=training_frame(seed=3))
    client.score(job, day(1), rescore=True, model_version=2)
    counted, predicted = per_day(client)
    assert counted == predicted == {(2, FIRST): 20, (1, date(2013, 4, 2)): 20}


def test_an_edited_row_makes_its_day_stale_until_it_is_counted_anew(client):
    text = SPLIT.replace(
        'late_rows = "3 days"', 'late_rows = "3 days"\non_change = "rescore"\nchanged_at = "edited_at"'
    )
    job = client.ready(text)
    for number in (1, 2):
        client.score(job, day(number))
    client.sql("update readings set x = 100, edited_at = '2013-04-01 12:00Z' where id = 1003")
    client.score(job, day(1))
    assert states(client)[1, FIRST, "", ""][0] == 21
    with client.place_session(job) as connection:
        assert daily_state.stale(connection, job, "champion") == [FIRST]
    assert recount(job, client.place, "champion", [FIRST]) == 20
    counted, predicted = per_day(client)
    assert counted == predicted
    assert states(client)[1, FIRST, "", "x"][1]["counts"][-1] == 1
    with client.place_session(job) as connection:
        assert daily_state.stale(connection, job, "champion") == []


def test_rows_that_another_run_was_faster_with_make_the_day_stale(client, monkeypatch):
    job = client.ready(SPLIT)
    client.score(job, day(1))
    client.insert(1, [1900])
    original = read.read

    def overtaken(snapshot, close, statement):
        monkeypatch.setattr(read, "read", original)
        assert client.score(job, day(1)).counts.scored == 1
        return original(snapshot, close, statement)

    monkeypatch.setattr(read, "read", overtaken)
    counts = client.score(job, day(2)).counts
    assert (counts.scored, counts.already_scored) == (20, 1)
    stale = client.results("select day, role, why from plantao.stale_days order by 1")
    assert stale[0] == (FIRST, "champion", "1 rows had been scored by another run")
    recount(job, client.place, "champion", [line[0] for line in stale])
    counted, predicted = per_day(client)
    assert counted == predicted
    assert client.results("select count(*) from plantao.stale_days") == [(0,)]


def test_parts_leave_the_state_of_one_process(client):
    job = client.ready(SPLIT, per_day=40)
    client.score(job, day(1))
    alone = states(client)
    client.results("delete from predictions.bad_reading; delete from plantao.daily_state")
    parted = client.job(SPLIT.replace("[load]", "parts = 4\n[load]"))
    parts = parallel.plan(Request(parted, day(1)), client.place)
    for part in parts:
        parallel.score_part(parted, part, client.place)
    assert states(client) == {}
    publish.publish(parted, parts[0].run_id, client.place)
    same(alone, states(client))


def test_a_challenger_has_a_state_of_its_own(client):
    job = client.ready(SPLIT)
    version = client.register(frame=training_frame(seed=1)).version
    promotion.mark("bad_reading", version, "let us see", client.place, "challenger")
    for number in (1, 2):
        client.score(job, day(number))
    counted, predicted = per_day(client, "predictions.bad_reading_shadow", "challenger")
    assert counted == predicted
    assert {key[0] for key in counted} == {2}
    before = states(client, "challenger")
    recount(job, client.place, "challenger", [FIRST])
    same(before, states(client, "challenger"))
    assert {key[0] for key in per_day(client)[0]} == {1}


def test_a_segment_that_the_source_lacks_costs_no_prediction(client):
    job = client.ready(SPLIT.replace('["city"]', '["city", "country"]'))
    assert client.score(job, day(1)).counts.scored == 20
    assert {key[2].partition("=")[0] for key in states(client)} == {"", "city"}


def test_a_day_is_counted_in_slices_when_it_is_large(client, monkeypatch):
    from plantao.measure.profile import recount as module

    job = client.ready(SPLIT, per_day=60)
    client.score(job, day(1))
    before = states(client)
    monkeypatch.setattr(module, "PREDICTIONS_AT_ONCE", 13)
    assert recount(job, client.place, "champion", [FIRST]) == 60
    same(before, states(client))


def test_days_are_local_ones(client):
    job = client.ready(SPLIT.replace('schedule = "daily"', 'schedule = "daily"\ntimezone = "America/New_York"'))
    client.score(job, day(2))
    assert {key[1] for key in states(client)} == {FIRST, date(2013, 4, 2)}


def test_a_state_that_is_not_of_as_many_rows_as_there_are_predictions_is_counted_anew(client):
    job = client.ready(SPLIT)
    for number in (1, 2):
        client.score(job, day(number))
    before = states(client)
    client.results("delete from plantao.daily_state where day = '2013-04-01'")  # predictions older than the state
    client.results("delete from predictions.bad_reading where source_timestamp >= '2013-04-02Z'")
    client.score(job, day(2))
    assert states(client)[1, date(2013, 4, 2), "", ""][0] == 40
    freshen(job, client.place, [FIRST, date(2013, 4, 2)])
    same(before, states(client))
