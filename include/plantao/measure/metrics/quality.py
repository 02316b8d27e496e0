"""How good the predictions were, by the decision that was written to the client: never decided again by a threshold.

Pure. Every metric is a value with the number of rows it rests on, an interval and a status; one that fails takes none
of the others with it, and none is ever NaN.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from plantao.measure.metrics import binary, classes, regression
from plantao.measure.metrics.metric import Figure
from plantao.measure.profile.bins import label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from plantao.measure.outcomes.tally import Kind, Label, Tally
from plantao.measure.metrics.metric import Measurement, Status

ENOUGH = 10
"""Below it a share's interval is wider than half of all it could be (Wilson: 5 of 9 is 0.27 to 0.81)."""
ENOUGH_OF_A_SEGMENT = 100
WORST = 3
LOW_IS_BAD = {"roc_auc", "average_precision", "accuracy", "precision", "recall", "f1", "r2", "objective_per_row"}
METRICS_OF: dict[str, Mapping[str, Callable[[Any], list[Figure]]]] = {
    "binary": binary.METRICS,
    "multiclass": classes.METRICS,
    "regression": regression.METRICS,
}


def measure_tally(
    tally: Tally,
    output_kind: Kind,
    positive: Label | None,
    wanted: Sequence[str] = (),
    mature: bool | None = None,
) -> list[Measurement]:
    """Return the wanted metrics of a tally, in this order; all that suit the kind when none is named.

    The status is, in this order: no_rows, no_labels, failed (the state cannot be read, or the value is too large to be
    a number), provisional (`mature` is False: more outcomes will come), undefined (only one class occurred where two
    are needed, nothing to take a share of, or no metric of this kind of model), not_enough (rests on fewer than 10
    rows; the value is given), ok. `mature` is None where maturity does not matter.

    Raises:
        ValueError: A binary classifier without its positive class.
    """
    if output_kind == "binary" and positive is None:
        message = "a binary classifier is measured by its positive class"
        raise ValueError(message)
    subject = binary.Counted(tally, label(positive)) if output_kind == "binary" else tally
    found: list[Measurement] = []
    for name in wanted or METRICS_OF[output_kind]:
        if not tally.rows or not tally.labelled:
            status: Status = "no_labels" if tally.rows else "no_rows"
            found += [
                Measurement(name, None, None, None, 0, status, column)
                for column in (regression.QUANTILES if name == "error_quantiles" else ("",))
            ]
            continue
        metric = METRICS_OF[output_kind].get(name, _unsuited)
        found += measured(name, lambda metric=metric: metric(subject), tally, mature)  # type: ignore[misc]
    return found


def measured(name: str, metric: Callable[[], Iterable[Figure]], tally: Tally, mature: bool | None) -> list[Measurement]:
    """Return what a metric gives, judged; a metric that raises is itself a finding."""
    try:
        return [judged(name, figure, mature) for figure in metric()]
    except Exception:  # noqa: BLE001 - whatever is wrong with one metric, the others are not lost
        return [Measurement(name, None, None, None, tally.labelled, "failed")]


def judged(name: str, figure: Figure, mature: bool | None) -> Measurement:
    """Return a figure with its status."""
    value, (lower, upper) = figure.value, figure.interval
    if value is not None and not math.isfinite(value):
        return Measurement(name, None, None, None, figure.n, "failed", figure.column)
    status: Status = "ok"
    if mature is False:
        status = "provisional"
    elif value is None:
        status = "undefined"
    elif figure.n < ENOUGH:
        status = "not_enough"
    return Measurement(name, _plain(value), _plain(lower), _plain(upper), int(figure.n), status, figure.column)


def worst_segments(
    tallies: Mapping[str, Tally],
    metric: str,
    output_kind: Kind,
    positive: Label | None = None,
    at_least: int = ENOUGH_OF_A_SEGMENT,
) -> list[tuple[str, Measurement]]:
    """Return up to three segments with the worst values, the worst first.

    Only segments with at least so many outcomes are judged: among many small ones the worst is so by chance. All rows
    together and the groups with an @ are no segments. Of a bias the distance from 0 counts, of the quantiles of an
    error the 90 %.
    """
    found: list[tuple[str, Measurement]] = []
    column = "p90" if metric == "error_quantiles" else ""
    for segment, tally in tallies.items():
        if not segment or segment.startswith("@") or tally.labelled < at_least:
            continue
        found += [
            (segment, one)
            for one in measure_tally(tally, output_kind, positive, [metric])
            if one.column == column and one.value is not None
        ]
    return sorted(found, key=lambda pair: (-_badness(pair[1]), pair[0]))[:WORST]


def renamed(measurements: Iterable[Measurement], suffix: str) -> list[Measurement]:
    """Return measurements under their names with an ending."""
    return [replace(one, name=f"{one.name}{suffix}") for one in measurements]


def _badness(one: Measurement) -> float:
    assert one.value is not None
    if one.name in LOW_IS_BAD:
        return -one.value
    return abs(one.value)


def _plain(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _unsuited(_: object) -> list[Figure]:
    return [Figure(None, 0)]
