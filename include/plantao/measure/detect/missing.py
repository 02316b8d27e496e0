"""What the checks of runs could not judge: kept as figures without a value, and told when it lasts.

Pure. A check that cannot be made looks like one that found nothing, so its reason is kept beside the metrics, as
`check_null_share` and the like; a check that was made leaves nothing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from plantao.measure.metrics.metric import Metric
from plantao.outbox.incident import Condition, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, tzinfo

    from plantao.measure.detect.findings import NotJudged
    from plantao.window import Window

PREFIX = "check_"
PERSISTS = 3
"""So many days in a row without a figure, or a check, are a condition."""
UNTOLD = frozenset({"undefined", "failed"})
"""Of these nothing becomes better by waiting; few rows, and days that are not over, are no trouble."""
SHOWN = 5
NEXT = {
    "undefined": "see whether the column had values in training; if it stays empty, train a version without it",
    "failed": "see whether the reference can be read; a new baseline replaces it: plantao reference rebase",
}


def figures(  # noqa: PLR0913 - a run, what it could not judge, and what was known of its window
    window: Window,
    version: int,
    rows: int,
    not_judged: Iterable[NotJudged],
    kept: Iterable[Metric],
    *,
    whole: bool,
) -> list[Metric]:
    """Return what is to be kept of a run's checks: why some could not be made, and that others now can.

    `kept` is what is known of the window. A run that is not its `whole`, for it adds a few rows to a window that was
    scored before, takes nothing back from what that one has judged.
    """
    before = {(m.name, m.column) for m in kept if m.model_version == version and m.status != "ok"}
    now = {(PREFIX + one.check, one.column): one.status for one in not_judged}
    found = [
        Metric(window, version, name, None, rows, column, status=status)
        for (name, column), status in now.items()
        if whole or (name, column) in before
    ]
    return [
        *found,
        *(Metric(window, version, name, None, rows, column) for name, column in sorted(before - now.keys())),
    ]


def persisting(
    scored: Sequence[tuple[Window, int]], kept: Iterable[Metric], version: int, zone: tzinfo
) -> list[Condition]:
    """Return the checks that could not be made on any of the last 3 days with rows, one condition for each check.

    `scored` are the windows that have rows, each with its version; `kept` is what is known of their checks.
    """
    windows: dict[date, list[Window]] = defaultdict(list)
    for window, by in scored:
        if by == version:
            windows[window.start.astimezone(zone).date()].append(window)
    untold: dict[tuple[str, str], dict[Window, str]] = defaultdict(dict)
    for one in kept:
        if one.model_version == version and one.status in UNTOLD:
            untold[one.name, one.column][one.window] = one.status
    days = sorted(windows, reverse=True)
    lasting: dict[str, dict[str, tuple[date, str]]] = defaultdict(dict)
    for (name, column), found in sorted(untold.items()):
        streak = 0
        while streak < len(days) and all(window in found for window in windows[days[streak]]):
            streak += 1
        if streak >= PERSISTS:
            lasting[name][column] = (days[streak - 1], found[max(windows[days[0]], key=lambda w: w.start)])
    return [_condition(name, columns, version) for name, columns in lasting.items()]


def _condition(name: str, columns: Mapping[str, tuple[date, str]], version: int) -> Condition:
    since = min(day for day, _ in columns.values())
    statuses = sorted({status for _, status in columns.values()})
    named = [column for column in columns if column]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    of = f" of {', '.join(named[:SHOWN])}{more}" if named else ""
    message = f"the check {name.removeprefix(PREFIX)}{of} cannot be made since {since}: {', '.join(statuses)}"
    mark = fingerprint("missing", name, f"v{version}")
    details = {"check": name.removeprefix(PREFIX), "columns": named}
    return Condition("missing", mark, "missing", None, since, message, NEXT[statuses[0]], details)
