"""A window that is scored by many workers: plan, score the parts, publish.

`plan` starts the attempt and cuts the keys that are owed into ranges. A key never changes, so every row belongs to
exactly one part, whenever that part is read and whatever happens at the source meanwhile; the parts need no common
snapshot, and one that fails is scored again alone. Each part is loaded into a table of its own, in one transaction
with its line in `plantao.parts`. `publish` compares these tables with the books of all parts and moves them into the
prediction table, in one transaction with the ledger row. Until then nothing is visible.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Identifier

from plantao import database, ledger, log
from plantao import parts as ledger_of_parts
from plantao.attempt import Attempt
from plantao.closing import recorded
from plantao.errors import DatabaseUnavailable, PlantaoError, SourceRefused, Superseded, TargetRefused
from plantao.extract import query, read
from plantao.extract.source import KeyRange, Source
from plantao.extract.window import Window
from plantao.job_types import parse_table_name
from plantao.load import table as tables
from plantao.load import write
from plantao.log import Stopwatch
from plantao.measure.profile import added_up
from plantao.request import Report, Request
from plantao.run import declared_session, role_of, score_window
from plantao.validate.share import refuse_too_many

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from plantao.attempt import Opened
    from plantao.job import Job
    from plantao.load.table import PredictionTable
    from plantao.measure.profile import Profile
    from plantao.place import Place
    from plantao.score.manifest import Output

MOST_PARTS = 1000
"""Airflow maps a task at most 1,024 times, unless told otherwise."""


@dataclass(frozen=True)
class Part:
    """One range of keys of a run, as it travels to whoever scores it."""

    run_id: int
    number: int
    version: int
    window: Window
    keys: KeyRange
    rescore: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the part as plain values, small enough for an XCom."""
        window = {"start": self.window.start.isoformat(), "end": self.window.end.isoformat()}
        return {**asdict(self), "window": window}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Part:
        """Return the part that `as_dict` described."""
        from datetime import datetime

        start, end = (datetime.fromisoformat(values["window"][edge]) for edge in ("start", "end"))
        edges = (values["keys"]["lower"], values["keys"]["upper"])
        lower, upper = (None if edge is None else tuple(edge) for edge in edges)
        return cls(**{**values, "window": Window.of(start, end), "keys": KeyRange(lower, upper)})


# --- plan ------------------------------------------------------------------------------------------------------------


def plan(request: Request, place: Place) -> list[Part]:
    """Start an attempt and cut what its window owes into parts. Raises a PlantaoError.

    What nobody has to wait for is done here and now, and leaves no parts: a dry run, and a version that is named.
    """
    with ledger.session(request.job, place) as connection:
        at_once = request.dry_run or role_of(request, connection) == "challenger"
    if at_once:
        score_window(request, place)
        return []
    with declared_session(request, place) as (connection, run_id, _), recorded(request, place, connection, run_id):
        drop_abandoned(connection, request.job)
        parts = _Planning(request, place, connection, run_id).cut()
        ledger_of_parts.plan(
            connection, run_id, [(part.keys.lower, part.keys.upper) for part in parts], replaces=request.rescore
        )
    fields = {"job": request.job.name, "run": run_id, "window": request.window.shown(request.job.zone)}
    log.event("window cut", {**fields, "parts": len(parts)})
    return parts


