"""A window that many workers share: planned, scored in parts, published at once."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from plantao.errors import DatabaseUnavailable, Superseded, TooManyRejected, WindowBusy
from plantao.ledger.request import Request
from plantao.run import parallel, publish
from plantao.run.parallel import Part
from world import JOB, World, day

PARTED = JOB.replace("[load]", "parts = 4\n[load]")
LENIENT = PARTED.replace("[score]", "[validate]\nat_most_rejected = 1\n[score]")


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def plan(client, job, window, **request):
    parts = parallel.plan(Request(job, window, **request), client.place)
    return [Part.of(part.as_dict()) for part in parts]


def score_all(client, job, window, **request):
    parts = plan(client, job, window, **request)
    for part in parts:
        parallel.score_part(job, part, client.place)
    return publish.publish(job, parts[0].run_id, client.place)


def part_tables(client):
    return client.results("select relname from pg_class where relname like 'plantao_run_%' and relkind = 'r'")


def test_the_parts_together_are_the_window_and_are_visible_at_once(client):
    job = client.ready(PARTED, per_day=40)
    parts = plan(client, job, day(1))
    assert len(parts) == 4
    for part in parts:
        parallel.score_part(job, part, client.place)
        assert client.predictions() == []
    sizes = client.results("select rows_scored from plantao.parts order by part")
    assert sum(size for (size,) in sizes) == 40
    assert min(size for (size,) in sizes) > 0
    report = publish.publish(job, parts[0].run_id, client.place)
    assert (report.status, report.counts.read, report.counts.scored) == ("succeeded", 40, 40)
    assert len(client.predictions()) == 40
    assert client.attempts("status, parts, rows_read, rows_scored, model_version") == [("succeeded", 4, 40, 40, 1)]
    assert part_tables(client) == []


def test_it_writes_what_one_process_would_have_written(client):
    job = client.ready(PARTED, per_day=60)
    client.sql("update readings set y = null where id % 7 = 0")
    score_all(client, job, day(1))
    parted = client.predictions("id, source_timestamp, prediction, score, model_version, in_control_group")
    client.results("delete from predictions.bad_reading")
    client.score(job, day(1))
    assert client.predictions("id, source_timestamp, prediction, score, model_version, in_control_group") == parted


def test_late_rows_predicted_ones_and_rejects_are_counted_over_all_parts(client):
    job = client.ready(LENIENT)
    client.score(job, day(1))
    client.insert(1, [9001, 9002])
    client.sql("update readings set x = null where id in (2003, 2017)")
    client.score(job, day(2))
    client.insert(2, [9100, 9101, 9102])
    client.insert(1, [9003])
    report = score_all(client, job, day(2))
    counts = report.counts
    assert (counts.read, counts.scored, counts.rejected, counts.already_scored, counts.late) == (24, 4, 2, 18, 1)
    client.sql("update readings set x = 1 where id in (2003, 2017)")
    assert score_all(client, job, day(2)).counts.scored == 2
    assert client.results("select count(*) from plantao.rejected_rows where resolved_at is null") == [(0,)]


def test_scoring_again_moves_the_earlier_predictions_to_the_history(client):
    job = client.ready(PARTED)
    score_all(client, job, day(1))
    report = score_all(client, job, day(1), rescore=True)
    assert (report.counts.scored, report.counts.rescored) == (20, 20)
    assert client.results("select count(*) from predictions.bad_reading_history") == [(20,)]
    assert len(client.predictions()) == 20


def test_a_part_that_is_asked_for_twice_is_scored_once(client):
    job = client.ready(PARTED)
    parts = plan(client, job, day(1))
    for part in [*parts, *parts]:
        parallel.score_part(job, part, client.place)
    assert parallel.score_part(job, parts[0], client.place) == {"part": 0, "status": "staged before"}
    assert publish.publish(job, parts[0].run_id, client.place).counts.scored == 20
    assert publish.publish(job, parts[0].run_id, client.place).counts.scored == 20  # as after a lost answer
    assert len(client.predictions()) == 20


def test_rows_that_have_a_prediction_by_the_time_of_the_publishing_keep_it(client):
    job = client.ready(PARTED, per_day=40)
    parts = plan(client, job, day(1))
    for part in parts:
        parallel.score_part(job, part, client.place)
    ((table,), *_) = part_tables(client)  # no run can be faster, its window is held; so somebody's hand is
    copied = f"insert into predictions.bad_reading select * from predictions.{table} limit 3 returning id"
    assert len(client.results(copied)) == 3
    client.results("update predictions.bad_reading set score = 0.25, run_id = 0")
    counts = publish.publish(job, parts[0].run_id, client.place).counts
    assert (counts.read, counts.scored, counts.already_scored) == (40, 37, 3)
    assert len(client.predictions()) == 40
    assert client.results("select count(*) from predictions.bad_reading where score = 0.25") == [(3,)]


def test_two_workers_on_one_part_at_once_leave_it_scored_once(client):
    job = client.ready(PARTED)
    parts = plan(client, job, day(1))
    outcomes = []

    def work():
        try:
            outcomes.append(parallel.score_part(job, parts[0], client.place)["status"])
        except Superseded:
            outcomes.append("superseded")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("staged") == 1
    for part in parts[1:]:
        parallel.score_part(job, part, client.place)
    assert publish.publish(job, parts[0].run_id, client.place).counts.scored == 20


def test_nothing_is_published_while_a_part_is_missing(client):
    job = client.ready(PARTED)
    parts = plan(client, job, day(1))
    for part in parts[:3]:
        parallel.score_part(job, part, client.place)
    with pytest.raises(DatabaseUnavailable, match=r"1 of 4 parts .* not scored yet: \[3\]"):
        publish.publish(job, parts[0].run_id, client.place)
    assert client.predictions() == []
    parallel.score_part(job, parts[3], client.place)
    assert publish.publish(job, parts[0].run_id, client.place).counts.scored == 20


def test_a_part_whose_rows_a_crash_has_taken_is_scored_again(client):
    job = client.ready(PARTED)
    parts = plan(client, job, day(1))
    for part in parts:
        parallel.score_part(job, part, client.place)
    (table,) = [name for (name,) in part_tables(client) if f"_{parts[0].run_id}_part_2_" in name]
    client.results(f"truncate predictions.{table}")
    with pytest.raises(DatabaseUnavailable, match="part 2 holds 0 rows and its books say"):
        publish.publish(job, parts[0].run_id, client.place)
    assert client.predictions() == []
    parallel.score_part(job, parts[2], client.place)
    assert publish.publish(job, parts[0].run_id, client.place).counts.scored == 20


def test_rows_that_come_and_move_between_plan_and_read_are_in_one_part_or_late(client):
    job = client.ready(PARTED, per_day=40)
    parts = plan(client, job, day(1))
    client.insert(1, [500, 1500, 99999])
    client.sql("update readings set at = at + interval '3 hours' where id % 2 = 0 and at < '2013-04-01 20:00Z'")
    parallel.score_part(job, parts[0], client.place)
    client.insert(1, [501])
    for part in parts[1:]:
        parallel.score_part(job, part, client.place)
    assert publish.publish(job, parts[0].run_id, client.place).counts.scored == 43
    assert client.score(job, day(2)).counts.late == 1
    assert len(client.predictions()) == 84


def test_keys_with_gaps_and_composite_keys_belong_to_exactly_one_part(client):
    client.fill(per_day=40)
    client.sql("alter table readings drop constraint readings_pkey; alter table readings alter id drop not null;"
               " alter table readings add part text; update readings set part = 'p' || id % 5;"
               " update readings set part = null where id % 6 = 0; update readings set id = null where id % 9 = 0;"
               " create unique index on readings (part, id)")  # fmt: skip
    client.register()
    job = client.job(LENIENT.replace('["id"]', '["part", "id"]'))
    report = score_all(client, job, day(1))
    nameless = client.sql("select count(*) from readings where at < '2013-04-02Z' and (id is null or part is null)")[0][
        0
    ]
    assert (report.counts.read, report.counts.rejected) == (40, nameless)
    assert client.results("select count(*) from plantao.parts") == [(4,)]


@pytest.mark.parametrize("kind", ["text", "uuid", "date", "char(12)"])
def test_keys_of_every_type_can_be_cut(client, kind):
    change = {"uuid": "md5(id::text)::uuid", "date": "date '2000-01-01' + id::int"}.get(kind, "'n' || id")
    client.fill(per_day=40)
    client.sql(f"alter table readings alter id type {kind} using ({change})::{kind}")
    client.register()
    assert score_all(client, client.job(PARTED), day(1)).counts.scored == 40
    assert client.results("select count(*) from plantao.parts where rows_read > 0") == [(4,)]


def test_rows_per_part_decides_how_many(client):
    job = client.ready(JOB.replace("[load]", "rows_per_part = 7\n[load]"))
    assert len(plan(client, job, day(1))) == 3


def test_an_empty_window_is_one_empty_part(client):
    job = client.ready(PARTED)
    assert score_all(client, job, day(20)).status == "empty"
    assert client.attempts("status, parts") == [("empty", 1)]


def test_too_many_rejects_over_all_parts_close_the_attempt_and_nothing_is_visible(client):
    job = client.ready(PARTED)
    client.sql("update readings set x = null where id < 1003")
    parts = plan(client, job, day(1))
    for part in parts:
        parallel.score_part(job, part, client.place)
    with pytest.raises(TooManyRejected, match="3 of 20 rows"):
        publish.publish(job, parts[0].run_id, client.place)
    assert client.predictions() == []
    assert client.attempts("status, error_kind") == [("failed", "permanent")]
    client.sql("update readings set x = 1 where id < 1003")
    assert score_all(client, job, day(1)).counts.scored == 20
    assert part_tables(client) == []


def test_a_parted_attempt_that_waits_holds_its_window_until_it_is_silent_for_long(client):
    job = client.ready(PARTED)
    parts = plan(client, job, day(1), airflow_run="one")
    with pytest.raises(WindowBusy):
        client.score(job, day(1))
    parallel.score_part(job, parts[0], client.place)
    client.results("update plantao.parts set changed_at = now() - interval '2 hours'")
    client.results("update plantao.runs set started_at = now() - interval '2 hours'")
    assert client.score(job, day(1)).counts.scored == 20
    with pytest.raises(Superseded):
        parallel.score_part(job, parts[1], client.place)
    assert client.attempts("status") == [("failed",), ("succeeded",)]
    parallel.plan(Request(job, day(2)), client.place)
    assert part_tables(client) == []


def test_a_new_plan_of_the_same_airflow_run_replaces_the_old_one(client):
    job = client.ready(PARTED)
    old = plan(client, job, day(1), airflow_run="one")
    new = plan(client, job, day(1), airflow_run="one")
    with pytest.raises(Superseded):
        parallel.score_part(job, old[0], client.place)
    for part in new:
        parallel.score_part(job, part, client.place)
    assert publish.publish(job, new[0].run_id, client.place).counts.scored == 20


def test_a_window_of_late_rows_only_is_cut_too(client):
    job = client.ready(PARTED)
    client.score(job, day(1))
    client.insert(1, list(range(9000, 9020)))
    window = type(day(1))(day(2).start + timedelta(days=30) - timedelta(days=30), day(2).end)
    report = score_all(client, job, window)
    assert (report.counts.scored, report.counts.late) == (40, 20)
