"""Simulated streams of days without drift, to count false alarms on; and the same with faults, to time what finds them.

Two worlds. *Independent*: rows drawn one by one from a calibrated binary model, 165 a day. *Flights*: the real days of
April to December 2013, scored by a model of January to March, in random order: what differs between days by nature
stays, seasons do not. Every stream has 90 reference days and 100 of production. 20 or so columns of cells go with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache

import numpy as np
import pandas as pd
from demo import client_data

from plantao.measure.breaks import findings, row_count
from plantao.measure.conditions import fingerprint, unjudged
from plantao.measure.degradation import DIRECTIONS, DayValue, baseline, episodes

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


def independent_days(rng, days, spread, centre, flipped=0.0, rows=ROWS):
    """Return the metrics of days of independent rows; logits are normal, so the spread makes the AUC.

    `flipped` is the share of the labels that are wrong from the first production day of each stream on.
    """
    p = 1 / (1 + np.exp(-rng.normal(centre, spread, (days, rows))))
    y = rng.random((days, rows)) < p
    if flipped:
        production = np.arange(days) % len(DAYS) >= REFERENCE
        y ^= (rng.random((days, rows)) < flipped) & production[:, None]
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
    """Return per metric the number of episodes that opened in all streams, and of improvements under its own name."""
    found = {}
    for place in range(streams):
        stream = one_stream(metrics, place)
        for metric in METRICS:
            judgement = judged(stream, metric)
            found[metric] = found.get(metric, 0) + len(judgement.worse)
            found[f"{metric} improved"] = found.get(f"{metric} improved", 0) + len(judgement.improved)
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
    std: float = 0.0

    def profile(self):
        """Return the column's reference, of the first 90 days."""
        counts = self.counts[:REFERENCE].sum(axis=0)
        found = {"rows": int(self.rows[:REFERENCE].sum()), "missing": int(self.missing[:REFERENCE].sum())}
        if self.kind == "name":
            return found | {"values": {str(i): int(c) for i, c in enumerate(counts)}, "other": 0}
        return found | {"edges": self.edges.tolist(), "counts": counts[1:-1].tolist(), "mean": 0.0, "std": self.std}

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

    def states(self):
        """Return the daily states of production."""
        rows, missing, counts = (a[REFERENCE:].tolist() for a in (self.rows, self.missing, self.counts))
        found = [{"rows": r, "missing": m, "counts": c, "other": 0} for r, m, c in zip(rows, missing, counts, strict=True)]
        extra = {"sums": self.sums, "squares": self.squares, "unseen": self.unseen}
        for name, values in extra.items():
            if values is not None:
                for state, value in zip(found, values[REFERENCE:].tolist(), strict=True):
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
            found[f"number_{place}"] = Cells(kind, rows, missing, counts, np.linspace(-2, 2, BINS + 1), **moments, std=1)
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
    bins = max(len(edges) - 1, 1)
    cell = np.clip(np.searchsorted(edges, values, "right"), 1, bins)
    cell[values < edges[0]] = 0
    cell[values > edges[-1]] = bins + 1
    assignment = np.zeros((len(values), bins + 2))
    assignment[np.arange(len(values)), cell] = 1
    mean = (pooled * values).sum() / pooled.sum()
    std = float(np.sqrt((pooled * (values - mean) ** 2).sum() / pooled.sum()))
    sums = (counts * (values - mean)) @ assignment
    shape = {"edges": edges, "sums": sums, "squares": counts @ (values - mean) ** 2, "std": std}
    inside = (counts @ assignment).round().astype(int)
    return Cells("number", inside.sum(axis=1) + missing, missing, inside, **shape)


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


def false_breaks(columns, scores):
    """Return the fingerprints of the breaks that opened in a stream, one for each time."""
    reference = reference_of(columns, scores)
    states = {name: cells.states() for name, cells in columns.items()}
    found, standing, history = [], set(), {}
    for place, day in enumerate(DAYS[REFERENCE:]):
        counts = scores[REFERENCE + place]
        score = {"rows": int(counts.sum()), "scores": {"true": counts.tolist()}, "sum": 0.0, "squares": 9.0}
        result = findings(reference, {name: of_day[place] for name, of_day in states.items()} | {"": score})
        result.take(row_count(day, score["rows"], reference, history))
        history[day] = score["rows"]
        now = {fingerprint("break", one.check, one.column) for one in result.breaks}
        found += sorted(now - standing)
        standing = now | (standing & unjudged(result.not_judged))
    return found


def independent_stream(rng, columns):
    """Return the columns and the scores of a stream of independent rows; how many a day differs as counts do."""
    rows = rng.poisson(ROWS, len(DAYS))
    shape = np.exp(-(((np.arange(SCORE_BINS) - 60) / 50) ** 2))
    return independent_columns(rng, rows, columns), rng.multinomial(rows, shape / shape.sum())


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
    return frame


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
    model = HistGradientBoostingClassifier(max_iter=60, random_state=0)
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
