"""Challengers of a window in parts: the rows of one process, each once, and never at the champion's expense."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

from plantao.errors import DatabaseUnavailable, PlantaoError, Superseded, TooManyRejected
from plantao.ledger import parts as ledger_of_parts
from plantao.ledger import runs
from plantao.ledger.request import Request
from plantao.load import staging as part_load
from plantao.models import registry
from plantao.release import promotion
from plantao.run import parallel
from plantao.run import publish as publishing
from plantao.run.parallel import Part
from world import JOB, World, day, training_frame

ALONE = JOB + '\n[measure]\nsegments = ["city"]\n'
PARTED = ALONE.replace("[load]", "parts = 4\n[load]")
LENIENT = "[validate]\nat_most_rejected = 1\n[load]"
SHADOW = "id, source_timestamp, prediction, score, model_version, in_control_group"


class FaintsAt(LogisticRegression):
    """A model that has answered its golden rows, and raises on values that the training never had."""

    def predict_proba(self, frame):
        if (frame["x"] > 1000).any():
            raise ZeroDivisionError
        return super().predict_proba(frame)


@pytest.fixture(params=["one database", "two databases"])
def either(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def challenge(client, *seeds: int) -> list[int]:
    versions = [client.register(frame=training_frame(seed=seed)).version for seed in seeds]
    for version in versions:
        promotion.mark("bad_reading", version, "let us see", client.place, "challenger")
    return versions


def plan(client, job, window, **request):
    return [Part.of(part.as_dict()) for part in parallel.plan(Request(job, window, **request), client.place)]


def score(client, job, *parts):
    return [parallel.score_part(job, part, client.place)["status"] for part in parts]


def publish(client, job, parts):
    return publishing.publish(job, parts[0].run_id, client.place)


def score_all(client, job, window, **request):
    parts = plan(client, job, window, **request)
    score(client, job, *parts)
    return publish(client, job, parts)


def shadow(client, columns=SHADOW):
    return client.results(f"select {columns} from predictions.bad_reading_shadow order by model_version, id")


def shadow_keys(client):
    return [row[0] for row in client.results("select id from predictions.bad_reading_shadow order by 1")]


def keys(client):
    return [row[0] for row in client.predictions("id")]


def states(client, role):
    lines = client.results(
        "select model_version, day, segment, column_name, rows, state from plantao.daily_state where role = %s"
        " order by 1, 2, 3, 4",
        (role,),
    )
    return {tuple(line[:4]): (line[4], line[5]) for line in lines}


def same(one, other):
    """Assert that two states are the same, but for the order in which sums of floats were made."""
    assert one.keys() == other.keys()
    for key, (rows, folded) in one.items():
        assert other[key][0] == rows
        for name, value in folded.items():
            inexact = name in {"sums", "sum", "squares"}
            assert other[key][1][name] == (pytest.approx(value) if inexact else value), key


def alerts(client):
    return client.results("select kind, message, next_step from plantao.alerts order by alert_id")


def part_table(client, run, part):
    """Return the table of one part; the end of its name is the ledger's."""
    ((name,),) = client.results(
        f"select relname from pg_class where relname ~ '^plantao_run_{run}_part_{part}_[0-9a-f]+$'"
    )
    return name


def part_tables(client):
    return client.results("select relname from pg_class where relname like 'plantao_run_%' and relkind = 'r'")


BOOKS = "role, model_version, status, rows_read, rows_scored, rows_rejected, rows_already_scored, rows_late"


