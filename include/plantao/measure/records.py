"""Read what was counted: the daily states and tallies of a job, the references, and what each version gives back."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from plantao import log
from plantao.errors import PlantaoError
from plantao.measure.outcomes.tally import Tally
from plantao.models import store
from plantao.postgres import session

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import date

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.runs import Role
    from plantao.models.manifest import Manifest
    from plantao.runtime import Place

State = dict[str, Any]


@dataclass(frozen=True)
class Counted:
    """The daily state of one version in one role: what each day, segment and column looked like."""

    version: int
    reference_version: int
    states: Mapping[date, Mapping[tuple[str, str], State]]
    """By day, then by (segment, column); the score is the column with an empty name."""

    @property
    def days(self) -> list[date]:
        """The days that have rows, oldest first."""
        return sorted(self.states)


def counted(  # noqa: PLR0913 - which days of whom
    connection: Connection, job: Job, role: Role, first: date, last: date, *, only_scores: bool = False
) -> dict[int, Counted]:
    """Return the daily states between two days by version, as far as they were counted in its newest reference."""
    query = text(
        "select model_version, reference_version, day, segment, column_name, state from daily_state where job = :job"
        " and role = :role and day between :first and :last and (not :only or (segment = '' and column_name = ''))"
        " order by model_version, reference_version"
    )
    values = {"job": job.name, "role": role, "first": first, "last": last, "only": only_scores}
    with session.transaction(connection):
        rows = connection.execute(query, values).all()
    newest: dict[int, int] = {}
    for row in rows:
        newest[row.model_version] = row.reference_version
    found: dict[int, dict[date, dict[tuple[str, str], State]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.reference_version == newest[row.model_version]:
            found[row.model_version][row.day][row.segment, row.column_name] = row.state
    return {version: Counted(version, newest[version], dict(days)) for version, days in found.items()}


def tallies(
    connection: Connection, job: Job, role: Role, first: date, last: date
) -> dict[int, dict[date, dict[str, Tally]]]:
    """Return the tallies between two days, by version, day and segment."""
    query = text(
        "select model_version, day, segment, rows, labelled, state from daily_outcomes where job = :job"
        " and role = :role and day between :first and :last order by day"
    )
    values = {"job": job.name, "role": role, "first": first, "last": last}
    found: dict[int, dict[date, dict[str, Tally]]] = defaultdict(lambda: defaultdict(dict))
    with session.transaction(connection):
        for row in connection.execute(query, values):
            found[row.model_version][row.day][row.segment] = Tally(row.rows, row.labelled, row.state)
    return {version: dict(days) for version, days in found.items()}


def last_day(connection: Connection, job: Job) -> date | None:
    """Return the newest day that the champion has predictions for; None when there is none."""
    query = text("select max(day) from daily_state where job = :job and role = 'champion'")
    with session.transaction(connection):
        found: date | None = connection.execute(query, {"job": job.name}).scalar_one()
    return found


def manifests(job: Job, place: Place, versions: Collection[int]) -> dict[int, Manifest]:
    """Return the manifests of versions; one that the store no longer has is left out, and the log says so."""
    found = {}
    for version in sorted(versions):
        try:
            found[version] = store.read_manifest(place.settings.model_store, job.score.model, version)
        except PlantaoError as error:
            log.event("version cannot be measured", {"job": job.name, "version": version, "error": str(error)}, 30)
    return found


def versions(connection: Connection, job: Job) -> list[int]:
    """Return the versions that have predictions of a job."""
    query = text(
        "select version from models as m where model = :model and exists (select from all_runs as r where r.job = :job"
        " and r.status = 'succeeded' and r.model_version = m.version) order by 1"
    )
    with session.transaction(connection):
        return list(connection.execute(query, {"job": job.name, "model": job.score.model}).scalars())
