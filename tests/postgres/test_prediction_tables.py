"""What a prediction table of the client's own making must be: one unique index exactly over its key, and kept."""

from __future__ import annotations

import pytest

from plantao.errors import TargetRefused
from plantao.preflight.check import check
from world import day

OWN = "alter table predictions.bad_reading drop constraint bad_reading_pkey;"
NO_INDEX = r"no unique index covers exactly its key \(id\)"
DAYS = """
alter table predictions.bad_reading rename to before;
create table predictions.bad_reading (like predictions.before, primary key (id, source_timestamp))
  partition by range (source_timestamp);
create table predictions.april partition of predictions.bad_reading
  for values from ('2013-04-01Z') to ('2013-05-01Z');
insert into predictions.bad_reading select * from predictions.before;
grant select, insert, delete on predictions.bad_reading to plantao_scorer
"""
VIEW = """
alter table predictions.bad_reading rename to before;
create view predictions.bad_reading as table predictions.before;
grant all on predictions.bad_reading to plantao_scorer
"""
HASHED = """
alter table predictions.bad_reading rename to before;
create table predictions.bad_reading (like predictions.before, primary key (id)) partition by hash (id);
create table predictions.even partition of predictions.bad_reading for values with (modulus 2, remainder 0);
create table predictions.odd partition of predictions.bad_reading for values with (modulus 2, remainder 1);
insert into predictions.bad_reading select * from predictions.before;
grant select, insert, delete on predictions.bad_reading to plantao_scorer
"""


@pytest.fixture
def job(world):
    job = world.ready(days=3)
    world.score(job, day(1))
    return job


def predictions_line(world):
    page = check(world.place, "bad_reading")
    return next(line.answer for line in page.lines if line.of == "bad_reading: predictions")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (DAYS, NO_INDEX),
        (OWN, NO_INDEX),
        (f"{OWN} create index on predictions.bad_reading (id)", NO_INDEX),
        (f"{OWN} create unique index on predictions.bad_reading (id) where score > 0", NO_INDEX),
        (f"{OWN} create unique index on predictions.bad_reading ((id + 0))", NO_INDEX),
        (f"{OWN} alter table predictions.bad_reading add unique (id) deferrable", NO_INDEX),
        (f"{OWN} create unique index on predictions.bad_reading (id, model_version)", NO_INDEX),
        ("alter table predictions.bad_reading set unlogged", "it is unlogged"),
        ("create table predictions.more () inherits (predictions.bad_reading)", "other tables inherit from it"),
        (VIEW, "it is a view"),
    ],
)
def test_a_table_that_could_hold_a_key_twice_or_lose_rows_is_refused_with_two_ways_out(world, job, statement, said):
    world.sql(statement)

    with pytest.raises(TargetRefused, match=rf"{said}.*Nothing was written.*create unique index.*another table"):
        world.score(job, day(2))
    answer = predictions_line(world)

    assert (answer.state, said.replace("\\", "") in answer.what) == ("FAIL", True), answer


@pytest.mark.parametrize(
    "statement", [HASHED, f"{OWN} create unique index on predictions.bad_reading (id) include (score)"]
)
def test_a_table_of_the_clients_own_making_serves_when_its_key_is_unique(world, job, statement):
    world.sql(statement)

    assert world.score(job, day(2)).counts.scored == 20
    assert world.score(job, day(1)).counts.already_scored == 20
    assert predictions_line(world).state == "OK"