def test_they_write_what_one_process_would_have_written(either):
    client = either
    job = client.ready(ALONE.replace("[load]", LENIENT), per_day=40)
    challenge(client, 1, 2)
    client.insert(1, [900, 901, 902])
    client.sql("update readings set y = null where id % 7 = 0; update readings set x = null where id in (1003, 2017)")

    def all_there_is():
        every = "delete from predictions.bad_reading; delete from predictions.bad_reading_shadow;"
        seen = (client.predictions(SHADOW), shadow(client), states(client, "champion"), states(client, "challenger"),
                client.attempts(BOOKS)[-6:], [kind for kind, *_ in alerts(client)][-2:])  # fmt: skip
        client.results(every + "delete from plantao.daily_state; delete from plantao.stale_days")
        return seen

    for number in (1, 2):
        client.score(job, day(number))
        client.insert(number, [number * 1000 + 500])
    alone = all_there_is()
    client.sql("delete from readings where id in (1500, 2500)")
    client.results("delete from plantao.rejected_rows; alter table plantao.runs disable trigger all;"
                   " delete from plantao.runs")  # fmt: skip
    parted = client.job(PARTED.replace("[load]", LENIENT))
    for number in (1, 2):
        assert score_all(client, parted, day(number)).status == "succeeded"
        assert part_tables(client) == []
        client.insert(number, [number * 1000 + 500])
    in_parts = all_there_is()
    assert in_parts[0] == alone[0]
    assert in_parts[1] == alone[1]
    assert len(in_parts[1]) == 2 * len(in_parts[0]) == 2 * 82
    same(alone[2], in_parts[2])
    same(alone[3], in_parts[3])
    assert in_parts[4:] == alone[4:]
    assert client.attempts("role, parts, beside is not null")[-3:] == [
        ("champion", 4, False),
        ("challenger", 4, True),
        ("challenger", 4, True),
    ]


def test_nothing_of_them_is_visible_before_the_champion_is(either):
    client = either
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    score(client, job, *parts)
    assert shadow(client) == []
    assert len(part_tables(client)) == 8
    publish(client, job, parts)
    assert shadow_keys(client) == keys(client)
    assert part_tables(client) == []


def test_one_that_raises_on_the_rows_of_one_part_leaves_the_champion_complete_and_an_alert(world):
    client = world
    job = client.ready(PARTED)
    frame = training_frame(seed=1)
    strange = client.register(FaintsAt().fit(frame[["x"]], frame["bad"]), frame).version
    promotion.mark("bad_reading", strange, "let us see", client.place, "challenger")
    (sound,) = challenge(client, 2)
    client.sql("update readings set x = 2000 where id between 1000 and 1004")
    assert score_all(client, job, day(1)).counts.scored == 20
    assert client.attempts("role, model_version, status") == [
        ("champion", 1, "succeeded"),
        ("challenger", strange, "failed"),
        ("challenger", sound, "succeeded"),
    ]
    ((kind, message, next_step),) = alerts(client)
    assert kind == "challenger_failed"
    assert "5 of 20 rows" in message
    assert f"plantao models retire bad_reading {strange}" in next_step
    assert {row[4] for row in shadow(client)} == {sound}
    plan(client, job, day(2))
    assert client.results(f"select count(*) from pg_class where relname like 'plantao_run_{1}_%'") == [(0,)]
    assert part_tables(client) == []


def test_one_that_breaks_at_a_part_is_closed_and_the_other_parts_go_on_without_it(either, monkeypatch):
    client = either
    job = client.ready(PARTED)
    broken, sound = challenge(client, 1, 2)
    parts = plan(client, job, day(1))
    score(client, job, parts[0])
    path = client.folder / "models" / "bad_reading" / str(broken) / "model.joblib"
    path.write_bytes(path.read_bytes() + b" ")
    score(client, job, *parts[1:])
    assert publish(client, job, parts).counts.scored == 20
    assert client.attempts("role, model_version, status, error_kind") == [
        ("champion", 1, "succeeded", None),
        ("challenger", broken, "failed", "permanent"),
        ("challenger", sound, "succeeded", None),
    ]
    ((_, message, _),) = alerts(client)  # one, not one for each part
    assert f"challenger bad_reading/{broken} failed on job bad_reading, 2013-04-01" in message
    assert {row[4] for row in shadow(client)} == {sound}
    assert shadow_keys(client) == keys(client)


def test_one_that_does_not_pass_the_gate_is_left_out_of_the_plan(world):
    client = world
    job = client.ready(PARTED)
    (broken,) = challenge(client, 1)
    path = client.folder / "models" / "bad_reading" / str(broken) / "model.joblib"
    path.write_bytes(path.read_bytes() + b" ")
    assert score_all(client, job, day(1)).counts.scored == 20
    assert client.attempts("role, status, parts") == [("champion", "succeeded", 4), ("challenger", "failed", None)]
    assert len(alerts(client)) == 1


