"""Will it work here? Every precondition of a run, asked without reading a row or writing one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from plantao import database, ledger
from plantao.errors import PlantaoError, SourceChanged, SourceRefused
from plantao.extract import read
from plantao.job import Job
from plantao.job_file import read_folder, read_job
from plantao.load import write
from plantao.load.table import mismatches, prediction_table
from plantao.score import model_file, model_store, registry
from plantao.score.environment import current_environment
from plantao.score.manifest import environment_differences
from plantao.validate.source import source_problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from plantao.place import Place
    from plantao.score.manifest import Manifest


@dataclass(frozen=True)
class Line:
    """One answer: what was asked about, how it stands, and the cure when it does not stand well."""

    state: Literal["OK", "WARN", "FAIL"]
    of: str
    what: str
    cure: str = ""
    exit_status: int = 1


def check(place: Place, only: str | None = None) -> list[Line]:
    """Return the answers for every job, or for one. One that fails spares the questions that rest on it."""
    jobs: dict[str, Any] = (
        {only: read_job(place.settings.jobs, only)} if only else dict(read_folder(place.settings.jobs))
    )
    lines: list[Line] = []
    if not jobs:
        lines.append(Line("WARN", str(place.settings.jobs), "no job file is here", "add one, see docs/jobs.md"))
    for name, job in jobs.items():
        if isinstance(job, Job):
            lines.append(Line("OK", f"{name}: job file", f"{job.schedule}, {job.timezone}"))
            lines += _check_job(job, place)
        else:
            lines.append(Line("FAIL", f"{name}: job file", "; ".join(job.complaints), "mend the file", job.exit_status))
    return lines


def _check_job(job: Job, place: Place) -> list[Line]:
    lines: list[Line] = []

    def ask(of: str, question: Callable[[], str]) -> bool:
        try:
            lines.append(Line("OK", f"{job.name}: {of}", question()))
        except PlantaoError as error:
            lines.append(Line("FAIL", f"{job.name}: {of}", error.what, error.next_step))
            return False
        return True

    manifest: list[Manifest] = []
    if ask("target", lambda: _target(job, place)) and ask("model", lambda: _model(job, place, manifest)):
        _, notes = environment_differences(manifest[0].environment, current_environment(place.settings.lock))
        lines += [Line("WARN", f"{job.name}: environment", note, "golden rows agree") for note in notes]
        ask("source", lambda: _source(job, place, manifest[0]))
    return lines


def _target(job: Job, place: Place) -> str:
    with ledger.session(job, place, "plantao/check"):
        return str(place.address(job.load.connection))


def _model(job: Job, place: Place, found: list[Manifest]) -> str:
    store = place.settings.model_store
    with database.session(place.address(job.load.connection), place.settings.schema, "plantao/check") as session:
        registered = registry.champion(session, job.score.model)
    manifest = model_store.read_manifest(store, registered.model, registered.version)
    model_file.load(model_store.read_bytes(store, manifest), manifest, registered.sha256)
    found.append(manifest)
    return f"{manifest.name}: hash, environment and {len(manifest.golden.rows)} golden rows agree"


def _source(job: Job, place: Place, manifest: Manifest) -> str:
    address = place.address(job.extract.connection)
    with (
        database.session(place.address(job.load.connection), place.settings.schema, "plantao/check") as session,
        database.explained("extract", SourceRefused, f"connecting to {address}"),
        database.snapshot(address, "plantao/check") as snapshot,
    ):
        source = read.source_of(job, snapshot, session)
        problems = source_problems(job, source.types, manifest.contract)
        if not problems:
            table = prediction_table(job, source.key_types, manifest.output)
            found = write.find_table(session, table.schema, table.name)
            problems += [f"{table.shown}: {line}" for line in mismatches(table, found)] if found else []
    if problems:
        message = "; ".join(problems)
        raise SourceChanged(message, "ask the client what changed, or correct the job file", "validate")
    return f"{len(manifest.contract.columns)} columns as the model was trained on, key {', '.join(job.extract.key)}"
