"""Where a process works: addresses, settings, and that no secret is ever printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from plantao import runtime
from plantao.config import address, settings
from plantao.errors import UsageError
from plantao.postgres.session import dsn

SECRET = "p@ss w%rd/é"


def test_an_airflow_uri_is_read_with_everything_in_it():
    found = address.parse("c", "postgres://me:p%40ss%20w%25rd%2F%C3%A9@db.example.com:6432/shop?sslmode=require&x=1")
    assert found.parameters == {
        "host": "db.example.com",
        "port": "6432",
        "dbname": "shop",
        "user": "me",
        "password": SECRET,
        "sslmode": "require",
    }


def test_airflows_json_is_read_too():
    text = {"conn_type": "postgres", "host": "h", "login": "me", "password": SECRET, "schema": "shop", "port": 1}
    found = address.parse("c", json.dumps({**text, "extra": {"sslmode": "disable", "cursor": "dict"}}))
    assert found.parameters["password"] == SECRET
    assert found.parameters["sslmode"] == "disable"
    assert "cursor" not in found.parameters
    assert address.parse("c", json.dumps({**text, "extra": '{"sslmode": "allow"}'})).parameters["sslmode"] == "allow"


@pytest.mark.parametrize("host", ["db.example.com", "/var/run/my socket", "::1"])
def test_the_url_leads_back_to_the_same_address(host):
    parts = {"port": 6432, "database": "my shop", "login": "me", "password": SECRET, "extra": {"sslmode": "require"}}
    found = address.from_parts("c", host=host, **parts)
    again = address.parse("c", found.url())
    assert again.parameters == found.parameters


def test_a_password_is_never_shown():
    found = address.parse("c", f"postgres://me:{'topsecret'}@h/d")
    assert "topsecret" not in f"{found} {found!r} {found.url(password=False)}"
    assert "topsecret" in found.url()
    assert "topsecret" in dsn(found, "x")


@pytest.mark.parametrize(
    "text", ["mysql://me:topsecret@h/d", "topsecret", '{"password": "topsecret"', "postgres://h:topsecret"]
)
def test_what_cannot_be_read_is_refused_without_repeating_it(text):
    with pytest.raises(UsageError, match="AIRFLOW_CONN_SHOP") as caught:
        address.parse("shop", text)
    assert "topsecret" not in "".join(traceback.format_exception(caught.value))


def test_an_empty_variable_counts_as_not_set(tmp_path):
    assert address.from_environment("c", {"AIRFLOW_CONN_C": ""}) is None
    found = settings.read({"PLANTAO_HOME": str(tmp_path), "PLANTAO_JOBS": "", "PLANTAO_SCHEMA": ""})
    assert found.jobs == tmp_path / "include" / "jobs"
    assert found.schema == "plantao"
    assert found.model_store.address == str(tmp_path / ".plantao" / "models")
    assert found.model_store.beside_code == tmp_path / "include" / "models"
    assert found.model_store.cache == tmp_path / ".plantao" / "cache"
    assert found.lock == tmp_path / "requirements.txt"


def test_the_environment_decides(tmp_path):
    given = {"PLANTAO_HOME": str(tmp_path), "PLANTAO_JOBS": "/j", "PLANTAO_MODEL_STORE": "/m", "PLANTAO_SCHEMA": "s"}
    found = settings.read({**given, "PLANTAO_THREADS": "3", "PLANTAO_CACHE": "/c", "PLANTAO_LOCK": "/l"})
    assert (found.jobs, found.model_store.address, found.schema, found.threads) == (Path("/j"), "/m", "s", 3)
    assert (found.model_store.cache, found.lock) == (Path("/c"), Path("/l"))


def test_a_model_may_use_every_core_only_where_waiting_threads_sleep(tmp_path):
    home = {"PLANTAO_HOME": str(tmp_path)}
    cores = settings.usable_cores()
    assert settings.read({**home, "OMP_WAIT_POLICY": "PASSIVE"}).threads == cores
    assert settings.read(home).threads == max(1, cores // 2)
    assert settings.read({**home, "OMP_WAIT_POLICY": "passive", "PLANTAO_THREADS": "1"}).threads == 1


def test_a_process_lets_its_threads_sleep_unless_it_is_too_late_for_that():
    ask = "from plantao import runtime; import os; runtime.from_environment(); print(os.environ.get('OMP_WAIT_POLICY'))"
    for before, expected in (("", "passive"), ("import sklearn; ", "None")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        command = [sys.executable, "-c", before + ask]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("threads", ["many", "0", "-1"])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    with pytest.raises(UsageError, match="PLANTAO_THREADS"):
        settings.read({"PLANTAO_THREADS": threads})


def test_the_home_is_the_nearest_project_upwards(tmp_path, monkeypatch):
    (tmp_path / "include" / "jobs").mkdir(parents=True)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    assert settings.find_home(tmp_path / "deep" / "er") == tmp_path
    # A relative path ends here, whatever stands in the folders above.
    (tmp_path / "empty" / "alone").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty")
    assert settings.find_home(Path("alone")) == Path("alone")


def test_results_go_to_the_client_until_another_database_is_set(tmp_path):
    chosen = settings.read({"PLANTAO_HOME": str(tmp_path)})
    known = {"client_db": address.parse("client_db", "postgres://me@client/shop")}
    found = runtime.find_address("results_db", chosen, known.get)
    assert (found.name, found.parameters) == ("results_db", known["client_db"].parameters)
    known["results_db"] = address.parse("results_db", "postgres://me@elsewhere/results")
    assert runtime.find_address("results_db", chosen, known.get) == known["results_db"]
    with pytest.raises(UsageError, match="set AIRFLOW_CONN_CLIENT_DB"):
        runtime.find_address("results_db", chosen, lambda _: None)


def test_a_connection_that_nobody_set_says_which_variable_it_wants(tmp_path):
    chosen = settings.read({"PLANTAO_HOME": str(tmp_path)})
    for name in ("client_db", "warehouse"):
        with pytest.raises(UsageError, match=f"set AIRFLOW_CONN_{name.upper()} to postgres://"):
            runtime.find_address(name, chosen)


@pytest.mark.parametrize(
    ("given", "asked", "opened"),
    [
        ({}, None, None),
        ({"PLANTAO_AIRFLOW_URL": "http://api:8080"}, "http://api:8080", "http://api:8080"),
        ({"AIRFLOW__API__BASE_URL": "https://us"}, "https://us", "https://us"),
        ({"PLANTAO_AIRFLOW_URL": "http://api", "AIRFLOW__API__BASE_URL": "https://us"}, "http://api", "https://us"),
    ],
)
def test_programs_may_ask_airflow_elsewhere_than_where_people_open_it(given, asked, opened):
    found = settings.read({"PLANTAO_HOME": "/", **given})
    assert (found.airflow_url, found.airflow_page) == (asked, opened)