def test_one_that_does_not_fit_the_source_costs_nothing(world):
    client = world
    job = client.ready(PARTED)
    frame = training_frame().assign(pressure=1.0)
    model = LogisticRegression().fit(frame[["x", "pressure"]], frame["bad"])
    promotion.mark("bad_reading", client.register(model, frame).version, "let us see", client.place, "challenger")
    assert score_all(client, job, day(1)).counts.scored == 20
    assert "column 'pressure' is missing" in client.attempts("error")[1][0]
    assert len(alerts(client)) == 1


def fail_at_stage(monkeypatch, run_id: int, error: BaseException) -> None:
    """Let the next attempt to stage a part of this run fail, as its last step does when the database goes away."""
    original = ledger_of_parts.stage

    def stage(connection, staged, *given, **named):
        if staged == run_id:
            monkeypatch.setattr(ledger_of_parts, "stage", original)
            raise error
        original(connection, staged, *given, **named)

    monkeypatch.setattr(ledger_of_parts, "stage", stage)


def test_a_part_that_is_retried_is_scored_again_by_all_of_them(either, monkeypatch):
    client = either
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    score(client, job, *parts[1:])
    fail_at_stage(monkeypatch, parts[0].run_id, DatabaseUnavailable("gone.", "nothing: it is retried"))
    with pytest.raises(DatabaseUnavailable):
        score(client, job, parts[0])
    taken = "select run_id, status, taken from plantao.parts where part = 0 order by 1"
    assert client.results(taken) == [(1, "running", 1), (2, "staged", 1)]
    assert client.attempts("status") == [("running",), ("running",)]
    client.insert(1, [500, 501])  # below the first key, so of the first part
    client.sql("update readings set x = x + 5 where id = 1000")
    assert score(client, job, parts[0], parts[0]) == ["staged", "staged before"]
    assert client.results(taken) == [(1, "staged", 2), (2, "staged", 2)]
    assert publish(client, job, parts).counts.scored == 22
    assert shadow_keys(client) == keys(client)
    assert alerts(client) == []
    assert client.results("select count(*) from plantao.stale_days") == [(0,)]


def test_a_part_whose_worker_is_killed_between_the_challenger_and_the_champion(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    score(client, job, *parts[1:])
    program = f"""
        import os
        from plantao import runtime
        from plantao.config import job_file
        from plantao.ledger import parts
        from plantao.run import parallel
        from pathlib import Path
        original = parts.stage
        def stage(connection, run_id, *given, **named):
            if run_id == {parts[0].run_id}:
                os._exit(9)
            original(connection, run_id, *given, **named)
        parts.stage = stage
        here = runtime.from_environment()
        job = job_file.read_file(Path({str(client.folder / "jobs" / "bad_reading.toml")!r}))
        parallel.score_part(job, parallel.Part.of({parts[0].as_dict()!r}), here)
    """
    include = str(Path(parallel.__file__).parents[2])
    environment = {**client.environment, "PYTHONPATH": include, "PLANTAO_THREADS": "1"}
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=environment, check=False)
    assert died.returncode == 9
    statuses = "select run_id, status from plantao.parts where part = 0 order by 1"
    assert client.results(statuses) == [(1, "running"), (2, "staged")]
    client.insert(1, [500])
    score(client, job, parts[0])
    assert publish(client, job, parts).counts.scored == 21
    assert shadow_keys(client) == keys(client)
    assert alerts(client) == []


