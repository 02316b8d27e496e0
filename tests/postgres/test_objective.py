"""The job's own SQL over predictions and outcomes: what it gives, and what it cannot do."""

from __future__ import annotations

from datetime import date

import pytest

from plantao.ledger import session
from plantao.measure.metrics import objective_sql as objective
from plantao.measure.outcomes.join import tally_days
from world import JOB, day, regressor, training_frame

FIRST, SECOND = date(2013, 4, 1), date(2013, 4, 2)
SQL = (
    "select 20.0 * count(*) filter (where prediction and outcome)"
    " - 5.0 * count(*) filter (where prediction and not outcome) from scored"
)
MEASURE = """
[measure]
outcome = {{ table = "public.truth", column = "bad" }}
objective = {{ name = "minutes", sql = '''{}''' }}
"""


@pytest.fixture(params=["one", "two"])
def client(request):
    """Predictions beside the outcomes, and in another database."""
    return request.getfixturevalue("world" if request.param == "one" else "two_databases")


def ready(world, sql=SQL, more="", model=None, kind="boolean"):
    world.fill(days=2, per_day=60)
    world.sql(f"create table public.truth (id bigint, bad {kind})")
    value = "id % 3 = 0" if kind == "boolean" else "id % 7"
    world.sql(f"insert into truth select id, {value} from readings where id % 10 <> 0")
    output = world.register(model).output
    job = world.job(JOB + MEASURE.format(sql) + more)
    for number in (1, 2):
        world.score(job, day(number))
    return job, {1: output}


def ask(world, job, outputs, first=FIRST, last=SECOND):
    with session.session(job, world.place) as connection:
        return objective.objective_sql(job, world.place, connection, first=first, last=last, outputs=outputs)


def expected(world, where="true"):
    rows = world.results(f"select id, prediction from predictions.bad_reading where prediction and {where}")
    known = [i for i, _ in rows if i % 10 != 0]
    return sum(20.0 if i % 3 == 0 else -5.0 for i in known)


def test_the_sql_is_asked_over_all_rows_in_blocks_and_per_arm(client):
    job, outputs = ready(client, more="control_group = 0.3\n")
    (worth,) = ask(client, job, outputs)
    assert (worth.role, worth.version, worth.rows, worth.problem) == ("champion", 1, 108, None)
    assert worth.value == expected(client)
    assert 10 < len(worth.blocks) <= 20
    assert sum(rows for rows, _ in worth.blocks) == 108
    assert sum(value for _, value in worth.blocks) == worth.value
    assert worth.arms["control"][1] == expected(client, "in_control_group")
    assert worth.arms["treated"][1] == expected(client, "not in_control_group")
    assert sum(rows for rows, _ in worth.arms.values()) == 108
    (worth,) = ask(client, job, outputs, SECOND)
    assert (worth.rows, worth.value, worth.blocks != ()) == (54, expected(client, "id >= 2000"), True)


def test_the_sql_may_use_other_tables_and_a_comment(world):
    job, outputs = ready(
        world,
        "with w as (select * from worths) select sum(worth) from scored join w on w.of = outcome -- that is all",
    )
    world.sql("create table worths (of boolean, worth integer)")
    world.sql("insert into worths values (true, 2), (false, -1); grant select on worths to plantao_scorer")
    (worth,) = ask(world, job, outputs)
    known = [i for n in (1000, 2000) for i in range(n, n + 60) if i % 10 != 0]
    assert worth.value == sum(2 if i % 3 == 0 else -1 for i in known)


def test_a_regressions_outcome_is_a_number(world):
    job, outputs = ready(world, "select -sum(abs(prediction - outcome)) from scored", kind="numeric",
                         model=regressor(training_frame()))  # fmt: skip
    (worth,) = ask(world, job, outputs)
    assert worth.problem is None
    assert worth.value < 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select nonsense from scored", "nonsense"),
        ("select", "gives 0 columns"),
        ("select 1 / (count(*) - 108) from scored", "division by zero"),
        ("select 1, 2", "gives 2 columns"),
        ("select 1 from scored", "more than one row"),
        ("select 'a'", "gives"),
        ("select true", "gives True"),
        ("select 'NaN'::float8", "finite"),
        ("delete from predictions.bad_reading returning 1", "syntax error"),
        ("with x as (delete from predictions.bad_reading returning 1) select 1", "data-modifying"),
        ("select nextval('public.numbers')", "read-only"),
        ("select 1 from scored where false", "no row"),
        ("select 1; commit; delete from predictions.bad_reading", "syntax error"),
        ("select 1) as x; commit; delete from predictions.bad_reading; select (1", "multiple commands"),
        ("select pg_sleep(5)::text::float8", "took more than"),
    ],
)
def test_an_sql_that_fails_costs_nothing_else(world, sql, said, monkeypatch):
    monkeypatch.setattr(objective, "SECONDS", 1)
    world.sql("create sequence public.numbers; grant usage on public.numbers to plantao_scorer")
    job, outputs = ready(world, sql)
    (worth,) = ask(world, job, outputs)
    assert (worth.rows, worth.value) == (108, None)
    assert said in worth.problem
    assert len(world.predictions()) == 120
    with session.session(job, world.place) as connection:
        assert len(tally_days(job, world.place, connection, [FIRST, SECOND], outputs)) == 2


def test_nothing_known_is_nothing_asked(world):
    job, outputs = ready(world)
    world.sql("delete from truth")
    assert ask(world, job, outputs) == []


def test_a_quotient_that_some_rows_have_not_leaves_the_value_of_all(world):
    job, outputs = ready(world, "select 60 / (count(*) - 5)::float8 from scored")
    (worth,) = ask(world, job, outputs)
    assert worth.value == 60 / 103
    assert [value for rows, value in worth.blocks if rows == 5] == [None] * sum(rows == 5 for rows, _ in worth.blocks)