class _Planning(Attempt):
    """The first steps of an attempt, up to the rows that are owed."""

    def cut(self) -> list[Part]:
        version = self._verified_version()
        with contextlib.ExitStack() as stack:
            opened = self._open(stack, version.manifest)
            boundaries: list[tuple[str, ...]] = []
            if opened.extraction.branches:
                boundaries = self._boundaries(opened.snapshot, opened.source, opened.extraction)
        edges = [None, *boundaries, None]
        run_id, number = self.run_id or 0, version.manifest.version
        return [
            Part(run_id, place, number, self.request.window, KeyRange(*pair), self.request.rescore)
            for place, pair in enumerate(pairwise(edges))
        ]

    def _boundaries(
        self, snapshot: database.Snapshot, source: Source, extraction: read.Extraction
    ) -> list[tuple[str, ...]]:
        score, window = self.job.score, self.request.window
        with database.explained("extract", SourceRefused, "counting the rows that are owed"):
            counted = query.count_owed(source, window, extraction.branches)
            rows = int(snapshot.value(database.quoted(self.connection, counted)))
            wanted = score.parts or -(-rows // (score.rows_per_part or 1))
            parts = max(1, min(wanted, MOST_PARTS, rows))
            if parts == 1:
                return []
            found = query.select_boundaries(source, window, extraction.branches, rows, parts)
            return [tuple(row.values()) for row in snapshot.table(database.quoted(self.connection, found)).to_pylist()]


# --- score one part --------------------------------------------------------------------------------------------------


def score_part(job: Job, part: Part, place: Place) -> dict[str, Any]:
    """Score one part into its own table; one that was scored already is left as it is.

    Raises a PlantaoError. A permanent one closes the whole attempt as failed, because no retry of a part can help.
    """
    request = Request(job, part.window, model_version=part.version, rescore=part.rescore)
    with ledger.session(job, place, f"plantao/{job.name}/{part.run_id}/{part.number}") as connection:
        if not ledger_of_parts.take(connection, part.run_id, part.number):
            return {"part": part.number, "status": "staged before"}
        with _recorded_if_permanent(request, place, connection, part.run_id):
            report = _PartAttempt(request, place, connection, part).run()
    return {"part": part.number, "status": "staged", "rows_scored": report.counts.scored}


@contextmanager
def _recorded_if_permanent(request: Request, place: Place, connection: Connection, run_id: int) -> Iterator[None]:
    """Close the whole attempt as failed when no retry of this step can help; otherwise it waits for the retry."""
    try:
        yield
    except PlantaoError as error:
        if not error.permanent or isinstance(error, Superseded):
            raise
        with recorded(request, place, connection, run_id):
            raise


class _PartAttempt(Attempt):
    """An attempt that reads one range of keys and loads into a table of its own."""

    def __init__(self, request: Request, place: Place, connection: Connection, part: Part) -> None:
        super().__init__(request, place, connection, part.run_id)
        self.part = part
        self.keys = part.keys

    def _new_load(self, table: PredictionTable, output: Output, version: int) -> write.Load:
        staged = replace(table, name=_table_of(self.part.run_id, self.part.number))
        return _PartLoad(self.connection, staged, output, self.part.run_id, version, False, part=self.part.number,
                         like=table)  # fmt: skip

    def _publish(self, opened: Opened, profile: Profile) -> ledger.Counts:
        counts = self._loaded(opened)
        with (
            database.explained("load", TargetRefused, f"closing part {self.part.number}"),
            database.deadline(self.connection, database.STATEMENT_SECONDS),
        ):
            ledger_of_parts.stage(
                self.connection, self.part.run_id, self.part.number, counts,
                rejects=write.lines_of(self.rejected), profile=profile.as_dict(), seconds=self.watch.seconds,
            )  # fmt: skip
            self.connection.commit()
        return counts


@dataclass
class _PartLoad(write.Load):
    """A load into the part's own table, which exists only once the part is complete."""

    part: int = 0
    like: PredictionTable | None = None

    def _hold(self) -> None:
        assert self.like is not None
        ledger_of_parts.hold(self.connection, self.run_id, self.part)
        database.execute(self.connection, tables.create_part(self.table, self.like))
        write.hand_over(self.connection, self.table.schema, self.table.identifier)


def _table_of(run_id: int, part: int) -> str:
    return f"plantao_run_{run_id}_part_{part}"


# --- publish ---------------------------------------------------------------------------------------------------------


def publish(job: Job, run_id: int, place: Place) -> Report:
    """Make all parts of an attempt visible at once, with their ledger row. Raises a PlantaoError.

    A part that is missing, or whose table does not hold what its books say, stops it; then nothing is visible.
    """
    with ledger.session(job, place, f"plantao/{job.name}/{run_id}/publish") as connection:
        run = ledger.attempt(connection, run_id)
        if run["status"] in {"succeeded", "empty"}:  # the answer to an earlier try's commit was lost
            return _report(job, run, ledger.counts_of(run), run["profile"], run["seconds"])
        window = Window.of(run["window_start"], run["window_end"])
        publishing = _Publishing(job, run_id, connection)
        with _recorded_if_permanent(Request(job, window), place, connection, run_id):
            counts = publishing.run()
        report = _report(job, run, counts, publishing.profile, publishing.watch.seconds)
        return replace(report, reject_reasons=dict(publishing.reasons))


@dataclass
class _Publishing:
    """The transaction that moves every part into the prediction table."""

    job: Job
    run_id: int
    connection: Connection
    profile: dict[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)

    def run(self) -> ledger.Counts:
        connection, run_id = self.connection, self.run_id
        parts = ledger_of_parts.of_run(connection, run_id)
        if waiting := [part["part"] for part in parts if part["status"] != "staged"]:
            message = f"{len(waiting)} of {len(parts)} parts of run {run_id} are not scored yet: {waiting[:10]}."
            raise DatabaseUnavailable(message, "let the parts finish, or clear those that failed", "load")
        lines = [line for part in parts for line in part["rejects"]]
        self.reasons = Counter(line["reason"] for line in lines)
        total = sum(part["rows_read"] for part in parts)
        refuse_too_many(self.job, lines, total)
        self.profile = added_up([part["profile"] for part in parts])
        schema, name = parse_table_name(self.job.load.table)
        with (
            database.explained("load", TargetRefused, f"publishing into {self.job.load.table}"),
            self.watch.step("load"),
        ):
            found = write.find_table(connection, schema, name) or {}
            table = tables.as_found(schema, name, self.job.extract.key, found)
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
                write.write_rejects(connection, self.job.name, run_id, lines)
                write.resolve_rejects(connection, table, self.job.name, run_id)
                seconds = added_up([part["seconds"] for part in parts])
                ledger.succeed(connection, run_id, counts, snapshot="parts", seconds=seconds, profile=self.profile)
                transaction.commit()
        return counts

    def _move(self, table: PredictionTable, part: Mapping[str, Any]) -> tuple[int, int]:
        """Move one part's rows, and return how many were new and how many earlier predictions they replaced."""
        staged = Identifier(table.schema, _table_of(self.run_id, part["part"]))
        there = database.fetch(self.connection, SQL("select count(*) from {}").format(staged))[0][0]
        if there != part["rows_scored"]:
            # The table is not written to the log ahead, so a crash of the server empties it.
            self.connection.rollback()
            ledger_of_parts.reopen(self.connection, self.run_id, part["part"])
            message = f"part {part['part']} holds {there} rows and its books say {part['rows_scored']}."
            raise DatabaseUnavailable(message, f"clear part {part['part']} in Airflow: it is scored again", "load")
        again = self.job.extract.on_change == "rescore" or part["replaces"]
        replaced = database.execute(self.connection, tables.move_to_history(table, self.run_id, staged)) if again else 0
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


def drop_abandoned(connection: Connection, job: Job) -> None:
    """Drop the tables of parts whose attempt was closed as failed."""
    schema, _ = parse_table_name(job.load.table)
    with database.explained("load", TargetRefused, "tidying up"), connection.begin():
        names = [_table_of(run_id, part) for run_id, part in ledger_of_parts.abandoned(connection, job.name)]
        for name in write.existing(connection, schema, names):
            database.execute(connection, SQL("drop table {}").format(Identifier(schema, name)))
