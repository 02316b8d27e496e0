"""Make the parts of a window visible, all at once.

The tables of the parts are compared with the books of all of them and moved into the prediction table, in one
transaction with the ledger row and the daily state. Until then nothing is visible. The challengers follow, each in a
transaction of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from psycopg2.sql import SQL, Identifier

from plantao import log
from plantao.errors import DatabaseUnavailable, Superseded, TargetRefused
from plantao.ledger import parts as ledger_of_parts
from plantao.ledger import runs
from plantao.ledger import session as ledger_session
from plantao.ledger.request import Request
from plantao.load import rejects, write
from plantao.load import table as tables
from plantao.load.conflicts import Conflicts
from plantao.load.existing import find_table
from plantao.load.table import shadow_job
from plantao.log import Stopwatch
from plantao.measure import run_checks
from plantao.measure.profile import daily_state, lost
from plantao.measure.profile.daily_state import Series
from plantao.measure.profile.sketch import added
from plantao.models import registry
from plantao.postgres import driver_errors
from plantao.postgres import session as database
from plantao.postgres.locks import DATABASE, take_lock
from plantao.run import integrity
from plantao.run.challengers import failed
from plantao.run.finish import record_failure, recorded_if_permanent, tell
from plantao.run.report import Report
from plantao.validate.verdict import refuse_too_many
from plantao.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.load.table import PredictionTable
    from plantao.runtime import Place


def publish(job: Job, run_id: int, place: Place, *, accept_checks: bool = False) -> Report:
    """Make all parts of an attempt visible at once, with their ledger row. Raises a PlantaoError.

    A part that is missing, or whose table does not hold what its books say, stops it; then nothing is visible. So does
    a check that blocks, unless somebody has decided (`accept_checks`).
    """
    with ledger_session.session(job, place, f"plantao/{job.name}/{run_id}/publish") as connection:
        run = runs.attempt(connection, run_id)
        window = Window.of(run["window_start"], run["window_end"])
        request = Request(job, window, accept_checks=accept_checks)
        if run["status"] in {"succeeded", "empty"}:  # the answer to an earlier try's commit was lost
            report = _report(job, run, runs.counts_of(run), run["profile"], run["seconds"])
        else:
            publishing = _Publishing(request, run, connection)
            with recorded_if_permanent(request, place, connection, run_id):
                counts = publishing.run()
            report = _report(job, run, counts, publishing.profile, publishing.watch.seconds)
            report = replace(report, reject_reasons=dict(publishing.reasons))
        _publish_challengers(request, place, connection, run_id)
        return report


def _publish_challengers(request: Request, place: Place, connection: Connection, run_id: int) -> None:
    """Make the parts of each challenger visible; one with which that fails is closed as failed, with an alert."""
    champions = ledger_of_parts.of_run(connection, run_id)
    for attempt, registered in registry.beside(connection, run_id):
        job = shadow_job(request.job)
        try:
            with ledger_session.session(job, place, f"plantao/{job.name}/{attempt}/publish") as session:
                run = runs.attempt(session, attempt)
                counts = _ChallengerPublishing(replace(request, job=job), run, session, champions=champions).run()
        except Superseded:  # another publish of the same parts was faster
            continue
        except Exception as error:  # noqa: BLE001 - whatever a challenger does, the champion's rows are visible
            alert = failed(registered, request, attempt, error)
            record_failure(request, place, connection, attempt, error, alert=alert)
        else:
            fields = {"job": job.name, "run": attempt, "model": registered.name}
            log.event("challenger finished", {**fields, "rows_scored": counts.scored, "rejected": counts.rejected})


@dataclass
class _Publishing:
    """The transaction that moves every part into the prediction table."""

    request: Request
    attempt: Mapping[str, Any]
    connection: Connection
    profile: dict[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)
    shadow: bool = False
    conflicts: Conflicts = field(default_factory=Conflicts)
    moved_days: set[date] = field(default_factory=set)

    def run(self) -> runs.Counts:
        connection, run_id, job = self.connection, self.attempt["run_id"], self.request.job
        parts = self._staged()
        lines = [line for part in parts for line in part["rejects"]]
        self.reasons = Counter(line["reason"] for line in lines)
        total = sum(part["rows_read"] for part in parts)
        refuse_too_many(job, lines, total - sum(part["rows_late"] for part in parts))
        self.profile = added([part["profile"] for part in parts])
        with (
            driver_errors.explained("load", TargetRefused, f"publishing into {job.load.table}"),
            self.watch.step("load"),
        ):
            found = find_table(connection, job.load.table) or {}
            table = tables.as_found(job, found, shadow=self.shadow)
            transaction = connection.begin()
            with database.deadline(connection, 2 * database.LOCK_SECONDS):
                take_lock(connection, f"plantao.load {table.name}", DATABASE)
                runs.hold(connection, run_id)
            scored = rescored = 0
            for part in parts:
                with database.deadline(connection, 2 * database.STATEMENT_SECONDS):
                    moved, replaced = self._move(table, part)
                scored, rescored = scored + moved, rescored + replaced
            counts = runs.Counts(
                read=total,
                scored=scored,
                rejected=len(lines),
                already_scored=total - scored - len(lines),
                late=min(sum(part["rows_late"] for part in parts), scored + len(lines)),
                rescored=rescored,
                conflicting=self.conflicts.rows,
            )
            with database.deadline(connection, database.STATEMENT_SECONDS):
                if not self.shadow:  # what is set aside is what the client has no prediction for
                    rejects.write(connection, job.name, run_id, lines)
                    rejects.resolve(connection, table, job.name, run_id)
                self._add_states(parts, counts)
                seconds = added([part["seconds"] for part in parts])
                runs.succeed(connection, run_id, counts, snapshot="parts", seconds=seconds, profile=self.profile)
                if not self.shadow:
                    daily_state.mark(connection, job, "champion", self.moved_days, daily_state.MOVED)
                    lost.expect(connection, job, rescored)
                    integrity.tell_conflicts(connection, self.request, run_id, self.conflicts)
                    tell(connection, self.request, run_id, counts, self.reasons)
                transaction.commit()
        return counts

    def _staged(self) -> list[dict[str, Any]]:
        """Return the parts, once all of them are staged."""
        parts = ledger_of_parts.of_run(self.connection, self.attempt["run_id"])
        if waiting := [part["part"] for part in parts if part["status"] != "staged"]:
            run_id = self.attempt["run_id"]
            message = f"{len(waiting)} of {len(parts)} parts of run {run_id} are not scored yet: {waiting[:10]}."
            raise DatabaseUnavailable(message, "let the parts finish, or clear those that failed", "load")
        return parts

    def _add_states(self, parts: Sequence[Mapping[str, Any]], counts: runs.Counts) -> None:
        """Add what the parts have folded to the daily state."""
        replaces = any(part["replaces"] for part in parts)
        request = replace(self.request, rescore=replaces)
        dropped = sum(part["rows_scored"] for part in parts) - counts.scored
        for reference in sorted({part["states"]["reference"] for part in parts}):
            lines = [part["states"]["lines"] for part in parts if part["states"]["reference"] == reference]
            series = Series(request.job, self.attempt["role"], self.attempt["model_version"], reference)
            add = daily_state.add_run if self.shadow else run_checks.add_checked
            add(self.connection, series, daily_state.merged(lines), request, counts=counts, dropped=dropped)
            request = replace(request, rescore=False)  # the days have begun anew once, and what was added stays

    def _move(self, table: PredictionTable, part: Mapping[str, Any]) -> tuple[int, int]:
        """Move one part's rows, and return how many were new and how many earlier predictions they replaced."""
        staged = Identifier(*write.part_table(self.connection, table.name, self.attempt["run_id"], part["part"]))
        there = database.fetch(self.connection, SQL("select count(*) from {}").format(staged))[0][0]
        if there != part["rows_scored"]:
            # The table is not written to the log ahead, so a crash of the server empties it.
            self.connection.rollback()
            self._refuse(part, f"part {part['part']} holds {there} rows and its books say {part['rows_scored']}.")
        again = self.request.job.extract.on_change == "rescore" or part["replaces"]
        run_id, connection = self.attempt["run_id"], self.connection
        replaced = write.move_to_history(connection, table, run_id, staged, self.moved_days) if again else 0
        moved = write.insert_staged(connection, table, staged)
        if moved < there:
            self.conflicts.look(connection, table, run_id, staged, moved)
        database.execute(self.connection, SQL("drop table {}").format(staged))
        return moved, replaced

    def _refuse(self, part: Mapping[str, Any], message: str) -> NoReturn:
        ledger_of_parts.reopen(self.connection, self.attempt["run_id"], part["part"])
        raise DatabaseUnavailable(message, f"clear part {part['part']} in Airflow: it is scored again", "load")


