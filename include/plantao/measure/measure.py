"""Measure a window: data quality, drift, performance, and what it was worth; each part on its own.

daily state (counted by the run) -> data quality, drift
outcomes (however late)          -> performance -> objective
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao import log
from plantao.errors import PlantaoError
from plantao.ledger import runs, session
from plantao.measure.data_quality import data_quality
from plantao.measure.drift import measure_drift
from plantao.measure.performance import measure_objective, measure_performance, tally
from plantao.measure.profile import daily_state, lost
from plantao.measure.profile.recount import differing, recount
from plantao.window import listed_days

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from plantao.config.job import Job
    from plantao.measure.metrics.metric import Metric
    from plantao.runtime import Place
    from plantao.window import Window


@dataclass
class Measured:
    """The figures of a window, and which parts failed."""

    metrics: list[Metric] = field(default_factory=list)
    problems: dict[str, PlantaoError] = field(default_factory=dict)


def measure(job: Job, window: Window, place: Place, *, anew: bool = False) -> Measured:
    """Measure a window and write what is new into `plantao.metrics`; a part that fails never loses the others.

    With `anew` the daily state of the window is counted again from the source and the predictions.
    """
    result = Measured()
    days = days_of(job, window, place)

    def part(name: str, call: Callable[[], Sequence[Metric]]) -> None:
        try:
            result.metrics += call()
        except PlantaoError as error:
            result.problems[name] = error
            log.event("measure failed", {"job": job.name, "part": name, "error": str(error)}, log.WARNING)

    part("daily state", lambda: freshen(job, place, days, anew=anew))
    part("data quality", lambda: data_quality(job, window, place))
    part("drift", lambda: measure_drift(job, place, days))
    part("performance", lambda: performance(job, place, days))
    part("objective", lambda: measure_objective(job, place, days))
    return result


def freshen(job: Job, place: Place, days: Sequence[date] = (), *, anew: bool = False) -> list[Metric]:
    """Count the daily state anew where a sum is not the whole truth; gives no figure.

    Of the given days those whose state is not of as many rows as there are predictions, or all of them with `anew`:
    predictions may be older than the state, or somebody deleted some.
    """
    for role in runs.ROLES:
        with session.session(job, place, f"plantao/{job.name}/measure") as connection:
            if role == "champion":
                lost.look(connection, job)  # before the sums become those of what is left
            stale = daily_state.stale(connection, job, role)
            doubtful = days if anew else differing(connection, job, role, days)
        wanted = sorted({*stale, *doubtful})
        if wanted:
            rows = recount(job, place, role, wanted)
            log.event("days counted anew", {"job": job.name, "role": role, "days": len(wanted), "rows": rows})
    return []


def performance(job: Job, place: Place, days: Sequence[date] = ()) -> list[Metric]:
    """Hold predictions against outcomes where either has changed; measure these days, the given and the last ones."""
    if job.measure.outcome is None:
        return measure_performance(job, place, days)
    return measure_performance(job, place, sorted({*days, *_tallied(job, place, days)}))


def _tallied(job: Job, place: Place, days: Sequence[date] = ()) -> list[date]:
    """Return the days whose tally has changed; when outcomes cannot be read, what is known without them is not lost."""
    try:
        return tally(job, place, days)
    except PlantaoError:
        measure_performance(job, place, days)
        raise


def outcomes(job: Job, place: Place) -> list[Metric]:
    """Measure again the days whose outcomes have changed, without looking at the others."""
    changed = _tallied(job, place)
    return [*measure_performance(job, place, changed), *measure_objective(job, place, changed)]


def days_of(job: Job, window: Window, place: Place) -> list[date]:
    """Return the local days of a window; of a long one, those that have predictions."""
    if (days := listed_days(window, job.zone)) is not None:
        return days
    query = text(
        "select distinct day from daily_state where job = :job and role = 'champion'"
        " and day <= (cast(:end as timestamptz) at time zone :zone)::date order by day"
    )
    with session.session(job, place, f"plantao/{job.name}/measure") as connection, connection.begin():
        values = {"job": job.name, "end": window.end, "zone": job.timezone}
        return list(connection.execute(query, values).scalars())
