"""What an attempt answers when it is done, and the event that each of its steps leaves in the log."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from plantao import log

if TYPE_CHECKING:
    from plantao.config.job import Job
    from plantao.ledger.request import Request
    from plantao.ledger.runs import Counts, Role
    from plantao.log import Stopwatch
    from plantao.measure.profile.sketch import Sketch
    from plantao.models.manifest import Manifest
    from plantao.score.batch import RejectedRow
    from plantao.window import Window


class Finished(Protocol):
    """What the report takes from an attempt that has ended well."""

    request: Request
    job: Job
    run_id: int | None
    role: Role
    note: str | None
    watch: Stopwatch
    rejected: list[RejectedRow]
    read: int


def account(attempt: Finished, manifest: Manifest, counts: Counts, sketch: Sketch) -> Report:
    """Return the report of an attempt, once its steps are in the log."""
    status = "dry run" if attempt.run_id is None else "empty" if counts.read == 0 else "succeeded"
    report = Report(
        job=attempt.job.name,
        run_id=attempt.run_id,
        status=status,
        window=attempt.request.window,
        model=manifest.model,
        model_version=manifest.version,
        counts=counts,
        mean_score=sketch.mean_score,
        reject_reasons=dict(Counter(reject.reason for reject in attempt.rejected)),
        seconds={step: round(value, 3) for step, value in attempt.watch.seconds.items()},
        role=attempt.role,
        note=attempt.note,
    )
    flow = {
        "extract": (counts.read, attempt.read),
        "validate": (attempt.read, attempt.read - counts.rejected),
        "score": (attempt.read - counts.rejected, sketch.rows),
        "load": (sketch.rows, counts.scored),
        "measure": (sketch.rows, sketch.rows),
    }
    total = sum(report.seconds.values())
    for step, (rows_in, rows_out) in flow.items():
        seconds = report.seconds.get(step, 0.0)
        log.event(
            f"{step} finished",
            {
                "job": attempt.job.name,
                "run": attempt.run_id,
                "step": step,
                "window": attempt.request.window.shown(attempt.job.zone),
                "rows_in": rows_in,
                "rows_out": rows_out,
                "rejected": counts.rejected,
                "seconds": seconds,
                "share": round(seconds / total, 2) if total else None,
                "rows_per_second": round(rows_in / seconds) if seconds else None,
                "model": manifest.name,
                "outcome": status,
            },
        )
    if attempt.note is not None:
        noted = {"job": attempt.job.name, "run": attempt.run_id, "note": attempt.note}
        log.event("worth knowing of this run", noted, logging.WARNING)
    if counts.read < attempt.job.validation.at_least_rows:
        fewer = {"job": attempt.job.name, "rows": counts.read, "at_least_rows": attempt.job.validation.at_least_rows}
        log.event("fewer rows than expected", fewer, logging.WARNING)
    return report


@dataclass(frozen=True)
class Report:
    """What a run did."""

    job: str
    run_id: int | None
    status: str
    window: Window
    model: str
    model_version: int
    counts: Counts
    mean_score: float | None
    reject_reasons: dict[str, int]
    seconds: dict[str, float]
    role: Role = "champion"
    note: str | None = None
    """What is worth knowing of how its version or its window was chosen."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, small enough for an XCom."""
        values = asdict(self)
        values["window"] = {"start": self.window.start.isoformat(), "end": self.window.end.isoformat()}
        values |= {f"rows_{name}": count for name, count in values.pop("counts").items()}
        return values
