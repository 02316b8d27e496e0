"""A quick sample of `make crash-test`: kills, frozen workers, server crashes, lost answers, clients, the control."""

from __future__ import annotations

import pytest

from crash.arena import Verdict, judge, rehearse, stage
from crash.client import ACTS

SEED = 20131101


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    with stage(tmp_path_factory.mktemp("crash"), windows=100, restless=9, seed=SEED) as found:
        yield found


def test_no_instant_to_die_at_loses_or_doubles_a_row(arena):
    rehearse(arena, random_kills=45, aimed=16, frozen=5, crashes=2, commits=3, beside=8)
    assert arena.tally.wrong == []
    assert arena.final_verdict() == Verdict(lost=0, doubled=0, wrong=0)
    assert arena.verdict_of_restless() == Verdict(lost=0, doubled=0, wrong=0)
    done = arena.tally.done
    assert done["killed at a statement"] == 16
    assert done["killed at random"] > 22
    assert done["killed beside a client"] > 2
    assert min(done[f"times a client {act}"] for act in ACTS) > 0
    assert done["frozen, revived after the replacement"] > 0
    assert (done["server crashes"], done["commits whose answer was lost"]) == (2, 3)


@pytest.mark.parametrize(("how", "crime"), [("append", "doubled"), ("watermark", "lost")])
def test_the_same_judge_convicts_naive_writers(arena, how, crime):
    assert getattr(arena.naive_verdict(how, 3), crime) > 0


def test_there_are_many_instants_and_the_judge_sees_each_kind_of_harm(arena):
    assert min(arena.points.values()) > 80
    expected = {1: {("a", 0.5)}, 2: {("b", 0.25)}}
    assert judge(expected, [(1, "a", 0.5), (2, "b", 0.25)]) == Verdict(0, 0, 0)
    assert judge(expected, [(1, "a", 0.5), (1, "a", 0.5)]) == Verdict(1, 1, 0)
    assert judge(expected, [(1, "a", 0.5), (2, "b", 0.3), (3, "c", 0.1)]) == Verdict(0, 0, 2)


def test_the_judge_sees_a_client_that_is_believed_to_be_empty(arena):
    arena.world.sql("alter table restless rename to away; create table restless (like away including all)")
    arena.world.grant()
    arena.trial_beside("edits rows", kill=False)
    arena.world.sql("drop table restless; alter table away rename to restless")
    assert "an empty run" in arena.tally.wrong[0]
    assert arena.naive_verdict_beside("deletes half", 2).lost > 0
