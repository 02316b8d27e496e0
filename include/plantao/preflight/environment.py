"""What this environment is made of, so that another one can be compared with it. It holds no secret and no login."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

from plantao import __version__
from plantao.config.job import Job
from plantao.config.job_file import read_folder
from plantao.errors import ModelMissing, PlantaoError
from plantao.ledger import migrate
from plantao.models import registry
from plantao.models import store as model_store
from plantao.models.environment import current_environment
from plantao.models.manifest import LIBRARIES
from plantao.preflight.database import session_at
from plantao.run.origin import code_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plantao.models.registry import Registered
    from plantao.runtime import Place

    Versions = list[Registered]
    from collections.abc import Iterator


UNKNOWN = "unknown"
MISSING = "missing"


def describe(place: Place) -> dict[str, Any]:
    """Return what runs here, where it reads and writes, and which jobs and models it has.

    What cannot be found out is "unknown"; the questions of the check say why.
    """
    jobs = {name: job for name, job in read_folder(place.settings.jobs).items() if isinstance(job, Job)}
    targets = sorted({job.load.connection for job in jobs.values()})
    ledgers: dict[str, int | str | None] = {}
    versions: dict[str, Versions] = {}
    for connection in targets:
        mine = {name: job for name, job in jobs.items() if job.load.connection == connection}
        ledgers[connection], found = _ledger(place, connection, mine)
        versions |= found
    return {
        "plantao": __version__,
        "code": code_version(),
        "lock": MISSING,
        **current_environment(place.settings.lock),
        "packages": _packages(),
        "ledger": ledgers,
        "jobs": {name: _job(place, job, versions.get(name, [])) for name, job in jobs.items()},
        "connections": {
            name: _where(place, name, holds_ledger=name in targets)
            for name in sorted({*targets, *(job.extract.connection for job in jobs.values())})
        },
    }


def _packages() -> dict[str, str]:
    """Return the versions of the other packages that this one names; the lock stands for those they bring along."""
    try:
        named = [re.match(r"[\w.-]+", line) for line in requires("plantao") or ()]
    except PackageNotFoundError:  # a checkout that was never installed
        return {}
    return {name: _version(name) for name in sorted({match[0] for match in named if match} - set(LIBRARIES))}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING


def _where(place: Place, name: str, *, holds_ledger: bool) -> dict[str, str]:
    try:
        parameters = place.address(name).parameters
    except PlantaoError:
        return {"host": UNKNOWN}
    found = {
        "host": parameters.get("host", ""),
        "port": parameters.get("port", "5432"),
        "database": parameters.get("dbname", ""),
    }
    return {**found, "schema": place.settings.schema} if holds_ledger else found


def _ledger(place: Place, connection: str, jobs: Mapping[str, Job]) -> tuple[int | str | None, dict[str, Versions]]:
    """Return the version of a ledger, and the versions that score each job's rows, the champion first."""
    versions: dict[str, Versions] = {}
    try:
        with session_at(connection, place, "looking at the ledger") as session:
            number = migrate.version(session, place.settings.schema, connection)
            for name, job in jobs.items():
                model = job.score.model
                with contextlib.suppress(ModelMissing):
                    versions[name] = [registry.champion(session, model), *registry.challengers(session, model)]
            return number, versions
    except PlantaoError:
        return UNKNOWN, versions


def _job(place: Place, job: Job, versions: Versions) -> dict[str, Any]:
    found: dict[str, Any] = {"file": _job_digest(place, job), "model": job.score.model}
    if not versions:
        return {**found, "version": UNKNOWN, "sha256": UNKNOWN}
    champion, *challengers = versions
    return {
        **found,
        "version": champion.version,
        "sha256": _model_digest(place, champion),
        "challengers": {str(other.version): _model_digest(place, other) for other in challengers},
    }


def _model_digest(place: Place, registered: Registered) -> str:
    """Return the hash of the file that would be scored with, whatever the ledger says of it."""
    store = place.settings.model_store
    try:
        manifest = model_store.read_manifest(store, registered.model, registered.version)
        return hashlib.sha256(model_store.read_bytes(store, manifest)).hexdigest()
    except PlantaoError:
        return UNKNOWN


def _job_digest(place: Place, job: Job) -> str:
    """Return the digest of a job's file, and of its query wherever that is written."""
    content = (place.settings.jobs / f"{job.name}.toml").read_bytes()
    return hashlib.sha256(content + (job.query or "").encode()).hexdigest()


# Staging reads and writes elsewhere than production, and that is the point of it.
EXPECTED = "connections"


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in two environments."""

    what: str
    """Where it stands in the environment's JSON, for instance `jobs.flight_delay.version`."""
    here: str
    there: str

    @property
    def expected(self) -> bool:
        """Whether two environments may well differ in it."""
        return self.what.split(".")[0] == EXPECTED


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Difference]:
    """Return every difference; those that are expected come last."""
    ours, theirs = dict(_flat(here)), dict(_flat(there))
    found = [
        Difference(name, ours.get(name, MISSING), theirs.get(name, MISSING))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name, MISSING) != theirs.get(name, MISSING)
    ]
    return sorted(found, key=lambda difference: difference.expected)


def _flat(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", str(value)
