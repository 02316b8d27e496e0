"""Simulated streams of days without drift, to count false alarms on; and the same with faults, to time what finds them.

Two worlds. *Independent*: rows drawn one by one from a calibrated binary model, 165 a day. *Flights*: the real days of
April to December 2013, scored by a model of January to March, in random order: what differs between days by nature
stays, seasons do not. Every stream has 90 reference days and 100 of production. 20 or so columns of cells go with them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache

import numpy as np
import pandas as pd

from demo import client_data
from plantao.measure.detect.checks import findings, row_count
from plantao.measure.detect.conditions import unjudged
from plantao.measure.detect.cusum import DIRECTIONS, DayValue, baseline, episodes
from plantao.outbox.incident import fingerprint

REFERENCE, PRODUCTION = 90, 100
ROWS = 165
BINS = 20
SCORE_BINS = 200
START = date(2013, 1, 7)
DAYS = [START + timedelta(days=place) for place in range(REFERENCE + PRODUCTION)]
METRICS = ("log_loss", "roc_auc", "bias")


# --- metrics of days -------------------------------------------------------------------------------------------------


def losses(p, y):
    """Return the log loss of every row."""
    p = np.clip(p, 1e-15, 1 - 1e-15)
    return -np.where(y, np.log(p), np.log1p(-p))


def areas(p, y):
    """Return the ROC AUC of every line of [days, rows], scores being all different."""
    ranks = p.argsort(axis=1).argsort(axis=1) + 1.0
    ones = y.sum(axis=1)
    zeros = y.shape[1] - ones
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((ranks * y).sum(axis=1) - ones * (ones + 1) / 2) / (ones * zeros)


def measured(p, y):
    """Return the metrics of days of equal size, [days, rows] each."""
    found = {"log_loss": losses(p, y).mean(axis=1), "roc_auc": areas(p, y), "bias": (p - y).mean(axis=1)}
    return found | {"n": np.full(len(p), p.shape[1])}


def independent_days(rng, days, spread, centre, flipped=0.0):
    """Return the metrics of days of independent rows; logits are normal, so the spread makes the AUC.

    `flipped` is the share of the labels that are wrong from the first production day of each stream on.
    """
    p = 1 / (1 + np.exp(-rng.normal(centre, spread, (days, ROWS))))
    y = rng.random((days, ROWS)) < p
    if flipped:
        production = np.arange(days) % len(DAYS) >= REFERENCE
        y ^= (rng.random((days, ROWS)) < flipped) & production[:, None]
    return measured(p, y)


# --- what the lanes say ----------------------------------------------------------------------------------------------


def judged(metrics, metric, days=DAYS):
    """Return the judgement of a stream's production days against its reference days."""
    values = metrics[metric].tolist()
    given = [DayValue(d, v, int(n)) for d, v, n in zip(days, values, metrics["n"].tolist(), strict=True)]
    return episodes(given[REFERENCE:], baseline(given[:REFERENCE]), DIRECTIONS[metric])


def one_stream(metrics, place):
    """Return the metrics of one stream out of those of all of them."""
    here = slice(place * len(DAYS), (place + 1) * len(DAYS))
    return {name: values[here] for name, values in metrics.items()}


def false_episodes(metrics, streams):
    """Return how many episodes opened in all streams, per metric, and of the lane ('') while none was open."""
    found = Counter()
    for place in range(streams):
        stream = one_stream(metrics, place)
        everything = []
        for metric in METRICS:
            judgement = judged(stream, metric)
            found[metric] += len(judgement.worse)
            found[f"{metric} improved"] += len(judgement.improved)
            everything += judgement.worse
        over = date.min
        for episode in sorted(everything, key=lambda episode: episode.opened):
            found[""] += episode.opened > over
            over = max(over, episode.closed or date.max)
    return found


def first_alarms(metrics, streams):
    """Return for every stream the day, from 1, on which the first metric opened; infinite where none did."""
    found = []
    for place in range(streams):
        stream = one_stream(metrics, place)
        opened = [e.opened for metric in METRICS for e in judged(stream, metric).worse]
        found.append((min(opened) - DAYS[REFERENCE]).days + 1 if opened else np.inf)
    return np.array(found)


# --- columns as cells ------------------------------------------------------------------------------------------------


