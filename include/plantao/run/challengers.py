"""Versions beside the champion: they score the same rows in the same pass, into a table of their own.

Each has a session, an attempt and books of its own. Whatever happens to one of them stays with it: it is closed as
failed, with an alert, and the champion's run goes on. They are published once the champion's rows are visible; one that
misses rows, because the process died in between, gets them by `plantao run JOB --from … --to … --model-version N`.
Where a window is cut into parts, `challengers_in_parts` says what is different.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from plantao import log
from plantao.errors import DatabaseUnavailable, SourceChanged, TargetRefused
from plantao.ledger import runs
from plantao.ledger import session as ledger_session
from plantao.load import rejects, write
from plantao.load.existing import ensure_table
from plantao.load.table import prediction_table, shadow_job
from plantao.log import Stopwatch
from plantao.measure.profile import daily_state
from plantao.measure.profile.daily_state import Series
from plantao.measure.profile.sketch import Sketch
from plantao.outbox.alerts import Alert
from plantao.postgres import driver_errors
from plantao.postgres import session as database
from plantao.run.finish import record_failure
from plantao.run.origin import origin_of
from plantao.score import loader
from plantao.validate.verdict import refuse_too_many, source_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa
    from sqlalchemy import Connection

    from plantao.extract.query import Features
    from plantao.extract.read import Extraction
    from plantao.extract.source import Source
    from plantao.ledger.request import Request
    from plantao.load.table import PredictionTable
    from plantao.models.contract import Contract
    from plantao.models.manifest import Manifest
    from plantao.models.registry import Registered
    from plantao.runtime import Place
    from plantao.score.batch import BatchScorer, RejectedRow
    from plantao.score.loader import Verified


class Challengers:
    """The challengers of one champion's run."""

    def __init__(self, request: Request, place: Place) -> None:
        self._request, self._place = request, place
        self._running: list[Challenger] = []

    @property
    def contracts(self) -> list[Contract]:
        """The contracts of those that are in, in order."""
        return [challenger.version.manifest.contract for challenger in self._running]

    def start(self, versions: Sequence[Registered]) -> None:
        """Start an attempt of each, and put it through the gate; the source is not open yet."""
        self.let_in([Challenger(self._request, self._place, version) for version in versions])

    def let_in(self, challengers: Sequence[Challenger]) -> None:
        """Start these."""
        self._running = list(challengers)
        self._each(lambda challenger: challenger.start())

    def open(self, source: Source, extraction: Extraction) -> None:
        """Keep those that fit the source, and open a load for each."""
        self._each(lambda challenger: challenger.open(source, extraction))

    def find(self, features: Features) -> None:
        """Tell each where its features are among the columns that are read."""
        for challenger, own in zip(self._running, features.places[1:], strict=True):
            challenger.scorer = replace(challenger.scorer, places=own, segments=features.segments)

    def add(self, batch: pa.RecordBatch) -> None:
        """Let each score the batch that the champion has scored."""
        self._each(lambda challenger: challenger.add(batch))

    def publish(self, moment: str) -> None:
        """Make the predictions of each visible, with its own line in the ledger."""
        self._each(lambda challenger: challenger.publish(moment))

    def abandon(self, error: BaseException) -> None:
        """Close the attempt of each: the champion's run has failed, and its next try reads the rows again."""
        for challenger in self._running:
            challenger.close(DatabaseUnavailable(f"the champion's run failed: {error}", "nothing: it is retried"))

    def _each(self, call: Callable[[Challenger], None]) -> None:
        for challenger in list(self._running):
            try:
                call(challenger)
            except Exception as error:  # noqa: BLE001 - whatever a challenger does, the champion's run goes on
                self._running.remove(challenger)
                challenger.close(error, failed(challenger.registered, self._request, challenger.run_id, error))


