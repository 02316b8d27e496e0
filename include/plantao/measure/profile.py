"""What the scored rows of a run looked like, folded together while they are in memory.

Pure. Everything in it is a count or a sum, so profiles of several runs add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.score.batch import BatchResult
    from plantao.validate.contract import Contract


def added_up(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of nested counts and sums: objects name by name, lists place by place, a text as it is."""
    result: dict[str, Any] = {}
    for one in values:
        for name, value in one.items():
            result[name] = _sum(result[name], value) if name in result else value
    return result


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return added_up([one, other])
    if isinstance(one, list):
        return [_sum(*pair) for pair in zip(one, other, strict=True)]
    return one if isinstance(one, str) else one + other


@dataclass
class Profile:
    """Counts and sums over the scored rows."""

    contract: Contract
    rows: int = 0
    score_sum: float = 0.0
    missing: dict[str, int] = field(default_factory=dict)

    def add(self, result: BatchResult) -> None:
        """Fold one batch in."""
        self.rows += len(result.scored)
        self.score_sum = math.fsum((self.score_sum, float(result.scored.answers.score.sum())))
        for column, array in zip(self.contract.columns, result.features, strict=True):
            self.missing[column.name] = self.missing.get(column.name, 0) + array.null_count

    @property
    def mean_score(self) -> float | None:
        """The mean score, None when no row was scored."""
        return self.score_sum / self.rows if self.rows else None

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as plain values, for the ledger."""
        return {"rows": self.rows, "score_sum": self.score_sum, "missing": self.missing}