@dataclass
class _ChallengerPublishing(_Publishing):
    """The transaction that moves every part of a challenger into the table beside the predictions."""

    shadow: bool = True
    champions: Sequence[Mapping[str, Any]] = ()
    """The champion's parts."""

    def _staged(self) -> list[dict[str, Any]]:
        parts = ledger_of_parts.of_run(self.connection, self.attempt["run_id"])
        taken = {part["part"]: part["taken"] for part in self.champions}
        unlike = [p["part"] for p in parts if p["status"] != "staged" or p["taken"] != taken[p["part"]]]
        if unlike:
            self._refuse({}, f"it has not scored the champion's rows of {len(unlike)} parts: {unlike[:10]}.")
        return parts

    def _refuse(self, part: Mapping[str, Any], message: str) -> NoReturn:  # noqa: ARG002 - the champion's is published
        window = self.request.window.shown(self.request.job.zone)
        version = self.attempt["model_version"]
        advice = (
            f"plantao run {self.request.job.name} --from … --to … --model-version {version} scores {window} with it"
        )
        raise DatabaseUnavailable(message, advice, "load")


def _report(
    job: Job, run: Mapping[str, Any], counts: runs.Counts, profile: Mapping[str, Any], seconds: Mapping[str, float]
) -> Report:
    rows = profile.get("rows", 0)
    report = Report(
        job=job.name,
        run_id=run["run_id"],
        status="empty" if counts.read == 0 else "succeeded",
        window=Window.of(run["window_start"], run["window_end"]),
        model=run["model"],
        model_version=run["model_version"],
        counts=counts,
        mean_score=profile["score_sum"] / rows if rows else None,
        reject_reasons={},
        seconds=dict(seconds),
    )
    fields = {"job": job.name, "run": report.run_id, "window": report.window.shown(job.zone)}
    fields |= {"rows_scored": counts.scored, "rejected": counts.rejected, "outcome": report.status}
    log.event("parts published", fields)
    return report
