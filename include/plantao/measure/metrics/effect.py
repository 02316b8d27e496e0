"""What the model would be worth if nobody acted on it, and what acting on it changes: treated against control.

Pure. A control group of known share is chosen by a hash of the key, so it differs from the others by chance alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from plantao.measure.metrics import regression
from plantao.measure.metrics.interval import UNKNOWN, around
from plantao.measure.metrics.metric import Figure, Measurement
from plantao.measure.metrics.objective import NOT_POSITIVE, cells, moments, values_of
from plantao.measure.metrics.quality import judged, measure_tally, measured, renamed
from plantao.measure.metrics.strata import FEW, Stratum, is_withheld, sample_of, strata_of
from plantao.measure.metrics.weighting import WEIGHTED, worth
from plantao.measure.outcomes.tally import Tally, merged
from plantao.measure.profile.bins import label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plantao.config.job import Worth
    from plantao.measure.metrics.metric import Status
    from plantao.measure.metrics.objective import Cell
    from plantao.measure.outcomes.tally import Kind, Label

IMPOSSIBLE = 6.0
"""A control group further than this many standard deviations from its share is not what the hash has chosen."""
Moments = tuple[int, float, float]
"""Rows, the sum of a value over them, and the sum of its squares."""


def weighted(  # noqa: PLR0913 - what the groups are, and what is asked about them
    treated: Tally,
    control: Tally,
    share: float,
    kind: Kind,
    *,
    positive: Label | None = None,
    wanted: Sequence[str] = (),
    worths: Sequence[Worth] = (),
    mature: bool | None = None,
) -> list[Measurement]:
    """Return `<metric>_treated`, `<metric>_control`, `<metric>_weighted` and `effect` of the two groups.

    Weighted: for each decision, its labelled rows stand for all rows with that decision. Where the client's acting on a
    decision hides the outcomes of the treated group, only the control rows count: each stands for about 1 / `share`
    rows. So outcomes that are seen for acted-on rows alone do not make the model look as the treated group does. Where
    acting does not hide the outcome but changes it, look at the control group.

    Effect: the treated group minus the control group, of the share of the positive class (column `outcome`; the mean
    outcome of a regression; each class of several) and, with `worths`, of the value per row (`objective_per_row`). Not
    defined where the outcomes of a decision are seen in the control group only.

    A control group that cannot be a random part of the rows makes the weighted figures and the effect *failed*. How
    many rows it should have say the tallies themselves (`assigned`), by the share with which each row was drawn;
    `share` is for tallies that do not.

    Raises:
        ValueError: `share` is asked for, and not between 0 and 1.
    """
    expected, variance = _assigned(treated, control, share)
    found = [
        *renamed(measure_tally(treated, kind, positive, wanted, mature), "_treated"),
        *renamed(measure_tally(control, kind, positive, wanted, mature), "_control"),
    ]
    both = Tally(treated.rows + control.rows, treated.labelled + control.labelled)
    known = regression.METRICS if kind == "regression" else WEIGHTED[kind]
    names = [name for name in wanted or known if name in known]
    names += ["objective_per_row"] if worths and kind != "regression" else []
    status: Status | None = None
    if not both.labelled:
        status = "no_labels" if both.rows else "no_rows"
    elif abs(control.rows - expected) > IMPOSSIBLE * math.sqrt(variance) + 1:
        status = "failed"
    if status is not None:
        return found + _nothing([*(f"{name}_weighted" for name in names), "effect"], both, status)
    of = (kind, positive, worths)
    return [
        *found,
        *renamed(_guarded(names, both, lambda: _weighted(treated, control, names, of, mature)), "_weighted"),
        *_guarded(["effect"], both, lambda: _effects(treated, control, of, mature)),
    ]


def _nothing(names: Sequence[str], both: Tally, status: Status) -> list[Measurement]:
    return [Measurement(name, None, None, None, both.labelled, status) for name in names]


def _guarded(names: Sequence[str], both: Tally, found: Callable[[], list[Measurement]]) -> list[Measurement]:
    try:
        return found()
    except Exception:  # noqa: BLE001 - whatever is wrong with the two groups together, each alone is not lost
        return _nothing(names, both, "failed")


def says_its_share(treated: Tally, control: Tally) -> bool:
    """Tell whether two groups say themselves by which share their rows were drawn."""
    return all("assigned" in one.state for one in (treated, control) if one.rows)


def _assigned(treated: Tally, control: Tally, share: float) -> tuple[float, float]:
    """Return how many control rows are to be expected, and the variance of that."""
    rows = treated.rows + control.rows
    if rows and says_its_share(treated, control):
        pairs = [one.state["assigned"] for one in (treated, control) if one.rows]
        return math.fsum(pair[0] for pair in pairs), math.fsum(pair[1] for pair in pairs)
    if not 0 < share < 1:
        message = f"a control group is a share of the rows between 0 and 1, not {share}"
        raise ValueError(message)
    return rows * share, rows * share * (1 - share)


def _weighted(
    treated: Tally,
    control: Tally,
    names: Sequence[str],
    of: tuple[Kind, Label | None, Sequence[Worth]],
    mature: bool | None,
) -> list[Measurement]:
    kind, positive, worths = of
    both = Tally(treated.rows + control.rows, treated.labelled + control.labelled)
    if kind == "regression":
        # There are no decisions: the rows of both groups stand for one another.
        hidden = is_withheld((treated.labelled, treated.rows), (control.labelled, control.rows))
        return measure_tally(control if hidden else merged([treated, control]), kind, None, names, mature)
    sample = sample_of(treated, control)
    if any(not stratum.labelled for stratum in sample.strata):
        # Of the rows with some decision nothing is known, in either group.
        return _nothing(names, both, "no_labels")
    values = values_of(worths, kind, positive)
    found: list[Measurement] = []
    for name in names:
        if name == "objective_per_row":
            found += measured(name, lambda: [worth(sample, kind, positive, values)], both, mature)
        else:
            metric = WEIGHTED[kind][name]
            found += measured(name, lambda metric=metric: [metric(sample, label(positive))], both, mature)  # type: ignore[misc]
    thin = any(stratum.is_thin for stratum in sample.strata)
    return [replace(one, status="not_enough") if thin and one.status == "ok" else one for one in found]


def _effects(
    treated: Tally, control: Tally, of: tuple[Kind, Label | None, Sequence[Worth]], mature: bool | None
) -> list[Measurement]:
    kind, positive, _ = of
    groups = (treated, control)
    if kind == "regression":
        hidden = is_withheld((treated.labelled, treated.rows), (control.labelled, control.rows))
        whole = Stratum("", treated.rows + control.rows, treated.labelled, control.labelled, hidden)
        sums = [(t.labelled, *t.state["sums"]["outcome"]) if t.labelled else (0, 0.0, 0.0) for t in groups]
        return [_effect("outcome", [whole], {"": sums[0]}, {"": sums[1]}, mature)]
    strata = strata_of(treated, control)
    if kind == "binary":
        name = label(positive)
        strata = [replace(s, decision=name if s.decision == name else NOT_POSITIVE) for s in strata]
    counts = [cells(tally.state, positive) if tally.state else [] for tally in groups]
    found = []
    for column, values in _asked(counts, strata, of).items():
        one, other = (
            {s.decision: moments([cell for cell in group if cell[0] == s.decision], values) for s in strata}
            for group in counts
        )
        found.append(_effect(column, strata, one, other, mature))
    return found


def _asked(
    counts: Sequence[Sequence[Cell]],
    strata: Sequence[Stratum],
    of: tuple[Kind, Label | None, Sequence[Worth]],
) -> dict[str, Mapping[tuple[str, str], float]]:
    """Return what is compared: for each column the value of a pair of decision and outcome."""
    kind, positive, worths = of
    outcomes = {"outcome": label(positive)}
    if kind == "multiclass":
        outcomes = {name: name for name in sorted({cell[1] for group in counts for cell in group})}
    asked: dict[str, Mapping[tuple[str, str], float]] = {
        column: {(stratum.decision, outcome): 1.0 for stratum in strata} for column, outcome in outcomes.items()
    }
    return asked | ({"objective_per_row": values_of(worths, kind, positive)} if worths else {})


def _effect(
    column: str,
    strata: Sequence[Stratum],
    treated: Mapping[str, Moments],
    control: Mapping[str, Moments],
    mature: bool | None,
) -> Measurement:
    """Return the difference of the means, decision by decision, each with the weight of all rows that have it."""
    n = sum(s.treated + s.control for s in strata)
    if any(s.withheld for s in strata):
        return judged("effect", Figure(None, n, UNKNOWN, column), mature)
    parts = [(s.rows, treated[s.decision], control[s.decision]) for s in strata]
    if any(min(one[0], other[0]) < 2 for _, one, other in parts):
        # Too few rows of a decision to look at it apart; the groups differ by chance alone also as wholes.
        parts = [(sum(s.rows for s in strata), _total(treated), _total(control))]
    fewest = min(sum(group[at][0] for (*group,) in [part[1:] for part in parts]) for at in (0, 1))
    if fewest < 2:
        return Measurement("effect", None, None, None, n, "not_enough", column)
    rows, value, within, squared = sum(part[0] for part in parts), 0.0, 0.0, 0.0
    for size, one, other in parts:
        difference, part = one[1] / one[0] - other[1] / other[0], size / rows
        value, squared = value + part * difference, squared + part * difference**2
        within += part**2 * (_variance(one) / one[0] + _variance(other) / other[0])
    error = math.sqrt(within + max(squared - value**2, 0.0) / rows)
    # Groups without any spread say nothing about how far chance may have moved them.
    interval = around(value, error) if within > 0 else UNKNOWN
    found = judged("effect", Figure(value, n, interval, column), mature)
    return replace(found, status="not_enough") if fewest < FEW and found.status == "ok" else found


def _total(group: Mapping[str, Moments]) -> Moments:
    counts, totals, squares = zip(*group.values(), strict=True)
    return sum(counts), math.fsum(totals), math.fsum(squares)


def _variance(of: Moments) -> float:
    n, total, squares = of
    return max(squares - total * total / n, 0.0) / (n - 1)
