"""The four bad days are acted out, and each ends with its recovery.

`make release-check` acts them out as a stranger would, each in a process of its own. Here the commands of a day are
forked from a process that has their libraries loaded, and the client's tables are made once for all days.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

import warm
from demo import client_data
from demo.days.stage import Stage
from demo.stack import Stack
from plantao import runtime
from plantao.cli import app
from plantao.config import settings
from plantao.postgres import embedded

ROOT = Path(__file__).parents[2]
# What on-call has read by the end of the day: the trouble, and that it is over.
READ = {
    "day0": ("The model was refused", "Runs work again"),
    "day1": ("Predictions are late", "no run was ever started for it", "Predictions are complete again"),
    "day2": ("A version was promoted against the gate", "The source has changed", "Runs work again"),
    "day60": ("The model has degraded", "data:image/png;base64,", "A degradation is over"),
}


@pytest.fixture(scope="session")
def client(tmp_path_factory) -> Path:
    """A server that was stopped, with the client's tables and Airflow's own: made by one process for all."""
    folder = tmp_path_factory.getbasetemp()
    home = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "client"
    home.mkdir(exist_ok=True)
    chosen = settings.read({"PLANTAO_HOME": str(home)})
    server = embedded.Server(chosen.state)
    with embedded._locked(home / "lock"):
        if not (home / "made").exists():
            embedded.start(server)
            here = runtime.Place(chosen, lambda wanted: runtime.find_address(wanted, chosen, lambda _: None))
            with client_data.connected(here) as connection:
                client_data.fill(connection)
            Stack(chosen)._airflow("db", "migrate")
            embedded.stop(server)
            (home / "made").touch()
    return server.state / "postgres"


@pytest.fixture
def prepared(client, monkeypatch, tmp_path):
    """Let a day begin with a copy of those tables, and its commands with their libraries."""
    start, call, airflow = embedded.start, Stage._call, Stack._airflow

    def start_with_a_copy(server, *given):
        if not server.exists:
            server.state.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", client, server.state], check=True)
        return start(server, *given)

    def call_warm(stage, *arguments):
        if arguments[0] != "-m":
            # A notebook's threads would spin while they wait, and take the processor from the tests beside this one.
            return call(replace(stage, more={**stage.more, "OMP_WAIT_POLICY": "passive"}), *arguments)
        return warm.module(*arguments[1:], environment={**stage.environment, **stage.more}, folder=stage.home)

    def migrated_before(stack, *command):
        return None if command == ("db", "migrate") else airflow(stack, *command)

    monkeypatch.setattr(embedded, "start", start_with_a_copy)
    monkeypatch.setattr(client_data, "fill", lambda _: None)
    monkeypatch.setattr(Stage, "_call", call_warm)
    monkeypatch.setattr(Stack, "_airflow", migrated_before)
    monkeypatch.setitem(sys.modules, "slack_stand_in", sys.modules.get("slack_stand_in"))
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PLANTAO_HOME", str(tmp_path))


@pytest.mark.parametrize("day", READ)
def test_a_day_is_acted_out_and_heals(tmp_path, day, prepared):
    done = CliRunner().invoke(app, ["demo", day])
    assert done.exit_code == 0, done.output + repr(done.exception)
    home = tmp_path / ".plantao" / "days" / day
    page = (home / "slack.html").read_text(encoding="utf-8")
    assert [text for text in READ[day] if text not in page] == []
    assert f"What was posted, as Slack would show it: {home / 'slack.html'}" in done.output
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(home) in " ".join(one.info["cmdline"] or ())]


def test_a_day_that_there_is_not_is_refused_in_words(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "plantao", "demo", "day3"],
        env={**os.environ, "PLANTAO_HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "include")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'day3' is none of the days; there are day0, day1, day2, day60." in done.stderr