@dataclass
class Cells:
    """A column of a stream: counts per day, [days, cells], in the layout of the daily state."""

    kind: str
    """number or name."""
    rows: np.ndarray
    missing: np.ndarray
    counts: np.ndarray
    edges: np.ndarray | None = None
    sums: np.ndarray | None = None
    squares: np.ndarray | None = None
    unseen: np.ndarray | None = None
    mean: float = 0.0
    std: float = 0.0

    def profile(self):
        """Return the column's reference, of the first 90 days."""
        counts = self.counts[:REFERENCE].sum(axis=0)
        found = {"rows": int(self.rows[:REFERENCE].sum()), "missing": int(self.missing[:REFERENCE].sum())}
        if self.kind == "name":
            return found | {"values": {str(i): int(c) for i, c in enumerate(counts)}, "other": 0}
        return found | {
            "edges": self.edges.tolist(),
            "counts": counts[1:-1].tolist(),
            "mean": self.mean,
            "std": self.std,
        }

    def limits(self):
        """Return what `drift.day_limits` says of the reference days' shares."""
        rows, known = self.rows[:REFERENCE], np.maximum(self.rows - self.missing, 1)[:REFERENCE]
        counts = self.counts[:REFERENCE]
        outside = counts[:, [0, -1]].sum(axis=1) if self.kind == "number" else np.zeros(len(rows))
        return {
            "count": len(rows),
            "missing_max": float((self.missing[:REFERENCE] / rows).max()),
            "unseen_max": 0.0,
            "largest_cell_max": float((counts.max(axis=1) / known).max()),
            "outside_max": float((outside / rows).max()),
        }

    def states(self, first=REFERENCE):
        """Return the daily states, of production if nothing else is said."""
        rows, missing, counts = (a[first:].tolist() for a in (self.rows, self.missing, self.counts))
        found = [
            {"rows": r, "missing": m, "counts": c, "other": 0} for r, m, c in zip(rows, missing, counts, strict=True)
        ]
        extra = {"sums": self.sums, "squares": self.squares, "unseen": self.unseen}
        for name, values in extra.items():
            if values is not None:
                for state, value in zip(found, values[first:].tolist(), strict=True):
                    state[name] = value
        return found


def independent_columns(rng, rows, columns):
    """Return columns of independent rows: with 0, 0.5 or 10 % missing, numbers in 20 bins or names of 4 to 30 values.

    In production one row in 15,000 falls below or above the training range, or has a value never seen.
    """
    found = {}
    rare = np.where(np.arange(len(rows)) < REFERENCE, 0, 1 / 15_000)
    for place in range(columns):
        kind = "name" if place % 3 == 2 else "number"
        missing = rng.binomial(rows, (0.0, 0.005, 0.1)[place % 4 % 3])
        known = rows - missing
        odd = rng.binomial(known, rare)
        if kind == "number":
            high = rng.binomial(known, rare)
            inner = rng.multinomial(known - odd - high, np.full(BINS, 1 / BINS))
            middles = np.linspace(-1.65, 1.65, BINS)
            counts = np.column_stack([odd, inner, high])
            moments = {"sums": np.column_stack([0 * odd, inner * middles, 0 * high]), "squares": inner @ middles**2}
            found[f"number_{place}"] = Cells(
                kind, rows, missing, counts, np.linspace(-2, 2, BINS + 1), **moments, std=1
            )
        else:
            weights = 1 / np.arange(1, (4, 12, 30)[place % 3] + 1)
            counts = rng.multinomial(known - odd, weights / weights.sum())
            found[f"name_{place}"] = Cells(kind, rows, missing, counts, unseen=odd)
    return found


def binned(counts, values, missing, reference):
    """Return a number column as cells, from the rows per day and different value, with bins at reference quantiles."""
    pooled = counts[reference].sum(axis=0)
    cumulated = pooled.cumsum() / pooled.sum()
    places = np.searchsorted(cumulated, np.linspace(0, 1, BINS + 1)[1:-1])
    seen = np.flatnonzero(pooled)
    edges = np.unique([values[seen[0]], *values[places], values[seen[-1]]])
    mean = (pooled * values).sum() / pooled.sum()
    std = float(np.sqrt((pooled * (values - mean) ** 2).sum() / pooled.sum()))
    return into_bins(counts, values, missing, Cells("number", missing, missing, counts, edges, mean=mean, std=std))


def into_bins(counts, values, missing, like):
    """Return the rows per day and different value in the bins of another column."""
    bins = max(len(like.edges) - 1, 1)
    cell = np.clip(np.searchsorted(like.edges, values, "right"), 1, bins)
    cell[values < like.edges[0]] = 0
    cell[values > like.edges[-1]] = bins + 1
    # Values are in order, so a cell is a stretch of them.
    starts = np.searchsorted(cell, np.arange(bins + 3))

    def folded(rows):
        return np.diff(np.pad(rows.cumsum(axis=1), ((0, 0), (1, 0)))[:, starts], axis=1)

    around = values - like.mean
    inside = folded(counts)
    moments = {"sums": folded(counts * around), "squares": (counts * around**2).sum(axis=1)}
    return replace(like, rows=inside.sum(axis=1) + missing, missing=missing, counts=inside, **moments)


