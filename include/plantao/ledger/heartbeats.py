"""Signs of life: the table `heartbeats`."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao.postgres import session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection


def beat(connection: Connection, component: str, details: Mapping[str, Any], at: datetime | None = None) -> None:
    """Write a component's sign of life down, inside the caller's transaction; one that is older changes nothing."""
    statement = text(
        "insert into heartbeats (component, host, at, details)"
        " values (:component, :host, coalesce(:at, clock_timestamp()), cast(:details as jsonb))"
        " on conflict (component) do update set host = excluded.host, at = excluded.at, details = excluded.details"
        " where excluded.at >= heartbeats.at"
    )
    values = {"component": component, "host": socket.gethostname(), "at": at, "details": json.dumps(dict(details))}
    connection.execute(statement, values)


def seen(connection: Connection, component: str) -> datetime:
    """Return when a component was met for the first time, which is now for one that was never met."""
    statement = text(
        "insert into heartbeats (component, host, details)"
        " values (:component, :host, jsonb_build_object('first_seen', clock_timestamp()))"
        " on conflict (component) do update set at = excluded.at, host = excluded.host"
        " returning cast(details ->> 'first_seen' as timestamptz)"
    )
    values = {"component": component, "host": socket.gethostname()}
    moment: datetime = connection.execute(statement, values).scalar_one()
    return moment


def signs(connection: Connection) -> list[dict[str, Any]]:
    """Return the last sign of life of every component, with its age in seconds, by name."""
    query = text(
        "select component, host, at, extract(epoch from now() - at)::double precision as age, details from heartbeats"
        " order by component"
    )
    with session.transaction(connection):
        return [dict(row) for row in connection.execute(query).mappings()]
