"""Challengers: other versions on the same rows, in the same pass, and never at the champion's expense."""

from __future__ import annotations

import pytest
from sklearn.linear_model import LogisticRegression

from plantao.errors import SourceRefused, TargetRefused
from plantao.measure.data_quality import data_quality
from plantao.release import promotion
from world import JOB, day, training_frame

SHADOW = "select id, model_version, score from predictions.bad_reading_shadow order by 1, 2"


class Raises(LogisticRegression):
    """A model that has answered its golden rows, and raises on fewer rows than these."""

    def predict_proba(self, frame):
        if len(frame) <= 20:
            raise ZeroDivisionError
        return super().predict_proba(frame)


def numbers_frame(seed=0):
    return training_frame(seed=seed).fillna({"y": 0.0})


def on_numbers(columns, seed=0, model=LogisticRegression):
    frame = numbers_frame(seed)
    return model().fit(frame[columns], frame["bad"])


@pytest.fixture
def job(world):
    return world.ready()


def challenge(world, *versions: int) -> None:
    for version in versions:
        promotion.mark("bad_reading", version, "let us see", world.place, "challenger")


def test_challengers_score_the_same_rows_from_one_extraction(world, job, monkeypatch):
    from plantao.postgres import snapshot

    selects = []
    original = snapshot.Snapshot.batches
    monkeypatch.setattr(snapshot.Snapshot, "batches", lambda self, text: selects.append(text) or original(self, text))
    challenge(world, *(world.register(frame=training_frame(seed=seed)).version for seed in (1, 2)))
    report = world.score(job, day(1))
    assert (report.model_version, report.counts.scored) == (1, 20)
    assert len(selects) == 1
    assert [row[:2] for row in world.results(SHADOW)] == [(1000 + i, v) for i in range(20) for v in (2, 3)]
    assert world.attempts("role, model_version, status, rows_read, rows_scored") == [
        ("champion", 1, "succeeded", 20, 20),
        ("challenger", 2, "succeeded", 20, 20),
        ("challenger", 3, "succeeded", 20, 20),
    ]
    # The very scores that the version gives when it is asked alone.
    alone = world.score(job, day(1), model_version=2, rescore=True)
    assert alone.counts.rescored == 20
    told = world.results("select id, model_version, score from predictions.bad_reading order by 1")
    assert told == [row for row in world.results(SHADOW) if row[1] == 2]


def test_a_challenger_may_read_other_columns(world):
    world.fill()
    world.sql("alter table readings add humidity double precision default 0.5")
    world.register()
    frame = training_frame().assign(humidity=0.5)
    model = LogisticRegression().fit(frame[["humidity", "x"]], frame["bad"])
    challenge(world, world.register(model, frame).version)
    job = world.job(JOB + "[validate.columns.y]\nmax = 100\n")  # a rule on a column that the challenger does not read
    world.score(job, day(1))
    assert world.attempts("role, status, rows_scored") == [
        ("champion", "succeeded", 20),
        ("challenger", "succeeded", 20),
    ]


def test_one_that_raises_leaves_the_champion_complete_and_an_alert(world, job):
    frame = numbers_frame()
    challenge(world, world.register(on_numbers(["x"], model=Raises), frame).version)
    challenge(world, world.register(frame=training_frame(seed=1)).version)
    assert world.score(job, day(1)).counts.scored == 20
    assert len(world.predictions()) == 20
    assert world.attempts("role, model_version, status") == [
        ("champion", 1, "succeeded"),
        ("challenger", 2, "failed"),
        ("challenger", 3, "succeeded"),
    ]
    ((kind, name, message, next_step, run_id),) = world.results(
        "select kind, job, message, next_step, run_id from plantao.alerts"
    )
    assert (kind, name, run_id) == ("challenger_failed", "bad_reading", 2)
    assert "challenger bad_reading/2 failed on job bad_reading, 2013-04-01" in message
    assert "plantao models retire bad_reading 2" in next_step