def listed(counts, missing, reference):
    """Return a text column as cells: what no reference day had is unseen."""
    known = counts[reference].sum(axis=0) > 0
    rows = counts.sum(axis=1) + missing
    return Cells("name", rows, missing, counts[:, known], unseen=counts[:, ~known].sum(axis=1))


def reference_of(columns, scores):
    """Return the reference profile of a stream, with the scores [days, 200]."""
    pooled = scores[:REFERENCE].sum(axis=0)
    largest = (scores[:REFERENCE].max(axis=1) / scores[:REFERENCE].sum(axis=1)).max()
    rows = {str(weekday): [] for weekday in range(1, 8)}
    for day, count in zip(DAYS[:REFERENCE], scores.sum(axis=1), strict=False):
        rows[str(day.isoweekday())].append(int(count))
    of_days = {name: cells.limits() for name, cells in columns.items()}
    score = {"bins": SCORE_BINS, "counts": pooled.tolist(), "mean": 0.5, "std": 0.2}
    days = {"columns": of_days, "score": {"count": REFERENCE, "largest_cell_max": float(largest)}, "rows": rows}
    return {"columns": {name: cells.profile() for name, cells in columns.items()}, "score": score, "days": days}


def false_breaks(columns, scores, days=PRODUCTION):
    """Return the breaks that opened in a stream: '' when anything did that day, and the fingerprint of each.

    Nulls in five columns of a table that was joined are one message, so the lane opens once.
    """
    reference = reference_of(columns, scores)
    states = {name: cells.states() for name, cells in columns.items()}
    found, standing, history = [], set(), {}
    for place, day in enumerate(DAYS[REFERENCE : REFERENCE + days]):
        counts = scores[REFERENCE + place]
        score = {"rows": int(counts.sum()), "scores": {"true": counts.tolist()}, "sum": 0.0, "squares": 9.0}
        result = findings(reference, {name: of_day[place] for name, of_day in states.items()} | {"": score})
        result.take(row_count(day, score["rows"], reference, history))
        history[day] = score["rows"]
        now = {fingerprint("break", one.check, one.column) for one in result.breaks}
        found += [*([""] if now and not standing else []), *sorted(now - standing)]
        standing = now | (standing & unjudged(result.not_judged))
    return found


def independent_stream(rng, columns):
    """Return the columns and the scores of a stream of independent rows; how many a day differs as counts do."""
    rows = rng.poisson(ROWS, len(DAYS))
    shape = np.exp(-(((np.arange(SCORE_BINS) - 60) / 50) ** 2))
    return independent_columns(rng, rows, columns), rng.multinomial(rows, shape / shape.sum())


# --- faults ----------------------------------------------------------------------------------------------------------


def faults(cells, values, counts):
    """Return the faults that a column can have, each with the state of its first day, [different values] as counted."""
    rows = int(counts.sum())
    found = {"null": {"rows": rows, "missing": rows, "counts": [0] * cells.counts.shape[1], "other": 0}}
    frozen = np.where(np.arange(len(counts)) == counts.argmax(), rows, 0)
    if cells.kind == "number":
        for name, value, count in (("frozen", values, frozen), ("divided by 1000", values / 1000, counts)):
            column = into_bins(count[None, :], value, np.zeros(1, dtype=int), cells)
            (found[name],) = replace(column, unseen=None).states(first=0)
        return found
    one = {"rows": rows, "missing": 0, "other": 0, "unseen": 0}
    found["null"] = found["null"] | {"unseen": 0}
    renamed = np.where(np.arange(len(counts)) == counts.argmax(), 0, counts)
    found["frozen"] = one | {"counts": frozen.tolist()}
    found["renamed"] = one | {"counts": renamed.tolist(), "unseen": rows - int(renamed.sum())}
    return found


def missed_faults(columns, scores, days):
    """Return the faults of single columns that no check finds on their first day, and how many there were.

    `days` gives, per column, the different values and the rows of each on the first day of production.
    """
    reference = reference_of(columns, scores)
    missed, tried = [], 0
    for name, (values, counts) in days.items():
        for fault, state in faults(columns[name], values, counts).items():
            tried += 1
            if not any(one.column == name for one in findings(reference, {name: state}).breaks):
                missed.append((name, fault))
    return missed, tried


def independent_first_day(rng, columns):
    """Return a first day of production for `missed_faults`, of columns of independent rows."""
    days = {}
    for name, cells in columns.items():
        weights = cells.counts[:REFERENCE].sum(axis=0) / cells.counts[:REFERENCE].sum()
        values = np.linspace(-1.65, 1.65, BINS) if cells.kind == "number" else np.arange(len(weights))
        weights = weights[1:-1] if cells.kind == "number" else weights
        days[name] = values, rng.multinomial(ROWS, weights / weights.sum())
    return days


