"""Slack, as far as it can be tried without it: every answer becomes an acknowledgement, a refusal or a wait."""

from __future__ import annotations

import json
import logging.config
import time
from urllib.request import urlopen

import pytest

import slack_stand_in as faults
from plantao.alert import slack
from plantao.alert.slack import messenger, plain
from plantao.errors import AlertRefused, AlertUnavailable, UsageError
from slack_stand_in import SlackStandIn

SECTION = [{"type": "section", "text": {"type": "mrkdwn", "text": "*hey*, 1 &lt; 2"}}]


@pytest.fixture
def there():
    with SlackStandIn() as running:
        yield running


@pytest.fixture
def bot(there):
    return messenger({"AIRFLOW_CONN_SLACK": there.connection()})


@pytest.fixture
def hook(there):
    return messenger({"AIRFLOW_CONN_SLACK": there.webhook()})


def test_a_bot_posts_replies_and_sends_a_picture_into_the_thread(there, bot):
    ts = bot.post("#ops", "hello", SECTION)
    reply = bot.post("#ops", "still", SECTION, thread=ts)
    bot.upload("#ops", b"\x89PNG", "ROC AUC over time", thread=ts)
    assert [(one.channel, one.thread, one.ts) for one in there.messages] == [("#ops", None, ts), ("#ops", ts, reply)]
    assert [(one.picture, one.text, one.thread) for one in there.pictures] == [(b"\x89PNG", "ROC AUC over time", ts)]
    shown = urlopen(there.url).read().decode()  # noqa: S310 - a server of ours
    assert "<b>hey</b>, 1 &lt; 2" in shown
    assert f"/picture/{there.pictures[0].ts}" in shown


def test_a_job_without_a_channel_uses_the_connections_and_without_that_is_refused(there, bot):
    bot.post(None, "hello", SECTION)
    assert there.messages[0].channel == "#on-call"
    with pytest.raises(AlertRefused, match=r"no channel is named.*\[alert\] channel"):
        messenger({"AIRFLOW_CONN_SLACK": there.connection(channel=None)}).post(None, "hello", SECTION)


@pytest.mark.parametrize("kind", ["bot", "hook"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.rate_limited(30), "rate_?limited"),
        (faults.error(500), "status 500"),
        (faults.error(503), "status 503"),
        (faults.reset(), "cannot be reached"),
        (faults.lost(), "cannot be reached"),
        (faults.Fault("html"), "not Slack"),
    ],
)
def test_what_may_pass(there, request, kind, fault, said):
    there.faults.append(fault)
    with pytest.raises(AlertUnavailable, match=said) as raised:
        request.getfixturevalue(kind).post("#ops", "hello", SECTION)
    assert raised.value.retry_after == (30 if fault.how == "rate_limited" else None)
    # Nothing is sent again by the library itself: of a repeat somebody has to know.
    assert len(there.asked) == 1


@pytest.mark.parametrize("kind", ["bot", "hook"])
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("token_revoked", "the token"), ("invalid_auth", "the token"), ("is_archived", "the channel"),
        ("no_service", "the channel"), ("invalid_blocks", "the message"), ("something_new", "the message"),
    ],
)  # fmt: skip
def test_what_will_not(there, request, kind, word, said):
    there.faults.append(faults.refuse(word))
    with pytest.raises(AlertRefused, match=f"Slack refuses {said}: {word}") as raised:
        request.getfixturevalue(kind).post("#ops", "hello", SECTION)
    assert raised.value.reason == word
    assert raised.value.next_step


def test_the_stand_in_refuses_as_slack_does(there, bot):
    long = [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}]
    empty = [{"type": "section", "text": {"type": "mrkdwn", "text": ""}}]
    for blocks in (SECTION * 51, long, empty, [{"type": "nonsense"}]):
        with pytest.raises(AlertRefused, match="invalid_blocks"):
            bot.post("#ops", "hello", blocks)
    bot.post("#ops", "hello", SECTION * 50)
    with pytest.raises(AlertRefused, match="channel_not_found"):
        bot.post("#nowhere", "hello", SECTION)
    with pytest.raises(AlertRefused, match="thread_not_found"):
        bot.post("#ops", "hello", SECTION, thread="1.0")
    there.archived.add("#ops")
    with pytest.raises(AlertRefused, match="is_archived"):
        bot.post("#ops", "hello", SECTION)
    with pytest.raises(AlertRefused, match="invalid_auth"):
        messenger({"AIRFLOW_CONN_SLACK": there.connection(token="xoxb-other")}).post("#on-call", "hello", SECTION)


