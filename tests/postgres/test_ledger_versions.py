"""A program and a ledger that do not belong together: each command and each task refuses, in words, and writes nothing.

Only a newer program knows what an older one would do wrong, and no newer program can stop it; so the older one stops
itself.
"""

from __future__ import annotations

import inspect
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import typer

from plantao import cli
from plantao.airflow import tasks
from plantao.alert import airflow
from plantao.errors import NotInitialised
from plantao.extract.source import KeyRange
from plantao.ledger.migrate import migrations, upgrade
from plantao.postgres import session
from plantao.run.parallel import Part
from watching import Voice, dog
from world import JOB, day

SCHEDULED = JOB.replace("starts ", "ends = 2013-04-06\nstarts ") + (
    '\n[measure]\noutcome = { table = "public.truths", key = ["id"], column = "bad", known_after = "1 day" }\n'
    'objective = { name = "hits", sql = "select count(*) from predictions" }\n'
)
NEWER = "insert into plantao.schema_migrations (number, name) values (999, '999_from_the_future.sql')"
# A branch of its own, with as many migrations: the numbers are those that this program knows.
OTHER = "update plantao.schema_migrations set name = '003_otherwise.sql' where number = 3"
OLDER = "delete from plantao.schema_migrations where number = (select max(number) from plantao.schema_migrations)"
WORDS = {
    NEWER: ("has a newer ledger than this program", "999_from_the_future.sql", "\ngit pull && docker compose up"),
    OTHER: ("has a newer ledger than this program", "003_otherwise.sql", "\ngit pull && docker compose up"),
    OLDER: ("has an older ledger", "run: plantao init"),
}
COMMANDS = (
    *("check", "run bad_reading", "run bad_reading --dry-run", "backfill bad_reading --missing"),
    *("backfill bad_reading --from-date 2013-04-01 --to-date 2013-04-02", "measure bad_reading"),
    *("reconcile bad_reading --repair", "report bad_reading --out page.html", "status", "status bad_reading"),
    *("watch --once", "jobs adopt bad_reading", "models list", "models verify bad_reading"),
    *("models promote bad_reading 1 --why x", "models rollback bad_reading --why x"),
    *("models challenge bad_reading 1 --why x", "models retire bad_reading 1 --why x"),
    *("models timeline bad_reading", "models diff bad_reading 1 1"),
    *("reference rebase bad_reading --from 2013-04-01 --why x", "alerts list", "alerts digest bad_reading"),
    *("alerts digest bad_reading --send", "alerts test bad_reading", "alerts ack 1"),
    *("alerts silence 1 --for '1 hour' --why x", "prune --keep '2 years'", "prune --keep '2 years' --dry-run"),
)
# `init` upgrades, `models register` needs a model's file and is tried below, the others have no use for a ledger.
OTHERS = {"init", "models register", "demo", "jobs list", "jobs schema", "db url", "db start", "db stop"}


@pytest.fixture(params=WORDS, ids=["newer", "other", "older"])
def words(request, world):
    world.ready(SCHEDULED)
    world.results(request.param)
    yield WORDS[request.param]
    written = " union all ".join(f"select count(*) from plantao.{one}" for one in ("runs", "alerts", "incidents"))
    assert world.results(f"select sum(count) from ({written}) as all_of_them") == [(0,)]


def test_every_command_says_so_and_stops(world, plantao, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        status, out, err = plantao("-q", *shlex.split(command))
        said = out + err
        assert status == 1, command
        assert "Traceback" not in said, command
        if command == "check":
            continue  # it says so in a table, which cuts lines: see test_check.py
        for word in words:
            assert word in said, f"{command}: {said}"


def test_no_command_is_forgotten():
    def named(command, *names):
        for name, one in getattr(command, "commands", {}).items():
            yield from named(one, *names, name) if hasattr(one, "commands") else [" ".join((*names, name))]

    def name(command):
        return " ".join(word for word in command.split()[:2] if word != "bad_reading" and not word.startswith("--"))

    tried = {name(command) for command in COMMANDS}
    assert tried | OTHERS == set(named(typer.main.get_command(cli.app)))


def test_every_task_says_so_and_stops(world, monkeypatch, words):
    monkeypatch.setattr(tasks, "place_of_task", lambda: world.place)
    job, window = world.jobs["bad_reading"], day(1)
    params = dict.fromkeys(("from", "to", "model_version", "rescore", "dry_run", "accept_checks", "missing"))
    context = {
        "params": params,
        "dag_run": SimpleNamespace(run_type=SimpleNamespace(value="scheduled"), logical_date=None),
        "ti": SimpleNamespace(dag_id="bad_reading", max_tries=0, try_number=1),
        "run_id": "r",
        "data_interval_start": window.start,
        "data_interval_end": window.end,
    }
    edges = {"start": window.start.isoformat(), "end": window.end.isoformat()}
    scored = [{"status": "succeeded", "window": edges}]
    part = Part(1, 0, 1, window, KeyRange(None, None), rescore=False).as_dict()
    calls = {
        "score": (job, context),
        "plan": (job, context),
        "score_part": (job, part),
        "publish": (job, [part], context),
        "data_quality": (job, scored),
        "drift": (job, scored),
        "performance": (job, scored),
        "objective": (job, scored),
        "outcomes": ("bad_reading",),
        "send_alerts": (),
        "reconcile": (job, context),
    }
    monkeypatch.setattr(tasks, "slack_variable", dict)
    public = {name for name, one in vars(tasks).items() if inspect.isfunction(one) and one.__module__ == tasks.__name__}
    assert {name for name in public if not name.startswith("_")} == set(calls)
    for name, given in calls.items():
        with pytest.raises(NotInitialised) as caught:
            getattr(tasks, name)(*given)
        for word in words:
            assert word in str(caught.value), name


def test_what_airflow_reports_is_not_written_into_such_a_ledger(world, words):
    failed = airflow.Failed("bad_reading", "r", datetime.now(UTC), ("score",))
    with pytest.raises(NotInitialised, match=words[0]):
        airflow.tell(world.place, failed)


def test_the_watchdog_tells_it_past_the_ledger_with_the_command(world, words):
    voice = Voice()
    assert not dog(world, voice).look().is_complete
    ((_, said, _),) = voice.said
    for word in words:
        assert word in said


def test_init_does_not_touch_a_newer_ledger(world):
    world.results(NEWER)
    with (
        session.session(replace(world.owner("client_db")), "plantao") as connection,
        pytest.raises(NotInitialised, match="has a newer ledger"),
    ):
        upgrade(connection, "plantao")
    assert world.results("select count(*) from plantao.schema_migrations") == [(len(migrations()) + 1,)]


def test_a_version_is_not_registered_in_a_newer_ledger(world):
    world.results(NEWER)
    with pytest.raises(NotInitialised, match="has a newer ledger"):
        world.register()
    assert world.results("select count(*) from plantao.models") == [(0,)]
