"""Is the model worse than it was? The daily tallies of one version become metrics, episodes and conditions.

Pure. Only mature days are judged; what is not judged is shown with its status. A metric that cannot be told for days
on end is a condition of its own, because missing evidence looks like good news.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from plantao.measure.detect import cusum
from plantao.measure.detect.conditions import Subject, of_episode
from plantao.measure.detect.cusum import DIRECTIONS, DayValue
from plantao.measure.detect.missing import PERSISTS, UNTOLD
from plantao.measure.metrics import estimate, quality
from plantao.measure.metrics.effect import says_its_share, weighted
from plantao.measure.metrics.estimate import Calibration
from plantao.measure.metrics.metric import Measurement, Metric, Where
from plantao.measure.outcomes.maturity import coverage, day_is_mature
from plantao.measure.outcomes.tally import Tally, merged
from plantao.outbox.incident import Condition, fingerprint
from plantao.window import of_days

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from plantao.config.job import Job
    from plantao.ledger.runs import Role
    from plantao.measure.detect.cusum import Baseline
    from plantao.measure.detect.findings import Episode
    from plantao.measure.metrics.metric import Status
    from plantao.models.manifest import Output

# What the statistical rule watches, by what the model gives back. More would only add false alarms: accuracy follows
# the base rate, precision and recall rest on few rows.
WATCHED = {
    "binary": ("log_loss", "roc_auc", "bias"),
    "multiclass": ("log_loss", "accuracy"),
    "regression": ("mae", "bias"),
}
OF_A_SEGMENT = {"binary": ("roc_auc", "accuracy", "bias"), "multiclass": ("accuracy",), "regression": ("mae", "bias")}
WEEK = 7
ARMS = ("@treated", "@control")


@dataclass(frozen=True)
class Judged:
    """One version in one role: its tallies by day and segment, and what they are held against."""

    job: Job
    role: Role
    version: int
    output: Output
    reference: Mapping[str, Any]
    days: Mapping[date, Mapping[str, Tally]]
    now: datetime
    scores: Mapping[date, Mapping[str, Any]] = field(default_factory=dict)
    """The state of the score by day, from which estimates are made."""

    # --- metrics -----------------------------------------------------------------------------------------------------

    def metrics(self, days: Collection[date]) -> Iterator[Metric]:
        """Yield the figures of days: of all rows, of the segments, of the groups, and what was estimated."""
        bases = {name: self.baseline(name) for name in WATCHED[self.output.kind]}
        for day in sorted(days):
            of_day = self.days.get(day)
            if of_day is not None:
                yield from self._of_day(day, of_day, bases)
            yield from self._estimates(day)

    def _of_day(self, day: date, of_day: Mapping[str, Tally], bases: Mapping[str, Baseline | None]) -> Iterator[Metric]:
        whole, mature, where = of_day.get("", Tally(0, 0)), self.mature(day), self._where(day)
        known = coverage(whole.labelled, whole.rows)
        status: Status = "ok" if mature else "provisional" if whole.rows else "no_rows"
        label_coverage = Measurement("label_coverage", known, None, None, whole.rows, status)
        yield where.metric(label_coverage, known)
        # What the rule watches is measured too where the job asks for other metrics.
        wanted = dict.fromkeys((*self.job.measure.metrics, *bases)) if self.job.measure.metrics else ()
        for one in self._measured(whole, tuple(wanted), mature=mature):
            base = bases.get(one.name)
            yield where.metric(one, known, None if base is None else cusum.detectable(base))
        for segment, tally in of_day.items():
            if segment and not segment.startswith("@"):
                of_segment = self._where(day, segment)
                for one in self._measured(tally, OF_A_SEGMENT[self.output.kind], mature=mature):
                    yield of_segment.metric(one, coverage(tally.labelled, tally.rows))
        if self._has_groups(of_day):
            for one in self._effect(of_day, mature=mature):
                yield where.metric(one, known)

    def mature(self, day: date) -> bool:
        """Tell whether a day may be judged."""
        outcome, whole = self.job.measure.outcome, self.days.get(day, {}).get("", Tally(0, 0))
        if outcome is None:
            return False
        return day_is_mature(outcome, day, self.job.zone, whole, self.now)

    def _measured(self, tally: Tally, wanted: Sequence[str], *, mature: bool) -> list[Measurement]:
        return quality.measure_tally(tally, self.output.kind, self.output.positive, wanted, mature)

    def _has_groups(self, of_day: Mapping[str, Tally]) -> bool:
        """Tell whether a day has a control group whose share is known: its own, or the one of today."""
        if not all(arm in of_day for arm in ARMS):
            return False
        return says_its_share(*(of_day[arm] for arm in ARMS)) or self.job.measure.control_group > 0

    def _effect(self, of_day: Mapping[str, Tally], *, mature: bool) -> list[Measurement]:
        objective = self.job.measure.objective
        worths = (objective.values or ()) if objective is not None else ()
        return weighted(
            of_day["@treated"],
            of_day["@control"],
            self.job.measure.control_group,
            self.output.kind,
            positive=self.output.positive,
            wanted=self.job.measure.metrics,
            worths=worths,
            mature=mature,
        )

    def _estimates(self, day: date) -> Iterator[Metric]:
        """Yield what the metrics are estimated to be from the scores alone; never a reason for an alarm."""
        calibration, state = self.reference.get("calibration"), self.scores.get(day)
        if not calibration or not state or "scores" not in state:
            return
        fitted = {name: Calibration.fitted(counts) for name, counts in calibration.items()}
        if self.output.kind == "binary":
            ((name, one),) = fitted.items()
            found = estimate.estimate_binary(state["scores"][name], state["chosen"][name], one)
        else:
            found = estimate.estimate_multiclass(state["scores"], state["chosen"], fitted)
        window, wanted = of_days(day, day, self.job.zone), self.job.measure.metrics
        for name, value in found.items():
            if wanted and name not in wanted:
                continue
            yield Metric(
                window,
                self.version,
                f"estimated_{name}",
                value.value,
                value.n,
                role=self.role,
                lower=value.lower,
                upper=value.upper,
                status=value.status,
            )

    def _where(self, day: date, segment: str = "") -> Where:
        return Where(of_days(day, day, self.job.zone), self.version, self.role, segment)

    # --- conditions --------------------------------------------------------------------------------------------------

    def baseline(self, metric: str) -> Baseline | None:
        """Return how a metric varied between the days of the reference; None when they are too few."""
        performance = (self.reference.get("days") or {}).get("performance") or ()
        return cusum.baseline(cusum.reference_days(performance, metric))

    @property
    def unwatched(self) -> str:
        """Why no statistical alarm can be raised; empty when one can."""
        performance = (self.reference.get("days") or {}).get("performance") or ()
        first = WATCHED[self.output.kind][0]
        if self.baseline(first) is not None:
            return ""
        return cusum.no_baseline(cusum.reference_days(performance, first))

    def values(self, metric: str) -> list[DayValue]:
        """Return the daily values of a metric."""
        found = []
        for day in sorted(self.days):
            tally = self.days[day].get("", Tally(0, 0))
            one = next(iter(self._measured(tally, [metric], mature=self.mature(day))), None)
            value = None if one is None else one.value
            found.append(DayValue(day, value, tally.labelled, self.mature(day)))
        return found

    def conditions(self, objective: Sequence[DayValue] = ()) -> list[Condition]:
        """Return what is degraded, to be watched or improved on the newest mature day.

        `objective` are the daily values of the business metric, for the owner's own limits on it.
        """
        found = [condition for metric in WATCHED[self.output.kind] for condition in self._of_metric(metric)]
        for limit in self.job.alert.degraded:
            days = list(objective) if limit.metric == "objective" else self.values(limit.metric)
            subject = Subject(f"{limit.metric} limit", self.version)
            found += [of_episode(subject, episode, "degraded") for episode in _still(cusum.limit_episodes(limit, days))]
        return found

    def _of_metric(self, metric: str) -> Iterator[Condition]:
        base, direction, subject = self.baseline(metric), DIRECTIONS[metric], Subject(metric, self.version)
        if base is None:
            return
        begins = date.fromisoformat(self.reference["days"]["from"])  # what was before a baseline does not count in it
        days = [day for day in self.values(metric) if day.day >= begins]
        judgement = cusum.episodes(days, base, direction)
        margin = cusum.effect_margin(metric, self.job.alert.effect_margin, base, self._size(metric))
        for episode in _still(judgement.worse):
            yield of_episode(subject, episode, cusum.word(episode, self.week(metric), base, margin, direction))
        for episode in _still(judgement.improved):
            yield of_episode(subject, episode, "improved")

    def week(self, metric: str) -> float | None:
        """Return the value of a metric over the last 7 mature days together."""
        mature = [day for day in sorted(self.days) if self.mature(day)][-WEEK:]
        together = merged(self.days[day][""] for day in mature if "" in self.days[day])
        one = next(iter(self._measured(together, [metric], mature=True)), None)
        return None if one is None else one.value

    def _size(self, metric: str) -> float | None:
        """Return what the margin of a bias is a share of: of a regression the usual error."""
        if metric != "bias" or self.output.kind != "regression":
            return None
        base = self.baseline("mae")
        return None if base is None else base.mean

    def missing(self, objective: Sequence[tuple[date, Status]] = ()) -> list[Condition]:
        """Return which evidence has been missing for days on end; `objective` is what became of it, by day."""
        outcome = self.job.measure.outcome
        if outcome is None:
            return []
        # Also days that could not be tallied, because the outcomes cannot be read.
        known = sorted({*self.days, *self.scores})
        due = [day for day in known if of_days(day, day, self.job.zone).end + outcome.known_after <= self.now]
        recent = due[-PERSISTS:]
        if len(recent) < PERSISTS:
            return []
        if not any(self.mature(day) for day in recent):
            return [self._no_labels(due)]
        found = []
        for metric in WATCHED[self.output.kind]:
            tallies = [self.days.get(day, {}).get("", Tally(0, 0)) for day in recent]
            ones = [next(iter(self._measured(tally, [metric], mature=True)), None) for tally in tallies]
            statuses = [one.status if one is not None else "failed" for one in ones]
            if all(status in UNTOLD for status in statuses):
                found.append(self._untold(metric, statuses[-1], recent))
        last = sorted(objective)[-PERSISTS:]
        if len(last) == PERSISTS and all(status in UNTOLD for _, status in last):
            found.append(self._untold("objective", last[-1][1], [day for day, _ in last]))
        return found

    def _no_labels(self, due: Sequence[date]) -> Condition:
        outcome = self.job.measure.outcome
        assert outcome is not None
        mature = [day for day in due if self.mature(day)]
        since = due[0] if not mature else mature[-1] + timedelta(days=1)
        whole = self.days.get(due[-1], {}).get("", Tally(0, 0))
        share = coverage(whole.labelled, whole.rows) or 0.0
        message = (
            f"too few outcomes are known since {since}: of {due[-1]} {share:.0%}, {outcome.mature_at:.0%} are needed"
            f" {outcome.known_after} after the day. Whether the model is still good is not known"
        )
        step = f"see whether {outcome.table} is still filled, and whether known_after and mature_at fit"
        return Condition("missing", fingerprint("missing", "outcomes"), "missing", None, since, message, step)

    def _untold(self, metric: str, status: str, days: Sequence[date]) -> Condition:
        message = f"{metric} of version {self.version} cannot be told since {days[0]}: {status}"
        step = "look at plantao.daily_outcomes: does every class occur, and are the outcomes numbers?"
        if metric == "objective":
            step = "see in the log of `plantao measure` what the objective's SQL was answered"
        mark = fingerprint("missing", metric, f"v{self.version}")
        return Condition("missing", mark, "missing", None, days[0], message, step)


def _still(episodes: Sequence[Episode]) -> list[Episode]:
    """Return the last episode if it is not over."""
    return [episode for episode in episodes[-1:] if episode.closed is None]
