"""From what was read to the pictures of a report, each at any width.

Pure.
"""

from __future__ import annotations

from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from plantao.measure.profile.bins import SCORE_BINS
from plantao.measure.profile.sketch import added
from plantao.report.chart import heat_map, over_time, scores, segments, volume
from plantao.report.data import (
    SUMS_OF_A_DAY,
    columns_by_importance,
    merged_bins,
    over_limits,
    segment_means,
    worst_first,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.report.chart.style import Picture
    from plantao.report.data import ReportData

WORST = 3
DRAWN_BINS, GROUPS = 40, 10
FEWEST_IN_A_GROUP = 20


def what_happened(data: ReportData, width: int) -> Picture:
    """Return the objective and the main metric over time."""
    measured = {figure.name for figure in data.figures if not figure.segment}
    objective = next((name for name in ("objective_per_row", "objective") if name in measured), None)
    main = data.main_metric
    tracks = [_track(data, name) for name in (objective, main) if name]
    spans = [
        over_time.Span(one.since, one.last_day, one.lane, one.word) for one in data.incidents if one.word != "improved"
    ]
    events = over_time.Events([over_time.Change(one.day, one.version) for one in data.versions], spans)
    return over_time.chart(tracks, data.days, events, width=width, language=data.language)


def _track(data: ReportData, name: str) -> over_time.Track:
    return over_time.Track(
        name,
        data.points(name),
        data.points(f"estimated_{name}"),
        data.reference_mean(name),
        data.detectable(name),
        each_day_alike=name in SUMS_OF_A_DAY,
        label=data.title_of(name),
    )


def inputs(data: ReportData, width: int) -> Picture:
    """Return the drift of the score and of the columns, day by day."""
    ranking = columns_by_importance(data)
    cells = [heat_map.Cell(column, point.day, point.value) for column in ranking for point in over_limits(data, column)]
    return heat_map.chart(cells, ranking, data.days, width=width, language=data.language)


def score_distribution(data: ReportData, width: int) -> Picture:
    """Return the scores of the last 28 days over those of the reference."""
    return scores.distribution(_distributions(data), width=width, language=data.language)


def _distributions(data: ReportData) -> list[scores.Distribution]:
    state, profile = data.score_state, data.reference.get("score") or {}
    if "scores" in state:
        edges = [place / DRAWN_BINS for place in range(DRAWN_BINS + 1)]
        found = []
        for label, counts in state["scores"].items():
            was = (profile.get("classes") or {}).get(label, profile)
            now, reference = (
                merged_bins(some, DRAWN_BINS) if len(some) == SCORE_BINS else [0.0] * DRAWN_BINS
                for some in (counts, was.get("counts") or [])
            )
            name = label if len(state["scores"]) > 1 else ""
            found.append(scores.Distribution(edges, now, reference, _mean(counts), was.get("mean"), name))
        return found
    edges, counts = profile.get("edges") or [], state.get("counts") or []
    if len(edges) < 2 or len(counts) != len(edges) + 1:
        return []
    rows = sum(counts)
    # Rows below and above what the reference knew are put into the outermost bins.
    inner = [*counts[1:-1]]
    inner[0], inner[-1] = inner[0] + counts[0], inner[-1] + counts[-1]
    sums = sum(state.get("sums") or [])
    mean = profile["mean"] + sums / rows if rows and "mean" in profile and sums else None
    return [scores.Distribution(edges, inner, profile.get("counts") or [], mean, profile.get("mean"))]


def _mean(counts: Sequence[float]) -> float | None:
    total = sum(counts)
    return sum((place + 0.5) / len(counts) * count for place, count in enumerate(counts)) / total if total else None


def calibration(data: ReportData, width: int) -> Picture | None:
    """Return predicted against real shares; None for a regression, which predicts no share."""
    state = data.outcome_state
    if state.get("kind") == "regression":
        return None
    pooled = state.get("kind") == "multiclass"
    bins: list[tuple[int, float, float, float | None]] = []
    for name, value in (state.get("bins") or {}).items():
        if pooled:
            bins += [(int(place), *cells, None) for place, cells in value.items()]
        else:
            none, some, below, above = added([{"all": cells} for cells in value.values()])["all"]
            bins.append((int(name), none, some, below + above))
    known = data.reference.get("calibration") or {}
    profile = added(list(known.values())) if known else {}
    was = [
        (place, n - some, some, None)
        for place, (n, some) in enumerate(zip(profile.get("n", ()), profile.get("positives", ()), strict=False))
    ]
    now, before = _groups(bins), _groups(was)
    return scores.calibration(now, before, pooled=pooled, width=width, language=data.language)


def _groups(bins: Sequence[tuple[int, float, float, float | None]]) -> list[scores.Group]:
    """Return ten groups of scores with what came of them; groups of fewer than 20 rows join the one below."""
    cells: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(GROUPS)]
    for place, none, some, total in bins:
        cell = cells[min(place * GROUPS // SCORE_BINS, GROUPS - 1)]
        cell[0] += none + some
        cell[1] += some
        cell[2] += (none + some) * (place + 0.5) / SCORE_BINS if total is None else total
    joined: list[list[float]] = []
    for cell in cells:
        if joined and (cell[0] < FEWEST_IN_A_GROUP or joined[-1][0] < FEWEST_IN_A_GROUP):
            joined[-1] = [a + b for a, b in zip(joined[-1], cell, strict=True)]
        else:
            joined.append(cell)
    return [scores.Group(total / n, some / n, int(n)) for n, some, total in joined if n > 0]


def volumes(data: ReportData, width: int) -> Picture:
    """Return the rows of each window of the job."""
    usual = (data.reference.get("days") or {}).get("rows") or {}
    found = []
    for run in data.runs:
        known = usual.get(str(run.day.isoweekday())) or []
        least = min(known) if known else None
        found.append(volume.Volume(run.day, run.scored, run.rejected, run.failed, least))
    return volume.chart(found, data.days, width=width, language=data.language)


def worst_segments(data: ReportData, width: int) -> Picture | None:
    """Return the main metric of the worst three segments; None when the job has no segments."""
    name = data.main_metric
    if name is None or not data.segments:
        return None
    means = segment_means(data, name)
    shown = [(one, *means[one][:2]) for one in [*worst_first(data, name)[:WORST], *([""] if "" in means else [])]]
    drawn = list(starmap(segments.Segment, ((one, now, before) for one, now, before in shown if now)))
    worst, everything = [s for s in drawn if s.name], next((s for s in drawn if not s.name), None)
    return segments.chart(name, worst, everything, width=width, language=data.language)


PICTURES: Final[Mapping[str, Any]] = {
    "over_time": what_happened,
    "inputs": inputs,
    "scores": score_distribution,
    "calibration": calibration,
    "volume": volumes,
    "segments": worst_segments,
}
"""Each picture by its name, as a function of the data and a width; what cannot be for a job is None."""
WIDE: Final = frozenset({"over_time", "inputs"})
"""Pictures that need all of a page's width."""
