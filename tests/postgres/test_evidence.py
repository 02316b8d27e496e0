"""What the checks of a run could not judge can be queried, is on the report, and is an incident when it lasts."""

from __future__ import annotations

import numpy as np
import pytest

import steady
from plantao.ledger import runs, session
from plantao.measure import measure
from plantao.release.describe import Baseline
from plantao.report.data import Unjudged
from plantao.report.read import read_report
from steady import REFERENCE_DAYS, alerts, incidents
from world import JOB, TABLE, day

KEPT = """
select name, column_name, status, n from plantao.metrics_latest where starts_with(name, 'check_')
  and window_start = %s order by 1, 2"""


def kept(world, number):
    return world.results(KEPT, (day(number).start,))


def report(world, job):
    with session.session(job, world.place) as connection:
        return read_report(connection, job)


def test_a_run_of_few_rows_says_what_it_could_not_judge_until_it_can(world):
    job = steady.ready(world, last=2)
    world.sql("delete from readings where id between 1012 and 1999")
    world.score(job, day(1))
    found = kept(world, 1)
    assert ("check_null_share", "x", "not_enough", 12) in found
    assert {line[0] for line in found} == {
        *("check_null_share", "check_unseen_share", "check_frozen_column", "check_range", "check_score")
    }
    data = report(world, job)
    assert Unjudged("null_share", "x", "not_enough", 1) in data.unjudged
    assert not [one for one in data.figures if one.name.startswith("check_")]
    assert incidents(world, where="lane = 'missing'") == []
    # The same again changes nothing; and what can be judged is.
    count = "select count(*) from plantao.metrics where starts_with(name, 'check_')"
    before = world.results(count)
    world.score(job, day(1), rescore=True)
    assert world.results(count) == before
    steady.insert(world, steady.days(1, 1).query("id >= 1012"))
    world.score(job, day(1), rescore=True)
    assert {line[2:] for line in kept(world, 1)} == {("ok", 40)}
    assert report(world, job).unjudged == []
    # A late row of a window that was judged is too few to judge, and takes nothing back.
    world.score(job, day(2))
    assert kept(world, 2) == []
    world.insert(2, [2900])
    world.score(job, day(2))
    assert kept(world, 2) == []


def test_a_run_that_fails_keeps_nothing_of_its_checks(world, monkeypatch):
    job = steady.ready(world, last=1)
    world.sql("delete from readings where id >= 1012")

    def lost(*_, **__):
        message = "gone"
        raise RuntimeError(message)

    monkeypatch.setattr(runs, "succeed", lost)
    with pytest.raises(RuntimeError, match="gone"):
        world.score(job, day(1))
    assert kept(world, 1) == []


def test_a_check_that_cannot_be_made_for_three_days_is_an_incident_until_it_can(world):
    world.sql(TABLE)
    steady.insert(world, steady.days(1, 5))
    fitted = steady.days(-REFERENCE_DAYS - 20, -REFERENCE_DAYS)
    # In the reference y has no value, so nobody can tell whether it is frozen.
    empty = steady.days(1 - REFERENCE_DAYS, 0).assign(y=np.nan)
    world.register(None, fitted, baseline=Baseline(empty, timestamp="at", outcome="bad"))
    job = world.job(JOB)

    def missing(number):
        world.score(job, day(number))
        measure.measure(job, day(number), world.place)
        return incidents(world, "fingerprint, state", "lane = 'missing'")

    assert missing(1) == []
    assert kept(world, 1) == [("check_frozen_column", "y", "undefined", 40)]
    assert missing(2) == []
    assert missing(3) == [("missing check_frozen_column v1", "open")]
    assert missing(4) == [("missing check_frozen_column v1", "open")]
    assert alerts(world).count("missing") == 1
    said = "bad_reading: the check frozen_column of y cannot be made since 2013-04-01: undefined (since 2013-04-01)"
    assert ("missing", said) in alerts(world, "kind, message")
    measure.measure(job, day(4), world.place)
    assert alerts(world).count("missing") == 1
    world.results("update plantao.metrics set status = 'ok' where name = 'check_frozen_column' and window_start ="
                  " '2013-04-04Z'")  # fmt: skip
    measure.measure(job, day(4), world.place)
    assert incidents(world, "state", "lane = 'missing'") == [("closed",)]
