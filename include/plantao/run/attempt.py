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

from plantao.errors import SourceChanged, TargetRefused
from plantao.extract import query, read, standby
from plantao.extract.packing import Packing
from plantao.ledger import runs
from plantao.load import ownership, rejects, write
from plantao.load.existing import ensure_table, find_table
from plantao.load.table import prediction_table, shadow_job
from plantao.log import Stopwatch
from plantao.measure import run_checks
from plantao.measure.profile import daily_state, lost
from plantao.measure.profile.daily_state import MOVED, Series
from plantao.measure.profile.sketch import Sketch
from plantao.postgres import driver_errors, session
from plantao.postgres.replaced import whole, whole_snapshot
from plantao.run import finish, integrity
from plantao.run.challengers import Challengers
from plantao.run.report import account
from plantao.run.requested_windows import note_of
from plantao.score.accounted import Accounted
from plantao.score.loader import bounded_threads
from plantao.validate.verdict import refuse_too_many, source_problems
from plantao.window import late_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    from sqlalchemy import Connection

    from plantao.extract.read import Extraction
    from plantao.extract.source import KeyRange, Source
    from plantao.extract.spool import Spool
    from plantao.ledger.request import Request
    from plantao.ledger.runs import Role
    from plantao.load.table import PredictionTable
    from plantao.measure.profile.sketch import Key, State
    from plantao.models.manifest import Manifest, Output
    from plantao.postgres.snapshot import Snapshot
    from plantao.run.report import Report
    from plantao.runtime import Place
    from plantao.score.batch import BatchScorer, RejectedRow
    from plantao.score.loader import Verified


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
        self.accounted = Accounted()
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

    def _walk(self, version: Verified) -> tuple[runs.Counts, Sketch]:
        """Open the source, score what is owed, and publish it."""
        with contextlib.ExitStack() as stack:
            opened = self._open(stack, version.manifest)
            self._note_rows_without_time(opened, version.manifest)
            sketch = self._new_sketch(opened.source, version.manifest)
            with self.watch.step("extract"):
                self.beside.open(opened.source, opened.extraction)
                statement = self._statement(opened, version.manifest)
                self.moment = str(opened.snapshot.value("select pg_current_snapshot()::text"))
            close = stack.pop_all().close  # from here on the thread that reads closes the snapshot
        self._stream(read.read(opened.snapshot, close, statement), opened, version, sketch)
        return self._publish(opened, sketch), sketch

    def _note_rows_without_time(self, opened: Opened, manifest: Manifest) -> None:
        """Note how many rows of the source belong to no window; the champion does, not once for each part."""
        if self.role != "champion" or self.keys is not None:
            return
        if count := read.rows_without_time(opened.source, opened.snapshot, self.connection):
            named = f"{count} rows of the source have no finite {self.job.extract.timestamp}: no run scores them"
            self.note = "; ".join(filter(None, (self.note, named)))
            if self.run_id is not None:
                runs.name_version(self.connection, self.run_id, manifest.version, self.note)

    def _new_sketch(self, source: Source, manifest: Manifest) -> Sketch:
        """Return what the scored rows are folded into, in the cells of the reference in force, or of a named one."""
        reference = daily_state.reference_of(self.connection, self.job, manifest.version, self.reference)
        self.series = Series(self.job, self.role, manifest.version, reference.version)
        segments = daily_state.known_segments(self.connection, self.job, source.segments)
        return Sketch(manifest.contract, manifest.output, reference.profile, self.job.zone, segments)

    def _open(self, stack: contextlib.ExitStack, manifest: Manifest) -> Opened:
        """Open the source at one moment and decide what is owed; `stack` closes it."""
        with self.watch.step("extract"):
            snapshot, opened = whole(self._open_source, lambda snapshot: self._opened(snapshot, manifest))
            stack.callback(snapshot.close)
            return opened

    def _open_source(self, lock: Sequence[str]) -> Snapshot:
        address = self.place.address(self.job.extract.connection)
        application = f"plantao/{self.job.name}/{self.run_id or 'dry run'}"
        end = self.request.window.end
        return standby.open_up_to(end, self.job, address, self.connection, application=application, lock=lock)

    def _opened(self, snapshot: Snapshot, manifest: Manifest) -> Opened:
        source = self._checked_source(snapshot, manifest)
        table = prediction_table(self.job, source.key_types, manifest.output, shadow=self.role == "challenger")
        return Opened(snapshot, source, table, self._plan(snapshot, source, self._is_there(table)))

    def _verified_version(self) -> Verified:
        """Return the version to score with, once it has passed the gate; no row was read by then."""
        from plantao.models import registry
        from plantao.score import loader

        if self.request.trigger == "manual":
            self.note = note_of(self.request.job, self.request.window)
        if self.request.model_version is not None:
            registered = registry.named(self.connection, self.job.score.model, self.request.model_version)
        else:
            registered = registry.scoring(self.connection, self.request)
            self.note = "; ".join(filter(None, (registered.note, self.note))) or None
            if self.run_id is not None:
                runs.name_version(self.connection, self.run_id, registered.version, self.note)
        return loader.verified(registered, self.place.settings)

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
        from plantao.models import registry

        if self.run_id is not None and self.role == "champion":
            self.beside.start(registry.challengers(self.connection, self.job.score.model))

    def _is_there(self, table: PredictionTable) -> bool:
        """Make sure the prediction table can take the rows; a dry run only looks whether there is one."""
        if self.run_id is not None:
            made = ensure_table(self.connection, table)
            if self.role == "champion" and self.keys is None:  # not once for each part
                with driver_errors.explained("load", TargetRefused, f"comparing {table.name} with the daily state"):
                    lost.look(self.connection, self.job, was_made=made, run_id=self.run_id)
            return True
        ownership.require(self.connection, table.job, table.owned)
        return find_table(self.connection, table.name) is not None

    def _plan(self, snapshot: Snapshot, source: Source, table_exists: bool) -> Extraction:
        done = runs.covered(self.connection, self.job.name)
        late = late_ranges(self.request.window, self.job.extract.late_rows, self.job.starts_at, done)
        if self.role == "challenger":
            late = []  # what is late is decided by what the champion has done
        self.accounted = rejects.accounted(self.connection, self.job.name, late)
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
                    target = stack.enter_context(whole_snapshot(address, f"plantao/{self.job.name}"))
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
        return session.quoted(self.connection, rows)

    def _stream(self, spool: Spool, opened: Opened, version: Verified, sketch: Sketch) -> None:
        """Score batch after batch while the next ones are read, and in a large window the last ones are loaded."""
        from plantao.score.batch import BatchScorer

        manifest, extraction = version.manifest, opened.extraction
        known = (extraction.predicted, extraction.duplicates)
        features = self.packing.features
        places, segments = features.places[0], features.segments
        scorer = BatchScorer(self.job, manifest, version.model, *known, places, segments, self.accounted)
        if self.run_id is not None:
            self.load = self._new_load(opened.table, manifest.output, manifest.version)
        batches = map(self.packing.unpack, spool.batches(patience=session.STATEMENT_SECONDS))
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
        with self.watch.step("validate"):
            batch = scorer.without_accounted(batch)
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
        request = self.request
        again = request.rescore or request.accept_conflicts or self.job.extract.on_change == "rescore"
        return write.Load(self.connection, table, output, self.run_id, version, again, self.request.rescore)

    def _publish(self, opened: Opened, sketch: Sketch) -> runs.Counts:
        """Load what is left, close the books and commit; a dry run only counts."""
        already, lines = opened.extraction.rows_already_scored, rejects.lines_of(self.rejected)
        refuse_too_many(self.job, lines, self.read + already - self.late)
        if self.load is None or self.run_id is None:
            return runs.Counts(self.read + already, sketch.rows, len(self.rejected), already, self.late, 0)
        connection, counts = self.connection, self._loaded(opened)
        with (
            driver_errors.explained("load", TargetRefused, "closing the books"),
            session.deadline(connection, session.STATEMENT_SECONDS),
        ):
            if self.role == "champion":  # what is set aside is what the client has no prediction for
                with self.watch.step("load"):
                    rejects.write(connection, self.job.name, self.run_id, lines)
                    rejects.resolve(connection, opened.table, self.job.name, self.run_id)
            with self.watch.step("measure"):
                self._measure(sketch.states(), counts, self.load.dropped)
            runs.succeed(
                connection,
                self.run_id,
                counts,
                snapshot=self.moment,
                seconds=self.watch.seconds,
                profile=sketch.as_dict(),
            )
            if self.role == "champion":
                daily_state.mark(connection, self.job, self.role, self.load.moved_days, MOVED)
                lost.expect(connection, self.job, self.load.rescored)
                integrity.tell_conflicts(connection, self.request, self.run_id, self.load.conflicts)
                reasons = Counter(reject.reason for reject in self.rejected)
                finish.tell(connection, self.request, self.run_id, counts, reasons)
            connection.commit()
        return counts

    def _measure(self, states: Mapping[Key, tuple[int, State]], counts: runs.Counts, dropped: int) -> None:
        """Look whether the rows are what the model was made for, and add them to their days."""
        add = daily_state.add_run if self.role == "challenger" else run_checks.add_checked
        add(self.connection, self.series, states, self.request, counts=counts, dropped=dropped)

    def _loaded(self, opened: Opened) -> runs.Counts:
        """Return where the rows went once the last of them is loaded, the transaction still open."""
        load, already = self.load, opened.extraction.rows_already_scored
        assert load is not None
        with self.watch.step("load"):
            load.wait()
        return runs.Counts(
            read=self.read + already,
            scored=load.scored,
            rejected=len(self.rejected),
            already_scored=already + load.dropped,
            late=min(self.late, load.scored + len(self.rejected)),
            rescored=load.rescored,
            conflicting=load.conflicts.rows,
        )
