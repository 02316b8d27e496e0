"""A prediction table has one owner: a job of a ledger. Anybody else is refused before a row is read."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from plantao import cli
from plantao.config.table_name import Table
from plantao.errors import TargetRefused
from plantao.ledger.request import Request
from plantao.run import run
from plantao.run.reconcile import reconcile
from world import JOB, day

MARKS = "select table_name, job, ledger_schema from predictions.plantao_tables order by 1"


@pytest.fixture
def job(world):
    return world.ready(days=2)


@pytest.fixture
def command(world, monkeypatch):
    """Run a command in the world, and return its exit status with what it printed."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)

    def call(*words):
        done = CliRunner().invoke(cli.app, words)
        status = getattr(done.exception, "exit_status", done.exit_code)
        return status, " ".join((done.output + str(done.exception or "")).split())

    return call


def another_job(world, name="another"):
    """Return a second job with the same table, as another deployment has it in a folder of its own."""
    found = world.job(JOB, name)
    (world.folder / "jobs" / f"{name}.toml").unlink()
    return found


def test_the_first_run_marks_the_table_and_those_beside_it(world, job):
    world.score(job, day(1))

    names = ["bad_reading", "bad_reading_history", "bad_reading_shadow"]
    assert world.sql(MARKS) == [(name, "bad_reading", "plantao") for name in names]


def test_a_table_of_another_job_is_refused_by_a_run_a_rehearsal_and_a_comparison(world, job):
    world.score(job, day(1))
    other = another_job(world)

    for act in (
        lambda: world.score(other, day(2)),
        lambda: world.score(other, day(2), dry_run=True),
        lambda: reconcile(other, world.place, day(1)),
    ):
        with pytest.raises(TargetRefused, match=r"belongs to job bad_reading of this ledger.*jobs adopt another"):
            act()

    assert world.sql("select count(*) from predictions.bad_reading") == [(20,)]


def test_a_job_whose_table_is_the_history_of_another_is_refused(world, job):
    world.score(job, day(1))
    other = another_job(world)
    load = other.load.model_copy(update={"table": Table("predictions", "bad_reading_shadow")})
    aimed = other.model_copy(update={"load": load})

    with pytest.raises(TargetRefused, match=r"predictions.bad_reading_shadow belongs to job bad_reading"):
        world.score(aimed.named("another", None), day(1))


def test_another_deployment_in_the_same_database_is_refused_until_its_operator_adopts_the_table(
    world, job, command, monkeypatch
):
    world.score(job, day(1))
    place = world.another_ledger("plantao_b")
    world.sql("insert into plantao_b.models select * from plantao.models")
    world.sql(
        "insert into plantao_b.model_timeline (model, version, live_from, who, why)"
        " select model, version, live_from, who, why from plantao.model_timeline"
    )

    with pytest.raises(TargetRefused, match=r"another ledger \(made in schema plantao\)"):
        run.score_window(Request(job, day(2)), place)
    monkeypatch.setenv("PLANTAO_SCHEMA", "plantao_b")
    status, said = command("jobs", "adopt", "bad_reading")
    assert status == 0, said
    assert "until now: predictions.bad_reading belongs to job bad_reading of another ledger" in said

    assert run.score_window(Request(job, day(2)), place).counts.scored == 20
    with pytest.raises(TargetRefused, match=r"made in schema plantao_b"):
        world.score(job, day(2))


def test_a_table_that_is_older_than_the_marks_goes_to_the_job_that_filled_it_and_to_no_other(world, job):
    world.score(job, day(1))
    world.sql("drop table predictions.plantao_tables")
    other = another_job(world)

    with pytest.raises(TargetRefused, match=r"has no owner's mark, and run \d+, which made"):
        world.score(other, day(1))
    assert world.score(job, day(2)).counts.scored == 20

    assert {owner for _, owner, _ in world.sql(MARKS)} == {"bad_reading"}


def test_a_table_that_was_dropped_still_belongs_to_its_job(world, job):
    world.score(job, day(1))
    world.sql("drop table predictions.bad_reading")

    with pytest.raises(TargetRefused, match="belongs to job bad_reading"):
        world.score(another_job(world), day(1))


def test_check_names_the_owner_and_the_way_out(world, job, command):
    world.score(job, day(1))
    world.sql("update predictions.plantao_tables set job = 'renamed'")

    status, said = command("check", "bad_reading")

    assert status == 1
    assert "predictions.bad_reading belongs to job renamed of this ledger" in said
    assert "plantao jobs adopt bad_reading" in said


def test_two_job_files_with_one_table_are_refused_by_every_command(world, job, command):
    toml = """table = '"predictions".bad_reading_history'"""
    world.job(JOB.replace('table = "predictions.bad_reading"', toml), "another")

    for words in (("jobs", "list"), ("check",), ("run", "another"), ("run", "bad_reading")):
        status, said = command(*words)
        assert status == 2, (words, said)
        assert "job bad_reading writes too" in said or "job another writes too" in said


def test_check_sees_one_database_behind_two_connections(world, job, command, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_RESULTS_DB", world.address("client_db").url())
    world.databases["results_db"] = world.databases["client_db"]
    world.job(JOB.replace("[load]", '[load]\nconnection = "results_db"'), "another")

    status, said = command("check")

    assert status == 2
    assert "bad_reading.toml, [load] table: found 'predictions.bad_reading', which job another writes too" in said
