"""Count the daily state anew, from the rows of the source and the predictions that are in the table.

The rows are folded by the very code that folds them in a run. (One aggregate of PostgreSQL per column takes four times
as long, and would be a second definition of every bin.) A row that was edited or deleted since is counted as the source
has it now.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2.sql import SQL, Identifier, Literal
from sqlalchemy import text

from plantao import database, ledger
from plantao.errors import SourceChanged, TargetRefused
from plantao.extract import keys, query, read
from plantao.extract.query import Branch, both
from plantao.extract.window import of_days
from plantao.job_types import parse_table_name
from plantao.load import write
from plantao.load.table import shadow_job
from plantao.measure import state
from plantao.measure.sketch import Sketch
from plantao.measure.state import Series
from plantao.score import model_store
from plantao.score.batch import BatchResult, ScoredBatch
from plantao.score.predict import Answers
from plantao.validate.source import source_problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from psycopg2.sql import Composable
    from sqlalchemy import Connection

    from plantao.database import Snapshot
    from plantao.extract.source import Source
    from plantao.extract.window import Window
    from plantao.job import Job
    from plantao.ledger import Role
    from plantao.place import Place
    from plantao.score.manifest import Output
    from plantao.validate.contract import Contract

PREDICTIONS_AT_ONCE = 1_000_000


def recount(job: Job, place: Place, role: Role, days: Sequence[date]) -> int:
    """Count the state of whole local days anew; return how many rows were counted. Raises a PlantaoError.

    No run makes rows of the job visible meanwhile, so that none is missed or counted twice.
    """
    aimed = job if role == "champion" else shadow_job(job)
    schema, name = parse_table_name(aimed.load.table)
    rows = 0
    with ledger.session(job, place, f"plantao/{job.name}/measure") as connection:
        if write.find_table(connection, schema, name) is None:
            return 0
        for day in days:
            with (
                database.explained("measure", TargetRefused, f"counting {day} anew"),
                database.deadline(connection, 2 * database.STATEMENT_SECONDS),
                _sides(aimed, place) as (source, target),
                connection.begin(),
            ):
                write.take_lock(connection, f"plantao.load {schema}.{name}")
                rows += _Day(aimed, place, role, of_days(day, day, job.zone), connection).count(source, target, day)
    return rows


def differing(connection: Connection, job: Job, role: Role, days: Sequence[date]) -> list[date]:
    """Return the days whose state is not of as many rows, version by version, as there are predictions."""
    aimed = job if role == "champion" else shadow_job(job)
    schema, name = parse_table_name(aimed.load.table)
    if not days or write.find_table(connection, schema, name) is None:
        return []
    window = of_days(min(days), max(days), job.zone)
    predicted = SQL(
        "select (p.source_timestamp at time zone {zone})::date, p.model_version, count(*) from {table} as p"
        " where p.source_timestamp >= {start} and p.source_timestamp < {end} group by 1, 2"
    ).format(
        zone=Literal(job.timezone), table=Identifier(schema, name), start=Literal(window.start), end=Literal(window.end)
    )
    query = text(
        "select day, model_version, sum(rows)::bigint from daily_state where job = :job and role = :role"
        " and segment = '' and column_name = '' and day between :first and :last group by 1, 2"
    )
    with connection.begin():
        there = {(day, version): rows for day, version, rows in database.fetch(connection, predicted)}
        values = {"job": job.name, "role": role, "first": min(days), "last": max(days)}
        counted = {(day, version): rows for day, version, rows in connection.execute(query, values)}
    odd = {key[0] for key in there.keys() | counted.keys() if there.get(key) != counted.get(key)}
    return sorted(odd & set(days))


@contextmanager
def _sides(job: Job, place: Place) -> Iterator[tuple[Snapshot, Snapshot]]:
    """Open the two databases to read from."""
    application = f"plantao/{job.name}/measure"
    with (
        database.snapshot(place.address(job.extract.connection), application) as source,
        database.snapshot(place.address(job.load.connection), application) as target,
    ):
        yield source, target


@dataclass(frozen=True)
class _Day:
    """One day of the predictions in one table."""

    job: Job
    place: Place
    role: Role
    window: Window
    connection: Connection

    def count(self, snapshot: Snapshot, target: Snapshot, day: date) -> int:
        """Fold the rows of the day and write its state in place of what is there."""
        source = read.source_of(self.job, snapshot, self.connection)
        found = target.table(self._quoted(query.count_answers(source, self.window))).to_pylist()
        sketches = {row["v"]: self._series(row["v"], source) for row in found}
        contracts = [sketch.contract for _, sketch in sketches.values()]
        self._refuse_changed(source, contracts)
        features = query.select_features(contracts, source.types, source.segments)
        slices = -(-sum(row["n"] for row in found) // PREDICTIONS_AT_ONCE)
        for number in range(slices):
            answers = target.table(self._quoted(query.select_answers(source, self.window, (number, slices))))
            condition = both(source.within(self.window), query.slice_of(source, "s", number, slices))
            rows = query.select_rows(source, self.window, [Branch(condition, may_be_late=False)], features.columns)
            for batch in snapshot.batches(self._quoted(rows)):
                together = pa.Table.from_batches([batch]).join(answers, keys.key_names(batch), join_type="inner")
                for (version, (_, sketch)), places in zip(sketches.items(), features.places, strict=True):
                    of_version = together.filter(pc.equal(together.column("v"), version)).combine_chunks()
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
        manifest = model_store.read_manifest(self.place.settings.model_store, self.job.score.model, version)
        reference = state.reference_of(self.connection, self.job, version)
        segments = state.known_segments(self.connection, self.job, source.segments)
        sketch = Sketch(manifest.contract, manifest.output, reference.profile, self.job.zone, segments)
        return Series(self.job, self.role, version, reference.version), sketch

    def _write(self, day: date, counted: Sequence[tuple[Series, Sketch]]) -> None:
        state.forget(self.connection, self.job, self.role, [day])
        for series, sketch in counted:
            state.add(self.connection, series, sketch.states())
        state.freshen(self.connection, self.job, self.role, [day])

    def _quoted(self, composed: Composable) -> str:
        return database.quoted(self.connection, composed)


def _result(rows: pa.Table, output: Output, places: Sequence[int], segments: Sequence[int]) -> BatchResult:
    """Return rows that were read again, with their predictions, as if they had just been scored."""

    def column(name: str) -> pa.Array:
        chunks = rows.column(name)
        return chunks.chunk(0) if chunks.num_chunks else pa.array([], chunks.type)

    scores = None
    if output.kind == "multiclass":
        every = [json.loads(text) for text in column("every").to_pylist()]
        scores = np.array([[line[str(label)] for label in output.classes] for line in every], float)
    answers = Answers(column("d").to_numpy(zero_copy_only=False), column("s").to_numpy(), scores)
    scored = ScoredBatch([], column("t"), None, answers, np.zeros(len(rows), bool))
    features = [column(f"f{place}") for place in places]
    return BatchResult(len(rows), 0, scored, features, [], [column(f"f{place}") for place in segments])
