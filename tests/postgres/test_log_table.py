"""Events in the table, by run; and that a log that cannot be written stops nothing."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest

from plantao import log
from plantao.ledger import log_events
from plantao.ledger.log_events import TableHandler
from world import day


@pytest.fixture(autouse=True)
def untouched():
    """Leave the logger as it was."""
    handlers, level, propagate = list(log.logger.handlers), log.logger.level, log.logger.propagate
    yield
    for handler in [handler for handler in log.logger.handlers if handler not in handlers]:
        log.logger.removeHandler(handler)
        handler.close()
    log.logger.handlers[:] = handlers
    log.logger.setLevel(level)
    log.logger.propagate = propagate


def events(world, where: str = "true"):
    select = "select level, event, job, run_id, step from plantao.log_events"
    return world.results(f"{select} where {where} order by event_id")


def test_the_steps_of_a_run_can_be_asked_for_by_its_number(world):
    job = world.ready()
    run_id = world.score(job, day(1)).run_id
    found = events(world, f"run_id = {run_id}")
    assert [line[1] for line in found] == [f"{s} finished" for s in ("extract", "validate", "score", "load", "measure")]
    assert found[0] == ("info", "extract finished", "bad_reading", run_id, "extract")
    fields = world.results("select fields from plantao.log_events where step = 'load'")[0][0]
    assert fields["rows_out"] == 20


def test_a_run_that_fails_says_so_in_the_table(world):
    job = world.ready()
    world.sql("alter table readings drop x")
    with pytest.raises(Exception, match="missing"):
        world.score(job, day(1))
    assert [line[:2] for line in events(world, "run_id = 1")] == [("error", "run failed")]


def test_the_table_has_a_level_of_its_own_and_can_be_closed(world, monkeypatch):
    job = world.ready()
    monkeypatch.setenv("PLANTAO_LOG_TABLE_LEVEL", "warning")
    world.score(job, day(1))
    assert events(world) == []
    monkeypatch.setenv("PLANTAO_LOG_TABLE_LEVEL", "off")
    world.score(job, day(2))
    assert not [handler for handler in log.logger.handlers if isinstance(handler, TableHandler)]


def attached(world, lost: bool = False) -> TableHandler:
    address = world.address(world.home_of_results)
    found = log_events.attach(replace(address, parameters={"host": "/nowhere"}) if lost else address, "plantao")
    assert found is not None
    log.logger.setLevel(logging.INFO)
    return found


def test_a_database_that_is_down_drops_the_oldest_and_counts_them(world, monkeypatch):
    monkeypatch.setattr(log_events, "MOST_WAITING", 10)
    handler = attached(world, lost=True)
    began = time.monotonic()
    for number in range(25):
        log.event("something", {"number": number})
    assert time.monotonic() - began < 10  # to wait for each would take 25 pauses of 2 s
    handler.flush()
    assert handler.dropped == 15
    handler.address = world.address(world.home_of_results)  # it answers again
    handler.flush()
    rows = world.results("select level, event, fields from plantao.log_events order by event_id")
    assert rows[0] == ("warning", "events were dropped while the database did not answer", {"dropped": 15})
    assert [fields["number"] for _, _, fields in rows[1:]] == list(range(15, 25))
    assert handler.dropped == 0
    handler.flush()
    assert len(events(world)) == 11


def test_events_are_written_without_anybody_asking(world, monkeypatch):
    monkeypatch.setattr(log_events, "PAUSE", 0.05)
    attached(world)
    log.event("something", {"job": "j"})
    deadline = time.monotonic() + 10
    while not events(world) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [line[1:3] for line in events(world)] == [("something", "j")]


def test_no_secret_gets_into_the_table(world):
    handler = attached(world)
    log.event("connected", {"to": "postgres://me:hunter2secret@host/db", "token": "xoxb-12-abc"})
    handler.flush()
    ((fields,),) = world.results("select fields from plantao.log_events")
    assert fields == {"to": "postgres://me:***@host/db", "token": "xoxb-***"}
