"""One batch on its way: hold it against the contract, ask the model, keep the two outcomes apart.

Pure. The stopwatch is the caller's. The columns arrive by place (see `extract.query`): keys k0…, instant t, late, edit
time c, features f0…. Keys stay in Arrow from the source to the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from plantao.extract import keys
from plantao.extract import timestamps as moment
from plantao.score.accounted import MET_AGAIN, Accounted, digests, judge_of
from plantao.score.control_group import control_group
from plantao.score.predict import answers, predict, to_frame
from plantao.validate.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.config.job import Job
    from plantao.log import Stopwatch
    from plantao.models.manifest import Manifest
    from plantao.score.predict import Answers
    from plantao.validate.verdict import Mask, Reject


@dataclass(frozen=True)
class ScoredBatch:
    """The rows of one batch that were scored, column by column."""

    keys: Sequence[pa.Array]
    timestamps: pa.Array
    changed_at: pa.Array | None
    answers: Answers
    in_control_group: Mask
    control: tuple[str, float] | None = None
    """The salt and the share by which the control group was drawn, when the job has one."""

    def __len__(self) -> int:
        return len(self.timestamps)


@dataclass(frozen=True)
class RejectedRow:
    """One row that is set aside, as it will be written down."""

    key: Mapping[str, Any]
    source_timestamp: str
    """As PostgreSQL reads it, whose calendar is longer than Python's."""
    reason: str
    column: str | None
    detail: str
    row: Mapping[str, Any] | None = None
    late: bool = False
    """Whether it is a row of an earlier window, for which the run looked back."""
    digest: str | None = None
    """Shows a later run whether the row, or what decides about it, has changed; None for what is always met again."""


@dataclass(frozen=True)
class BatchResult:
    """Where the rows of one batch went: `read` = scored + rejected; those predicted already are not read."""

    read: int
    late: int
    scored: ScoredBatch
    features: Sequence[pa.Array]
    """The features of the scored rows."""
    rejected: Sequence[RejectedRow]
    segments: Sequence[pa.Array] = ()
    """The segment columns of the scored rows, as text."""


@dataclass(frozen=True)
class BatchScorer:
    """Everything that turns a batch into predictions and rejects."""

    job: Job
    manifest: Manifest
    model: Any = field(repr=False)
    predicted: pa.Table | None = None
    """Keys and timestamps to leave out, where the source's own query could not."""
    duplicates: pa.Table | None = None
    """Keys that more than one owed row has."""
    places: Sequence[int] | None = None
    """Which columns f0… are this model's features, in the order of its contract; None means all of them."""
    segments: Sequence[int] = ()
    """Which columns f0… are the job's segments."""
    accounted: Accounted = field(default_factory=Accounted)
    """The late rows that open rejects account for."""

    def without_accounted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows without those that an open reject accounts for: they are neither read nor judged again."""
        places = self.accounted.may_hold(batch)
        if not len(places):
            return batch
        some = batch.take(pa.array(places))
        known = np.array([one in self.accounted.digests for one in digests(some, self._features(some), self._judge)])
        if self.duplicates is not None:  # a key that has a twin now is judged with it
            known &= ~_is_among(some, self.duplicates)
        left = np.ones(len(batch), dtype=bool)
        left[places[known]] = False
        return _only(batch, left)

    @cached_property
    def _judge(self) -> bytes:
        return judge_of(self.job, self.manifest)

    def _features(self, batch: pa.RecordBatch) -> list[pa.Array]:
        places = range(len(self.manifest.contract.columns)) if self.places is None else self.places
        return [batch.column(f"f{i}") for i in places]

    def score(self, batch: pa.RecordBatch, watch: Stopwatch) -> BatchResult:
        """Validate and score one batch."""
        with watch.step("validate"):
            if self.predicted is not None:
                batch = _only(batch, ~_is_among(batch, self.predicted, by=["t"]))
            key_arrays = [batch.column(name) for name in keys.key_names(batch)]
            features = self._features(batch)
            duplicates = _is_among(batch, self.duplicates) if self.duplicates is not None else None
            rules = self.job.validation.columns
            verdict = judge(key_arrays, features, self.manifest.contract, rules, duplicates)
            rejected = self._rejected(batch, verdict.rejects)
            accepted = _only(batch, verdict.accepted)
        with watch.step("score"):
            features = self._features(accepted)
            raw, failed = predict(self.model, to_frame(features, self.manifest.contract), self.manifest.output)
            if failed:
                rejected += self._rejected(accepted, failed)
                answered = np.ones(len(accepted), dtype=bool)
                answered[[reject.row for reject in failed]] = False
                raw, accepted = raw[answered], _only(accepted, answered)
                features = self._features(accepted)
            key_arrays = [accepted.column(name) for name in keys.key_names(accepted)]
            share = self.job.measure.control_group
            scored = ScoredBatch(
                keys=key_arrays,
                timestamps=accepted.column("t"),
                changed_at=accepted.column("c") if "c" in accepted.schema.names else None,
                answers=answers(raw, self.manifest.output, self.job.score.threshold),
                in_control_group=control_group(key_arrays, share, self.job.name),
                control=(self.job.name, share) if share else None,
            )
        late = int(batch.column("late").true_count)
        segments = [accepted.column(f"f{place}") for place in self.segments]
        return BatchResult(len(batch), late, scored, features, rejected, segments)

    def _rejected(self, batch: pa.RecordBatch, found: Sequence[Reject]) -> list[RejectedRow]:
        if not found:
            return []
        some = batch.take(pa.array([reject.row for reject in found]))
        of_all = digests(some, self._features(some), self._judge)
        return [self._rejected_row(batch, *one) for one in zip(found, of_all, strict=True)]

    def _rejected_row(self, batch: pa.RecordBatch, reject: Reject, digest: str) -> RejectedRow:
        row = None
        if self.job.validation.keep_rejected_rows:
            features = zip(self.manifest.contract.columns, self._features(batch), strict=True)
            row = {column.name: _plain(array[reject.row]) for column, array in features}
        return RejectedRow(
            key={name: _plain(batch.column(f"k{i}")[reject.row]) for i, name in enumerate(self.job.extract.key)},
            source_timestamp=moment.shown(batch.column("t")[reject.row]),
            reason=reject.reason,
            column=reject.column,
            detail=reject.detail,
            row=row,
            late=batch.column("late")[reject.row].as_py(),
            digest=None if reject.reason in MET_AGAIN else digest,
        )


def _only(batch: pa.RecordBatch, mask: Mask) -> pa.RecordBatch:
    return batch if mask.all() else batch.filter(pa.array(mask))


def _is_among(batch: pa.RecordBatch, known: pa.Table, by: Sequence[str] = ()) -> Mask:
    """Mark the rows whose key, and whose columns in `by`, are among the known ones."""
    names = [*keys.key_names(batch), *by]
    rows = pa.table([*(batch.column(name) for name in names), np.arange(len(batch))], [*names, "place"])
    mask = np.zeros(len(batch), dtype=bool)
    mask[keys.also_in(rows, known, by).column("place").to_numpy()] = True
    return mask


def _plain(scalar: Any) -> Any:
    """Return the value as JSON can hold it; NaN and infinity have no number there, and not all bytes are text."""
    if pa.types.is_date32(scalar.type) or pa.types.is_timestamp(scalar.type):
        return moment.shown(scalar) if scalar.is_valid else None
    try:
        value = scalar.as_py()
    except UnicodeDecodeError:
        return scalar.cast(pa.binary()).as_py().decode(errors="replace")
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
