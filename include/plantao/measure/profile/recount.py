"""Count the daily state anew, from the rows of the source and the predictions that are in the table.

The rows are folded by the very code that folds them in a run. (One aggregate of PostgreSQL per column takes four times
as long, and would be a second definition of every bin.) A row that was edited or deleted since is counted as the source
has it now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from psycopg2.sql import SQL, Identifier, Literal
from sqlalchemy import text

from plantao.errors import SourceChanged, TargetRefused
from plantao.extract import query, read
from plantao.ledger import session as ledger_session
from plantao.load.existing import find_table
from plantao.load.table import shadow_job
from plantao.measure.profile import daily_state, replay
from plantao.measure.profile.daily_state import Series
from plantao.measure.profile.sketch import Sketch
from plantao.models import store
from plantao.postgres import driver_errors, session
from plantao.postgres.locks import DATABASE, take_lock
from plantao.score.batch import BatchResult, ScoredBatch
from plantao.validate.verdict import source_problems
from plantao.window import of_days

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    import pyarrow as pa
    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.extract.source import Source
    from plantao.ledger.runs import Role
    from plantao.measure.profile.replay import Answered
    from plantao.models.contract import Contract
    from plantao.models.manifest import Output
    from plantao.runtime import Place
    from plantao.window import Window

PREDICTIONS_AT_ONCE = 1_000_000


def recount(job: Job, place: Place, role: Role, days: Sequence[date]) -> int:
    """Count the state of whole local days anew; return how many rows were counted. Raises a PlantaoError.

    No run makes rows of the job visible meanwhile, so that none is missed or counted twice.
    """
    aimed = job if role == "champion" else shadow_job(job)
    rows = 0
    with ledger_session.session(job, place, f"plantao/{job.name}/measure") as connection:
        if find_table(connection, aimed.load.table) is None:
            return 0
        for day in days:
            with (
                driver_errors.explained("measure", TargetRefused, f"counting {day} anew"),
                session.deadline(connection, 2 * session.STATEMENT_SECONDS),
                replay.opened(aimed, place, connection) as both_sides,
                connection.begin(),
            ):
                take_lock(connection, f"plantao.load {aimed.load.table}", DATABASE)
                rows += _Day(aimed, place, role, of_days(day, day, job.zone), connection).count(both_sides, day)
    return rows


def differing(connection: Connection, job: Job, role: Role, days: Sequence[date]) -> list[date]:
    """Return the days whose state is not of as many rows, version by version, as there are predictions."""
    aimed = job if role == "champion" else shadow_job(job)
    if not days or find_table(connection, aimed.load.table) is None:
        return []
    window = of_days(min(days), max(days), job.zone)
    predicted = SQL(
        "select (p.source_timestamp at time zone {zone})::date, p.model_version, count(*) from {table} as p"
        " where p.source_timestamp >= {start} and p.source_timestamp < {end} group by 1, 2"
    ).format(
        zone=Literal(job.timezone),
        table=Identifier(*aimed.load.table),
        start=Literal(window.start),
        end=Literal(window.end),
    )
    query = text(
        "select day, model_version, sum(rows)::bigint from daily_state where job = :job and role = :role"
        " and segment = '' and column_name = '' and day between :first and :last group by 1, 2"
    )
    with connection.begin():
        there = {(day, version): rows for day, version, rows in session.fetch(connection, predicted)}
        values = {"job": job.name, "role": role, "first": min(days), "last": max(days)}
        counted = {(day, version): rows for day, version, rows in connection.execute(query, values)}
    odd = {key[0] for key in there.keys() | counted.keys() if there.get(key) != counted.get(key)}
    return sorted(odd & set(days))


@dataclass(frozen=True)
class _Day:
    """One day of the predictions in one table."""

    job: Job
    place: Place
    role: Role
    window: Window
    connection: Connection

    def count(self, both_sides: Answered, day: date) -> int:
        """Fold the rows of the day and write its state in place of what is there."""
        source = read.source_of(self.job, both_sides.snapshot, self.connection)
        found = both_sides.versions(source, self.window)
        sketches = {version: self._series(version, source) for version in found}
        contracts = [sketch.contract for _, sketch in sketches.values()]
        self._refuse_changed(source, contracts)
        features = query.select_features(contracts, source.types, source.segments)
        of = replay.slices(sum(found.values()), PREDICTIONS_AT_ONCE)
        for number in range(of):
            for rows in both_sides.rows(source, self.window, features.named, (number, of)):
                for (version, (_, sketch)), places in zip(sketches.items(), features.places, strict=True):
                    of_version = rows.filter(pc.equal(rows.column("v"), version))
                    sketch.add(_result(of_version, sketch.output, places, features.segments))
        self._write(day, list(sketches.values()))
        return sum(sketch.rows for _, sketch in sketches.values())

    def _refuse_changed(self, source: Source, contracts: Sequence[Contract]) -> None:
        """Raise SourceChanged when the source is no longer what the versions of the day were made for."""
        problems = {problem: None for one in contracts for problem in source_problems(self.job, source.types, one)}
        if problems:
            message = f"{self.window.shown(self.job.zone)} cannot be counted anew: {'; '.join(problems)}."
            advice = "ask the client what changed; what the runs have counted stays as it is"
            raise SourceChanged(message, advice, "measure")

    def _series(self, version: int, source: Source) -> tuple[Series, Sketch]:
        manifest = store.read_manifest(self.place.settings.model_store, self.job.score.model, version)
        reference = daily_state.reference_of(self.connection, self.job, version)
        segments = daily_state.known_segments(self.connection, self.job, source.segments)
        sketch = Sketch(manifest.contract, manifest.output, reference.profile, self.job.zone, segments)
        return Series(self.job, self.role, version, reference.version), sketch

    def _write(self, day: date, counted: Sequence[tuple[Series, Sketch]]) -> None:
        daily_state.forget(self.connection, self.job, self.role, [day])
        for series, sketch in counted:
            daily_state.add(self.connection, series, sketch.states())
        daily_state.freshen(self.connection, self.job, self.role, [day])


def _result(rows: pa.Table, output: Output, places: Sequence[int], segments: Sequence[int]) -> BatchResult:
    """Return rows that were read again, with their predictions, as if they had just been scored."""
    stamps, answers = replay.column(rows, "t"), replay.answers_of(rows, output)
    scored = ScoredBatch([], stamps, None, answers, np.zeros(len(rows), bool))
    features, split = ([replay.column(rows, f"f{place}") for place in some] for some in (places, segments))
    return BatchResult(len(rows), 0, scored, features, [], split)
