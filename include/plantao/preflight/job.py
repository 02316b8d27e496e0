"""What one job needs: its model, its source, the right not to change that, a place for predictions, and sound rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.sql import SQL

from plantao.errors import GoldenRowsDiffer, PlantaoError, SourceChanged, SourceRefused
from plantao.extract import read
from plantao.extract.source import missing_columns, path_of
from plantao.load import ownership
from plantao.load.existing import cure, find_table, misfits
from plantao.load.table import prediction_table
from plantao.models import registry, store
from plantao.models.contract import differences
from plantao.models.environment import current_environment
from plantao.models.manifest import environment_differences
from plantao.postgres import driver_errors
from plantao.postgres import session as database
from plantao.postgres.replaced import whole_snapshot
from plantao.postgres.sqlstate import POLICY_CURE
from plantao.preflight import grants, sample
from plantao.preflight.database import session_at
from plantao.preflight.result import fail, ok, warn
from plantao.score import loader
from plantao.validate.verdict import source_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.config.job import Job
    from plantao.extract.source import Source
    from plantao.models.manifest import Manifest
    from plantao.models.registry import Registered
    from plantao.preflight.database import Reached
    from plantao.preflight.result import Answer, Page
    from plantao.runtime import Place
    from plantao.score.loader import Verified


@dataclass(frozen=True)
class Versions:
    """The versions that score a job's rows."""

    champion: Verified
    challengers: Sequence[Registered]


def ask(page: Page, job: Job, place: Place, at_source: Reached, at_target: Reached) -> None:
    """Ask about one job whatever its databases let one ask."""
    versions = page.ask(f"{job.name}: model", lambda: _model(job, place)) if at_target.has_ledger else None
    champion = None if versions is None else versions.champion
    if champion is not None and (notes := _differences(champion.manifest, place)):
        cure = "nothing, since the golden rows agree; the lock file of the training makes them the same"
        page.add(f"{job.name}: environment", warn("; ".join(notes), cure))
    source = page.ask(f"{job.name}: source", lambda: _source(job, place, champion)) if at_source.answers else None
    if source is not None:
        page.ask(f"{job.name}: key", lambda: (sample.key(place, source), True))
        page.ask(f"{job.name}: timestamps", lambda: (sample.timestamps(place, source), True))
        page.ask(f"{job.name}: source rights", lambda: (_source_rights(source, place), True))
        if lacking := [name for name in job.measure.segments if name not in source.types]:
            page.add(f"{job.name}: segments", _lacking(lacking, source))
    for challenger in () if versions is None else versions.challengers:
        page.add(f"{job.name}: challenger {challenger.version}", _challenger(challenger, place, source))
    if at_target.answers:
        page.ask(f"{job.name}: predictions", lambda: (_predictions(job, place, champion, source), True))
    if champion is not None and source is not None:
        page.ask(f"{job.name}: live data", lambda: (sample.look(place, champion, source), True))


def _model(job: Job, place: Place) -> tuple[Answer, Versions]:
    with session_at(job.load.connection, place, "looking for the champion") as session:
        registered = registry.champion(session, job.score.model)
        challengers = registry.challengers(session, job.score.model)
    try:
        champion = loader.verified(registered, place.settings)
    except GoldenRowsDiffer as error:
        manifest = store.read_manifest(place.settings.model_store, registered.model, registered.version)
        if not (notes := _differences(manifest, place)):
            raise
        message = f"{error.what} What else differs: {'; '.join(notes)}."
        cure = "install the lock file of the training, or register the model again on this kind of machine"
        raise GoldenRowsDiffer(message, cure, error.step) from error
    said = f"{registered.name}: hash, environment and {len(champion.manifest.golden.rows)} golden rows agree"
    return ok(said), Versions(champion, challengers)


def _differences(manifest: Manifest, place: Place) -> list[str]:
    """Return in what this environment differs from the training's without forbidding anything."""
    return environment_differences(manifest.environment, current_environment(place.settings.lock))[1]


