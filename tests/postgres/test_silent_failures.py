"""What other tools let pass in silence: here each shows its status, is told, and takes nothing else with it."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import steady
from plantao.errors import SourceChanged
from plantao.measure import measure
from plantao.release.describe import Baseline
from steady import MEASURE, alerts, figures, incidents, period, reveal
from world import JOB, day

SECOND = "window_start = '2013-04-02Z'"


class Certain(LogisticRegression):
    """A model that never doubts."""

    def predict_proba(self, frame):
        likely = (frame["x"] > 0).to_numpy(dtype=float)
        return np.column_stack([1 - likely, likely])


def measured(world, job, first, last):
    found = measure.measure(job, period(first, last), world.place)
    assert found.problems == {}
    everything = world.results(
        "select count(*) from plantao.metrics where value in ('NaN', 'infinity', '-infinity')"
        " or lower = 'NaN' or upper = 'NaN' or (status = 'ok' and value is null)"
    )
    assert everything == [(0,)], "a figure is a number, or says why not"
    return found


def followed(world, job, first, last, told=lambda frame: frame["bad"]):
    world.score(job, period(first, last))
    reveal(world, first, last, told)
    return measured(world, job, first, last)


def fingerprints(world):
    return [line[0] for line in incidents(world, where="state = 'open'")]


def by_day(world, name, where="true"):
    return [line[2] for line in figures(world, name, where=where)]


# --- the columns -----------------------------------------------------------------------------------------------------


def test_a_column_without_any_value(world):
    job = steady.ready(world, JOB + MEASURE, last=2)
    world.sql("update readings set y = null where id >= 2000")
    world.score(job, day(1))
    followed(world, job, 2, 2)
    assert "break null_share y" in fingerprints(world)
    assert figures(world, "null_share", where=f"column_name = 'y' and {SECOND}") == [(1.0, 40, "ok")]
    assert by_day(world, "jensen_shannon", f"column_name = 'y' and {SECOND}") == ["ok"]
    assert by_day(world, "jensen_shannon", f"column_name = 'x' and {SECOND}") == ["ok"]
    assert by_day(world, "roc_auc", SECOND) == ["ok"]


def test_text_in_a_column_of_numbers(world):
    job = steady.ready(world, JOB + MEASURE, last=3)
    followed(world, job, 1, 1)
    world.sql("alter table readings alter x type text using 'about ' || x")
    with pytest.raises(SourceChanged, match="x") as caught:
        world.score(job, day(2))
    assert caught.value.permanent
    assert world.attempts("status, error_kind")[-1] == ("failed", "permanent")
    # What was scored before it can be measured all the same; only counting it anew needs the source.
    assert measure.measure(job, day(1), world.place).problems == {}
    assert set(measure.measure(job, day(1), world.place, anew=True).problems) == {"daily state"}
    assert by_day(world, "roc_auc") == ["ok"]


def test_a_category_never_seen(world):
    job = steady.ready(world, JOB + MEASURE, last=2)
    world.sql("update readings set city = 'Manaus' where id >= 2000 and id % 2 = 0")
    followed(world, job, 1, 1)
    followed(world, job, 2, 2)
    assert "break unseen_share city" in fingerprints(world)
    assert figures(world, "unseen_share", where=f"column_name = 'city' and {SECOND}") == [(0.5, 40, "ok")]
    assert by_day(world, "jensen_shannon", f"column_name = 'city' and {SECOND}") == ["ok"]


def test_a_constant_feature(world):
    """One that always was constant is no finding; one that becomes so is."""
    fitted = steady.days(-40, 0).assign(y=1.0)
    world.fill(days=0)
    steady.insert(world, steady.days(1, 3).assign(y=1.0))
    world.register(frame=fitted, baseline=Baseline(fitted, timestamp="at", outcome="bad"))
    job = world.job()
    world.score(job, day(1))
    measured(world, job, 1, 1)
    assert by_day(world, "jensen_shannon", "column_name = 'y'") == ["ok"]
    assert by_day(world, "wasserstein", "column_name = 'y'") == []
    assert fingerprints(world) == []
    world.sql("update readings set x = 0.5 where id >= 2000")
    world.sql("update readings set y = 2 where id >= 2000 and id % 2 = 0")
    world.score(job, period(2, 3))
    measured(world, job, 2, 3)
    assert {"break frozen_column x", "break range y"} <= set(fingerprints(world))
    assert figures(world, "outside_share", where=f"column_name = 'y' and {SECOND}") == [(0.5, 40, "ok")]


def test_infinite_values(world):
    """The contract sets such rows aside; beyond the share that the owner allows, the run stops."""
    job = steady.ready(world, JOB + MEASURE, last=2)
    world.sql("update readings set y = 'infinity' where id = 1003")
    followed(world, job, 1, 1)
    assert world.attempts("rows_scored, rows_rejected") == [(39, 1)]
    assert by_day(world, "jensen_shannon", "column_name = 'y'") == ["ok"]
    assert by_day(world, "label_coverage") == ["ok"]
    world.sql("update readings set y = '-infinity' where id >= 2000 and y is not null")
    with pytest.raises(Exception, match="would be set aside"):
        world.score(job, day(2))


# --- the days --------------------------------------------------------------------------------------------------------


def test_a_missing_month(world):
    """Days that are not there are told while they are missing, and break nothing once there are others."""
    job = steady.ready(world, JOB + MEASURE, last=2)
    followed(world, job, 1, 2)
    for number in (3, 4):
        world.score(job, day(number))
        measured(world, job, number, number)
    assert fingerprints(world) == ["break row_count"]
    assert alerts(world) == ["break"]
    assert world.attempts("status")[-1] == ("empty",)
    steady.insert(world, steady.days(35, 36))
    world.score(job, period(5, 34))
    assert fingerprints(world) == ["break row_count"]
    measured(world, job, 5, 34)
    followed(world, job, 35, 36)
    assert fingerprints(world) == []
    found = world.results("select distinct (window_start at time zone 'UTC')::date from plantao.metrics"
                          " where name = 'roc_auc' order by 1")  # fmt: skip
    assert [line[0] for line in found] == [date(2013, 4, 1), date(2013, 4, 2), date(2013, 5, 5), date(2013, 5, 6)]


def test_three_rows_in_a_day(world):
    job = steady.ready(world, JOB + MEASURE, last=2)
    world.sql("delete from readings where id > 2002")
    followed(world, job, 1, 1)
    followed(world, job, 2, 2)
    assert figures(world, "jensen_shannon", "n, status", f"column_name = 'x' and {SECOND}") == [(3, "not_enough")]
    assert figures(world, "accuracy", "n, status", SECOND) == [(3, "not_enough")]
    assert figures(world, "label_coverage", where=SECOND) == [(1.0, 3, "ok")]  # outcomes without a prediction are none
    assert fingerprints(world) == ["break row_count"]


# --- the outcomes ----------------------------------------------------------------------------------------------------


def test_a_day_of_one_class(world):
    job = steady.ready(world, JOB + MEASURE, last=4)
    followed(world, job, 1, 1)
    followed(world, job, 2, 4, lambda frame: frame["bad"] & False)
    assert by_day(world, "roc_auc") == ["ok", *["undefined"] * 3]
    assert by_day(world, "log_loss") == ["ok"] * 4
    assert by_day(world, "recall")[1:] == ["undefined"] * 3
    assert "missing roc_auc v1" in fingerprints(world)
    assert any("roc_auc of version 1 cannot be told since 2013-04-02" in line for line in alerts(world, "message"))


def test_a_day_without_labels(world):
    job = steady.ready(world, JOB + MEASURE, last=4)
    followed(world, job, 1, 1)
    world.score(job, period(2, 4))
    measured(world, job, 2, 4)
    assert by_day(world, "log_loss") == ["ok", *["no_labels"] * 3]
    assert [value for value, *_ in figures(world, "label_coverage")] == [1.0, 0.0, 0.0, 0.0]
    assert fingerprints(world) == ["missing outcomes"]


def test_probabilities_of_exactly_0_and_1(world):
    job = steady.ready(world, JOB + MEASURE, last=1, model=lambda f: Certain().fit(f[["x"]], f["bad"]))
    followed(world, job, 1, 1)
    assert {line[2] for line in world.predictions()} == {0.0, 1.0}
    ((loss, n, status),) = figures(world, "log_loss")
    assert (n, status) == (40, "ok")
    assert 1 < loss < -np.log(1e-15)
    assert by_day(world, "roc_auc") == by_day(world, "brier") == by_day(world, "calibration") == ["ok"]
    assert by_day(world, "jensen_shannon", "column_name = ''") == ["ok"]


def test_duplicate_outcomes(world):
    job = steady.ready(world, JOB + MEASURE, last=1)
    followed(world, job, 1, 1)
    before = figures(world, "log_loss")
    reveal(world, 1, 1)
    measured(world, job, 1, 1)
    assert figures(world, "log_loss") == before
    world.sql("insert into truth select id, not bad from truth where id < 1004")  # two that contradict each other
    measured(world, job, 1, 1)
    assert figures(world, "log_loss", "n, status") == [(36, "ok")]
    conflicting = world.results("select state -> 'conflicting' from plantao.daily_outcomes where segment = ''")
    assert conflicting == [(4,)]


def test_outcomes_that_are_revised(world):
    job = steady.ready(world, JOB + MEASURE, last=2)
    followed(world, job, 1, 2, lambda frame: frame["bad"].where(frame["id"] % 1000 != 0))
    before = figures(world, "accuracy")
    world.sql("update truth set bad = not bad where id between 1001 and 1010")
    measure.outcomes(job, world.place)
    after = figures(world, "accuracy")
    assert (after[0] != before[0], after[1]) == (True, before[1])
    versions = "select count(*) from plantao.metrics where name = 'accuracy' and window_start = '2013-04-01Z'"
    assert world.results(versions) == [(2,)]