# --- flights ---------------------------------------------------------------------------------------------------------

NAMES = ("carrier", "origin", "dest")
NUMBERS = ("distance", "dep_hour", "scheduled_minutes", "day_of_week", "plane_year", "plane_seats")
WEATHER = ("temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")


@dataclass
class Flights:
    """The days of April to December: their metrics, their scores in bins, and the rows per different value."""

    metrics: dict
    scores: np.ndarray
    values: dict
    """per column: the different values, the rows of each on each day, the missing rows of each day."""

    def stream(self, rng):
        """Return the metrics, columns and scores of a stream: days in random order."""
        order = rng.permutation(len(self.scores))[: len(DAYS)]
        reference = slice(0, REFERENCE)
        columns = {}
        for name, (values, counts, missing) in self.values.items():
            if name in NAMES:
                columns[name] = listed(counts[order], missing[order], reference)
            else:
                columns[name] = binned(counts[order], values, missing[order], reference)
        return {name: values[order] for name, values in self.metrics.items()}, columns, self.scores[order]

    def first_day(self, rng, columns):
        """Return any day for `missed_faults`; only its flights, whose columns vary within every day."""
        day = rng.integers(len(self.scores))
        found = {}
        for name in (*NAMES, *(name for name in NUMBERS if name != "day_of_week")):
            values, counts, _ = self.values[name]
            # Of names the stream lists those of its reference days; the rest is unseen anyway.
            size = columns[name].counts.shape[1] if name in NAMES else len(values)
            found[name] = values[:size], counts[day][:size]
        return found


def flights_frame():
    """Return all flights with the weather of their hour, the local day, and whether they were late (or unknown)."""
    folder = client_data.data_folder()
    flights, landings = client_data.read_flights(folder)
    weather = client_data.read_weather(folder)
    weather["observed_at"] = pd.to_datetime(weather["observed_at"], utc=True)
    frame = flights.merge(landings[["flight_id", "minutes"]], how="left", on="flight_id")
    frame["observed_at"] = frame["departed_at"].dt.floor("h")
    frame = frame.merge(weather, how="left", on=["origin", "observed_at"])
    frame["day"] = frame["departed_at"].dt.tz_convert("America/New_York").dt.date
    frame["late"] = (frame["minutes"] > 15).where(frame["minutes"].notna())
    # The weather ends on the 30th, so that on the last day it is missing throughout: that is no day without a fault.
    return frame[frame["day"] < date(2013, 12, 31)]


@cache
def flights():
    """Train on January to March, score the rest, and count per day."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    frame = flights_frame()
    inputs = frame[list(NUMBERS)].astype(float)
    for name in NAMES:
        inputs[name] = pd.factorize(frame[name], sort=True)[0]
    known = frame["late"].notna()
    first = frame["day"] < date(2013, 4, 1)
    model = HistGradientBoostingClassifier(max_iter=40, random_state=0)
    model.fit(inputs[first & known], frame.loc[first & known, "late"].astype(bool))
    rest = frame[~first].reset_index(drop=True)
    rest["p"] = model.predict_proba(inputs[~first])[:, 1]
    days, place = np.unique(rest["day"], return_inverse=True)
    labelled = rest[rest["late"].notna()].assign(late=lambda f: f["late"].astype(bool))
    rows = []
    for _, day in labelled.groupby("day"):
        p, y = day["p"].to_numpy(), day["late"].to_numpy()
        rows.append((losses(p, y).mean(), roc_auc_score(y, p), (p - y).mean(), len(day)))
    metrics = dict(zip((*METRICS, "n"), map(np.array, zip(*rows, strict=True)), strict=True))
    bins = np.minimum((rest["p"] * SCORE_BINS).astype(int), SCORE_BINS - 1).to_numpy()
    scores = np.bincount(place * SCORE_BINS + bins, minlength=len(days) * SCORE_BINS).reshape(len(days), -1)
    values = {name: counted(rest[name], place, len(days)) for name in (*NAMES, *NUMBERS, *WEATHER)}
    return Flights(metrics, scores, values)


def counted(series, place, days):
    """Return the different values of a column, how many rows each has on each day, and the missing rows of a day."""
    code, values = pd.factorize(series, sort=True)
    known = code >= 0
    counts = np.bincount(place[known] * len(values) + code[known], minlength=days * len(values))
    values = np.asarray(values, dtype=object if series.dtype == object or series.name in NAMES else float)
    return values, counts.reshape(days, -1), np.bincount(place[~known], minlength=days)
