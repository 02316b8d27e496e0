"""The registered versions, and which one is champion: the tables `models` and `model_timeline`.

The database is the authority. A folder in the store that is not registered here is not a version, and a file whose
SHA-256 is not the one written here is not opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao import database
from plantao.errors import ModelMissing, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, RowMapping

    from plantao.score.manifest import Manifest


@dataclass(frozen=True)
class Registered:
    """One version as the database knows it."""

    model: str
    version: int
    sha256: str


def register(connection: Connection, manifest: Manifest, uri: str, who: str) -> bool:
    """Enter a version; the first of a model becomes champion. Returns whether it did.

    Raises UsageError when the version is registered with another hash.
    """
    insert = text(
        "insert into models (model, version, sha256, uri, created_at, created_by, environment, contract, reference,"
        " metrics) values (:model, :version, :sha256, :uri, :created_at, :created_by, cast(:environment as jsonb),"
        " cast(:contract as jsonb), cast(:reference as jsonb), cast(:metrics as jsonb))"
        " on conflict (model, version) do nothing"
    )
    values = {
        "model": manifest.model,
        "version": manifest.version,
        "sha256": manifest.sha256,
        "uri": uri,
        "created_at": manifest.created_at,
        "created_by": manifest.created_by,
        "environment": json.dumps(manifest.environment),
        "contract": manifest.contract.model_dump_json(),
        "reference": json.dumps(manifest.reference),
        "metrics": json.dumps(manifest.metrics),
    }
    first = text(
        "insert into model_timeline (model, version, live_from, who, why)"
        " select :model, :version, now(), :who, 'the first version registered'"
        " where not exists (select from model_timeline where model = :model) returning entry_id"
    )
    with database.explained("", UsageError, f"registering {manifest.name}"), connection.begin():
        connection.execute(
            text("select pg_advisory_xact_lock(hashtextextended('plantao.models ' || :m, 0))"), {"m": manifest.model}
        )
        connection.execute(insert, values)
        known = text("select sha256 from models where model = :model and version = :version")
        if connection.execute(known, values).scalar_one() != manifest.sha256:
            message = f"model {manifest.name} is registered already, with another file; a version never changes."
            raise UsageError(message, "register without --version to get the next number")
        return connection.execute(first, {**values, "who": who}).first() is not None


def champion(connection: Connection, model: str) -> Registered:
    """Return the version that is live now. Raises ModelMissing when there is none."""
    query = text(
        "select m.model, m.version, m.sha256 from model_timeline t join models m using (model, version)"
        " where t.model = :model and t.live_from <= now() and (t.live_until is null or now() < t.live_until)"
    )
    with connection.begin():
        row = connection.execute(query, {"model": model}).first()
    if row is None:
        message = f"model {model!r} has no champion in this database. No row was read and nothing was written."
        raise ModelMissing(message, f"run: plantao models register PATH --name {model} …", "score")
    return Registered(row.model, row.version, row.sha256)


def named(connection: Connection, model: str, version: int) -> Registered:
    """Return a version by its number. Raises ModelMissing when it is not registered."""
    query = text("select model, version, sha256 from models where model = :model and version = :version")
    with connection.begin():
        row = connection.execute(query, {"model": model, "version": version}).first()
    if row is None:
        message = f"model {model}/{version} is not registered in this database. No row was read, nothing was written."
        raise ModelMissing(message, "plantao models list shows the registered versions", "score")
    return Registered(row.model, row.version, row.sha256)


def versions(connection: Connection, model: str | None = None) -> list[RowMapping]:
    """Return the registered versions with the time since when each is champion, if it is."""
    query = text(
        "select m.model, m.version, m.sha256, m.uri, m.created_at, m.created_by, m.metrics, t.live_from"
        " from models m left join model_timeline t on t.model = m.model and t.version = m.version"
        " and t.live_from <= now() and (t.live_until is null or now() < t.live_until)"
        " where cast(:model as text) is null or m.model = :model order by m.model, m.version"
    )
    with connection.begin():
        return list(connection.execute(query, {"model": model}).mappings())


def live_since(connection: Connection, model: str) -> datetime | None:
    """Return when the first version of a model went live."""
    query = text("select min(live_from) from model_timeline where model = :model")
    with connection.begin():
        moment: datetime | None = connection.execute(query, {"model": model}).scalar()
    return moment
