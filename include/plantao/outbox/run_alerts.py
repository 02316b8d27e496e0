"""What somebody has to know of a run that failed, and of one that healed.

`failed`, and the kinds that are graver in their own way, go out at once. What is still retried by itself
(`retrying`), what healed that way (`healed`) and the rows that a good run has set aside (`rejected_rows`) are for the
digest: nobody has to get up for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import text

from plantao.errors import ChecksFailed, ModelRefused, PlantaoError, SourceChanged, TooManyRejected
from plantao.outbox.alerts import Alert, raise_alert
from plantao.window import span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Connection


class Scored(Protocol):
    """Where the rows of a run went."""

    @property
    def read(self) -> int: ...  # noqa: D102
    @property
    def already_scored(self) -> int: ...  # noqa: D102
    @property
    def conflicting(self) -> int: ...  # noqa: D102


FOR_THE_DIGEST = frozenset({"retrying", "healed", "rejected_rows"})
KINDS: tuple[tuple[type[PlantaoError], str], ...] = (
    (ChecksFailed, "blocked"),
    (TooManyRejected, "too_many_rejected"),
    (ModelRefused, "model_refused"),
    (SourceChanged, "source_changed"),
)


def of_error(error: BaseException, job: str, window: str, run_id: int, tries_left: int = 0) -> Alert:
    """Return the alert about an attempt that an error has ended; `tries_left` are Airflow's, 0 outside of it.

    Of an error that is not ours only the class is told: its words may quote rows, and stay in the ledger.
    """
    name = type(error).__name__
    ours = isinstance(error, PlantaoError)
    permanent = isinstance(error, PlantaoError) and error.permanent
    if isinstance(error, PlantaoError):
        what = f"{error.step}: {error.what}" if error.step else error.what
    else:
        what = f"an unexpected {name}; its words are in plantao.runs.error of run {run_id}."
    retried = not permanent and tries_left > 0
    kind = next((kind for cls, kind in KINDS if isinstance(error, cls)), "retrying" if retried else "failed")
    about = f"{job} {window}" if kind == "blocked" else f"{job} {name}"
    next_step = (error.next_step if isinstance(error, PlantaoError) else "") or (
        "the data scientist reads the error" if not ours else f"plantao status {job} shows the last attempts"
    )
    if retried:
        next_step = "nothing yet: it is tried again by itself"
    elif not permanent and next_step.startswith("nothing"):
        next_step = f"let it run again: plantao run {job}, or clear the task in Airflow"
    message = f"{job}, {window}: {_sentence(what)} {_retry(permanent=permanent, tries_left=tries_left)}"
    return Alert(kind, about, message, next_step, job, run_id)


def of_dead(job: str, window: str, run_id: int, reason: str, retried: str) -> Alert:
    """Return the alert about an attempt whose process is gone; `retried` says by whom it is tried again, if it is."""
    kind = "retrying" if retried else "failed"
    again = f"It is tried again by itself: {retried}." if retried else "Nothing tries it again by itself."
    by_hand = f"plantao run {job} scores the window; look whether the machine ran out of memory or was restarted"
    next_step = "nothing yet: it is tried again by itself" if retried else by_hand
    return Alert(kind, f"{job} ProcessGone", f"{job}, {window}: {_sentence(reason)} {again}", next_step, job, run_id)


def in_a_row(alert: Alert, times: int, since: datetime) -> Alert:
    """Return the alert once it says since when attempts have failed, without a success in between."""
    if times <= 1:
        return replace(alert, message=f"{alert.message} It is the first failure since the last success.")
    said = f"It is failure {times} in a row since {since:%Y-%m-%d %H:%M %Z}.".replace(" .", ".")
    return replace(alert, message=f"{alert.message} {said}")


def recovered(  # noqa: PLR0913 - what it was, and how it ended
    job: str, window: str, run_id: int, *, kinds: Collection[str | None], times: int, since: datetime, now: datetime
) -> Alert:
    """Return the notification that a window is scored which had failed before. `kinds`: what was told of it."""
    kind = "healed" if set(kinds) <= {"retrying", None} else "recovered"
    tries = "1 failed try" if times == 1 else f"{times} failed tries"
    message = f"{job}, {window}: scored after {tries}, {span(now - since)} after the first of them began."
    return Alert(kind, job, message, "nothing", job, run_id)


def rejected(job: str, window: str, run_id: int, reasons: Mapping[str, int], read: int) -> Alert:
    """Return the notification about the rows that a good run has set aside, counted by reason."""
    total = sum(reasons.values())
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{count} {reason}" for reason, count in ordered)
    rows = "1 row was" if total == 1 else f"{total} rows were"
    message = f"{job}, {window}: {rows} set aside of {read}: {listed}."
    next_step = f"look at plantao.rejected_rows where run_id = {run_id}; a row that is mended is scored by a later run"
    return Alert("rejected_rows", job, message, next_step, job, run_id)


def nothing_scored(job: str, window: str, run_id: int, counts: Scored) -> Alert:
    """Return the alert about the first run of a window in which every row's key had a prediction already."""
    others = f", {counts.conflicting} of them of rows with another timestamp" if counts.conflicting else ""
    message = (
        f"{job}, {window}: none of {counts.read} rows was scored. The keys of {counts.already_scored} have a prediction"
        f" already{others}, though no run has scored this window before."
    )
    next_step = (
        f"does [extract] key identify a row, or a customer with a row for each day? plantao check {job} looks for a key"
        f" with several rows; plantao reconcile {job} lists the conflicts"
    )
    return Alert("nothing_scored", job, message, next_step, job, run_id)


def _sentence(what: str) -> str:
    what = what.rstrip()
    return what if what.endswith((".", "!", "?")) else f"{what}."


def _retry(*, permanent: bool, tries_left: int) -> str:
    if permanent:
        return "It would happen again, so it is not retried."
    if tries_left > 0:
        tries = "1 try is" if tries_left == 1 else f"{tries_left} tries are"
        return f"Airflow tries it again by itself; {tries} left."
    return "Nothing tries it again by itself any more."


def tell(connection: Connection, run_id: int, alert: Alert) -> None:
    """Raise the alert about an attempt that was closed as failed, with how many have failed in a row."""
    query = text(
        "select count(*) as times, min(r.started_at) as since from runs t, lateral (select coalesce((select g.run_id"
        " from runs g where g.job = t.job and g.role = t.role and g.status in ('succeeded', 'empty')"
        " and (t.role = 'champion' or g.model_version = t.model_version) order by g.run_id desc limit 1), 0) as run_id"
        " ) as good join lateral (select * from runs r where r.job = t.job and r.run_id > good.run_id) as r on true"
        " where t.run_id = :run and r.role = t.role and r.status = 'failed'"
        " and (t.role = 'champion' or r.model_version = t.model_version)"
    )
    row = connection.execute(query, {"run": run_id}).one()
    raise_alert(connection, in_a_row(alert, row.times, row.since))
