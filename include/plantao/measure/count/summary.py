"""The first figures of a window: how many rows, what scores on average, and how many gaps.

Pure: from what the ledger and the prediction table say to rows for `plantao.metrics`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from plantao.measure.metrics.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.extract.window import Window
    from plantao.ledger import Role


@dataclass(frozen=True)
class Scored:
    """What the prediction table holds for a window and a version."""

    model_version: int
    rows: int
    late: int
    mean_score: float | None


def summarise(
    window: Window,
    scored: Sequence[Scored],
    rejected: int | None,
    profiles: Sequence[tuple[int, Mapping[str, Any]]],
    role: Role = "champion",
) -> list[Metric]:
    """Return the metrics of a window, for the versions in one role.

    `scored` has one entry per version; `rejected` counts the open rejects of the window, where there can be any;
    `profiles` are those of the window's runs, each with its version.
    """
    metrics = []
    for part in scored:
        metrics += [
            Metric(window, part.model_version, "rows", part.rows, part.rows),
            Metric(window, part.model_version, "late_rows", part.late, part.rows),
            Metric(window, part.model_version, "mean_score", part.mean_score, part.rows),
        ]
    for version in sorted({version for version, _ in profiles}):
        rows, missing = 0, Counter[str]()
        for profile in (profile for v, profile in profiles if v == version):
            rows += profile["rows"]
            missing.update(profile["missing"])
        for column, count in missing.items():
            metrics.append(Metric(window, version, "null_share", count / rows if rows else None, rows, column))
    newest = max((m.model_version for m in metrics), default=None)
    if newest is not None and rejected is not None:
        total = rejected + sum(part.rows for part in scored)
        metrics.append(Metric(window, newest, "rejected_share", rejected / total if total else None, total))
    return [replace(metric, role=role) for metric in metrics]
