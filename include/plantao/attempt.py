"""One attempt to score a window with a model version, step by step.

    extract -> validate -> score -> load

One pass over the data in batches, so that memory does not grow with the rows: one thread reads, this one validates
and scores, and when a window is large another one loads meanwhile. Everything becomes visible in the one
transaction that also closes the attempt in the ledger; until then nothing does.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from plantao import closing, database, ledger
from plantao.account import account
from plantao.errors import SourceChanged, TargetRefused
from plantao.extract import query, read, standby
from plantao.extract.packed import Packing
from plantao.extract.window import late_ranges
from plantao.load import rejects, write
from plantao.load.table import prediction_table, shadow_job
from plantao.log import Stopwatch
from plantao.measure.count import state
from plantao.measure.count.sketch import Sketch
from plantao.measure.count.state import Series
from plantao.measure.lanes import run_checks
from plantao.score.gate import bounded_threads
from plantao.validate.share import refuse_too_many
from plantao.validate.source import source_problems
from plantao.versions.challengers import Challengers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa
    from sqlalchemy import Connection

    from plantao.database import Snapshot
    from plantao.extract.read import Extraction
    from plantao.extract.source import KeyRange, Source
    from plantao.extract.spool import Spool
    from plantao.ledger import Role
    from plantao.load.table import PredictionTable
    from plantao.measure.count.sketch import Key, State
    from plantao.place import Place
    from plantao.request import Report, Request
    from plantao.score.batch import BatchScorer, RejectedRow
    from plantao.score.gate import Verified
    from plantao.score.manifest import Manifest, Output


@dataclass(frozen=True)
class Opened:
    """A source at one moment, where its predictions go, and what is owed between the two."""

    snapshot: Snapshot
    source: Source
    table: PredictionTable
    extraction: Extraction


class Attempt:
    """The steps of one attempt, in order. `run_id` is None for a dry run, which writes nothing."""

    def __init__(
        self,
        request: Request,
        place: Place,
        connection: Connection,
        run_id: int | None,
        role: Role = "champion",
    ) -> None:
        self.request, self.place, self.connection, self.run_id, self.role = request, place, connection, run_id, role
        self.job = request.job if role == "champion" else shadow_job(request.job)
        self.watch = Stopwatch()
        self.rejected: list[RejectedRow] = []
        self.read = self.late = 0
        self.load: write.Load | None = None
        self.keys: KeyRange | None = None
        self.reference: int | None = None
        self.packing = Packing(query.Features((), ((),)))
        self.moment = ""
        self.note: str | None = None
        self.beside = Challengers(request, place)

    def run(self) -> Report:
        """Walk the steps and return what was done. Raises a PlantaoError; then the caller rolls back."""
        with self.watch.step("score"):
            version = self._verified_version()
        try:
            self._start_challengers()
            counts, sketch = self._walk(version)
        except BaseException as error:
            if self.load is not None:
                self.load.abandon()
            self.beside.abandon(error)
            raise
        self.beside.publish(self.moment)
        return account(self, version.manifest, counts, sketch)

    def _walk(self, version: Verified) -> tuple[ledger.Counts, Sketch]:
        """Open the source, score what is owed, and publish it."""
        with contextlib.ExitStack() as stack:
            opened = self._open(stack, version.manifest)
            sketch = self._new_sketch(opened.source, version.manifest)
            with self.watch.step("extract"):
                self.beside.open(opened.source, opened.extraction)
                statement = self._statement(opened, version.manifest)
                self.moment = str(opened.snapshot.value("select pg_current_snapshot()::text"))
            close = stack.pop_all().close  # from here on the thread that reads closes the snapshot
        self._stream(read.read(opened.snapshot, close, statement), opened, version, sketch)
        return self._publish(opened, sketch), sketch

    def _new_sketch(self, source: Source, manifest: Manifest) -> Sketch:
        """Return what the scored rows are folded into, in the cells of the reference in force, or of a named one."""
        reference = state.reference_of(self.connection, self.job, manifest.version, self.reference)
        self.series = Series(self.job, self.role, manifest.version, reference.version)
        segments = state.known_segments(self.connection, self.job, source.segments)
        return Sketch(manifest.contract, manifest.output, reference.profile, self.job.zone, segments)

    def _open(self, stack: contextlib.ExitStack, manifest: Manifest) -> Opened:
        """Open the source at one moment and decide what is owed; `stack` closes it."""
        address = self.place.address(self.job.extract.connection)
        with self.watch.step("extract"):
            application = f"plantao/{self.job.name}/{self.run_id or 'dry run'}"
            snapshot = standby.open_up_to(self.request.window.end, address, application, self.connection)
            stack.callback(snapshot.close)
            source = self._checked_source(snapshot, manifest)
            table = prediction_table(self.job, source.key_types, manifest.output, shadow=self.role == "challenger")
            return Opened(snapshot, source, table, self._plan(snapshot, source, self._is_there(table)))

    def _verified_version(self) -> Verified:
        """Return the version to score with, once it has passed the gate; no row was read by then."""
        from plantao.score import gate, registry

        if self.request.model_version is not None:
            registered = registry.named(self.connection, self.job.score.model, self.request.model_version)
        else:
            registered = registry.scoring(self.connection, self.request)
            self.note = registered.note
            if self.run_id is not None:
                ledger.name_version(self.connection, self.run_id, registered.version, registered.note)
        return gate.verified(registered, self.place.settings)

    def _checked_source(self, snapshot: Snapshot, manifest: Manifest) -> Source:
        """Return the source, once its columns are those that the job and the model need."""
        source = read.source_of(self.job, snapshot, self.connection)
        if problems := source_problems(self.job, source.types, manifest.contract):
            message = (
                f"the source of job {self.job.name} is not what model {manifest.name} was made for: "
                f"{'; '.join(problems)}. No row was read and nothing was written."
            )
            advice = "ask the client what changed, correct the job file, or train a version on the new columns"
            raise SourceChanged(message, advice, "validate")
        return replace(source, keys=self.keys, version=None if self.role == "champion" else manifest.version)

    def _start_challengers(self) -> None:
        """Let the challengers in, which score the same rows; a dry run and a challenger's own run have none."""
        from plantao.score import registry

        if self.run_id is not None and self.role == "champion":
            self.beside.start(registry.challengers(self.connection, self.job.score.model))

    def _is_there(self, table: PredictionTable) -> bool:
        """Make sure the prediction table can take the rows; a dry run only looks whether there is one."""
        if self.run_id is not None:
            write.ensure_table(self.connection, table)
            return True
        return write.find_table(self.connection, table.schema, table.name) is not None

    def _plan(self, snapshot: Snapshot, source: Source, table_exists: bool) -> Extraction:
        done = ledger.covered(self.connection, self.job.name)
        late = late_ranges(self.request.window, self.job.extract.late_rows, self.job.starts_at, done)
        if self.role == "challenger":
            late = []  # what is late is decided by what the champion has done
        owing = read.Owing(self.request.window, tuple(late), self.request.rescore)
        if not table_exists:
            return read.plan(source, snapshot, self.connection, owing, same_database=False, read_predicted=None)
        with contextlib.ExitStack() as stack:
            together = read.sees_predictions(source, snapshot, self.connection)
            target: Snapshot | None = None

            def read_predicted(statement: str) -> pa.Table:
                nonlocal target
                if target is None:
                    address = self.place.address(self.job.load.connection)
                    target = stack.enter_context(database.snapshot(address, f"plantao/{self.job.name}"))
                return target.table(statement)

            return read.plan(
                source, snapshot, self.connection, owing, same_database=together, read_predicted=read_predicted
            )

    def _statement(self, opened: Opened, manifest: Manifest) -> str | None:
        branches = opened.extraction.branches
        contracts, source = [manifest.contract, *self.beside.contracts], opened.source
        features = query.select_features(contracts, source.types, source.segments)
        self.packing = Packing(features)
        self.beside.find(features)
        if not branches:
            return None
        rows = query.select_rows(opened.source, self.request.window, branches, self.packing.columns)
        return database.quoted(self.connection, rows)

    def _stream(self, spool: Spool, opened: Opened, version: Verified, sketch: Sketch) -> None:
        """Score batch after batch while the next ones are read, and in a large window the last ones are loaded."""
        from plantao.score.batch import BatchScorer

        manifest, extraction = version.manifest, opened.extraction
        known = (extraction.predicted, extraction.duplicates)
        features = self.packing.features
        scorer = BatchScorer(self.job, manifest, version.model, *known, features.places[0], features.segments)
        if self.run_id is not None:
            self.load = self._new_load(opened.table, manifest.output, manifest.version)
        batches = map(self.packing.unpack, spool.batches(patience=database.STATEMENT_SECONDS))
        try:
            with bounded_threads(self.place.settings.threads):
                while (batch := self._next(batches)) is not None:
                    self._score(batch, scorer, sketch)
                    del batch  # or it would stay in memory while the next one is unpacked
        finally:
            spool.abandon()

    def _next(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        with self.watch.step("extract"):
            return next(batches, None)

    def _score(self, batch: pa.RecordBatch, scorer: BatchScorer, sketch: Sketch) -> None:
        result = scorer.score(batch, self.watch)
        self.read += result.read
        self.late += result.late
        self.rejected += result.rejected
        with self.watch.step("load"):
            if self.load is not None and len(result.scored):
                self.load.add(result.scored)
        with self.watch.step("measure"):
            sketch.add(result)
        self.beside.add(batch)

    def _new_load(self, table: PredictionTable, output: Output, version: int) -> write.Load:
        assert self.run_id is not None
        again = self.request.rescore or self.job.extract.on_change == "rescore"
        return write.Load(self.connection, table, output, self.run_id, version, again, self.request.rescore)

    def _publish(self, opened: Opened, sketch: Sketch) -> ledger.Counts:
        """Load what is left, close the books and commit; a dry run only counts."""
        already, lines = opened.extraction.rows_already_scored, rejects.lines_of(self.rejected)
        refuse_too_many(self.job, lines, self.read + already)
        if self.load is None or self.run_id is None:
            return ledger.Counts(self.read + already, sketch.rows, len(self.rejected), already, self.late, 0)
        connection, counts = self.connection, self._loaded(opened)
        with (
            database.explained("load", TargetRefused, "closing the books"),
            database.deadline(connection, database.STATEMENT_SECONDS),
        ):
            if self.role == "champion":  # what is set aside is what the client has no prediction for
                with self.watch.step("load"):
                    rejects.write(connection, self.job.name, self.run_id, lines)
                    rejects.resolve(connection, opened.table, self.job.name, self.run_id)
            with self.watch.step("measure"):
                self._measure(sketch.states(), counts, self.load.dropped)
            ledger.succeed(
                connection,
                self.run_id,
                counts,
                snapshot=self.moment,
                seconds=self.watch.seconds,
                profile=sketch.as_dict(),
            )
            if self.role == "champion":
                reasons = Counter(reject.reason for reject in self.rejected)
                closing.tell(connection, self.request, self.run_id, counts, reasons)
            connection.commit()
        return counts

    def _measure(self, states: Mapping[Key, tuple[int, State]], counts: ledger.Counts, dropped: int) -> None:
        """Look whether the rows are what the model was made for, and add them to their days."""
        add = state.add_run if self.role == "challenger" else run_checks.add_checked
        add(self.connection, self.series, states, self.request, counts=counts, dropped=dropped)

    def _loaded(self, opened: Opened) -> ledger.Counts:
        """Return where the rows went once the last of them is loaded, the transaction still open."""
        load, already = self.load, opened.extraction.rows_already_scored
        assert load is not None
        with self.watch.step("load"):
            load.wait()
        return ledger.Counts(
            read=self.read + already,
            scored=load.scored,
            rejected=len(self.rejected),
            already_scored=already + load.dropped,
            late=min(self.late, load.scored + len(self.rejected)),
            rescored=load.rescored,
        )
