"""A connection pooler in between: in session mode all is as without it, in any other mode it is refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import replace

import psycopg2
import pytest

import debian_packages
from plantao.errors import ServerRefused
from plantao.ledger.request import Request
from plantao.postgres import embedded, session
from plantao.postgres.session import dsn
from plantao.postgres.snapshot import open_snapshot
from plantao.preflight.check import check
from plantao.run import run
from plantao.runtime import Place
from world import JOB, WORKER, day

SETTINGS = "search_path", "statement_timeout", "row_security", "TimeZone", "lock_timeout"


@pytest.fixture(scope="module")
def poolers(server):
    """PgBouncer in front of the server, in each mode: the folders of their sockets."""
    program = debian_packages.need("pgbouncer")
    account, prefix = embedded._account(), embedded._Runner(server).prefix
    folders, running = {}, []
    for mode in ("session", "transaction", "statement"):
        folder = folders[mode] = server.state.parent / f"pgbouncer-{mode}"  # where the server's account gets
        folder.mkdir()
        (folder / "users").write_text(f'"{WORKER}" ""\n"{embedded.USER}" ""\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host={server.socket_folder} port=5432\n[pgbouncer]\nlisten_port = 5432\n"
            f"unix_socket_dir = {folder}\nunix_socket_mode = 0700\nauth_type = trust\nauth_file = {folder}/users\n"
            f"pool_mode = {mode}\nlogfile = {folder}/log\n"
        )
        identity = {}
        if account is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
            identity = {} if prefix else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        command = [*prefix, str(program), "-q", str(folder / "ini")]
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", **identity))
    for folder in folders.values():
        while not (folder / ".s.PGSQL.5432").exists():
            assert all(process.poll() is None for process in running)
            time.sleep(0.02)
    yield folders
    for process in running:
        process.terminate()
        process.wait()


def through(world, folder):
    """Return the place of a deployment whose connections all lead through a pooler."""

    def address(name):
        direct = world.address(name)
        return replace(direct, parameters={**direct.parameters, "host": str(folder)})

    return Place(world.place.settings, address)


def settings_of(address):
    """Return what a client's own application finds in the session that it gets."""
    with contextlib.closing(psycopg2.connect(dsn(address, "client"))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("select " + ", ".join(f"current_setting('{name}')" for name in SETTINGS))
        return cursor.fetchone()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_shares_sessions_is_refused_and_nothing_is_left_behind(world, poolers, mode):
    job, place = world.ready(), through(world, poolers[mode])
    before = settings_of(place.address("client_db"))
    with pytest.raises(ServerRefused, match="PgBouncer") as refused:
        run.score_window(Request(job, day(1)), place)
    assert "pool_mode=session" in refused.value.next_step
    with pytest.raises(ServerRefused):  # the other driver asks too
        open_snapshot(place.address("client_db"))
    lines = {line.of: line.answer for line in check(place).lines}
    assert lines["client_db: connection"].state == "FAIL"
    assert "pool_mode=session" in lines["client_db: connection"].cure
    assert settings_of(place.address("client_db")) == before
    assert world.attempts() == []


def test_an_idle_pool_with_several_processes_does_not_hide_its_mode(world, poolers):
    # Each session is given a process of its own now, but none keeps it.
    place = through(world, poolers["transaction"])
    address = place.address("client_db")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(contextlib.closing(psycopg2.connect(dsn(address, "client"))))
            connection.cursor().execute("select 1")
    with pytest.raises(ServerRefused), session.session(address, "plantao"):
        pass


@pytest.mark.parametrize("source", ['table     = "public.readings"', 'query = "select * from readings"'])
def test_a_pooler_in_session_mode_is_no_hindrance(world, poolers, source):
    job = world.ready(JOB.replace('table     = "public.readings"', source, 1))
    place = through(world, poolers["session"])
    assert run.score_window(Request(job, day(1)), place).counts.scored == 20
    assert run.score_window(Request(job, day(1)), place).counts.already_scored == 20
    assert not [line for line in check(place).lines if line.answer.state == "FAIL" and line.of.startswith("client_db")]
