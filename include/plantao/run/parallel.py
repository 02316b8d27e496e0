"""A window that is scored by many workers: plan, score the parts, publish.

`plan` starts the attempt and cuts the keys that are owed into ranges. A key never changes, so every row belongs to
exactly one part, whenever that part is read and whatever happens at the source meanwhile; the parts need no common
snapshot, and one that fails is scored again alone. Each part is loaded into a table of its own, in one transaction
with its line in `plantao.parts`. `publish` compares these tables with the books of all parts and moves them into the
prediction table, in one transaction with the ledger row. Until then nothing is visible. Challengers go the same way,
beside the champion.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from psycopg2.sql import SQL, Identifier

from plantao import log
from plantao.errors import SourceRefused, TargetRefused
from plantao.extract import query, read
from plantao.extract.source import KeyRange, Source
from plantao.ledger import parts as ledger_of_parts
from plantao.ledger import runs
from plantao.ledger import session as ledger_session
from plantao.ledger.request import Request
from plantao.load import rejects, write
from plantao.load import staging as part_load
from plantao.load.existing import existing
from plantao.measure.profile import daily_state
from plantao.postgres import driver_errors, session
from plantao.postgres import snapshot as snapshots
from plantao.run import challenger_parts as beside
from plantao.run import malloc
from plantao.run.attempt import Attempt
from plantao.run.finish import recorded, recorded_if_permanent
from plantao.run.run import declared_session, role_of, score_window
from plantao.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.parts import Taken
    from plantao.load.table import PredictionTable
    from plantao.measure.profile.sketch import Sketch
    from plantao.models.manifest import Output
    from plantao.run.attempt import Opened
    from plantao.runtime import Place

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
    reference: int | None = None
    """In the cells of which reference the rows are counted, the same for all parts; None in plans older than this."""

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
    with ledger_session.session(request.job, place) as connection:
        at_once = request.dry_run or role_of(request, connection) == "challenger"
    if at_once:
        score_window(request, place)
        return []
    with declared_session(request, place) as (connection, run_id, _), recorded(request, place, connection, run_id):
        drop_abandoned(connection, request.job, run_id)
        parts = _Planning(request, place, connection, run_id).cut()
        ranges = [(part.keys.lower, part.keys.upper) for part in parts]
        ledger_of_parts.plan(connection, run_id, ranges, replaces=request.rescore)
        beside.plan(request, place, connection, run_id, ranges)
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
        reference = daily_state.reference_of(self.connection, self.job, number).version
        return [
            Part(run_id, place, number, self.request.window, KeyRange(*pair), self.request.rescore, reference)
            for place, pair in enumerate(pairwise(edges))
        ]

    def _boundaries(
        self, snapshot: snapshots.Snapshot, source: Source, extraction: read.Extraction
    ) -> list[tuple[str, ...]]:
        score, window = self.job.score, self.request.window
        with driver_errors.explained("extract", SourceRefused, "counting the rows that are owed"):
            counted = query.count_owed(source, window, extraction.branches)
            rows = int(snapshot.value(session.quoted(self.connection, counted)))
            wanted = score.parts or -(-rows // (score.rows_per_part or 1))
            parts = max(1, min(wanted, MOST_PARTS, rows))
            if parts == 1:
                return []
            found = query.select_boundaries(source, window, extraction.branches, rows, parts)
            return [tuple(row.values()) for row in snapshot.table(session.quoted(self.connection, found)).to_pylist()]


# --- score one part --------------------------------------------------------------------------------------------------


def score_part(job: Job, part: Part, place: Place) -> dict[str, Any]:
    """Score one part into its own table; one that was scored already is left as it is.

    Raises a PlantaoError. A permanent one closes the whole attempt as failed, because no retry of a part can help.
    """
    malloc.keep_freed()
    request = Request(job, part.window, model_version=part.version, rescore=part.rescore)
    with ledger_session.session(job, place, f"plantao/{job.name}/{part.run_id}/{part.number}") as connection:
        taken = ledger_of_parts.take(connection, part.run_id, part.number)
        if taken is None:
            return {"part": part.number, "status": "staged before"}
        with recorded_if_permanent(request, place, connection, part.run_id):
            report = _PartAttempt(request, place, connection, part, taken).run()
    return {"part": part.number, "status": "staged", "rows_scored": report.counts.scored}


class _PartAttempt(Attempt):
    """An attempt that reads one range of keys and loads into a table of its own."""

    def __init__(self, request: Request, place: Place, connection: Connection, part: Part, taken: Taken) -> None:
        super().__init__(request, place, connection, part.run_id)
        self.part, self.taken = part, taken
        self.keys, self.reference = part.keys, part.reference

    def _start_challengers(self) -> None:
        self.beside = challengers = beside.ChallengersOfPart(self.request, self.place)
        challengers.join(self.connection, self.part.run_id, self.part.number, self.taken)

    def _new_load(self, table: PredictionTable, output: Output, version: int) -> write.Load:
        where = part_load.Place(self.part.run_id, self.part.number, self.taken.number)
        return part_load.open_load(self.connection, table, output, version, where)

    def _publish(self, opened: Opened, sketch: Sketch) -> runs.Counts:
        """Stage the part, after those of the challengers: once the champion's is staged, nobody begins it again."""
        self.beside.publish(self.moment)
        counts = self._loaded(opened)
        with (
            driver_errors.explained("load", TargetRefused, f"closing part {self.part.number}"),
            session.deadline(self.connection, session.STATEMENT_SECONDS),
        ):
            ledger_of_parts.stage(
                self.connection, self.part.run_id, self.part.number, counts,
                rejects=rejects.lines_of(self.rejected), profile=sketch.as_dict(), seconds=self.watch.seconds,
                states={"reference": self.series.reference_version, "lines": daily_state.lines_of(sketch.states())},
            )  # fmt: skip
            self.connection.commit()
        return counts


def drop_abandoned(connection: Connection, job: Job, run_id: int) -> None:
    """Drop the tables of parts whose attempt was closed as failed; `run_id` is the attempt that begins."""
    with driver_errors.explained("load", TargetRefused, "tidying up"), connection.begin():
        runs.close_orphans(connection, run_id)
        abandoned = ledger_of_parts.abandoned(connection, job.name)
        tables = [write.part_table(connection, job.load.table, *one) for one in abandoned]
        for table in existing(connection, tables):
            session.execute(connection, SQL("drop table {}").format(Identifier(*table)))
