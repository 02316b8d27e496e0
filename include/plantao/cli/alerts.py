"""`plantao alerts …`: what is open, what was sent, and whether the path works."""

from __future__ import annotations

import getpass
import time
import uuid
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import text

from plantao import runtime
from plantao.cli import output
from plantao.cli.scoring import JobArgument  # noqa: TC001 - Typer reads it
from plantao.config.field_types import parse_duration
from plantao.config.job_file import read_job
from plantao.errors import AlertUnavailable, PlantaoError, UsageError
from plantao.ledger import session as ledger_session
from plantao.ledger.migrate import require_current
from plantao.postgres import session as database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from plantao.runtime import Place

app = typer.Typer(no_args_is_help=True, help="What is open, what was sent, and whether the path to Slack works.")

WhoOption = Annotated[str | None, typer.Option("--who", help="Who decides; by default who is logged in.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for those who ask later.")]
ConnectionOption = Annotated[
    str | None, typer.Option("--connection", help="The ledger's connection, where the jobs have more than one.")
]
OPEN = text(
    "select incident_id, job, lane, word, message, since, opened_at, acknowledged_by, silenced_until from incidents"
    " where state = 'open' and (cast(:job as text) is null or job = :job) order by incident_id"
)
ALERTS = text(
    "select a.alert_id, a.raised_at, a.job, a.kind, a.message, a.next_step, a.route, a.sent_at, p.channel,"
    " p.message_ts, p.possible_repeat, p.tries, p.last_error from alerts as a"
    " left join digests as p on p.digest_id = coalesce(a.page_id, a.digest_id)"
    " where (cast(:job as text) is null or a.job = :job) and (:sent or a.sent_at is null)"
    " order by a.alert_id desc limit :most"
)
INCIDENT_COLUMNS = ("incident", "job", "lane", "word", "since", "acknowledged", "silenced until", "what")
ALERT_COLUMNS = ("alert", "raised", "job", "kind", "sent", "tries", "what")


@app.command(name="list")
def list_(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job.")] = None,
    sent: Annotated[bool, typer.Option("--sent", help="Also what was sent already.")] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="So many alerts, the newest.")] = 50,
    json_: output.JsonOption = False,
) -> None:
    """List the open incidents, and the alerts that wait to be sent."""
    from plantao.alert.send import ledgers

    here = runtime.from_environment()
    incidents: list[dict[str, Any]] = []
    alerts: list[dict[str, Any]] = []
    for connection, jobs in ledgers(here):
        if job in jobs or job is None or len(dict(ledgers(here))) == 1:
            with _session(here, connection) as session, session.begin():
                values = {"job": job, "sent": sent, "most": most}
                incidents += [dict(row) for row in session.execute(OPEN, values).mappings()]
                alerts += [dict(row) for row in session.execute(ALERTS, values).mappings()]
    if json_:
        output.as_json({"incidents": incidents, "alerts": alerts})
        return
    output.table("Open incidents", INCIDENT_COLUMNS, [
        (i["incident_id"], i["job"], i["lane"], i["word"], i["since"], i["acknowledged_by"], i["silenced_until"],
         i["message"]) for i in incidents
    ])  # fmt: skip
    output.table("Alerts" if sent else "Alerts that wait", ALERT_COLUMNS, [
        (a["alert_id"], a["raised_at"], a["job"], a["kind"], a["sent_at"], a["tries"], a["message"]) for a in alerts
    ])  # fmt: skip


@app.command()
def digest(
    job: JobArgument,
    send: Annotated[bool, typer.Option("--send", help="Send what is due now, of all jobs.")] = False,
) -> None:
    """Print the digest of the interval that is running; or send what is due."""
    from plantao.alert.send import digest_of_now

    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    if send:
        _send(here)
    else:
        typer.echo(digest_of_now(declared, here))


