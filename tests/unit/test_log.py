"""The log: one event, several places, each with a level of its own, and no secret in any of them."""

from __future__ import annotations

import json
import logging
import re

import pytest

from plantao import log
from plantao.errors import UsageError


@pytest.fixture(autouse=True)
def untouched():
    """Leave the logger as it was."""
    handlers, level, propagate = list(log.logger.handlers), log.logger.level, log.logger.propagate
    yield
    for handler in [handler for handler in log.logger.handlers if handler not in handlers]:
        handler.close()
    log.logger.handlers[:] = handlers
    log.logger.setLevel(level)
    log.logger.propagate = propagate


def test_each_place_has_its_own_level(tmp_path, capsys):
    path = tmp_path / "plantao.log"
    env = {"PLANTAO_LOG_TERMINAL_LEVEL": "error", "PLANTAO_LOG_FILE": str(path), "PLANTAO_LOG_FILE_LEVEL": "debug"}
    log.from_environment(environment=env)
    log.event("looked closely", {"job": "j", "run": 7, "step": "load", "rows": 3}, log.DEBUG)
    log.event("it broke", {"job": "j"}, log.FATAL)
    shown = capsys.readouterr().err
    assert re.fullmatch(r"\d\d:\d\d:\d\d FATAL   it broke: job=j\n", shown)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert re.match(r"20\d\d-\d\d-\d\dT.*\+00:00$", first.pop("at"))
    assert first == {
        "level": "debug", "event": "looked closely", "job": "j", "run_id": 7, "step": "load", "fields": {"rows": 3},
    }  # fmt: skip
    assert second["level"] == "fatal"


def test_quiet_is_for_the_terminal_only(tmp_path, capsys):
    path = tmp_path / "plantao.log"
    log.from_environment(quiet=True, environment={"PLANTAO_LOG_FILE": str(path)})
    log.event("went well", {})
    assert capsys.readouterr().err == ""
    assert "went well" in path.read_text()


def test_the_file_is_rotated(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "FILE_BYTES", 500)
    log.from_environment(quiet=True, environment={"PLANTAO_LOG_FILE": str(tmp_path / "p.log")})
    for _ in range(40):
        log.event("went well", {"text": "x" * 80})
    assert len(list(tmp_path.iterdir())) == log.FILES


def test_a_level_that_is_none_and_a_file_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(UsageError, match="accepted are debug, info, warning, error, fatal, off"):
        log.from_environment(environment={"PLANTAO_LOG_TERMINAL_LEVEL": "loud"})
    with pytest.raises(UsageError, match="cannot be written"):
        log.from_environment(environment={"PLANTAO_LOG_FILE": str(tmp_path / "no" / "p.log")})


def test_what_comes_from_elsewhere_is_an_event_too(tmp_path):
    path = tmp_path / "p.log"
    log.from_environment(quiet=True, environment={"PLANTAO_LOG_FILE": str(path)})
    log.logger.getChild("other").warning("said %s", "password=hunter2secret")
    found = json.loads(path.read_text())
    assert (found["level"], found["event"], found["fields"]) == ("warning", "said password=***", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgres://me:hunter2@db:5432/x", "postgres://me:***@db:5432/x"),
        ("host=db password=hunter2 dbname=x", "host=db password=*** dbname=x"),
        ("host=db password='two words' dbname=x", "host=db password=*** dbname=x"),
        ('{"password": "hunter2", "a": 1}', '{"password": ***, "a": 1}'),
        ("xoxb-12-ab and xapp-1-x", "xoxb-*** and xapp-***"),
        ("https://hooks.slack.com/services/T0/B0/abc said no", "https://hooks.slack.com/services/*** said no"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("nothing to hide: 3 tokens left", "nothing to hide: 3 tokens left"),
    ],
)
def test_secrets_are_masked(text, said):
    assert log.masked(text) == said


def test_a_secret_that_was_met_is_masked_wherever_it_stands(caplog):
    log.hide("correct horse battery")
    log.hide("no")  # too short: it would mask half of every sentence
    log.logger.propagate = True
    log.event("said", {"what": "it is correct horse battery, no?"}, logging.WARNING)
    log._hidden.clear()
    assert "it is ***, no?" in caplog.text
