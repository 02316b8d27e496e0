"""The registered versions, which one is champion, and what was decided about each: who, when and why.

The database is the authority. A folder in the store that is not registered here is not a version, and a file whose
SHA-256 is not the one written here is not opened. Every decision is an event, in one transaction with its effect.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

from plantao.config.job import Job
from plantao.config.job_file import read_folder
from plantao.errors import ModelMissing, UsageError
from plantao.ledger.migrate import require_current
from plantao.outbox import alerts
from plantao.postgres import driver_errors
from plantao.postgres import session as database
from plantao.postgres.locks import in_turn
from plantao.runtime import DEFAULT_CONNECTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, RowMapping

    from plantao.ledger.request import Request
    from plantao.models.manifest import Manifest
    from plantao.runtime import Place

Change = Literal["promoted", "rolled back"]
Mark = Literal["challenger", "retired"]
Event = Literal["registered"] | Change | Mark


@dataclass(frozen=True)
class Registered:
    """One version as the database knows it."""

    model: str
    version: int
    sha256: str
    note: str | None = None
    """What is worth knowing of how it was chosen."""

    @property
    def name(self) -> str:
        """The version as people write it."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True)
class Decision:
    """Who decided something about a version, and why; with what the gate had found, when that was overruled."""

    who: str
    why: str
    forced: bool = False
    findings: Sequence[str] = ()


def jobs_of(model: str | None, place: Place) -> list[Job]:
    """Return the jobs that use a model, or all of them; a job file with mistakes cannot be asked."""
    jobs = [job for job in read_folder(place.settings.jobs).values() if isinstance(job, Job)]
    return [job for job in jobs if model in {None, job.score.model}]


def databases_of(model: str | None, place: Place) -> list[str]:
    """Return the connections whose databases know a model, or any: those that the jobs using it write to."""
    return sorted({job.load.connection for job in jobs_of(model, place)}) or [DEFAULT_CONNECTION]


@contextmanager
def session(connection: str, place: Place) -> Iterator[Connection]:
    """Open a session where versions are registered. Raises NotInitialised unless that is up to date."""
    address = place.address(connection)
    with database.session(address, place.settings.schema, "plantao/models") as opened:
        require_current(opened, place.settings.schema, str(address))
        yield opened


def register(connection: Connection, manifest: Manifest, uri: str, decision: Decision) -> bool:
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
    with _deciding(connection, manifest.model, f"registering {manifest.name}"):
        is_new = connection.execute(insert, values).rowcount == 1
        known = text("select sha256 from models where model = :model and version = :version")
        if connection.execute(known, values).scalar_one() != manifest.sha256:
            message = f"model {manifest.name} is registered already, with another file; a version never changes."
            raise UsageError(message, "register without --version to get the next number")
        if is_new:
            _write_event(connection, manifest.model, manifest.version, "registered", decision)
        return connection.execute(first, {**values, "who": decision.who}).first() is not None


@contextmanager
def _deciding(connection: Connection, model: str, doing: str) -> Iterator[None]:
    """Open a transaction in which nobody else decides about the model."""
    with driver_errors.explained("", UsageError, doing), connection.begin():
        in_turn(connection, f"plantao.models {model}")
        yield


def _write_event(connection: Connection, model: str, version: int, event: Event, decision: Decision) -> None:
    statement = text(
        "insert into model_events (model, version, event, who, why, forced, findings)"
        " values (:model, :version, :event, :who, :why, :forced, cast(:findings as jsonb))"
    )
    values = {"model": model, "version": version, "event": event, "who": decision.who, "why": decision.why}
    connection.execute(
        statement, {**values, "forced": decision.forced, "findings": json.dumps(list(decision.findings))}
    )


# --- which version ----------------------------------------------------------------------------------------------------


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


def scoring(connection: Connection, request: Request) -> Registered:
    """Return the version whose predictions the client reads: that of the past for a past window, else the champion."""
    model = request.job.score.model
    if request.trigger == "backfill" or request.rescore:
        return live_at(connection, model, request.window.end)
    return champion(connection, model)


def live_at(connection: Connection, model: str, moment: datetime) -> Registered:
    """Return the version that was live just before a moment; before the first one was live, the first one.

    Raises ModelMissing when no version ever was live.
    """
    query = text(
        "select m.model, m.version, m.sha256, t.live_from >= :moment as too_early, t.live_from"
        " from model_timeline t join models m using (model, version) where t.model = :model"
        " order by t.live_from < :moment desc, abs(extract(epoch from t.live_from - :moment)) limit 1"
    )
    with connection.begin():
        row = connection.execute(query, {"model": model, "moment": moment}).first()
    if row is None:
        return champion(connection, model)  # says that there is none
    note = f"no version was live then yet; the first one is, since {row.live_from:%Y-%m-%d}" if row.too_early else None
    return Registered(row.model, row.version, row.sha256, note)


