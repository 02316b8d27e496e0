"""Two deployments in one database, each with a schema of its own: neither waits for the other or ends its sessions."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from sqlalchemy import text

from plantao.config.table_name import Table
from plantao.ledger import runs
from plantao.ledger.runs import Origin
from plantao.load.write import part_table
from plantao.postgres import session
from plantao.postgres.locks import in_turn
from world import day

MINE = Origin("schedule", "dag/score/run", "here", "code", {})


@pytest.fixture
def job(world):
    world.fill(days=0)
    job = world.job()
    world.another_ledger("plantao_b")
    return job


@contextmanager
def ledger(world, schema):
    with session.session(world.address("client_db"), schema) as connection:
        yield connection


def test_attempts_of_one_number_have_locks_of_their_own(world, job, monkeypatch):
    monkeypatch.setattr(session, "LOCK_SECONDS", 1)
    with ledger(world, "plantao") as one, ledger(world, "plantao_b") as other:
        numbers = [runs.start(connection, job, day(1), 1, MINE) for connection in (one, other)]

        assert numbers == [1, 1]
        with ledger(world, "plantao_b") as watching, watching.begin():
            assert runs.close_dead(watching, job.name) == []


def test_a_retry_ends_no_session_of_the_other_ledger(world, job):
    with ledger(world, "plantao") as one:
        runs.start(one, job, day(1), 1, MINE)
        with ledger(world, "plantao_b") as other:
            runs.start(other, job, day(1), 1, MINE)
        with ledger(world, "plantao_b") as retry:
            assert runs.start(retry, job, day(1), 1, MINE) == 2

        with one.begin():
            assert one.execute(text("select status from runs")).scalars().all() == ["running"]


def test_turns_of_one_name_are_taken_at_once(world, job, monkeypatch):
    monkeypatch.setattr(session, "LOCK_SECONDS", 1)
    with ledger(world, "plantao") as one, ledger(world, "plantao_b") as other, one.begin(), other.begin():
        in_turn(one, "plantao.start bad_reading")
        in_turn(other, "plantao.start bad_reading")


def test_parts_of_runs_of_one_number_are_tables_of_their_own(world, job):
    predictions = Table("predictions", "bad_reading")
    with ledger(world, "plantao") as one, ledger(world, "plantao_b") as other:
        assert part_table(one, predictions, 1, 0) != part_table(other, predictions, 1, 0)
