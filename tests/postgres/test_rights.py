"""No right beyond need: what a member of the printed roles may, what it may not, and what never gets out.

That the printed rights are enough is shown by every test with a world: in all of them the product works with these.
"""

from __future__ import annotations

from dataclasses import replace

import psycopg2
import pytest

from plantao.errors import PlantaoError
from plantao.ledger import runs, session
from plantao.ledger.grants import SCORER
from plantao.ledger.request import Request
from plantao.postgres import embedded
from plantao.release import promotion
from plantao.run import parallel, publish
from plantao.run.parallel import Part
from world import ANALYST, JOB, WORKER, administer, day, training_frame

LENIENT = JOB.replace("[score]", "[validate]\nat_most_rejected = 1\n[score]")


BEYOND = {
    WORKER: [
        "update readings set x = 0",
        "insert into readings (id, at) values (1, now())",
        "delete from readings",
        "alter table readings add more text",
        "create table public.mine ()",
        "create schema mine",
        "delete from plantao.models",
        "update plantao.models set sha256 = sha256",
        "update plantao.model_timeline set version = version",
        "delete from plantao.model_timeline",
        "update plantao.model_events set why = why",
        "delete from plantao.alerts",
        "delete from plantao.runs",
        "truncate plantao.runs",
        "drop table plantao.metrics",
        "create table plantao.mine ()",
        "delete from plantao.incidents",
        "update plantao.stale_days set why = why",
        "update plantao.reference_versions set why = why",
    ],
    ANALYST: [
        "select from public.readings",
        "delete from predictions.bad_reading",
        "update predictions.bad_reading_history set score = 0",
        "create table predictions.mine ()",
        "create temporary table mine ()",
        "select from plantao.runs",
        "select from plantao.rejected_rows",
        "delete from plantao.reconciliations",
        "delete from plantao.daily_outcomes",
        "select from plantao.stale_days",
    ],
}


@pytest.mark.parametrize("user", BEYOND)
def test_the_printed_roles_may_do_nothing_beyond_their_work(world, user):
    world.score(world.ready(), day(1))
    for forbidden in BEYOND[user]:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            world.sql(forbidden, user=user)


def test_the_reader_role_reads_predictions_history_and_how_things_stand(world):
    job = world.ready()
    world.score(job, day(1))
    world.score(job, day(1), rescore=True)
    unjudged = 4 * 3 + 2  # of 20 rows: four checks of each column, the score, the number of rows
    for table, rows in (("predictions.bad_reading", 20), ("predictions.bad_reading_history", 20),
                        ("plantao.status", 1), ("plantao.metrics_latest", unjudged), ("plantao.model_timeline", 1),
                        ("plantao.reconciliations", 0), ("plantao.daily_outcomes", 0), ("plantao.daily_state", 4),
                        ("plantao.incidents", 0), ("plantao.reference_versions", 0)):  # fmt: skip
        assert world.sql(f"select count(*) from {table}", user=ANALYST) == [(rows,)]


@pytest.mark.parametrize("at", ["client_db", "results_db"])
def test_a_login_that_a_database_refuses_is_not_tried_again(two_databases, at):
    world = two_databases
    job = world.ready()
    world.sql(f"revoke connect on database {world.databases[at]} from {SCORER}", at=at)
    with pytest.raises(PlantaoError, match="permission denied for database") as caught:
        world.score(job, day(1))
    assert caught.value.permanent


# --- more than one member -------------------------------------------------------------------------------------------


@pytest.fixture
def colleague(world):
    """Return the place of another member of the scorer role. If it owned anything in the end, the drop would fail."""
    name = f"colleague_{world.databases['client_db']}"
    administer(world.server, f"create role {name} login in role {SCORER}")

    def address(connection):
        return replace(world.owner(connection), parameters={**world.owner(connection).parameters, "user": name})

    yield replace(world.place, address=address)
    administer(world.server, f"drop role {name}")


def test_another_member_goes_on_where_one_has_left_off(world, colleague):
    from plantao.run import run

    job = world.ready(LENIENT)
    world.score(job, day(1))
    assert run.score_window(Request(job, day(1), rescore=True), colleague).counts.rescored == 20
    assert run.score_window(Request(job, day(2)), colleague).counts.scored == 20
    assert world.score(job, day(2), rescore=True).counts.rescored == 20
    assert len(world.predictions()) == 40


def test_the_parts_of_a_window_may_be_scored_by_several_members(world, colleague):
    job = world.ready(JOB.replace("[load]", "parts = 2\n[load]"))
    version = world.register(frame=training_frame(seed=1)).version
    promotion.mark("bad_reading", version, "let us see", world.place, "challenger")
    first, second = [Part.of(part.as_dict()) for part in parallel.plan(Request(job, day(1)), world.place)]
    parallel.score_part(job, first, world.place)
    parallel.score_part(job, second, colleague)
    assert publish.publish(job, first.run_id, colleague).counts.scored == 20
    assert world.sql("select count(*) from predictions.bad_reading_shadow") == [(20,)]
    abandoned = Part.of(parallel.plan(Request(job, day(2), airflow_run="task"), colleague)[0].as_dict())
    parallel.score_part(job, abandoned, colleague)
    assert world.score(job, day(2), airflow_run="task").counts.scored == 20
    parallel.plan(Request(job, day(3)), world.place)
    assert world.sql("select count(*) from pg_class where relname like 'plantao_run_%%_part_%%'") == [(0,)]


def test_a_try_under_a_new_login_takes_over_though_it_may_not_end_the_old_session(world, colleague):
    job = world.ready()
    origin = runs.Origin("schedule", "task", "here:1", "test", {})
    with session.session(job, world.place) as old, session.session(job, colleague) as new:
        run_id = runs.start(old, job, day(1), None, origin)
        assert runs.start(new, job, day(1), None, origin) > run_id
        assert session.now(old)
        with pytest.raises(PlantaoError, match="It wrote nothing"), old.begin():
            runs.hold(old, run_id)


def test_tables_from_before_the_roles_are_worked_on_with_the_printed_rights(world, monkeypatch):
    job = world.ready(LENIENT)
    monkeypatch.setattr(world, "address", world.owner)
    world.score(job, day(1))
    monkeypatch.undo()
    for table in ("bad_reading", "bad_reading_history"):
        world.sql(
            f"alter table predictions.{table} owner to {embedded.USER}; revoke all on predictions.{table} from public"
        )
    with pytest.raises(PlantaoError, match="permission denied for table bad_reading"):
        world.score(job, day(1), rescore=True)
    world.grant()
    assert world.score(job, day(1), rescore=True).counts.rescored == 20
    assert world.score(job, day(2)).counts.scored == 20
    assert len(world.predictions()) == 40


# --- secrets --------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_an_error_a_log_or_the_ledger(world, caplog):
    from plantao.config.address import Address

    world.ready()
    world.databases["elsewhere"] = world.databases["client_db"]
    address = world.address
    secret = "hunter2%&"

    def wrong(connection):
        parameters = {**address("client_db").parameters, "host": "127.0.0.1", "port": "1", "password": secret}
        return Address(connection, parameters) if connection == "elsewhere" else address(connection)

    world.address = wrong
    job = world.job(
        LENIENT.replace("[extract]", '[extract]\nconnection = "elsewhere"').replace(
            "[load]", '[load]\nconnection = "client_db"'
        )
    )
    with pytest.raises(PlantaoError) as caught:
        world.score(job, day(1))
    said = f"{caught.value} {caught.value.__cause__} {caplog.text} {world.results('select * from plantao.runs')}"
    assert secret not in said
    assert "refused" in said or "elsewhere" in said