def challengers(connection: Connection, model: str) -> list[Registered]:
    """Return the versions that are scored beside the champion, ascending."""
    query = text(
        "select model, version, sha256 from model_states join models using (model, version)"
        " where model = :model and state = 'challenger' order by version"
    )
    with connection.begin():
        return [Registered(*row) for row in connection.execute(query, {"model": model})]


def beside(connection: Connection, run_id: int) -> list[tuple[int, Registered]]:
    """Return the attempts of challengers that stand beside a champion's and are not closed, each with its version."""
    query = text(
        "select r.run_id, m.model, m.version, m.sha256 from runs r"
        " join models m on m.model = r.model and m.version = r.model_version"
        " where r.beside = :run and r.status = 'running' order by m.version"
    )
    with connection.begin():
        return [(row[0], Registered(*row[1:])) for row in connection.execute(query, {"run": run_id})]


def state_of(connection: Connection, model: str, version: int) -> str:
    """Return what a version is: champion, challenger, retired or registered. Raises ModelMissing."""
    named(connection, model, version)
    return _state(connection, model, version)


def _state(connection: Connection, model: str, version: int) -> str:
    query = text("select state from model_states where model = :model and version = :version")
    with database.transaction(connection):
        return str(connection.execute(query, {"model": model, "version": version}).scalar_one())


# --- decisions --------------------------------------------------------------------------------------------------------


def make_champion(
    connection: Connection,
    model: str,
    version: int,
    decision: Decision,
    event: Change = "promoted",
) -> None:
    """Let a version be the champion from now on. Raises UsageError when it is already, or is retired."""
    close = text("update model_timeline set live_until = :moment where model = :model and live_until is null")
    enter = text(
        "insert into model_timeline (model, version, live_from, who, why)"
        " values (:model, :version, :moment, :who, :why)"
    )
    values: dict[str, Any] = {"model": model, "version": version, "who": decision.who, "why": decision.why}
    refuse = {"champion": "is the champion already.", "retired": "is retired."}
    named(connection, model, version)
    with _deciding(connection, model, f"making {model}/{version} the champion"):
        # Asked here, where nobody else decides: what was true before the wait need not be true any more.
        if (state := _state(connection, model, version)) in refuse:
            message = f"model {model}/{version} {refuse[state]} Nothing was changed."
            raise UsageError(message, "plantao models list shows the versions")
        # Not now(), which is when the transaction began to wait: another decision may have been made since.
        values["moment"] = connection.execute(text("select clock_timestamp()")).scalar_one()
        connection.execute(close, values)
        connection.execute(enter, values)
        _write_event(connection, model, version, event, decision)
        if decision.forced:
            alerts.raise_alert(
                connection,
                alerts.Alert(
                    kind="promotion_forced",
                    about=f"{model}/{version}",
                    message=f"{decision.who} made {model}/{version} champion against the gate ({decision.why}): "
                    + "; ".join(decision.findings),
                    next_step=f"look at its predictions; plantao models rollback {model} --why … takes it back",
                ),
            )


def mark(connection: Connection, model: str, version: int, event: Mark, decision: Decision) -> None:
    """Let a version be a challenger, or retire it. Raises UsageError when it is the champion, or is that already."""
    named(connection, model, version)
    with _deciding(connection, model, f"marking {model}/{version}"):
        if (state := _state(connection, model, version)) in {"champion", event}:
            message = f"model {model}/{version} is {'the champion' if state == 'champion' else f'{state} already'}."
            raise UsageError(
                message, "promote another version first" if state == "champion" else "nothing needs to be done"
            )
        _write_event(connection, model, version, event, decision)


def before(connection: Connection, model: str) -> int:
    """Return the version that was champion before the one that is now. Raises ModelMissing when there was none."""
    now = champion(connection, model)
    query = text(
        "select t.version from model_timeline t join model_states s using (model, version)"
        " where t.model = :model and s.state not in ('champion', 'retired') order by t.live_from desc limit 1"
    )
    with connection.begin():
        version: int | None = connection.execute(query, {"model": model}).scalar()
    if version is not None:
        return version
    message = f"model {model} had no champion before {now.version}."
    raise ModelMissing(message, "name a version: plantao models rollback MODEL --to N --why …")


def events(connection: Connection, model: str) -> list[RowMapping]:
    """Return what was decided about the versions of a model, oldest first."""
    query = text("select * from model_events where model = :model order by event_id")
    with connection.begin():
        return list(connection.execute(query, {"model": model}).mappings())


def versions(connection: Connection, model: str | None = None) -> list[RowMapping]:
    """Return the registered versions with what each is, and since when it is champion, if it is."""
    query = text(
        "select model, version, sha256, uri, created_at, created_by, metrics, state, live_from"
        " from models join model_states using (model, version)"
        " where cast(:model as text) is null or model = :model order by model, version"
    )
    with connection.begin():
        return list(connection.execute(query, {"model": model}).mappings())
