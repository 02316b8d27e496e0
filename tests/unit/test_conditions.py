"""An incident opens once, is told again when it has clearly grown, and closes on evidence."""

from __future__ import annotations

from datetime import UTC, date
from types import SimpleNamespace

import pytest

from plantao.measure import drift as drifting
from plantao.measure.detect import drift
from plantao.measure.detect.conditions import Subject, column_mark, of_break, of_episode, unjudged
from plantao.measure.detect.findings import Break, Episode, NotJudged
from plantao.measure.records import Counted
from plantao.outbox.incident import Close, Condition, Incident, Open, Worsen, changes, fingerprint

DAY = date(2013, 7, 1)


def condition(mark="a", word="broken", severity=1.0):
    return Condition("break", mark, word, severity, DAY, "", "")


def incident(mark="a", word="broken", severity=1.0):
    return Incident(7, mark, word, severity)


def test_what_is_new_opens_and_what_is_gone_closes():
    new, old = condition("new"), incident("old")
    assert changes([old], [new]) == [Open(new), Close(old)]
    assert changes([], []) == []


def test_the_same_trouble_on_another_day_is_not_told_again():
    assert changes([incident()], [condition(severity=1.49)]) == []
    assert changes([incident(severity=3.0)], [condition(severity=0.1)]) == []


def test_it_has_worsened_when_it_grew_by_half_or_got_a_graver_word():
    grown = condition(severity=1.5)
    assert changes([incident()], [grown]) == [Worsen(incident(), grown)]
    graver = condition(word="degraded", severity=0.1)
    assert changes([incident(word="watch")], [graver]) == [Worsen(incident(word="watch"), graver)]
    assert changes([incident(word="degraded")], [condition(word="watch", severity=9)]) == []


@pytest.mark.parametrize(("before", "after"), [(None, 5.0), (1.0, None), (None, None), (0.0, 5.0)])
def test_without_a_severity_only_the_word_decides(before, after):
    assert changes([incident(severity=before)], [condition(severity=after)]) == []


def test_what_could_not_be_judged_stays_open():
    blind = [NotJudged("null_share", "dep_hour", "not_enough", "")]
    old = incident("break null_share dep_hour")
    assert changes([old], [], unjudged(blind)) == []
    assert changes([old], []) == [Close(old)]


def test_of_two_conditions_with_one_fingerprint_the_graver_counts():
    graver = condition(word="degraded")
    for both in ([graver, condition(word="watch", severity=9)], [condition(word="watch", severity=9), graver]):
        assert changes([], both) == [Open(graver)]


def test_fingerprints_say_what_makes_it_the_same_condition():
    assert fingerprint("degraded", "roc_auc", "", "v3") == "degraded roc_auc v3"
    found = of_break(Break("null_share", "dep_hour", 1.0, 0.02, 800, "dep_hour: …"), DAY)
    assert (found.fingerprint, found.word, found.severity) == ("break null_share dep_hour", "broken", 50)
    assert "source" in found.next_step
    assert of_break(Break("row_count", "", 1, 400, 1, ""), DAY).fingerprint == "break row_count"


def test_a_column_called_score_is_not_the_score(monkeypatch):
    named = ["", "score", '"score"', '"', "x", "a score"]
    marks = [column_mark(column) for column in named]
    assert len(set(marks)) == len(named)
    assert [marks[0], *marks[4:]] == ["score", "x", "a score"]  # as they always were
    monkeypatch.setattr(drift, "episodes", lambda *_: [Episode(DAY, None, 2.0, DAY, "far")])
    job = SimpleNamespace(zone=UTC)
    reference = {"columns": {"score": {}, "x": {}}, "score": {}}
    compared = drifting._Compared(job, "champion", Counted(3, 1, {}), reference)
    found = {one.fingerprint: (one.details["column"], one.message) for one in compared.conditions(DAY)}
    assert found == {
        "drift score v3": ("", "the score has moved away from the reference: far"),
        'drift "score" v3': ("score", '"score" has moved away from the reference: far'),
        "drift x v3": ("x", "x has moved away from the reference: far"),
    }


def test_degraded_and_watch_are_one_condition_and_improved_is_another():
    episode = Episode(DAY, None, 3.0, DAY, "why")
    subject = Subject("roc_auc", 3)
    words = ("degraded", "watch", "improved")
    marks = [of_episode(subject, episode, word).fingerprint for word in words]
    assert marks == ["degraded roc_auc v3", "degraded roc_auc v3", "degraded roc_auc v3 improved"]
    found = of_episode(Subject("roc_auc", 3, "origin=JFK"), episode, "degraded")
    assert found.fingerprint == "degraded roc_auc origin=JFK v3"
    assert found.message == "roc_auc of origin=JFK of version 3 is degraded: why"
    assert (found.severity, found.since, found.details["worst_day"]) == (3.0, DAY, "2013-07-01")
