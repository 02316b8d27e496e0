"""All questions, in their order: the job files, the databases, each job, this machine and what it talks to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from plantao.config.job import Job
from plantao.config.job_file import read_folder, read_job, shared_tables
from plantao.errors import JobFileError, PlantaoError
from plantao.preflight import database, machine
from plantao.preflight import job as of_job
from plantao.preflight.result import Page, fail, ok, warn

if TYPE_CHECKING:
    from plantao.preflight.result import Answer
    from plantao.runtime import Place


def check(place: Place, only: str | None = None) -> Page:
    """Return the answers for every job, or for one. Raises UsageError when there is no such job."""
    page = Page()
    jobs = _read(page, place, only)
    targets = {job.load.connection for job in jobs}
    reached = {
        name: database.ask(page, name, place, holds_ledger=name in targets)
        for name in dict.fromkeys(name for job in jobs for name in (job.extract.connection, job.load.connection))
    }
    for job in jobs:
        of_job.ask(page, job, place, reached[job.extract.connection], reached[job.load.connection])
    machine.ask(page, place.settings)
    return page


def _read(page: Page, place: Place, only: str | None) -> list[Job]:
    """Read the job files and return the jobs of those that can be read."""
    folder = place.settings.jobs
    found = read_folder(folder) if only is None else {only: _read_one(place, only)}
    everyone = [job for job in read_folder(folder).values() if isinstance(job, Job)]
    shared = shared_tables(everyone, lambda job: _database_of(place, job.load.connection))
    found |= {name: JobFileError(f"{name}.toml", shared[name]) for name in found if name in shared}
    if not found:
        page.add(
            "job files", warn(f"there is none in {folder}", "add one, see docs/jobs.md; PLANTAO_JOBS is the folder")
        )
    for name, job in found.items():
        if isinstance(job, Job):
            page.add(f"{name}: job file", schedule(job, datetime.now(UTC)))
        else:
            mistakes = "; ".join(job.complaints)
            page.add(f"{name}: job file", fail(mistakes, f"mend {folder / name}.toml"), job.exit_status)
    return [job for job in found.values() if isinstance(job, Job)]


def _database_of(place: Place, connection: str) -> object:
    """Return what names the database of a connection: two connections may lead to one."""
    try:
        parameters = place.address(connection).parameters
    except PlantaoError:
        return connection
    return parameters.get("host"), parameters.get("port", "5432"), parameters.get("dbname")


def _read_one(place: Place, name: str) -> Job | JobFileError:
    try:
        return read_job(place.settings.jobs, name)
    except JobFileError as error:
        return error


def schedule(job: Job, now: datetime) -> Answer:
    """Say when the job runs. Pure."""
    said = f"{job.schedule}, {job.timezone}"
    if job.starts_at is not None and job.starts_at > now:
        what = f"{said}; nothing is due before it starts, on {job.starts_at.astimezone(job.zone):%Y-%m-%d %H:%M}"
        return warn(what, "correct `starts` in the job file, unless that is meant")
    return ok(said)
