"""Which days are worth looking at again, and which are ripe to be judged.

Pure. From what was predicted, what was tallied and the time. A day is a local day of the job, by the timestamp of
its source rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from plantao.window import BEGINNING, Window, of_days

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

    from plantao.config.job import Outcome
    from plantao.ledger.runs import Role
    from plantao.measure.outcomes.tally import Tally

A_DAY = timedelta(days=1)
# The time in which a day can be written down. Beyond it are only the infinities and other years than ours.
ALWAYS = Window(BEGINNING + 2 * A_DAY, datetime(9999, 12, 30, tzinfo=UTC))
# For so long a label of a day that has all of them is expected to be revised.
REVISED_WITHIN = timedelta(days=30)
# An outcome that is missing after ten times the time it usually takes, and a month, is not waited for any longer.
PATIENCE = 10


@dataclass(frozen=True, order=True)
class Cohort:
    """The predictions of a day by one version in one role."""

    role: Role
    day: date
    version: int


@dataclass(frozen=True)
class Predicted:
    """What the prediction table holds of a cohort."""

    rows: int
    last_run: int
    """The newest run among them; it moves when a row is scored again, though the number of rows does not."""


@dataclass(frozen=True)
class Check:
    """What the outcomes of a day looked like: how many there were, and a sum of their hashes.

    Two checks are only ever compared for being equal; the hash is the source server's own.
    """

    outcomes: int = 0
    hash: int = 0


@dataclass(frozen=True)
class Tallied:
    """What was written down of a cohort when it was looked at last."""

    predicted: Predicted
    labelled: int
    check: Check


def coverage(labelled: int, rows: int) -> float | None:
    """Return the share of the predictions whose outcome is known, in [0, 1]; None when there is no prediction."""
    return labelled / rows if rows else None


def is_mature(outcome: Outcome, day_end: datetime, labelled: int, rows: int, now: datetime) -> bool:
    """Tell whether a day may be judged: its outcomes are due, and enough of them are there.

    What is known early is not a fair sample of a day (flights that land early are known early), so a day that is
    not mature has provisional figures at most.
    """
    return rows > 0 and now >= day_end + outcome.known_after and labelled >= outcome.mature_at * rows


def day_is_mature(outcome: Outcome, day: date, zone: tzinfo, whole: Tally, now: datetime) -> bool:
    """Tell whether a local day may be judged, by the tally of all of its rows."""
    return is_mature(outcome, of_days(day, day, zone).end, whole.labelled, whole.rows, now)


def horizon(outcome: Outcome, now: datetime) -> datetime:
    """Return the moment before which outcomes that are missing are not looked for any more."""
    return now - (PATIENCE * outcome.known_after + REVISED_WITHIN)


def changed_days(predicted: Mapping[Cohort, Predicted], tallied: Mapping[Cohort, Tallied]) -> set[date]:
    """Return the days whose predictions are not those that were tallied."""
    return {
        cohort.day for cohort, found in predicted.items() if cohort not in tallied or tallied[cohort].predicted != found
    }


def days_to_probe(tallied: Mapping[Cohort, Tallied], outcome: Outcome, now: datetime, zone: tzinfo) -> set[date]:
    """Return the tallied days whose outcomes may have come or changed since."""
    earliest, recent = (moment.astimezone(zone).date() for moment in (horizon(outcome, now), now - REVISED_WITHIN))
    return {
        cohort.day
        for cohort, known in tallied.items()
        if cohort.day >= recent or (cohort.day >= earliest and known.labelled < known.predicted.rows)
    }


def days_with_news(tallied: Mapping[Cohort, Tallied], probed: set[date], checks: Mapping[date, Check]) -> set[date]:
    """Return those of the probed days whose outcomes are not those that were tallied."""
    return {
        cohort.day
        for cohort, known in tallied.items()
        if cohort.day in probed and known.check != checks.get(cohort.day, Check())
    }


def chunks(rows: Mapping[date, int], most_rows: int, most_days: int = 31) -> list[list[date]]:
    """Return the days in runs of neighbours with at most `most_rows` rows together; a larger day stands alone."""
    result: list[list[date]] = []
    total = 0
    for day in sorted(rows):
        follows = bool(result) and day - result[-1][-1] == A_DAY and len(result[-1]) < most_days
        if follows and total + rows[day] <= most_rows:
            result[-1].append(day)
            total += rows[day]
        else:
            result.append([day])
            total = rows[day]
    return result


def windows_of(days: Iterable[date], zone: tzinfo) -> list[Window]:
    """Return the time of some days as windows; neighbours are one window."""
    runs: Sequence[list[date]] = chunks(dict.fromkeys(days, 0), 0, 10**6)
    return [of_days(run[0], run[-1], zone) for run in runs]
