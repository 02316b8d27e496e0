"""Rows that an earlier run rejected and that are as they were: their open reject accounts for them.

Pure. A run looks back for rows that were committed late, and there it meets such rows again. A digest of all that
decides about a row (its values, the model version and the rules) shows whether anything has changed since.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plantao import __version__
from plantao.extract import keys, timestamps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.config.job import Job
    from plantao.models.manifest import Manifest

MET_AGAIN = frozenset({"null_key", "duplicate_key"})
"""Only together with the others of the same key can these be judged, so they have no digest."""


@dataclass(frozen=True)
class Accounted:
    """The open rejects of the time in which a run looks for late rows."""

    digests: frozenset[str] = frozenset()
    moments: pa.Array = field(default_factory=lambda: pa.array([], pa.int64()))
    """Their timestamps in microseconds since 1970."""

    def may_hold(self, batch: pa.RecordBatch) -> Any:
        """Return the places of the late rows that have the timestamp of an open reject."""
        if not self.digests:
            return np.empty(0, int)
        same = pc.is_in(timestamps.numbers(batch.column("t")), value_set=self.moments)
        return np.flatnonzero(pc.and_(batch.column("late"), same).to_numpy(zero_copy_only=False))


def judge_of(job: Job, manifest: Manifest) -> bytes:
    """Return what decides about every row: the program, the model version, and the job's rules."""
    rules = {name: rule.model_dump(mode="json") for name, rule in sorted(job.validation.columns.items())}
    return json.dumps([__version__, manifest.name, manifest.version, manifest.sha256, rules], default=str).encode()


def digests(batch: pa.RecordBatch, features: Sequence[pa.Array], judge: bytes) -> list[str]:
    """Return a digest of each row: its key, its timestamp, its edit time and its features, as `judge` judges them."""
    edited = [batch.column("c")] if "c" in batch.schema.names else []
    columns = [*(batch.column(name) for name in keys.key_names(batch)), batch.column("t"), *edited, *features]
    rows = zip(*(_exact(column) for column in columns), strict=True)
    return [blake2b(repr(row).encode(), digest_size=16, key=blake2b(judge).digest()).hexdigest() for row in rows]


def _exact(array: pa.Array) -> list[Any]:
    """Return values that Python can hold whatever they are, and that differ where the values do."""
    if pa.types.is_date32(array.type) or pa.types.is_timestamp(array.type):
        array = timestamps.numbers(array)
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())  # not all bytes are text
    values: list[Any] = array.to_pylist()
    return values
