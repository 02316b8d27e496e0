"""Make the parts of a window visible, all at once.

The tables of the parts are compared with the books of all of them and moved into the prediction table, in one
transaction with the ledger row and the daily state. Until then nothing is visible.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Identifier

from plantao import database, ledger, log
from plantao import parts as ledger_of_parts
from plantao.closing import recorded_if_permanent, tell
from plantao.errors import DatabaseUnavailable, TargetRefused
from plantao.extract.window import Window
from plantao.job_types import parse_table_name
from plantao.load import table as tables
from plantao.load import write
from plantao.log import Stopwatch
from plantao.measure import run_checks, state
from plantao.measure.sketch import added
from plantao.measure.state import Series
from plantao.request import Report, Request
from plantao.validate.share import refuse_too_many

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from plantao.job import Job
    from plantao.load.table import PredictionTable
    from plantao.place import Place


def publish(job: Job, run_id: int, place: Place) -> Report:
    """Make all parts of an attempt visible at once, with their ledger row. Raises a PlantaoError.

    A part that is missing, or whose table does not hold what its books say, stops it; then nothing is visible.
    """
    with ledger.session(job, place, f"plantao/{job.name}/{run_id}/publish") as connection:
        run = ledger.attempt(connection, run_id)
        if run["status"] in {"succeeded", "empty"}:  # the answer to an earlier try's commit was lost
            return _report(job, run, ledger.counts_of(run), run["profile"], run["seconds"])
        request = Request(job, Window.of(run["window_start"], run["window_end"]))
        publishing = _Publishing(request, run, connection)
        with recorded_if_permanent(request, place, connection, run_id):
            counts = publishing.run()
        report = _report(job, run, counts, publishing.profile, publishing.watch.seconds)
        return replace(report, reject_reasons=dict(publishing.reasons))


@dataclass
class _Publishing:
    """The transaction that moves every part into the prediction table."""

    request: Request
    attempt: Mapping[str, Any]
    connection: Connection
    profile: dict[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)

    def run(self) -> ledger.Counts:
        connection, run_id, job = self.connection, self.attempt["run_id"], self.request.job
        parts = ledger_of_parts.of_run(connection, run_id)
        if waiting := [part["part"] for part in parts if part["status"] != "staged"]:
            message = f"{len(waiting)} of {len(parts)} parts of run {run_id} are not scored yet: {waiting[:10]}."
            raise DatabaseUnavailable(message, "let the parts finish, or clear those that failed", "load")
        lines = [line for part in parts for line in part["rejects"]]
        self.reasons = Counter(line["reason"] for line in lines)
        total = sum(part["rows_read"] for part in parts)
        refuse_too_many(job, lines, total)
        self.profile = added([part["profile"] for part in parts])
        schema, name = parse_table_name(job.load.table)
        with (
            database.explained("load", TargetRefused, f"publishing into {job.load.table}"),
            self.watch.step("load"),
        ):
            found = write.find_table(connection, schema, name) or {}
            table = tables.as_found(schema, name, job.extract.key, found)
            transaction = connection.begin()
            with database.deadline(connection, 2 * database.LOCK_SECONDS):
                write.take_lock(connection, f"plantao.load {table.shown}")
                ledger.hold(connection, run_id)
            scored = rescored = 0
            for part in parts:
                with database.deadline(connection, 2 * database.STATEMENT_SECONDS):
                    moved, replaced = self._move(table, part)
                scored, rescored = scored + moved, rescored + replaced
            counts = ledger.Counts(
                read=total,
                scored=scored,
                rejected=len(lines),
                already_scored=total - scored - len(lines),
                late=min(sum(part["rows_late"] for part in parts), scored + len(lines)),
                rescored=rescored,
            )
            with database.deadline(connection, database.STATEMENT_SECONDS):
                write.write_rejects(connection, job.name, run_id, lines)
                write.resolve_rejects(connection, table, job.name, run_id)
                self._add_states(parts, counts)
                seconds = added([part["seconds"] for part in parts])
                ledger.succeed(connection, run_id, counts, snapshot="parts", seconds=seconds, profile=self.profile)
                tell(connection, self.request, run_id, counts, self.reasons)
                transaction.commit()
        return counts

    def _add_states(self, parts: Sequence[Mapping[str, Any]], counts: ledger.Counts) -> None:
        """Add what the parts have folded to the daily state."""
        replaces = any(part["replaces"] for part in parts)
        request = replace(self.request, rescore=replaces)
        dropped = sum(part["rows_scored"] for part in parts) - counts.scored
        for reference in sorted({part["states"]["reference"] for part in parts}):
            lines = [part["states"]["lines"] for part in parts if part["states"]["reference"] == reference]
            series = Series(request.job, "champion", self.attempt["model_version"], reference)
            states = state.merged(lines)
            run_checks.add_checked(self.connection, series, states, request, counts=counts, dropped=dropped)

    def _move(self, table: PredictionTable, part: Mapping[str, Any]) -> tuple[int, int]:
        """Move one part's rows, and return how many were new and how many earlier predictions they replaced."""
        staged = Identifier(table.schema, write.part_table(self.attempt["run_id"], part["part"]))
        there = database.fetch(self.connection, SQL("select count(*) from {}").format(staged))[0][0]
        if there != part["rows_scored"]:
            # The table is not written to the log ahead, so a crash of the server empties it.
            self.connection.rollback()
            ledger_of_parts.reopen(self.connection, self.attempt["run_id"], part["part"])
            message = f"part {part['part']} holds {there} rows and its books say {part['rows_scored']}."
            raise DatabaseUnavailable(message, f"clear part {part['part']} in Airflow: it is scored again", "load")
        again = self.request.job.extract.on_change == "rescore" or part["replaces"]
        old = tables.move_to_history(table, self.attempt["run_id"], staged)
        replaced = database.execute(self.connection, old) if again else 0
        moved = database.execute(self.connection, tables.insert_missing(table, staged))
        database.execute(self.connection, SQL("drop table {}").format(staged))
        return moved, replaced


def _report(
    job: Job, run: Mapping[str, Any], counts: ledger.Counts, profile: Mapping[str, Any], seconds: Mapping[str, float]
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