def _send(here: Place) -> None:
    from plantao.alert.send import deliver_everywhere
    from plantao.alert.slack import messenger

    failed = False
    for connection, outcome in deliver_everywhere(here, messenger()).items():
        typer.echo(f"{connection}: {len(outcome.sent)} messages sent, {outcome.waiting} waiting")
        for number, error in outcome.failed.items():
            failed = True
            typer.echo(f"message {number}: {error}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command(name="test")
def rehearse(
    job: JobArgument,
    wait: Annotated[float, typer.Option("--wait", help="Give up after so many seconds.")] = 60,
    airflow: Annotated[
        bool, typer.Option("--airflow", help="Send nothing from here: wait until Airflow has sent it.")
    ] = False,
) -> None:
    """Send a test through the whole path, outbox and all, and wait until it was acknowledged."""
    from plantao.alert.send import deliver_everywhere
    from plantao.alert.slack import messenger
    from plantao.outbox.alerts import Alert, raise_alert

    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    to, mark = messenger(), uuid.uuid4().hex[:8]
    said = f"{job}: test {mark}, sent by {_who(None)}: if you can read this, alerts of this job reach you"
    alert = Alert("test", f"{job} {mark}", said, "nothing: it is only a test", job)
    with ledger_session.session(declared, here, f"plantao/{job}/alerts") as connection:
        with connection.begin():
            raise_alert(connection, alert)
        until = time.monotonic() + wait
        nobody = "nobody has sent it; does the DAG plantao-alerts run?"
        error: PlantaoError = AlertUnavailable(nobody, "see plantao check, then plantao alerts list")
        while time.monotonic() < until:
            if not airflow:
                outcomes = deliver_everywhere(here, to)
                error = next((why for one in outcomes.values() for why in one.failed.values()), error)
            if (found := _sent(connection, alert.fingerprint)) is not None:
                where = f"{found['destination']} {found['channel'] or ''}".strip()
                typer.echo(f"test {mark}: acknowledged by {where}, message {found['digest_id']}"
                           f"{', ts ' + found['message_ts'] if found['message_ts'] else ''}")  # fmt: skip
                if found["destination"] == "log":
                    typer.echo("No Slack is configured: it went to the log, where nobody on call sees it.", err=True)
                return
            time.sleep(min(1, max(0, until - time.monotonic())))
    message = f"test {mark} was not acknowledged within {wait:g} s: {error.what}"
    raise AlertUnavailable(message, f"{error.next_step}; the test waits and is sent later")


def _sent(connection: Connection, mark: str) -> dict[str, Any] | None:
    query = text(
        "select d.* from alerts as a join digests as d on d.digest_id = a.page_id where a.fingerprint = :mark"
        " and d.sent_at is not null"
    )
    with connection.begin():
        row = connection.execute(query, {"mark": mark}).mappings().first()
    return None if row is None else dict(row)


@app.command()
def silence(
    incident: Annotated[int, typer.Argument(help="The number of an open incident.")],
    for_: Annotated[str, typer.Option("--for", help='How long, such as "2 hours" or "1 day".')],
    why: WhyOption,
    who: WhoOption = None,
    connection: ConnectionOption = None,
) -> None:
    """Tell nothing of an open incident for a while; digests count it all the same."""
    from plantao.outbox.incidents import silence as keep_silent

    try:
        length = parse_duration(for_)
    except ValueError as error:
        message = f"{for_!r} is not {error}."
        raise UsageError(message) from None
    assert isinstance(length, timedelta)
    with _session(runtime.from_environment(), connection) as session:
        until = ledger_session.now(session) + length
        with session.begin():
            keep_silent(session, incident, until, _who(who), why)
    typer.echo(f"incident {incident}: silent until {until:%Y-%m-%d %H:%M %Z}")


@app.command()
def ack(
    incident: Annotated[int, typer.Argument(help="The number of an open incident.")],
    why: WhyOption = "",
    who: WhoOption = None,
    connection: ConnectionOption = None,
) -> None:
    """Say that somebody has taken an incident on: it reminds no more, unless it worsens."""
    from plantao.outbox.incidents import acknowledge

    with _session(runtime.from_environment(), connection) as session, session.begin():
        acknowledge(session, incident, _who(who), why)
    typer.echo(f"incident {incident}: acknowledged by {_who(who)}")


def _who(given: str | None) -> str:
    return given or getpass.getuser()


@contextmanager
def _session(here: Place, connection: str | None) -> Iterator[Connection]:
    from plantao.alert.send import ledgers

    names = [name for name, _ in ledgers(here)] if connection is None else [connection]
    if len(names) > 1:
        message = f"the jobs have more than one ledger: {', '.join(names)}."
        raise UsageError(message, "say which one with --connection")
    address, schema = here.address(names[0]), here.settings.schema
    with database.session(address, schema, "plantao/alerts") as session:
        require_current(session, schema, str(address))
        yield session