@pytest.mark.parametrize("kind", ["bot", "hook"])
def test_a_slack_that_hangs_is_left_alone_after_a_while(there, request, monkeypatch, kind):
    monkeypatch.setattr(slack, "SECONDS", 0.2)
    sender = request.getfixturevalue(kind)
    there.faults.append(faults.hang())
    began = time.monotonic()
    with pytest.raises(AlertUnavailable, match="cannot be reached"):
        sender.post("#ops", "hello", SECTION)
    assert time.monotonic() - began < 30  # it hangs for a minute


def test_a_slack_that_sends_a_byte_now_and_then_is_left_alone_too(there, bot, monkeypatch):
    monkeypatch.setattr(slack, "DEADLINE", 0.2)
    there.faults.append(faults.hang(3))
    with pytest.raises(AlertUnavailable, match="did not answer"):
        bot.post("#ops", "hello", SECTION)


def test_a_webhook_posts_and_neither_replies_nor_takes_pictures(there, hook):
    assert hook.post("#ignored", "hello", SECTION, thread="1.0") == ""
    assert there.messages[0].thread is None
    with pytest.raises(AlertRefused, match="no pictures"):
        hook.upload(None, b"", "chart")
    other = json.dumps({"conn_type": "slackwebhook", "password": f"{there.url}/services/T/B/other"})
    with pytest.raises(AlertRefused, match="no_service"):
        messenger({"AIRFLOW_CONN_SLACK": other}).post(None, "hello", SECTION)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("slackwebhook://:T0%2FB0%2FXX@", "https://hooks.slack.com/services/T0/B0/XX"),
        ('{"conn_type": "slackwebhook", "password": "T0/B0/XX", "host": "https://here/services"}', "https://here/services/T0/B0/XX"),
    ],
)  # fmt: skip
def test_a_webhook_as_airflow_writes_it(text, url):
    assert slack.from_environment({"AIRFLOW_CONN_SLACK": text}).url == url


def test_without_slack_the_message_is_in_the_log_and_nothing_is_secret_in_a_repr(there, caplog, bot):
    logger = messenger({})
    with caplog.at_level("WARNING", "plantao"):
        logger.post("#ops", "hello", SECTION)
    assert "this is for #ops:\n*hey*, 1 < 2" in caplog.text
    assert logger.name == "log"
    assert messenger({"AIRFLOW_CONN_SLACK": ""}).name == "log"
    assert "secret" not in repr(slack.from_environment({"AIRFLOW_CONN_SLACK": there.connection()}))
    assert "secret" not in repr(slack.from_environment({"AIRFLOW_CONN_SLACK": there.webhook()}))
    with pytest.raises(UsageError, match="holds no token"):
        messenger({"AIRFLOW_CONN_SLACK": "slackwebhook://"})


def test_plain_says_what_a_message_says():
    blocks = [*SECTION, {"type": "divider"}, {"type": "context", "elements": [{"type": "mrkdwn", "text": "a &amp; b"}]}]
    assert plain(blocks) == "*hey*, 1 < 2\na & b"


@pytest.mark.parametrize("kind", ["bot", "hook"])
def test_the_librarys_own_log_tells_no_secret(there, request, caplog, kind):
    secrets = [there.connection(), there.webhook()]
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # as Airflow does
    with caplog.at_level("DEBUG"):
        request.getfixturevalue(kind).post("#ops", "hello", SECTION)
        there.faults.append(faults.refuse("no_service"))
        with pytest.raises(AlertRefused):
            request.getfixturevalue(kind).post("#ops", "hello", SECTION)
    hidden = [slack.from_environment({"AIRFLOW_CONN_SLACK": text}) for text in secrets]
    assert hidden[0].token not in caplog.text
    assert hidden[1].url not in caplog.text
