"""The demo's stack: which port it takes, and which job files it needs."""

from __future__ import annotations

import socket

import pytest

from demo import __main__ as demo
from demo import stack
from plantao import runtime
from plantao.errors import UsageError


@pytest.mark.parametrize(("given", "port"), [("9000", 9000), ("", 8080), (None, 8080)])
def test_the_port_can_be_chosen(monkeypatch, given, port):
    monkeypatch.delenv("PLANTAO_DEMO_PORT")
    if given is not None:
        monkeypatch.setenv("PLANTAO_DEMO_PORT", given)
    assert stack.wanted_port() == port


@pytest.mark.parametrize("given", ["ui", "80", "-1", "70000", "80.5", "²"])
def test_what_is_no_port_is_refused_with_what_is_one(monkeypatch, given):
    monkeypatch.setenv("PLANTAO_DEMO_PORT", given)
    with pytest.raises(UsageError, match=r"PLANTAO_DEMO_PORT is .*accepted is a whole number from 1024"):
        stack.wanted_port()


def test_a_port_that_is_taken_is_left_alone():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert stack.free_port(port) > port


def test_a_home_without_the_demos_job_files_is_refused_in_words(monkeypatch, tmp_path):
    monkeypatch.setenv("PLANTAO_HOME", str(tmp_path))
    monkeypatch.setenv("PLANTAO_JOBS", str(tmp_path))
    with pytest.raises(UsageError, match=r"no job file in .* has the model flight_delay of the demo") as said:
        demo._job_with("flight_delay", runtime.from_environment())
    assert str(said.value).endswith("\nunset PLANTAO_HOME PLANTAO_JOBS")