def test_two_workers_on_one_part_at_once_leave_each_row_once(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    outcomes = []

    def work():
        try:
            outcomes.extend(score(client, job, parts[0]))
        except Superseded:
            outcomes.append("superseded")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("staged") == 1
    score(client, job, *parts[1:])
    assert publish(client, job, parts).counts.scored == 20
    assert shadow_keys(client) == keys(client)
    assert alerts(client) == []
    assert client.attempts("status") == [("succeeded",), ("succeeded",)]


def test_a_worker_that_was_overtaken_writes_nothing_of_the_challenger(world, monkeypatch):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    original = part_load.open_load
    overtaken = []

    def open_load(connection, table, output, version, place):
        if not overtaken:  # somebody else begins the same part, and finishes it, before this worker writes
            overtaken.append(place.run_id)
            client.insert(1, [500])
            assert score(client, job, parts[0]) == ["staged"]
        return original(connection, table, output, version, place)

    monkeypatch.setattr(part_load, "open_load", open_load)
    with pytest.raises(Superseded):
        score(client, job, parts[0])
    assert overtaken == [2]
    score(client, job, *parts[1:])
    assert publish(client, job, parts).counts.scored == 21
    assert shadow_keys(client) == keys(client)
    assert alerts(client) == []


def test_publish_may_be_repeated_wherever_it_was_cut_off(either, monkeypatch):
    client = either
    job = client.ready(PARTED)
    challenge(client, 1, 2)
    parts = plan(client, job, day(1))
    score(client, job, *parts)
    original = registry.beside
    monkeypatch.setattr(registry, "beside", lambda *_: sys.exit("killed"))
    with pytest.raises(SystemExit):
        publish(client, job, parts)
    assert len(keys(client)) == 20
    assert client.attempts("status") == [("succeeded",), ("running",), ("running",)]
    assert shadow(client) == []
    monkeypatch.setattr(registry, "beside", original)
    succeed, closed = runs.succeed, []

    def killed_at_the_second(connection, run_id, *given, **named):
        succeed(connection, run_id, *given, **named)
        closed.append(run_id)
        if len(closed) == 2:
            sys.exit("killed before the commit")

    monkeypatch.setattr(runs, "succeed", killed_at_the_second)
    with pytest.raises(SystemExit):
        publish(client, job, parts)
    monkeypatch.setattr(runs, "succeed", succeed)
    assert client.attempts("status") == [("succeeded",), ("succeeded",), ("running",)]
    for _ in range(2):
        assert publish(client, job, parts).counts.scored == 20
        assert shadow_keys(client) == [key for key in keys(client) for _ in range(2)]
    assert client.attempts("status") == [("succeeded",), ("succeeded",), ("succeeded",)]
    counted = {key[0]: rows for key, (rows, _) in states(client, "challenger").items() if key[2:] == ("", "")}
    assert counted == {2: 20, 3: 20}
    assert part_tables(client) == []
    assert alerts(client) == []


def test_two_publishes_at_once_write_once(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    score(client, job, *parts)

    def work():
        with contextlib.suppress(PlantaoError):
            publish(client, job, parts)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publish(client, job, parts)
    assert shadow_keys(client) == keys(client)
    assert client.attempts("status") == [("succeeded",), ("succeeded",)]
    assert alerts(client) == []


def test_a_challenger_whose_rows_a_crash_has_taken_fails_alone_and_says_how_to_score_them(world):
    client = world
    job = client.ready(PARTED)
    (version,) = challenge(client, 1)
    parts = plan(client, job, day(1))
    score(client, job, *parts)
    client.results(f"truncate predictions.{part_table(client, 2, 2)}")
    assert publish(client, job, parts).counts.scored == 20
    assert shadow(client) == []
    assert client.attempts("status") == [("succeeded",), ("failed",)]
    ((_, message, _),) = alerts(client)
    assert "part 2 holds 0 rows and its books say" in message
    assert client.score(job, day(1), model_version=version).counts.scored == 20
    assert shadow_keys(client) == keys(client)


def test_a_crash_that_has_taken_a_part_of_all_is_made_good_by_clearing_it(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    score(client, job, *parts)
    for run in (1, 2):
        client.results(f"truncate predictions.{part_table(client, run, 2)}")
    with pytest.raises(DatabaseUnavailable, match="part 2 holds 0 rows"):
        publish(client, job, parts)
    assert client.attempts("status") == [("running",), ("running",)]
    assert score(client, job, parts[2]) == ["staged"]
    assert publish(client, job, parts).counts.scored == 20
    assert shadow_keys(client) == keys(client)
    assert alerts(client) == []


def test_a_champion_that_fails_takes_its_challengers_along_without_an_alert(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    client.sql("update readings set x = null where id < 1003")
    parts = plan(client, job, day(1))
    score(client, job, *parts)
    with pytest.raises(TooManyRejected):
        publish(client, job, parts)
    assert client.attempts("role, status, error_kind") == [
        ("champion", "failed", "permanent"),
        ("challenger", "failed", "transient"),
    ]
    assert client.attempts("error")[1][0] == "the champion's run 1 has ended without it; nothing of it was written"
    assert [kind for kind, *_ in alerts(client)] == ["too_many_rejected"]  # the champion's own
    client.sql("update readings set x = 1 where id < 1003")
    assert score_all(client, job, day(1)).counts.scored == 20
    assert shadow_keys(client) == keys(client)
    assert part_tables(client) == []


def test_a_new_plan_of_the_same_task_replaces_the_old_one_with_its_challengers(either):
    client = either
    job = client.ready(PARTED)
    (version,) = challenge(client, 1)
    old = plan(client, job, day(1), airflow_run="one")
    score(client, job, old[0])
    promotion.mark("bad_reading", version, "another idea", client.place, "retired")
    challenge(client, 2)
    new = plan(client, job, day(1), airflow_run="one")
    assert client.attempts("role, status") == [
        ("champion", "failed"),
        ("challenger", "failed"),
        ("champion", "running"),
        ("challenger", "running"),
    ]
    with pytest.raises(Superseded):
        score(client, job, old[1])
    score(client, job, *new)
    assert publish(client, job, new).counts.scored == 20
    assert shadow_keys(client) == keys(client)
    assert part_tables(client) == []
    assert [kind for kind, *_ in alerts(client)] == ["retrying", "healed"]


def test_the_champion_waits_for_no_challenger(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    with client.connect() as frozen, frozen.cursor() as cursor:  # a worker that holds its lines and says nothing
        cursor.execute("select from plantao.parts where run_id = 2 and part = 0 for update")
        cursor.execute("select from plantao.runs where run_id = 2 for share")
        assert score(client, job, *parts) == ["staged"] * 4
        frozen.rollback()
    assert publish(client, job, parts).counts.scored == 20
    assert client.attempts("status") == [("succeeded",), ("failed",)]
    ((_, message, _),) = alerts(client)
    assert "has not scored the champion's rows of 1 parts: [0]" in message


def test_one_that_was_left_behind_is_closed_by_a_later_plan(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    parts = plan(client, job, day(1))
    score(client, job, *parts)
    with client.connect() as frozen, frozen.cursor() as cursor:
        cursor.execute("select from plantao.runs where run_id = 2 for share")
        client.sql("update readings set x = null where id < 1003")
        with client.place_session(job) as session:
            assert runs.fail(session, parts[0].run_id, "by hand", permanent=True)
        assert client.attempts("status") == [("failed",), ("running",)]
        frozen.rollback()
    plan(client, job, day(2))
    assert client.attempts("status")[:2] == [("failed",), ("failed",)]
    assert part_tables(client) == []


def test_scoring_again_doubles_nothing_beside_the_champion(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    score_all(client, job, day(1))
    before = shadow(client)
    assert score_all(client, job, day(1), rescore=True).counts.rescored == 20
    assert shadow(client) == before
    assert client.attempts("role, rows_scored, rows_already_scored")[2:] == [
        ("champion", 20, 0),
        ("challenger", 0, 20),
    ]


def test_edited_rows_replace_the_challengers_answer(world):
    client = world
    text = PARTED.replace(
        'late_rows = "3 days"', 'late_rows = "3 days"\non_change = "rescore"\nchanged_at = "edited_at"'
    )
    job = client.ready(text)
    challenge(client, 1)
    score_all(client, job, day(1))
    before = {row[0]: row[3] for row in shadow(client)}
    client.sql("update readings set x = x + 5, edited_at = '2013-04-02 12:00Z' where id = 1000")
    score_all(client, job, day(2))
    after = {row[0]: row[3] for row in shadow(client)}
    assert len(after) == 40
    assert after[1000] > before[1000]
    days = "select day::text from plantao.stale_days where role = 'challenger' order by 1"
    assert client.results(days) == [("2013-04-01",), ("2013-04-02",)]


def test_an_empty_window_and_a_dry_run(world):
    client = world
    job = client.ready(PARTED)
    challenge(client, 1)
    assert score_all(client, job, day(20)).status == "empty"
    assert client.attempts("role, status") == [("champion", "empty"), ("challenger", "empty")]
    assert plan(client, job, day(1), dry_run=True) == []
    assert len(client.attempts()) == 2