def _challenger(registered: Registered, place: Place, source: Source | None) -> Answer:
    """Ask about a version beside the champion: whatever becomes of it, the champion's rows are scored."""
    cure = f"register it again, or: plantao models retire {registered.model} {registered.version} --why …"
    try:
        contract = loader.verified(registered, place.settings).manifest.contract
    except PlantaoError as error:
        return warn(error.what, f"{error.next_step}; or retire it" if error.next_step else cure)
    if problems := [] if source is None else differences(contract, source.types):
        return warn(f"the source is not what it was made for: {'; '.join(problems)}", cure)
    return ok("scores beside the champion")


def _source(job: Job, place: Place, version: Verified | None) -> tuple[Answer, Source]:
    """Read no row of the source, in the very form in which a run reads rows."""
    name = job.extract.connection
    address = place.address(name)
    with (
        session_at(name, place, "quoting") as quoter,
        driver_errors.explained("extract", SourceRefused, f"reading the source of job {job.name}"),
        whole_snapshot(address, "plantao/check", path_of(job)) as snapshot,
    ):
        source = read.source_of(job, snapshot, quoter)
        contract = None if version is None else version.manifest.contract
        problems = (
            missing_columns(job, source.types) if contract is None else source_problems(job, source.types, contract)
        )
        if problems:
            advice = "ask the client what changed, correct the job file, or train a version on the new columns"
            raise SourceChanged("; ".join(problems), advice, "validate")
        rows = sample.select(source, contract, SQL("true"))
        snapshot.table(database.quoted(quoter, SQL("{} limit 0").format(rows)))
    said = f"key {', '.join(job.extract.key)}, timestamp {job.extract.timestamp}"
    if contract is not None:
        said = f"{len(contract.columns)} columns as the model was trained on, {said}"
    return ok(said), source


def _lacking(segments: Sequence[str], source: Source) -> Answer:
    """Return what becomes of segments that the source does not have: rows are scored, and nothing is split by them."""
    there = ", ".join(sorted(source.types))
    return fail(
        f"the source has no column {' or '.join(map(repr, segments))}, so no figure is split by it; it has {there}",
        f"correct [measure] segments in the file of job {source.job.name}, or add the column to the source",
    )


def _source_rights(source: Source, place: Place) -> Answer:
    name = source.job.extract.connection
    with session_at(name, place, "asking for the rights on the source") as session:
        changes = grants.changes_to(session, source)
    if changes:
        cure = f"let AIRFLOW_CONN_{name.upper()} log in with no more rights than `plantao init --print-grants` prints"
        return warn(f"the login may change the client's data: {'; '.join(changes)}", cure)
    return ok("may be read and not changed")


def _predictions(job: Job, place: Place, version: Verified | None, source: Source | None) -> Answer:
    with session_at(job.load.connection, place, "asking for the rights on the predictions") as session:
        if lacking := grants.lacking_at_target(session, job):
            return fail(f"the login may not {', '.join(lacking)}", grants.cure(job.load.connection))
        schema, name = job.load.table
        if policies := grants.under_policies(session, schema, [name, f"{name}_history"]):
            return fail(f"policies (row-level security) hide rows of {', '.join(policies)}", POLICY_CURE)
        if version is None or source is None:
            return ok(f"{job.load.table} may be written")
        table = prediction_table(job, source.key_types, version.manifest.output)
        found = find_table(session, table.name)
        if found is not None and (problems := misfits(session, table, found)):
            return fail(f"{table.name} does not fit: {'; '.join(problems)}", cure(table))
        if said := ownership.refusal(session, job.name, table.owned):
            return fail(said, f"name another table in [load], or: plantao jobs adopt {job.name}")
    return ok(f"{table.name} {'will be made by the first run' if found is None else 'fits and may be written'}")
