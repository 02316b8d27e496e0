"""`plantao alerts`, and the picture that goes with a degradation."""

from __future__ import annotations

import json
import sys

import pytest

import slack_stand_in as faults
import story
from plantao import cli
from plantao.alert import slack
from plantao.alert.send import deliver_everywhere
from plantao.alert.slack import messenger
from slack_stand_in import SlackStandIn


class Terminal:
    def __init__(self, world, there, monkeypatch, capsys) -> None:
        self.world, self.there, self.monkeypatch, self.capsys = world, there, monkeypatch, capsys
        self.job = story.tell(world)
        for name, value in {**world.environment, "AIRFLOW_CONN_SLACK": there.connection()}.items():
            monkeypatch.setenv(name, value)

    def plantao(self, *arguments):
        self.monkeypatch.setattr(sys, "argv", ["plantao", "-q", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.entry()
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    def degrade(self):
        (incident,) = self.world.sql(
            "select incident_id from plantao.incidents where word = 'degraded' and state = 'open' limit 1"
        )[0]
        self.world.sql(
            "insert into plantao.alerts (job, kind, fingerprint, message, next_step, incident_id) values"
            " ('flight_delay', 'degraded', 'degraded flight_delay x', 'flight_delay: roc_auc is degraded', 'look', %s)",
            (incident,),
        )
        return incident


@pytest.fixture
def terminal(world, monkeypatch, capsys):
    with SlackStandIn() as there:
        yield Terminal(world, there, monkeypatch, capsys)


def test_a_degradation_comes_with_its_picture_in_the_thread(terminal):
    terminal.degrade()
    deliver_everywhere(terminal.world.place, messenger())
    (page,) = [one for one in terminal.there.messages if "roc_auc is degraded" in one.words]
    (picture,) = terminal.there.pictures
    assert picture.picture.startswith(b"\x89PNG")
    assert (picture.thread, picture.text) == (page.ts, "flight_delay over time")
    assert terminal.world.sql("select picture, channel from plantao.digests where picture is not null") == [
        ("sent", "C00000001")
    ]
    assert terminal.world.sql("select details ->> 'to' from plantao.heartbeats where component = 'digest'") == [
        ("slack",)
    ]


def test_a_picture_that_cannot_be_sent_now_is_sent_later_by_another_process(terminal):
    terminal.degrade()
    terminal.there.only = "files"
    terminal.there.faults.append(faults.error(503))
    deliver_everywhere(terminal.world.place, messenger())
    assert terminal.there.pictures == []
    deliver_everywhere(terminal.world.place, messenger())
    assert len(terminal.there.pictures) == 1
    terminal.degrade()
    terminal.there.faults.append(faults.refuse("missing_scope"))
    deliver_everywhere(terminal.world.place, messenger())
    deliver_everywhere(terminal.world.place, messenger())
    assert len(terminal.there.pictures) == 1


def test_a_test_goes_the_whole_way_and_waits_for_the_acknowledgement(terminal):
    status, out, _ = terminal.plantao("alerts", "test", "flight_delay")
    assert status == 0
    assert "acknowledged by slack C00000001, message" in out
    assert any("if you can read this, alerts of this job reach you" in one.words for one in terminal.there.messages)


def test_a_test_that_nobody_acknowledges_says_why(terminal):
    terminal.there.fault = faults.refuse("token_revoked")
    status, _, err = terminal.plantao("alerts", "test", "flight_delay", "--wait", "1")
    assert status == 1
    assert "was not acknowledged within 1 s: Slack refuses the token: token_revoked" in err
    assert err.splitlines()[-1].count("Next: ") == 1
    status, _, err = terminal.plantao("alerts", "test", "flight_delay", "--wait", "0.1", "--airflow")
    assert "does the DAG plantao-alerts run?" in err


def test_without_slack_a_test_says_that_nobody_on_call_sees_it(terminal):
    terminal.monkeypatch.delenv("AIRFLOW_CONN_SLACK")
    status, out, err = terminal.plantao("alerts", "test", "flight_delay")
    assert (status, "acknowledged by log" in out) == (0, True)
    assert "No Slack is configured" in err


def test_what_is_open_is_listed_silenced_and_acknowledged(terminal):
    incident = terminal.degrade()
    status, out, _ = terminal.plantao("alerts", "list", "--json")
    found = json.loads(out)
    assert status == 0
    assert incident in [one["incident_id"] for one in found["incidents"]]
    assert [one["kind"] for one in found["alerts"]] == ["degraded"]
    assert terminal.plantao("alerts", "ack", str(incident), "--who", "ana")[0] == 0
    status, out, _ = terminal.plantao("alerts", "silence", str(incident), "--for", "2 hours", "--why", "known")
    assert (status, "silent until" in out) == (0, True)
    assert terminal.plantao("alerts", "silence", str(incident), "--for", "soon", "--why", "x")[0] == 2
    assert terminal.plantao("alerts", "ack", "99999")[0] == 2
    _, out, _ = terminal.plantao("alerts", "list")
    assert "ana" in out
    assert terminal.world.sql("select event, who from plantao.incident_events order by event_id")[0] == (
        "acknowledged", "ana",
    )  # fmt: skip
    deliver_everywhere(terminal.world.place, messenger())
    assert not [one for one in terminal.there.messages if "something to tell" in one.words]


def test_a_digest_is_printed_and_sent(terminal):
    terminal.degrade()
    status, out, _ = terminal.plantao("alerts", "digest", "flight_delay")
    assert status == 0
    assert out.startswith("Hey, this is your HOURLY notification digest for *flight_delay*. There is a total of 1")
    assert terminal.there.messages == []
    status, out, _ = terminal.plantao("alerts", "digest", "flight_delay", "--send")
    assert status == 0
    assert "messages sent, 0 waiting" in out
    assert terminal.there.messages
    terminal.degrade()
    terminal.world.sql("update plantao.alerts set route = null, page_id = null, sent_at = null")
    terminal.monkeypatch.setattr(slack, "SECONDS", 0.2)
    terminal.there.fault = faults.error(500)
    status, _, err = terminal.plantao("alerts", "digest", "flight_delay", "--send")
    assert (status, "Slack answered with status 500" in err) == (1, True)
