"""How good the model is, from the client's own tables: figures, incidents, and what comes late or is revised."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

import steady
from plantao.ledger import session
from plantao.measure import measure, performance, records
from plantao.measure.metrics import quality
from plantao.measure.outcomes.tally import merged
from steady import MEASURE, alerts, figures, incidents, period, reveal
from world import JOB, World, day

VALUES = """
objective = { name = "money", values = [
  { prediction = true, outcome = true, value = 10 }, { prediction = true, outcome = false, value = -15 } ] }
"""
EXACT = ("accuracy", "precision", "recall", "f1", "log_loss", "brier", "bias")


@pytest.fixture(params=["one database", "two databases"])
def client(request, server, tmp_path):
    with World.create(server, tmp_path, "client_db" if request.param == "one database" else "results_db") as created:
        yield created


def wrong(frame):
    return ~frame["bad"]


def follow(world, job, first, last, told=lambda frame: frame["bad"]):
    """Score some days, learn what came of them, and measure them."""
    world.score(job, period(first, last))
    reveal(world, first, last, told)
    found = measure.measure(job, period(first, last), world.place)
    assert found.problems == {}
    return found


def by_scikit_learn(frame):
    y, p, decided = frame["bad"].astype(bool), frame["score"], frame["decision"].astype(bool)
    return {
        "accuracy": sk.accuracy_score(y, decided),
        "precision": sk.precision_score(y, decided),
        "recall": sk.recall_score(y, decided),
        "f1": sk.f1_score(y, decided),
        "log_loss": sk.log_loss(y, p),
        "brier": sk.brier_score_loss(y, p),
        "bias": (p - y).mean(),
        "roc_auc": sk.roc_auc_score(y, p),
    }


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_scikit_learn_by_day_and_for_the_period(client):
    job = steady.ready(client, JOB + MEASURE, per_day=200)
    client.score(job, period(1, 3))
    reveal(client, 1, 3, lambda frame: frame["bad"].where(frame["id"] % 10 != 0), per_day=200)
    assert measure.measure(job, period(1, 3), client.place).problems == {}
    rows = client.results("select id, prediction, score from predictions.bad_reading")
    truth = pd.DataFrame(client.sql("select id, bad from truth where bad is not null"), columns=["id", "bad"])
    frame = pd.DataFrame(rows, columns=["id", "decision", "score"]).merge(truth, on="id")
    assert len(frame) == 540
    expected = [by_scikit_learn(part) for _, part in frame.groupby(frame["id"] // 1000)]
    for name in EXACT:
        found = figures(client, name, "value, n, status, maturity, role")
        assert [value for value, *_ in found] == pytest.approx([one[name] for one in expected]), name
        assert {line[2:] for line in found} == {("ok", 0.9, "champion")}
    assert [v for v, _, _ in figures(client, "roc_auc")] == pytest.approx([e["roc_auc"] for e in expected], abs=0.0035)
    assert figures(client, "label_coverage") == [(0.9, 200, "ok")] * 3
    with session.session(job, client.place) as connection:
        found = records.tallies(connection, job, "champion", date(2013, 4, 1), date(2013, 4, 3))[1]
    whole = quality.measure_tally(merged(found[one][""] for one in sorted(found)), "binary", True, [*EXACT, "roc_auc"])
    of_all = by_scikit_learn(frame)
    assert {m.name: m.value for m in whole if m.name in EXACT and not m.column} == pytest.approx(
        {name: of_all[name] for name in EXACT}
    )
    assert next(m.value for m in whole if m.name == "roc_auc") == pytest.approx(of_all["roc_auc"], abs=0.0035)


def test_estimates_stand_beside_what_came_true(world):
    job = steady.ready(world, JOB + MEASURE)
    world.score(job, day(1))
    measure.measure(job, day(1), world.place)
    assert figures(world, "roc_auc") == [(None, 0, "no_labels")]
    before = figures(world, "estimated_roc_auc")
    assert before[0][1:] == (40, "ok")
    reveal(world, 1, 1)
    measure.outcomes(job, world.place)
    ((value, _, status),) = figures(world, "roc_auc")
    assert status == "ok"
    assert abs(value - before[0][0]) < 0.1
    assert figures(world, "estimated_roc_auc") == before


def test_a_provisional_day_opens_nothing_and_is_judged_in_time(world):
    job = steady.ready(world, JOB + MEASURE.replace("500 days", "9000 days"), last=4)
    follow(world, job, 1, 4, wrong)
    assert {status for *_, status in figures(world, "log_loss")} == {"provisional"}
    assert incidents(world) == []
    job = world.job(JOB + MEASURE)  # as if the time had come
    measure.outcomes(job, world.place)
    assert {status for *_, status in figures(world, "log_loss")} == {"ok"}
    assert ("degraded log_loss v1", "degraded", "open") in incidents(world)


def test_too_few_outcomes_are_provisional_however_old_the_day(world):
    job = steady.ready(world, JOB + MEASURE, last=1)
    follow(world, job, 1, 1, lambda frame: frame["bad"].where(frame["id"] % 2 == 0))
    assert figures(world, "accuracy")[0][1:] == (20, "provisional")


# --- incidents -------------------------------------------------------------------------------------------------------


def test_a_model_that_becomes_worse_is_told_and_its_recovery_too(client):
    job = steady.ready(client, JOB + MEASURE, last=36)
    follow(client, job, 1, 10)
    assert incidents(client) == []
    follow(client, job, 11, 13, wrong)
    names = {"degraded log_loss v1", "degraded roc_auc v1"}
    assert names <= {line[0] for line in incidents(client, where="word = 'degraded' and state = 'open'")}
    assert set(alerts(client)) == {"degraded"}
    assert any("since 2013-04-11" in message for message in alerts(client, "message"))
    told = len(alerts(client))
    follow(client, job, 14, 14, wrong)
    assert len(alerts(client)) == told  # the same trouble on another day
    follow(client, job, 15, 36)
    assert incidents(client, where="state = 'open'") == []
    assert set(alerts(client)) == {"degraded", "degraded_recovered"}


@pytest.mark.parametrize(
    ("more", "limit", "told"),
    [
        ("", 'metric = "accuracy", below = 0.3', "degraded accuracy limit v1"),
        (VALUES, 'metric = "objective", below = -50, runs = 2, of = 3', "degraded objective limit v1"),
    ],
)
def test_the_owners_limit_needs_no_reference(world, more, limit, told):
    world.fill(days=0)
    steady.insert(world, steady.days(1, 7))
    world.sql("create table public.truth (id bigint, bad boolean)")
    world.register(frame=steady.days(-20, 0))
    job = world.job(f"{JOB}{MEASURE}{more}\n[alert]\ndegraded = [{{ {limit} }}]\n")
    follow(world, job, 1, 3)
    assert incidents(world) == []
    follow(world, job, 4, 5, wrong)
    assert incidents(world) == [(told, "degraded", "open")]
    assert "which is the owner's limit" in alerts(world, "message")[0]
    follow(world, job, 6, 7)
    assert incidents(world) == [(told, "degraded", "closed")]


def test_outcomes_that_stop_coming_are_missed(client):
    job = steady.ready(client, JOB + MEASURE, last=6)
    follow(client, job, 1, 3)
    client.score(job, period(4, 6))
    measure.measure(job, period(4, 6), client.place)
    assert incidents(client) == [("missing outcomes", "missing", "open")]
    assert "too few outcomes are known since 2013-04-04" in alerts(client, "message")[0]
    reveal(client, 4, 6)
    measure.outcomes(job, client.place)
    assert incidents(client) == [("missing outcomes", "missing", "closed")]
    assert alerts(client) == ["missing", "missing_recovered"]


def test_outcomes_that_cannot_be_read_are_missed_and_cost_no_estimate(world):
    job = steady.ready(world, JOB + MEASURE, last=6)
    follow(world, job, 1, 3)
    world.sql("alter table truth rename to moved")
    world.score(job, period(4, 6))
    found = measure.measure(job, period(4, 6), world.place)
    assert set(found.problems) == {"performance"}
    assert "does not exist" in str(found.problems["performance"])
    assert [status for *_, status in figures(world, "estimated_roc_auc")] == ["ok"] * 6
    assert incidents(world) == [("missing outcomes", "missing", "open")]
    world.sql("alter table moved rename to truth")
    reveal(world, 4, 6)
    measure.outcomes(job, world.place)
    assert incidents(world) == [("missing outcomes", "missing", "closed")]


def test_drift_goes_to_the_digest_and_is_over_after_a_quiet_week(client):
    job = steady.ready(client, JOB, last=20)
    client.sql("update readings set city = 'Porto' where id between 3000 and 5999 and id % 10 < 9")
    for first, last in ((1, 2), (3, 5)):
        client.score(job, period(first, last))
        measure.measure(job, period(first, last), client.place)
    assert ("drift city v1", "drifting", "open") in incidents(client)
    client.score(job, period(6, 20))
    measure.measure(job, period(6, 20), client.place)
    assert {line[1:] for line in incidents(client)} == {("drifting", "closed")}
    assert set(alerts(client)) == {"drift", "drift_recovered"}


# --- what it was worth -----------------------------------------------------------------------------------------------


SQL = "objective = { name = 'money', sql = '''select 10.0 * count(*) filter (where prediction and outcome) - 15.0 * count(*) filter (where prediction and not outcome) from scored''' }\n"  # noqa: E501


@pytest.mark.parametrize("how", [VALUES, SQL])
def test_the_objective_is_what_the_tables_say(client, how):
    job = steady.ready(client, JOB + MEASURE + how, last=2)
    follow(client, job, 1, 2)
    decided = dict(client.results("select id, prediction from predictions.bad_reading where prediction"))
    truth = dict(client.sql("select id, bad from truth"))
    worth = [sum(10 if truth[i] else -15 for i in decided if i // 1000 == number) for number in (1, 2)]
    assert figures(client, "objective") == [(value, 40, "ok") for value in worth]
    assert [value for value, *_ in figures(client, "objective_per_row")] == [value / 40 for value in worth]


def test_a_broken_sql_fails_alone(client):
    job = steady.ready(client, JOB + MEASURE + "objective = { name = 'money', sql = 'select nonsense from scored' }\n")
    found = follow(client, job, 1, 3)
    assert {(m.status, m.value) for m in found.metrics if m.name == "objective"} == {("failed", None)}
    assert {status for *_, status in figures(client, "objective")} == {"failed"}
    assert {status for *_, status in figures(client, "roc_auc")} == {"ok"}
    # Nobody would miss it by itself.
    assert incidents(client) == [("missing objective v1", "missing", "open")]
    measure.measure(client.job(JOB + MEASURE + SQL), period(1, 3), client.place)
    assert {status for *_, status in figures(client, "objective")} == {"ok"}
    assert incidents(client) == [("missing objective v1", "missing", "closed")]


# --- revised, and told apart -----------------------------------------------------------------------------------------


def test_revised_outcomes_change_their_day_and_keep_what_was_thought_before(client):
    job = steady.ready(client, JOB + MEASURE, last=3)
    follow(client, job, 1, 3, lambda frame: frame["bad"].where(frame["id"] % 10 != 0))
    newest = client.results("select max(metric_id) from plantao.metrics")[0][0]
    before = figures(client, "accuracy")
    measure.outcomes(job, client.place)
    assert client.results("select max(metric_id) from plantao.metrics") == [(newest,)]
    client.sql("update truth set bad = not bad where id between 2000 and 2009")
    measure.outcomes(job, client.place)
    touched = f"select distinct (window_start at time zone 'UTC')::date from plantao.metrics where metric_id > {newest}"
    assert client.results(touched) == [(date(2013, 4, 2),)]
    after = figures(client, "accuracy")
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    kept = client.results(
        "select value from plantao.metrics where name = 'accuracy' and window_start = '2013-04-02Z' order by metric_id"
    )
    assert kept == [(before[1][0],), (after[1][0],)]


def test_the_control_group_is_told_apart_also_in_a_table_older_than_it(client):
    job = steady.ready(client, JOB + MEASURE, last=2, per_day=200)
    client.score(job, day(1))
    job = client.job(JOB + MEASURE + "control_group = 0.3\n" + VALUES)
    client.score(job, day(2))
    groups = client.results(
        "select id / 1000, control_salt, control_share, bool_or(in_control_group) from predictions.bad_reading"
        " group by 1, 2, 3 order by 1"
    )
    assert groups == [(1, None, None, False), (2, "bad_reading", 0.3, True)]
    reveal(client, 1, 2, per_day=200)
    assert measure.measure(job, period(1, 2), client.place).problems == {}
    control = client.results("select count(*) from predictions.bad_reading where in_control_group")[0][0]
    for name in ("accuracy", "roc_auc", "log_loss"):
        assert figures(client, f"{name}_treated")[-1][2] == "ok"
        assert [line[2] for line in figures(client, f"{name}_control")] == ["ok"]
        assert [line[2] for line in figures(client, f"{name}_weighted")] == ["ok"]
    assert figures(client, "accuracy_control")[0][1] == control
    whole, together = figures(client, "accuracy")[1][0], figures(client, "accuracy_weighted")[0][0]
    assert together == pytest.approx(whole)
    columns = [line[0] for line in figures(client, "effect", "column_name, value", "value is not null")]
    assert columns == ["objective_per_row", "outcome"]
    outcome = pd.DataFrame(
        client.results("select id, in_control_group from predictions.bad_reading where id >= 2000"), columns=["id", "c"]
    ).merge(steady.days(2, 2, 200)[["id", "bad"]], on="id")
    lower, upper = figures(client, "effect", "lower, upper", "column_name = 'outcome'")[0]
    assert lower < outcome[~outcome["c"]]["bad"].mean() - outcome[outcome["c"]]["bad"].mean() < upper
    assert np.isfinite([lower, upper]).all()


def test_a_control_group_of_another_size_or_none_leaves_the_days_before_it_right(client):
    declared = JOB + MEASURE + "control_group = 0.5\n"
    job = steady.ready(client, declared, last=3, per_day=200)
    client.score(job, day(1))
    job = client.job(declared.replace("0.5", "0.1"))
    client.score(job, day(2))
    reveal(client, 1, 3, per_day=200)
    assert measure.measure(job, period(1, 2), client.place).problems == {}

    def weighted():
        return [line[2] for line in figures(client, "accuracy_weighted")]

    assert weighted() == ["ok", "ok"]
    job = client.job(JOB + MEASURE)
    client.score(job, day(3))
    assert measure.measure(job, period(1, 3), client.place).problems == {}
    assert weighted() == ["ok", "ok"]
    assigned = client.results(
        "select sum((state -> 'assigned' ->> 0)::float8), sum((state -> 'assigned' ->> 1)::float8)"
        " from plantao.daily_outcomes where segment in ('@control', '@treated') group by day order by day"
    )
    assert assigned == [(pytest.approx(100), pytest.approx(50)), (pytest.approx(20), pytest.approx(18))]
    # What was tallied before the shares were kept is held against today's, and without one it is not told.
    client.results("update plantao.daily_outcomes set state = state - 'assigned'")
    client.results("delete from plantao.metrics where name = 'accuracy_weighted'")
    assert performance.measure_performance(job, client.place)
    assert weighted() == []


def test_a_reference_of_too_few_days_says_that_nothing_is_watched(world, caplog):
    job = world.ready(JOB + '\n[measure]\noutcome = { table = "public.truth", column = "bad" }\n')
    world.sql("create table truth as select id, x > 0 as bad from readings")
    world.grant()
    world.score(job, day(1))
    with caplog.at_level("WARNING", "plantao"):
        measure.measure(job, day(1), world.place)
    assert "no statistical alarm" in caplog.text
