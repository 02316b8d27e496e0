"""What an attempt answers when it is done, and the event that each of its steps leaves in the log."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from plantao import log
from plantao.request import Report

if TYPE_CHECKING:
    from plantao import ledger
    from plantao.attempt import Attempt
    from plantao.measure.count.sketch import Sketch
    from plantao.score.manifest import Manifest


def account(attempt: Attempt, manifest: Manifest, counts: ledger.Counts, sketch: Sketch) -> Report:
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
    if counts.read < attempt.job.validation.at_least_rows:
        fewer = {"job": attempt.job.name, "rows": counts.read, "at_least_rows": attempt.job.validation.at_least_rows}
        log.event("fewer rows than expected", fewer, logging.WARNING)
    return report
