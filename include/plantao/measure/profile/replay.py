"""Read rows of the source again, together with the predictions that were made of them.

Each side is read where it is, so that one database and two are the same; a slice of the keys at a time, so that memory
does not grow with the rows.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from plantao.extract import keys, query
from plantao.extract.query import Branch, both
from plantao.extract.source import path_of
from plantao.postgres import session
from plantao.postgres.replaced import whole_snapshot
from plantao.score.predict import Answers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg2.sql import Composable
    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.extract.source import Source
    from plantao.models.manifest import Output
    from plantao.postgres.snapshot import Snapshot
    from plantao.runtime import Place
    from plantao.window import Window


@dataclass(frozen=True)
class Answered:
    """The source and the predictions of a job, each at one moment."""

    snapshot: Snapshot
    target: Snapshot
    quoter: Connection

    def versions(self, source: Source, window: Window) -> dict[int, int]:
        """Return how many predictions each version has in a window."""
        rows = self.target.table(self._quoted(query.count_answers(source, window))).to_pylist()
        return {row["v"]: row["n"] for row in rows}

    def rows(
        self, source: Source, window: Window, columns: Sequence[Composable], slice_: tuple[int, int]
    ) -> Iterator[pa.Table]:
        """Yield the rows of one slice of a window that are predicted, with v, d, s and `every` beside their columns."""
        answers = self.target.table(self._quoted(query.select_answers(source, window, slice_)))
        condition = both(source.within(window), query.slice_of(source, "s", *slice_))
        rows = query.select_rows(source, window, [Branch(condition, may_be_late=False)], columns)
        for batch in self.snapshot.batches(self._quoted(rows)):
            yield pa.Table.from_batches([batch]).join(answers, keys.key_names(batch), join_type="inner")

    def _quoted(self, composed: Composable) -> str:
        return session.quoted(self.quoter, composed)


@contextmanager
def opened(job: Job, place: Place, quoter: Connection) -> Iterator[Answered]:
    """Open both sides to read from."""
    application = f"plantao/{job.name}/measure"
    with (
        whole_snapshot(place.address(job.extract.connection), application, path_of(job)) as source,
        whole_snapshot(place.address(job.load.connection), application) as target,
    ):
        yield Answered(source, target, quoter)


def slices(predictions: int, at_once: int) -> int:
    """Return into how many slices so many predictions are cut."""
    return -(-predictions // at_once)


def column(rows: pa.Table, name: str) -> pa.Array:
    """Return a column in one piece."""
    found = rows.column(name).combine_chunks()
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def answers_of(rows: pa.Table, output: Output) -> Answers:
    """Return the predictions as the model's answers."""
    scores = None
    if output.kind == "multiclass":
        every: list[dict[str, Any]] = [json.loads(text) for text in column(rows, "every").to_pylist()]
        scores = np.array([[line[str(label)] for label in output.classes] for line in every], float)
    return Answers(column(rows, "d").to_numpy(zero_copy_only=False), column(rows, "s").to_numpy(), scores)
