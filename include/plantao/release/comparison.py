"""Two versions on the rows of one window: what a change of champion would change for the client.

Both score every row of the window in one pass; nothing is written.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from plantao.errors import SourceChanged, SourceRefused
from plantao.extract import query, read
from plantao.extract.packing import Packing
from plantao.extract.query import Branch
from plantao.extract.source import path_of
from plantao.ledger import jobs
from plantao.ledger import session as ledger_session
from plantao.log import Stopwatch
from plantao.postgres import driver_errors, session
from plantao.postgres import snapshot as snapshots
from plantao.score.loader import bounded_threads
from plantao.validate.verdict import source_problems
from plantao.window import Schedule, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.runtime import Place
    from plantao.score.batch import BatchScorer, ScoredBatch
    from plantao.score.loader import Verified


@dataclass
class Difference:
    """How two versions, `old` and `new`, answer the rows of a window."""

    job: str
    window: Window
    rows: int = 0
    rejected_old: int = 0
    rejected_new: int = 0
    both: int = 0
    """Rows that both have scored."""
    changed: int = 0
    """Of those: rows whose decision is another one; of a regression, rows whose value is."""
    score_sum_old: float = 0.0
    score_sum_new: float = 0.0
    largest: float = 0.0
    """The largest difference between two scores of a row."""

    @property
    def share_changed(self) -> float:
        """The share of the rows that both have scored whose decision is another one."""
        return self.changed / self.both if self.both else 0.0

    @property
    def share_rejected(self) -> float:
        """The share of the rows that the new version would set aside."""
        return self.rejected_new / self.rows if self.rows else 0.0

    def add(self, old: ScoredBatch, new: ScoredBatch) -> None:
        """Fold in what both have made of one batch."""
        if not len(old) or not len(new):
            return
        together = _table(old, "old").join(_table(new, "new"), _key_names(old), join_type="inner")
        first, second = (together.column(f"score_{side}").to_numpy() for side in ("old", "new"))
        decisions = [together.column(f"prediction_{side}").to_numpy(zero_copy_only=False) for side in ("old", "new")]
        self.both += len(together)
        self.changed += int((decisions[0] != decisions[1]).sum())
        self.score_sum_old = math.fsum((self.score_sum_old, float(first.sum())))
        self.score_sum_new = math.fsum((self.score_sum_new, float(second.sum())))
        self.largest = max(self.largest, float(np.abs(first - second).max(initial=0.0)))

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as plain values."""
        window = {"start": self.window.start.isoformat(), "end": self.window.end.isoformat()}
        return {**vars(self), "window": window, "share_changed": self.share_changed}


def compare(job: Job, window: Window, old: Verified, new: Verified, place: Place) -> Difference:
    """Score the rows of a window with both versions.

    Raises SourceChanged when the source does not fit one of them, and other PlantaoErrors when it cannot be read.
    """
    from plantao.score.batch import BatchScorer

    contracts = [version.manifest.contract for version in (old, new)]
    difference = Difference(job.name, window)
    with ledger_session.session(job, place, f"plantao/{job.name}/compare") as connection:
        address = place.address(job.extract.connection)
        with driver_errors.explained("extract", SourceRefused, f"connecting to {address}"):
            snapshot = snapshots.open_snapshot(address, f"plantao/{job.name}/compare", path=path_of(job))
        with contextlib.ExitStack() as stack:
            stack.callback(snapshot.close)
            source = read.source_of(job, snapshot, connection)
            for version in (old, new):
                if problems := source_problems(job, source.types, version.manifest.contract):
                    message = f"the source is not what {version.manifest.name} was made for: {'; '.join(problems)}."
                    raise SourceChanged(message, "add the columns to the source, or train on those it has", "validate")
            packing = Packing(query.select_features(contracts, source.types))
            branch = Branch(source.within(window), may_be_late=False)
            statement = session.quoted(connection, query.select_rows(source, window, [branch], packing.columns))
            stack.pop_all()  # from here on the thread that reads closes the snapshot
        spool = read.read(snapshot, snapshot.close, statement)
    scorers = [
        BatchScorer(job, version.manifest, version.model, places=places)
        for version, places in zip((old, new), packing.features.places, strict=True)
    ]
    try:
        with bounded_threads(place.settings.threads):
            for batch in map(packing.unpack, spool.batches(session.STATEMENT_SECONDS)):
                _fold(difference, batch, scorers)
    finally:
        spool.abandon()
    return difference


def _fold(difference: Difference, batch: pa.RecordBatch, scorers: Sequence[BatchScorer]) -> None:
    old, new = (scorer.score(batch, Stopwatch()) for scorer in scorers)
    difference.rows += old.read
    difference.rejected_old += len(old.rejected)
    difference.rejected_new += len(new.rejected)
    difference.add(old.scored, new.scored)


def last_window(job: Job, connection: Connection) -> Window | None:
    """Return the window that was scored last, else the last complete one; None when the job has neither."""
    covered = jobs.last_scored(connection, job.name)
    if covered is not None or job.cron is None:
        return covered
    return Schedule(job.cron, job.zone).last_due(ledger_session.now(connection), job.starts_at, job.ends_at)


def _key_names(batch: ScoredBatch) -> list[str]:
    return [f"k{i}" for i in range(len(batch.keys))]


def _table(batch: ScoredBatch, side: str) -> pa.Table:
    columns = [*batch.keys, pa.array(batch.answers.prediction), pa.array(batch.answers.score)]
    return pa.table(columns, [*_key_names(batch), f"prediction_{side}", f"score_{side}"])
