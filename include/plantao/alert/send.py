"""Send what waits in every ledger that the jobs load into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plantao import log
from plantao.alert.chart import send_pictures
from plantao.alert.compose import preview
from plantao.alert.delivery import Outcome, deliver
from plantao.alert.digest import addressee, interval
from plantao.alert.plan import Addressees
from plantao.alert.slack import plain
from plantao.config.job import Job
from plantao.config.job_file import read_folder
from plantao.errors import PlantaoError
from plantao.ledger import session as ledger_session
from plantao.ledger.heartbeats import beat
from plantao.ledger.migrate import require_current
from plantao.postgres import session as database
from plantao.runtime import DEFAULT_CONNECTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from plantao.alert.slack import Messenger
    from plantao.runtime import Place

PATIENCE = 30.0
"""For so many seconds in all a sender waits where Slack asks it to, before the next one takes over a minute later."""


def deliver_everywhere(place: Place, messenger: Messenger, *, patience: float = PATIENCE) -> dict[str, Outcome]:
    """Send what waits in each ledger, and return what became of it, by connection.

    A ledger that cannot be used keeps no other waiting; its error is raised in the end.
    """
    found: dict[str, Outcome] = {}
    failure: PlantaoError | None = None
    for connection, jobs in ledgers(place):
        try:
            found[connection] = _deliver(place, connection, jobs, messenger, patience)
        except PlantaoError as error:
            log.event("a ledger's alerts cannot be read", {"connection": connection, "error": str(error)}, log.ERROR)
            failure = error
    if failure is not None:
        raise failure
    return found


def ledgers(place: Place) -> Iterator[tuple[str, dict[str, Job]]]:
    """Yield each connection that has a ledger, with the jobs that load there; broken job files are left out."""
    jobs = {name: job for name, job in read_folder(place.settings.jobs).items() if isinstance(job, Job)}
    for connection in sorted({job.load.connection for job in jobs.values()}) or [DEFAULT_CONNECTION]:
        yield connection, {name: job for name, job in jobs.items() if job.load.connection == connection}


def addressees(jobs: Mapping[str, Job]) -> Addressees:
    """Return whom the jobs tell."""
    return Addressees({name: addressee(job) for name, job in jobs.items()})


def _deliver(place: Place, connection: str, jobs: Mapping[str, Job], messenger: Messenger, patience: float) -> Outcome:
    address, schema = place.address(connection), place.settings.schema
    with database.session(address, schema, "plantao/alerts") as session:
        require_current(session, schema, str(address))
        url = place.settings.airflow_page
        outcome = deliver(session, addressees(jobs), messenger, airflow_url=url, patience=patience)
        if messenger.threads:
            send_pictures(session, messenger, jobs)
        with session.begin():
            beat(session, "digest", {"to": messenger.name, "sent": len(outcome.sent), "waiting": outcome.waiting})
    return outcome


def digest_of_now(job: Job, place: Place) -> str:
    """Return the digest of the interval that is running as it would be now, as text, whatever was sent of it."""
    whom = addressee(job)
    with ledger_session.session(job, place, f"plantao/{job.name}/alerts") as connection:
        now = ledger_session.now(connection)
        with connection.begin():
            page = place.settings.airflow_page
            return plain(preview(connection, whom, *interval(now, whom.every, whom.zone), page).blocks)
