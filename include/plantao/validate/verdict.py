"""Which rows of a batch may be scored, and why the others may not.

Pure. A row is set aside for the first reason that applies, in this order: its key, then its columns in the order
of the contract. Reasons never quote a value, because values may be personal data.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plantao.errors import TooManyRejected
from plantao.extract import timestamps
from plantao.extract.source import missing_columns
from plantao.models.contract import differences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.config.job import ColumnRule, Job
    from plantao.models.contract import Column, Contract


Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
Reason = Literal[
    "null_key",
    "duplicate_key",
    "null_feature",
    "not_finite",
    "out_of_range",
    "unknown_category",
    "model_error",
    "bad_output",
]


@dataclass(frozen=True)
class Reject:
    """One row that is set aside: its place in the batch and why."""

    row: int
    reason: Reason
    column: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """The outcome for one batch: which rows may be scored, and the rejects."""

    accepted: Mask
    rejects: tuple[Reject, ...]


def rule_problems(rules: Mapping[str, ColumnRule], contract: Contract) -> list[str]:
    """Return the rules of a job that cannot be kept with this model."""
    problems = []
    for name, rule in rules.items():
        column = contract.column(name)
        if column is None:
            known = ", ".join(c.name for c in contract.columns)
            problems.append(f"[validate.columns.{name}] is about no column of the model; its columns are {known}")
        elif rule.nullable and not column.accepts_null:
            problems.append(f"[validate.columns.{name}] nullable: the model fails when {name!r} is NULL")
        elif column.kind not in {"float", "integer"} and (rule.min is not None or rule.max is not None):
            problems.append(f"[validate.columns.{name}] min and max: the column is {column.kind}, not a number")
    return problems


def judge(
    keys: Sequence[pa.Array],
    features: Sequence[pa.Array],
    contract: Contract,
    rules: Mapping[str, ColumnRule],
    duplicates: Mask | None = None,
) -> Verdict:
    """Hold one batch against the contract and the job's rules.

    `keys` and `features` are Arrow arrays of equal length, the features in the contract's order; `duplicates`
    marks rows whose key another row has too.
    """
    count = len(keys[0])
    accepted = np.ones(count, dtype=bool)
    rejects: list[Reject] = []

    def set_aside(bad: Mask, reason: Reason, column: str | None, detail: str) -> None:
        fresh = bad & accepted
        if fresh.any():
            rejects.extend(Reject(int(row), reason, column, detail) for row in np.flatnonzero(fresh))
            accepted[fresh] = False

    for array in keys:
        if array.null_count:
            set_aside(_to_mask(array.is_null()), "null_key", None, "a key column is NULL")
    if duplicates is not None:
        set_aside(duplicates, "duplicate_key", None, "more than one source row has this key")
    for column, array in zip(contract.columns, features, strict=True):
        for bad, reason, detail in _column_faults(column, array, rules.get(column.name)):
            set_aside(bad, reason, column.name, detail)
    return Verdict(accepted, tuple(sorted(rejects, key=lambda reject: reject.row)))


def _column_faults(column: Column, array: pa.Array, rule: ColumnRule | None) -> list[tuple[Mask, Reason, str]]:
    nullable = column.nullable if rule is None or rule.nullable is None else rule.nullable
    faults: list[tuple[Mask, Reason, str]] = []
    if array.null_count and not nullable:
        faults.append((_to_mask(array.is_null()), "null_feature", "NULL, which the model was not trained on"))
    if column.kind == "float":
        values = array.to_numpy(zero_copy_only=False)
        if not nullable:
            faults.append((~np.isfinite(values), "not_finite", "NaN or infinite"))
        else:
            faults.append((np.isinf(values), "not_finite", "infinite"))
    faults += _what_no_frame_holds(column, array)
    if rule is not None and (rule.min is not None or rule.max is not None):
        # A NULL is beyond no limit.
        if rule.min is not None:
            below = pc.fill_null(pc.less(array, pa.scalar(rule.min)), False)
            faults.append((_to_mask(below), "out_of_range", f"below {rule.min:g}"))
        if rule.max is not None:
            above = pc.fill_null(pc.greater(array, pa.scalar(rule.max)), False)
            faults.append((_to_mask(above), "out_of_range", f"above {rule.max:g}"))
    if column.categories is not None and (not column.accepts_unknown or column.dtype == "category"):
        faults.append((_unknown(array, column.categories), "unknown_category", "a value the model was not trained on"))
    if rule is not None and rule.values is not None:
        faults.append((_unknown(array, rule.values), "out_of_range", "not one of the values the job allows"))
    return faults


def _what_no_frame_holds(column: Column, array: pa.Array) -> list[tuple[Mask, Reason, str]]:
    faults: list[tuple[Mask, Reason, str]] = []
    if column.kind == "text" and (no_text := unreadable(array)) is not None:
        faults.append((_to_mask(no_text), "out_of_range", "its bytes are no text in UTF-8"))
    if column.kind in {"date", "timestamp"}:
        faults.append((_to_mask(timestamps.is_infinite(array)), "not_finite", "infinite"))
        if (beyond := beyond_the_frame(column, array)) is not None:
            faults.append((_to_mask(beyond), "out_of_range", f"beyond the calendar of {column.dtype}"))
    return faults


def _unknown(array: pa.Array, values: Sequence[object]) -> Mask:
    known = pc.is_in(array, value_set=pa.array(list(values), type=array.type))
    return _to_mask(pc.and_(pc.invert(known), array.is_valid()))


def _to_mask(array: pa.Array) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False).astype(bool, copy=False)
    return mask


EXAMPLES_SHOWN = 3


def refuse_too_many(job: Job, rejects: Sequence[Mapping[str, Any]], total: int) -> None:
    """Raise TooManyRejected when more of the run's own `total` rows would be rejected than the job allows.

    Rejects among late rows are those of earlier windows, and no part of this share.
    """
    own = [reject for reject in rejects if not reject.get("late")]
    rejected, limit = len(own), job.validation.at_most_rejected
    if not total or rejected / total <= limit:
        return
    reasons = Counter((reject["reason"], reject["column_name"] or "key") for reject in own).most_common()
    listed = ", ".join(f"{count} {reason} ({column})" for (reason, column), count in reasons[:EXAMPLES_SHOWN])
    examples = ", ".join(str(reject["key"]) for reject in own[:EXAMPLES_SHOWN])
    message = (
        f"{rejected} of {total} rows would be set aside, more than at_most_rejected = {limit:g} allows: {listed}; "
        f"for instance {examples}. Nothing was written."
    )
    raise TooManyRejected(message, "look at these rows at the source, or change the limit", "validate")


def source_problems(job: Job, source_types: Mapping[str, str], contract: Contract) -> list[str]:
    """Return everything that keeps the job from scoring this source with this model.

    `source_types` gives the PostgreSQL type of each column of the source.
    """
    return [
        *missing_columns(job, source_types),
        *differences(contract, source_types),
        *rule_problems(job.validation.columns, contract),
    ]


# Whole days since 1970.
OF_PYTHON = (-719_162, 2_932_896)
OF_NANOSECONDS = (-106_751, 106_750)


def unreadable(array: pa.Array) -> pa.Array | None:
    """Mark the texts whose bytes are not UTF-8; None when there are none."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([not _is_text(value) for value in array.cast(pa.binary())])
    return None


def _is_text(value: pa.Scalar) -> bool:
    try:
        (value.as_py() or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def beyond_the_frame(column: Column, array: pa.Array) -> pa.Array | None:
    """Mark the finite dates and moments that the column's dtype cannot hold; None when it can hold them all."""
    if column.kind == "date":
        return timestamps.is_outside(array, *OF_PYTHON)
    if "[ns" in column.dtype:
        return timestamps.is_outside(array, *OF_NANOSECONDS)
    return None