class Challenger:
    """One version beside the champion, on the rows of one run."""

    version: Verified
    connection: Connection
    table: PredictionTable
    scorer: BatchScorer
    load: write.Load | None = None
    run_id: int | None = None
    beside: int | None = None

    def __init__(self, request: Request, place: Place, registered: Registered) -> None:
        self.request, self.place, self.registered = request, place, registered
        self.job = shadow_job(request.job)
        self.watch = Stopwatch()
        self.read = self.late = 0
        self.rejected: list[RejectedRow] = []
        self._session = contextlib.ExitStack()

    def start(self) -> None:
        """Start an attempt, and pass the gate."""
        job, number = self.job, self.registered.version
        session = ledger_session.session(job, self.place, f"plantao/{job.name}/{self.registered.name}")
        self.connection = self._session.enter_context(session)
        origin = origin_of(self.request, self.place)
        self.run_id = runs.start(
            self.connection, job, self.request.window, number, origin, role="challenger", beside=self.beside
        )
        with self.watch.step("score"):
            self.version = loader.verified(self.registered, self.place.settings)

    def open(self, source: Source, extraction: Extraction) -> None:
        """Fit the source, and open a load."""
        from plantao.score.batch import BatchScorer

        job, manifest = self.job, self.version.manifest
        # A rule on a column that only the champion reads is none of this version's business.
        rules = {name: rule for name, rule in job.validation.columns.items() if manifest.contract.column(name)}
        self.job = job.model_copy(update={"validation": job.validation.model_copy(update={"columns": rules})})
        if problems := source_problems(self.job, source.types, manifest.contract):
            message = f"the source is not what {manifest.name} was made for: {'; '.join(problems)}."
            raise SourceChanged(message, f"add the columns to the source, or retire {manifest.name}", "validate")
        self.table = prediction_table(self.job, source.key_types, manifest.output, shadow=True)
        ensure_table(self.connection, self.table)
        self.load = self._new_load(manifest)
        self.scorer = BatchScorer(self.job, manifest, self.version.model, extraction.predicted, extraction.duplicates)
        reference = daily_state.reference_of(self.connection, job, manifest.version)
        self.series = Series(job, "challenger", manifest.version, reference.version)
        segments = daily_state.known_segments(self.connection, job, source.segments)
        self.sketch = Sketch(manifest.contract, manifest.output, reference.profile, job.zone, segments)

    def _new_load(self, manifest: Manifest) -> write.Load:
        assert self.run_id is not None
        again = self.job.extract.on_change == "rescore"
        return write.Load(self.connection, self.table, manifest.output, self.run_id, manifest.version, again)

    def add(self, batch: pa.RecordBatch) -> None:
        """Score a batch and hand it to the load."""
        result = self.scorer.score(batch, self.watch)
        self.read += result.read
        self.late += result.late
        self.rejected += result.rejected
        with self.watch.step("measure"):
            self.sketch.add(result)
        if self.load is not None and len(result.scored):
            self.load.add(result.scored)

    def publish(self, moment: str) -> None:
        """Make the predictions visible together with the ledger row that says they are complete."""
        assert self.load is not None
        assert self.run_id is not None
        refuse_too_many(self.job, rejects.lines_of(self.rejected), self.read - self.late)
        counts, dropped = self._loaded(self.load), self.load.dropped
        with (
            driver_errors.explained("load", TargetRefused, "closing the books"),
            database.deadline(self.connection, database.STATEMENT_SECONDS),
        ):
            with self.watch.step("measure"):
                states = self.sketch.states()
                daily_state.add_run(self.connection, self.series, states, self.request, counts=counts, dropped=dropped)
            runs.succeed(
                self.connection,
                self.run_id,
                counts,
                snapshot=moment,
                seconds=self.watch.seconds,
                profile=self.sketch.as_dict(),
            )
            self.connection.commit()
        fields = {"job": self.job.name, "run": self.run_id, "model": self.registered.name}
        log.event("challenger finished", {**fields, "rows_scored": counts.scored, "rejected": counts.rejected})
        self._session.close()

    def _loaded(self, load: write.Load) -> runs.Counts:
        """Return where the rows went once the last of them is loaded, the transaction still open."""
        with self.watch.step("load"):
            load.wait()
        scored, rejected = load.scored, len(self.rejected)
        late = min(self.late, scored + rejected)
        return runs.Counts(self.read, scored, rejected, load.dropped, late, load.rescored, load.conflicts.rows)

    def release(self) -> None:
        """Stop, and let the attempt go on without this session."""
        if self.load is not None:
            self.load.abandon()
        self._session.close()

    def close(self, error: BaseException, alert: Alert | None = None) -> None:
        """Close the attempt as failed, with an alert when somebody has to look at it."""
        if self.load is not None:
            self.load.abandon()
        if self.run_id is None:  # not even its session could be opened
            fields = {"job": self.job.name, "model": self.registered.name, "error": str(error)}
            log.event("challenger left out", fields, log.WARNING)
        else:
            record_failure(self.request, self.place, self.connection, self.run_id, error, alert=alert)
        self._session.close()


def failed(registered: Registered, request: Request, run_id: int | None, error: BaseException) -> Alert:
    """Return what somebody has to know when a challenger has failed."""
    name, job, window = registered.name, request.job.name, request.window.shown(request.job.zone)
    return Alert(
        kind="challenger_failed",
        about=f"{job} {name}",
        message=f"challenger {name} failed on job {job}, {window}: {error} The champion's predictions are complete"
        " or follow; they do not depend on it.",
        next_step=f"look at the error; plantao models retire {name.replace('/', ' ')} --why … ends it",
        job=job,
        run_id=run_id,
    )
