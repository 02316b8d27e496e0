"""The driver's knowledge of types is shared by a process's connections, and never older than the database's types."""

from __future__ import annotations

import adbc_driver_postgresql
import pytest

from plantao.postgres import adbc_databases
from plantao.postgres.replaced import whole_snapshot


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Every database that the driver has opened, and so read the catalogue of."""
    monkeypatch.setattr(adbc_databases, "_databases", {})
    found, connect = [], adbc_driver_postgresql.connect
    monkeypatch.setattr(adbc_driver_postgresql, "connect", lambda dsn: found.append(dsn) or connect(dsn))
    return found


def test_the_catalogue_is_read_once_for_many_connections(world, opened):
    for name in ("plantao/first", "plantao/it's"):
        with whole_snapshot(world.address("client_db"), name) as snapshot:
            assert snapshot.value("select current_setting('application_name')") == name
    assert len(opened) == 1


@pytest.mark.parametrize(
    "change",
    [
        "create type public.mood as enum ('good', 'bad')",
        "drop type public.mood; create type public.mood as enum ('good', 'bad')",
    ],
)
def test_a_type_that_is_new_is_known(world, opened, change):
    world.sql("create type public.mood as enum ('good')" if change.startswith("drop") else "select 1")
    with whole_snapshot(world.owner("client_db")) as snapshot:
        snapshot.value("select 1")
    world.sql(change)
    with whole_snapshot(world.owner("client_db")) as snapshot:
        assert snapshot.value("select 'bad'::public.mood") == "bad"
    assert len(opened) == 2


def test_two_connections_at_a_time_are_two_sessions(world, opened):
    address = world.address("client_db")
    with whole_snapshot(address) as one, whole_snapshot(address) as other:
        assert one.value("select pg_backend_pid()") != other.value("select pg_backend_pid()")
    assert len(opened) == 1


def test_only_the_last_databases_are_kept(world, opened, monkeypatch):
    monkeypatch.setattr(adbc_databases, "KEPT", 1)
    addresses = world.address("client_db"), world.owner("client_db")
    for address in (*addresses, addresses[0]):
        with whole_snapshot(address) as snapshot:
            assert snapshot.value("select 1") == 1
    assert len(adbc_databases._databases) == 1
    assert len(opened) == 3
