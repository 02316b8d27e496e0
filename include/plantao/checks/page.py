"""All questions, in their order: the job files, the databases, each job, this machine and what it talks to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from plantao.checks import connection, machine, of_job
from plantao.checks.answer import Page, fail, ok, warn
from plantao.errors import JobFileError
from plantao.job import Job
from plantao.job_file import read_folder, read_job

if TYPE_CHECKING:
    from plantao.checks.answer import Answer
    from plantao.place import Place


def check(place: Place, only: str | None = None) -> Page:
    """Return the answers for every job, or for one. Raises UsageError when there is no such job."""
    page = Page()
    jobs = _read(page, place, only)
    targets = {job.load.connection for job in jobs}
    reached = {
        name: connection.ask(page, name, place, holds_ledger=name in targets)
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
