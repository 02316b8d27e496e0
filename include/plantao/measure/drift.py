"""The DRIFT lane: how far the days are from the reference, column by column. For the digest; it pages nobody.

Drift is not degradation: inputs move with the seasons, and a model may be as good as ever on them. What it costs is
told by the outcomes, in `performance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from plantao import log
from plantao.errors import TargetRefused
from plantao.ledger import runs
from plantao.ledger import session as ledger_session
from plantao.measure import records
from plantao.measure.detect import drift
from plantao.measure.detect.conditions import column_mark
from plantao.measure.metrics import history
from plantao.measure.metrics.metric import Metric
from plantao.measure.profile import counts, daily_state
from plantao.outbox.incident import Condition, fingerprint
from plantao.outbox.incidents import settle
from plantao.postgres import driver_errors, session
from plantao.window import of_days

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import date

    from plantao.config.job import Job
    from plantao.ledger.runs import Role
    from plantao.measure.detect.drift import ColumnDrift
    from plantao.measure.metrics.metric import Status
    from plantao.measure.records import Counted
    from plantao.runtime import Place

DAYS_JUDGED = 180
"""How far back an episode that is still open can have begun."""
WEEK = 7
NEXT = "nothing by itself: see in the report whether the score or the outcomes moved with it"


def measure_drift(job: Job, place: Place, days: Collection[date]) -> list[Metric]:
    """Measure how far days are from their reference, and open or close the incidents of drifting columns."""
    with (
        ledger_session.session(job, place, f"plantao/{job.name}/measure") as connection,
        driver_errors.explained("measure", TargetRefused, "measuring drift"),
        session.deadline(connection, session.STATEMENT_SECONDS),
        connection.begin(),
    ):
        newest = records.last_day(connection, job)
        if newest is None or not days:
            return []
        first = min(*days, newest - timedelta(days=DAYS_JUDGED)) - timedelta(days=WEEK)
        metrics: list[Metric] = []
        for role in runs.ROLES:
            for version, counted in records.counted(connection, job, role, first, newest).items():
                reference = daily_state.reference_numbered(connection, job, version, counted.reference_version)
                compared = _Compared(job, role, counted, reference)
                metrics += compared.metrics(set(days))
                if role == "champion" and newest in counted.states:
                    conditions = list(compared.conditions(newest))
                    settle(connection, job.name, "drift", conditions, version=version, day=newest)
        written = history.keep(connection, job, metrics)
    log.event("drift measured", {"job": job.name, "step": "measure", "metrics": len(metrics), "changed": written})
    return metrics


@dataclass(frozen=True)
class _Compared:
    """The days of one version held against the reference they were counted in."""

    job: Job
    role: Role
    counted: Counted
    reference: Mapping[str, Any]

    @property
    def columns(self) -> list[str]:
        """The columns that are compared, the score under an empty name."""
        return ["", *self.reference.get("columns", {})]

    def profile(self, column: str) -> Mapping[str, Any]:
        """Return what the reference knows of a column."""
        of = self.reference["columns"][column] if column else self.reference["score"]
        return dict(of)

    def limits(self, column: str) -> Mapping[str, Any] | None:
        """Return between which limits the days of the reference vary; None when it has no days."""
        days = self.reference.get("days")
        if days is None:
            return None
        found: Mapping[str, Any] = days["columns"][column] if column else days["score"]
        return found

    def of(self, column: str, day: date) -> ColumnDrift:
        """Return how far a column was from the reference on a day."""
        states = self.counted.states.get(day, {})
        return drift.column_drift(column, self.profile(column), self.limits(column), states.get(("", column)))

    def metrics(self, days: Collection[date]) -> Iterator[Metric]:
        """Yield the figures of days."""
        for day in sorted(day for day in days if day in self.counted.states):
            window = of_days(day, day, self.job.zone)
            for column in self.columns:
                found = self.of(column, day)
                named = {
                    "jensen_shannon": found.jensen_shannon,
                    "jensen_shannon_expected": found.expected,
                    "wasserstein": found.wasserstein,
                    "population_stability": found.population_stability,
                    "drift": found.distance,
                    "drift_limit": found.day_limit,
                }
                status: Status = found.status
                for name, value in named.items():
                    if value is not None or (name == "jensen_shannon" and status != "ok"):
                        yield Metric(
                            window, self.counted.version, name, value, found.n, column, role=self.role, status=status
                        )

    def conditions(self, newest: date) -> Iterator[Condition]:
        """Yield the columns that are drifting on the newest day, in the order in which to look at them."""
        days = [newest - timedelta(days=n) for n in range(DAYS_JUDGED, -1, -1)]
        links = {column: self.profile(column).get("link", 1.0) for column in self.columns}
        for found in drift.ranked([self.of(column, newest) for column in self.columns], links):
            column = found.column
            limits = self.limits(column)
            daily = [self.of(column, day) if day in self.counted.states else None for day in days]
            episodes = drift.episodes(days, daily, self._weekly(column, days), limits, len(self.columns))
            if not episodes or episodes[-1].closed is not None:
                continue
            episode, shown = episodes[-1], column_mark(column) if column else "the score"
            yield Condition(
                "drift",
                fingerprint("drift", column_mark(column), f"v{self.counted.version}"),
                "drifting",
                episode.worst,
                episode.opened,
                f"{shown} has moved away from the reference: {episode.reason}",
                NEXT,
                {"column": column, "worst_day": episode.worst_day.isoformat(), "link": round(links[column], 3)},
            )

    def _weekly(self, column: str, days: list[date]) -> list[float | None]:
        vectors: list[Any] = []
        reference: Any = None
        for day in days:
            found = self.counted.states.get(day, {}).get(("", column))
            if found is None:
                vectors.append(None)
                continue
            try:
                reference, current = counts.paired(self.profile(column), found)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                current = None  # the day itself says that it cannot be measured
            vectors.append(current)
        return drift.weekly_distances(reference, vectors) if reference is not None else [None] * len(days)