def test_one_that_does_not_pass_the_gate_or_fit_the_source_is_left_out(world, job):
    tampered = world.register(frame=training_frame(seed=1)).version
    frame = training_frame().assign(pressure=1.0)
    misfit = world.register(LogisticRegression().fit(frame[["x", "pressure"]], frame["bad"]), frame).version
    challenge(world, tampered, misfit)
    path = world.folder / "models" / "bad_reading" / str(tampered) / "model.joblib"
    path.write_bytes(path.read_bytes()[:-1])
    assert world.score(job, day(1)).counts.scored == 20
    errors = dict(world.attempts("model_version, error"))
    assert errors[1] is None
    assert "is not the one that was registered" in errors[tampered]
    assert "column 'pressure' is missing" in errors[misfit]
    assert world.results("select count(*) from plantao.alerts") == [(2,)]
    assert world.results("select to_regclass('predictions.bad_reading_shadow')") == [(None,)]


def test_when_the_champion_fails_its_challengers_wait_for_the_next_try(world, job):
    challenge(world, world.register(frame=training_frame(seed=1)).version)
    world.score(job, day(1))
    world.results("alter table predictions.bad_reading add constraint no_more check (id < 2000)")
    with pytest.raises(TargetRefused):
        world.score(job, day(2))
    assert world.attempts("role, status")[2:] == [("champion", "failed"), ("challenger", "failed")]
    assert len(world.results(SHADOW)) == 20
    assert world.results("select kind, run_id from plantao.alerts") == [("failed", 3)]  # one, for the champion
    world.results("alter table predictions.bad_reading drop constraint no_more")
    world.score(job, day(2))
    assert len(world.results(SHADOW)) == 40


def test_when_the_source_cannot_be_opened_no_attempt_stays_behind(world, job):
    challenge(world, world.register(frame=training_frame(seed=1)).version)
    world.sql("alter table readings rename to elsewhere")
    with pytest.raises(SourceRefused):
        world.score(job, day(1))
    assert world.attempts("role, status") == [("champion", "failed"), ("challenger", "failed")]
    mine = "select count(*) from pg_stat_activity where application_name like 'plantao/bad_reading%'"
    assert world.results(mine) == [(0,)]


def test_a_repeated_run_doubles_nothing(world, job):
    challenge(world, world.register(frame=training_frame(seed=1)).version)
    world.score(job, day(1))
    world.score(job, day(1), rescore=True)
    assert len(world.results(SHADOW)) == 20
    assert world.attempts("role, rows_scored, rows_already_scored")[2:] == [("champion", 20, 0), ("challenger", 0, 20)]


def test_a_dry_run_has_no_challengers_and_a_retired_one_rests(world, job):
    version = world.register(frame=training_frame(seed=1)).version
    challenge(world, version)
    world.score(job, day(1), dry_run=True)
    assert world.attempts() == []
    promotion.mark("bad_reading", version, "seen enough", world.place, "retired")
    world.score(job, day(1))
    assert world.attempts("role") == [("champion",)]


def test_edited_rows_replace_the_challengers_answer(world):
    text = JOB.replace('late_rows = "3 days"', 'late_rows = "3 days"\non_change = "rescore"\nchanged_at = "edited_at"')
    job = world.ready(text)
    challenge(world, world.register(frame=training_frame(seed=1)).version)
    world.score(job, day(1))
    before = {row[0]: row[2] for row in world.results(SHADOW)}
    world.sql("update readings set x = x + 5, edited_at = '2013-04-02 12:00Z' where id = 1000")
    world.score(job, day(2))
    after = {row[0]: row[2] for row in world.results(SHADOW)}
    assert len(after) == 40
    assert after[1000] > before[1000]
    assert {key: after[key] for key in before if key != 1000} == {k: v for k, v in before.items() if k != 1000}


def test_figures_are_kept_per_version_and_role(world, job):
    challenge(world, world.register(frame=training_frame(seed=1)).version)
    world.score(job, day(1))
    data_quality(job, day(1), world.place)
    rows = "select role, model_version, n from plantao.metrics_latest where name = 'rows' order by 1 desc"
    assert world.results(rows) == [("challenger", 2, 20), ("champion", 1, 20)] or world.results(rows) == [
        ("champion", 1, 20),
        ("challenger", 2, 20),
    ]


def test_two_databases_work_as_one(two_databases):
    world = two_databases
    job = world.ready()
    challenge(world, world.register(frame=training_frame(seed=1)).version)
    world.score(job, day(1))
    assert len(world.results(SHADOW)) == 20
    assert world.score(job, day(1), model_version=2).counts.already_scored == 20
