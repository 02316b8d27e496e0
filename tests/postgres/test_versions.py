"""Versions over time: which one scores, how one becomes champion, and how it is taken back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from plantao.errors import GateClosed, UsageError
from plantao.models import registry
from plantao.release import promotion
from world import JOB, classifier, day, training_frame


def other_frame():
    """Return readings whose label is nearly the opposite, so that another model comes out of it."""
    frame = training_frame(seed=3)
    frame["bad"] = frame["x"] < 0
    return frame


@pytest.fixture
def job(world):
    return world.ready()


@pytest.fixture
def second(world, job):
    """A second version that decides much as the first one does."""
    return world.register(frame=training_frame(seed=1)).version


def live(world, *moments: str) -> None:
    """Let the versions 1, 2, … have gone live at these moments: the past cannot be promoted into."""
    world.results("alter table plantao.model_timeline disable trigger all")
    world.results("delete from plantao.model_timeline")
    for version, (start, end) in enumerate(zip(moments, [*moments[1:], None], strict=True), 1):
        world.results(
            "insert into plantao.model_timeline (model, version, live_from, live_until, who, why)"
            " values ('bad_reading', %s, %s, %s, 'tests', 'tests')",
            (version, start, end),
        )


def versions_of_days(world) -> dict[int, set[int]]:
    rows = world.results("select extract(day from source_timestamp), model_version from predictions.bad_reading")
    found: dict[int, set[int]] = {}
    for number, version in rows:
        found.setdefault(int(number), set()).add(version)
    return found


def test_a_promotion_changes_what_scores_and_a_rollback_takes_it_back(world, job, second):
    world.score(job, day(1))
    promotion.promote("bad_reading", second, "sees more", world.place)
    world.score(job, day(2), trigger="schedule")
    version, _ = promotion.rollback("bad_reading", "too many alarms", world.place)
    assert version == 1
    world.score(job, day(3), trigger="schedule")
    assert versions_of_days(world) == {1: {1}, 2: {2}, 3: {1}}
    told = world.results("select event, version, why from plantao.model_events order by event_id")
    assert told == [
        ("registered", 1, "registered"),
        ("registered", 2, "registered"),
        ("promoted", 2, "sees more"),
        ("rolled back", 1, "too many alarms"),
    ]
    assert [row[0] for row in world.results("select version from plantao.model_timeline order by live_from")] == [
        1,
        2,
        1,
    ]


def test_a_backfill_scores_with_the_version_that_was_live_at_the_end_of_its_window(world, job, second):
    live(world, "2013-04-01 12:00Z", "2013-04-03 00:00Z")
    for number in (1, 2, 3):
        world.score(job, day(number), trigger="backfill")
    world.score(job, day(4), trigger="schedule")
    # Version 2 went live with the first instant after the window of the 2nd.
    assert versions_of_days(world) == {1: {1}, 2: {1}, 3: {2}, 4: {2}}


def test_a_rescore_of_the_past_uses_the_past_version_and_a_named_one_replaces_it(world, job, second):
    live(world, "2013-04-01 00:00Z", "2013-04-04 00:00Z")
    world.score(job, day(1))  # by hand, and late: with the champion of now
    assert versions_of_days(world) == {1: {2}}
    assert world.score(job, day(1), rescore=True).model_version == 1
    assert versions_of_days(world) == {1: {1}}
    assert world.score(job, day(1), rescore=True, model_version=2).counts.rescored == 20
    assert versions_of_days(world) == {1: {2}}
    assert world.results("select count(*) from predictions.bad_reading_history") == [(40,)]


def test_before_the_first_version_was_live_the_first_one_scores_and_the_run_says_so(world, job, second):
    report = world.score(job, day(1), trigger="backfill")
    assert report.model_version == 1
    assert "no version was live then yet" in report.note
    assert world.attempts("note")[0][0] == report.note


def test_a_named_version_writes_beside_the_predictions(world, job, second):
    world.score(job, day(1))
    before = world.predictions()
    report = world.score(job, day(1), model_version=second)
    assert (report.role, report.counts.scored, report.counts.already_scored) == ("challenger", 20, 0)
    assert world.predictions() == before
    shadow = "select count(*), min(model_version), max(model_version) from predictions.bad_reading_shadow"
    assert world.results(shadow) == [(20, 2, 2)]
    again = world.score(job, day(1), model_version=second)
    assert (again.counts.scored, again.counts.already_scored) == (0, 20)
    assert world.attempts("role, status, model_version") == [
        ("champion", "succeeded", 1),
        ("challenger", "succeeded", 2),
        ("challenger", "succeeded", 2),
    ]
    # What was done beside the predictions covers nothing: the job still owes the other days.
    assert world.score(job, day(2), model_version=second).role == "challenger"
    assert world.score(job, day(2)).counts.scored == 20


def test_naming_the_version_that_scores_anyway_is_no_detour(world, job):
    assert world.score(job, day(1), model_version=1).role == "champion"
    assert len(world.predictions()) == 20


def test_a_version_that_would_change_most_decisions_is_not_promoted(world, job):
    other = world.register(frame=other_frame()).version
    world.score(job, day(1))
    with pytest.raises(GateClosed, match=r"\d+ of 20 decisions \(\d+\.\d%\) would be others, more than 20%"):
        promotion.promote("bad_reading", other, "new idea", world.place)
    assert world.results("select version from plantao.model_timeline") == [(1,)]
    assert world.results("select count(*) from plantao.alerts") == [(0,)]
    promotion.promote("bad_reading", other, "we mean it", world.place, most_changed=1.0)
    assert world.results("select version from plantao.model_timeline where live_until is null") == [(2,)]


def test_every_reason_comes_at_once_and_force_is_recorded_and_alerted(world, job):
    frame = training_frame(seed=2)
    frame["pressure"] = frame["x"]
    model = __import__("sklearn.linear_model", fromlist=["LogisticRegression"]).LogisticRegression()
    other = world.register(model.fit(frame[["x", "pressure"]], frame["bad"]), frame).version
    world.score(job, day(1))
    with pytest.raises(GateClosed, match="column 'pressure' is missing"):
        promotion.promote("bad_reading", other, "new sensor", world.place)
    answer = promotion.promote("bad_reading", other, "new sensor", world.place, force=True)
    assert "column 'pressure' is missing" in answer.reasons[0]
    (event,) = world.results("select forced, why, findings->>0 from plantao.model_events where event = 'promoted'")
    assert event[:2] == (True, "new sensor")
    assert "column 'pressure' is missing" in event[2]
    (alert,) = world.results("select kind, message, next_step, sent_at from plantao.alerts")
    assert alert[0] == "promotion_forced"
    assert "against the gate (new sensor)" in alert[1]
    assert "plantao models rollback bad_reading" in alert[2]
    assert alert[3] is None


def test_a_version_that_would_set_aside_too_many_rows_is_not_promoted(world):
    strict = JOB + '[validate.columns.city]\nvalues = ["Porto", "Recife"]\n'
    job = world.ready(strict)
    world.score(job, day(1))
    other = world.register(classifier(training_frame(seed=1), strict=True), training_frame(seed=1)).version
    world.sql("update readings set city = 'Faro' where id % 3 = 0")
    with pytest.raises(GateClosed, match=r"would set aside \d+ of 20 rows, more than at_most_rejected"):
        promotion.promote("bad_reading", other, "stricter", world.place)


def test_the_champion_cannot_be_promoted_retired_or_challenge_itself(world, job, second):
    with pytest.raises(UsageError, match="is champion"):
        promotion.promote("bad_reading", 1, "again", world.place)
    with pytest.raises(UsageError, match="is the champion"):
        promotion.mark("bad_reading", 1, "no", world.place, "retired")
    promotion.mark("bad_reading", second, "old", world.place, "retired")
    with pytest.raises(UsageError, match="is retired"):
        promotion.promote("bad_reading", second, "why not", world.place)
    with pytest.raises(UsageError, match="is retired already"):
        promotion.mark("bad_reading", second, "again", world.place, "retired")


def test_a_rollback_skips_a_retired_version_and_may_name_one(world, job, second):
    third = world.register(frame=training_frame(seed=4)).version
    for version in (second, third):
        promotion.promote("bad_reading", version, "better", world.place, most_changed=1.0)
    promotion.mark("bad_reading", second, "wrong units", world.place, "retired")
    assert promotion.rollback("bad_reading", "worse", world.place)[0] == 1
    assert promotion.rollback("bad_reading", "not so bad", world.place, to=third)[0] == third


def test_a_broken_version_is_not_rolled_back_to(world, job, second):
    promotion.promote("bad_reading", second, "better", world.place)
    path = world.folder / "models" / "bad_reading" / "1" / "model.joblib"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(GateClosed, match="is not the one that was registered"):
        promotion.rollback("bad_reading", "worse", world.place)


def test_decisions_stay_written(world, job, second):
    for statement in ("update plantao.model_events set why = 'x'", "delete from plantao.model_events"):
        with pytest.raises(Exception, match="what was decided stays written"):
            world.results(statement)


def test_two_promotions_at_once_leave_one_champion(world, job, second):
    third = world.register(frame=training_frame(seed=4)).version
    world.score(job, day(1))

    def promote(version: int) -> None:
        promotion.promote("bad_reading", version, "better", world.place, most_changed=1.0)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(promote, (second, third)))
    live_now = "select count(*) from plantao.model_timeline where live_until is null"
    assert world.results(live_now) == [(1,)]
    with registry.session("client_db", world.place) as session:
        assert registry.champion(session, "bad_reading").version in {second, third}


def test_a_promotion_that_had_to_wait_is_dated_after_the_one_it_waited_for(world, job, second):
    third = world.register(frame=training_frame(seed=4)).version
    waiting = "select count(*) from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"
    decision = registry.Decision("tests", "tests")

    def promote() -> None:
        with registry.session("client_db", world.place) as session:
            registry.make_champion(session, "bad_reading", third, decision)

    with ThreadPoolExecutor(1) as pool, world.connect() as other, other.cursor() as cursor:
        cursor.execute(
            "select pg_advisory_xact_lock(hashtextextended('plantao.models bad_reading',"
            " 'plantao'::regnamespace::bigint))"
        )
        promotion_that_waits = pool.submit(promote)
        while world.results(waiting) == [(0,)]:
            time.sleep(0.01)
        cursor.execute("select clock_timestamp()")
        values = {"second": second, "moment": cursor.fetchone()[0]}
        cursor.execute("update plantao.model_timeline set live_until = %(moment)s where live_until is null", values)
        cursor.execute(
            "insert into plantao.model_timeline (model, version, live_from, who, why)"
            " values ('bad_reading', %(second)s, %(moment)s, 'other', 'tests')",
            values,
        )
        other.commit()
        promotion_that_waits.result(timeout=60)
    order = "select version, live_until is null from plantao.model_timeline order by live_from"
    assert world.results(order) == [(1, False), (second, False), (third, True)]


@pytest.mark.parametrize("decide", ["promoted", "rolled back", "challenger", "retired"])
def test_of_two_same_decisions_at_once_the_second_is_refused(world, job, second, decide):
    waiting = "select count(*) from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"

    def one(number: int) -> str:
        decision = registry.Decision(f"person {number}", "the same idea")
        with registry.session("client_db", world.place) as session:
            try:
                if decide in {"challenger", "retired"}:
                    registry.mark(session, "bad_reading", second, decide, decision)
                else:
                    registry.make_champion(session, "bad_reading", second, decision, decide)
            except UsageError as error:
                return error.what
        return "done"

    with ThreadPoolExecutor(2) as pool, world.connect() as other, other.cursor() as cursor:
        cursor.execute(
            "select pg_advisory_xact_lock(hashtextextended('plantao.models bad_reading',"
            " 'plantao'::regnamespace::bigint))"
        )
        both = [pool.submit(one, number) for number in (1, 2)]
        while world.results(waiting) != [(2,)]:
            time.sleep(0.01)
        other.commit()
        said = sorted(future.result(timeout=60) for future in both)
    assert said[0] == "done"
    already = {"challenger": "is challenger already.", "retired": "is retired already."}
    assert already.get(decide, "is the champion already. Nothing was changed.") in said[1]
    assert world.results("select count(*) from plantao.model_events where event = %s", (decide,)) == [(1,)]
    champion = 1 if decide in already else second
    assert world.results("select version from plantao.model_timeline where live_until is null") == [(champion,)]
    assert world.results("select count(*) from plantao.model_timeline") == [(1 if decide in already else 2,)]


def test_a_promotion_that_waited_for_a_retirement_is_refused(world, job, second):
    waiting = "select count(*) from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"

    def promote() -> None:
        with registry.session("client_db", world.place) as session:
            registry.make_champion(session, "bad_reading", second, registry.Decision("tests", "tests"))

    with ThreadPoolExecutor(1) as pool, world.connect() as other, other.cursor() as cursor:
        cursor.execute(
            "select pg_advisory_xact_lock(hashtextextended('plantao.models bad_reading',"
            " 'plantao'::regnamespace::bigint))"
        )
        promotion_that_waits = pool.submit(promote)
        while world.results(waiting) == [(0,)]:
            time.sleep(0.01)
        cursor.execute(
            "insert into plantao.model_events (model, version, event, who, why)"
            " values ('bad_reading', %s, 'retired', 'other', 'tests')",
            (second,),
        )
        other.commit()
        with pytest.raises(UsageError, match="is retired"):
            promotion_that_waits.result(timeout=60)
    assert world.results("select version from plantao.model_timeline") == [(1,)]
