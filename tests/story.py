"""120 days of a job that goes well, gets a new model version, and degrades in its last three weeks."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from plantao.measure.profile.sketch import added
from plantao.report.data import Figure, Incident, ReportData, Run, Version
from plantao.report.label_delay import Arrived
from plantao.report.point import Point

ZONE = ZoneInfo("America/New_York")
FIRST, DAYS, DEGRADES, NEW_VERSION = date(2013, 8, 3), 120, 99, 41
LAST = FIRST + timedelta(days=DAYS - 1)
JOB = """
description = "Will this flight arrive more than 15 minutes late?"
schedule = "daily"
timezone = "America/New_York"
starts   = 2013-04-01

[extract]
table     = "public.flights"
key       = ["flight_id"]
timestamp = "departed_at"

[score]
model = "flight_delay"

[load]
table = "predictions.flight_delay"

[measure]
outcome   = {{ table = "public.arrivals", key = ["flight_id"], column = "late" }}
objective = {{ name = "minutes_saved", values = [{{ prediction = true, outcome = true, value = 12 }}] }}
metrics   = ["roc_auc", "log_loss", "brier", "bias"]
segments  = ["origin", "carrier"]
control_group = 0.05

[alert]
language = "{language}"
"""
COLUMNS = {
    "dep_hour": 0.41, "wind_gust": 0.22, "carrier": 0.19, "dest": 0.17, "temperature": 0.12, "distance": 0.11,
    "origin": 0.08, "visibility": 0.07, "pressure": 0.05, "aircraft_age": 0.03, "weekday": 0.02,
}  # fmt: skip
SEGMENTS = {"origin=EWR": 0.36, "origin=JFK": 0.33, "origin=LGA": 0.31, "carrier=UA": 0.17, "carrier=B6": 0.16,
            "carrier=EV": 0.15, "carrier=DL": 0.14, "carrier=HA": 0.001, "carrier=other": 0.02}  # fmt: skip
USUAL = {"roc_auc": (0.724, 0.018), "log_loss": (0.431, 0.02), "brier": (0.139, 0.007), "bias": (0.004, 0.012),
         "accuracy": (0.807, 0.02), "objective_per_row": (0.92, 0.09), "precision": (0.56, 0.04),
         "recall": (0.31, 0.03)}  # fmt: skip
FALLS = {"roc_auc": -0.055, "log_loss": 0.045, "brier": 0.014, "bias": 0.05, "accuracy": -0.03,
         "objective_per_row": -0.34, "precision": -0.09, "recall": -0.06}  # fmt: skip


def start_of(day: date) -> datetime:
    return datetime.combine(day, time(), ZONE)


def reference() -> dict[str, Any]:
    """Return the profile of 90 days before the story."""
    chance = np.random.default_rng(1)
    performance = [
        {"day": (date(2013, 5, 1) + timedelta(days=i)).isoformat(), "n": 900,
         **{name: float(chance.normal(mean, sd)) for name, (mean, sd) in USUAL.items()}}
        for i in range(90)
    ]  # fmt: skip
    centres = (np.arange(200) + 0.5) / 200
    counts = _scores(1.5, 5.2, 82_000)
    columns = {
        name: {"rows": 82_000, "missing": int(82_000 * (0.11 if name == "pressure" else 0.002)), "link": link}
        for name, link in COLUMNS.items()
    }
    weekdays = {str(day): [620, 700, 655] if day == 6 else [860, 990, 940] for day in range(1, 8)}
    return {
        "columns": columns,
        "score": {"bins": 200, "counts": counts, "mean": float(np.average(centres, weights=counts)), "std": 0.15},
        "calibration": {
            "true": {"n": counts, "positives": [round(c * p) for c, p in zip(counts, centres, strict=True)]}
        },
        "days": {"count": 90, "from": "2013-05-01", "until": "2013-07-29", "rows": weekdays,
                 "performance": performance},
    }  # fmt: skip


def _scores(a: float, b: float, rows: int) -> list[int]:
    centres = (np.arange(200) + 0.5) / 200
    weights = centres ** (a - 1) * (1 - centres) ** (b - 1)
    return [round(rows * weight) for weight in weights / weights.sum()]


def metrics() -> list[dict[str, Any]]:
    """Return rows for `plantao.metrics`, all of whole local days."""
    chance = np.random.default_rng(2)
    rows: list[dict[str, Any]] = []
    for place in range(DAYS):
        day = FIRST + timedelta(days=place)
        fall = min(1.0, max(0.0, (place - DEGRADES + 1) / 4))
        n = int(chance.normal(640 if day.isoweekday() == 6 else 925, 30))
        known = 0.972 if place < DAYS - 3 else (0.71, 0.38, 0.0)[place - DAYS + 3]
        status = "ok" if known > 0.8 else "provisional" if known else "no_labels"
        about = {"day": day, "n": int(n * known), "maturity": known, "status": status}
        rows += _of_outcomes(chance, fall, about)
        rows += _of_inputs(chance, place, day, n)
        rows += _of_segments(chance, fall, about)
        estimate = float(chance.normal(0.722 - 0.012 * fall, 0.005))
        rows += [
            {"day": day, "name": "estimated_roc_auc", "value": estimate, "n": n},
            {"day": day, "name": "label_coverage", "value": known, "n": n},
            {"day": day, "name": "rows", "value": n, "n": n},
            {"day": day, "name": "rejected_share", "value": 0.004 if place != 33 else 0.03, "n": n},
        ]
    version = {True: 4, False: 3}
    for row in rows:
        row["model_version"] = version[row["day"] >= FIRST + timedelta(days=NEW_VERSION)]
        row |= {"window_start": start_of(row["day"]), "window_end": start_of(row.pop("day") + timedelta(days=1))}
    return rows


def _of_outcomes(chance: np.random.Generator, fall: float, about: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, (mean, sd) in USUAL.items():
        value, half = float(chance.normal(mean + FALLS[name] * fall, sd)), 1.6 * sd
        column = "true" if name in {"precision", "recall"} else ""
        shown = {"value": value, "lower": value - half, "upper": value + half, "detectable": 1.21 * sd}
        rows.append({**about, "name": name, "column_name": column, **(shown if about["status"] != "no_labels" else {})})
    bad = {"value": None, "status": "undefined"} if about["day"].day == 13 else {"value": 0.02 + 0.03 * fall}
    rows.append({**about, "name": "calibration", **bad})
    for arm, lift, share in (("control", 0.01, 0.05), ("treated", -0.008, 0.95), ("weighted", 0.008, 1.0)):
        value = float(chance.normal(0.725 - 0.05 * fall + lift, 0.02 / share**0.25))
        rows.append({**about, "name": f"roc_auc_{arm}", "n": int(about["n"] * share), "value": value,
                     "lower": value - 0.04 / share**0.5, "upper": value + 0.04 / share**0.5})  # fmt: skip
    value = float(chance.normal(0.61 - 0.2 * fall, 0.3))
    rows.append(
        {
            **about,
            "name": "effect",
            "column_name": "objective_per_row",
            "value": value,
            "lower": value - 0.6,
            "upper": value + 0.6,
        }
    )
    value = float(chance.normal(-0.021 + 0.006 * fall, 0.02))
    rows.append({**about, "name": "effect", "column_name": "outcome", "value": value, "lower": value - 0.05,
                 "upper": value + 0.05})  # fmt: skip
    return rows


def _of_inputs(chance: np.random.Generator, place: int, day: date, n: int) -> list[dict[str, Any]]:
    rows = []
    for column in ("", *COLUMNS):
        over = abs(float(chance.normal(0.45, 0.17)))
        over += {"dest": 1.5, "temperature": 1.0}.get(column, 0.0) * min(1.6, max(0.0, (place - 80) / 22))
        over += 3.4 if column == "wind_gust" and place >= DEGRADES - 1 else 0.0
        over += 0.2 if column == "" and place >= DEGRADES else 0.0
        about = {"day": day, "column_name": column, "n": n}
        failed = column == "pressure" and 50 <= place < 57
        if failed:
            rows.append({**about, "name": "jensen_shannon", "value": None, "status": "failed"})
        else:
            rows += [
                {**about, "name": "drift", "value": 1.3 + math.log(over)},
                {**about, "name": "drift_limit", "value": 1.3},
                {**about, "name": "jensen_shannon", "value": 0.055 + 0.03 * over},
                {**about, "name": "jensen_shannon_expected", "value": 0.054},
            ]
        if column:
            gaps = 0.61 if column == "pressure" and 50 <= place < 57 else 0.11 if column == "pressure" else 0.002
            rows.append({**about, "name": "null_share", "value": gaps})
    return rows


def _of_segments(chance: np.random.Generator, fall: float, about: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for segment, share in SEGMENTS.items():
        worse = {"carrier=EV": 2.3, "origin=LGA": 1.6, "carrier=B6": 1.2}.get(segment, 0.6)
        n = int(about["n"] * share)
        status = "not_enough" if about["status"] == "ok" and n < 100 else about["status"]
        value = float(chance.normal(0.724 - 0.055 * worse * fall, 0.02 / share**0.3))
        half = 0.035 / share**0.5
        rows.append({**about, "name": "roc_auc", "segment": segment, "n": n, "value": value if n else None,
                     "lower": value - half, "upper": value + half, "status": status})  # fmt: skip
    return rows


def incidents() -> list[dict[str, Any]]:
    """Return rows for `plantao.incidents`."""
    opened = FIRST + timedelta(days=DEGRADES + 3)
    broken = FIRST + timedelta(days=50)
    drifted = FIRST + timedelta(days=DEGRADES)
    mended = FIRST + timedelta(days=57)
    return [
        {"lane": "break", "fingerprint": "break null_share pressure", "word": "broken", "since": broken,
         "state": "closed", "until": mended, "closed_at": start_of(mended + timedelta(days=900)),
         "opened_at": start_of(broken) + timedelta(hours=30),
         "message": "pressure: 61 % of the values are missing; at most 14 % were on a day of the reference."
                    " Next: see whether the source stopped filling the column, or a join in the query lost its partner",
         "details": {"check": "null_share", "column": "pressure", "value": 0.61, "limit": 0.15, "n": 918}},
        {"lane": "degraded", "fingerprint": "degraded roc_auc v4", "word": "degraded", "since": opened,
         "opened_at": start_of(opened) + timedelta(hours=30), "model_version": 4, "severity": 2.1,
         "message": f"roc_auc of version 4 is degraded: the days since {drifted} lie below the"
                    " reference's mean 0.7243: beyond 0.5 a day they add up to 6.1 standard deviations;"
                    " the limit is 5",
         "details": {"metric": "roc_auc", "version": 4, "segment": "", "worst": 4.1, "worst_day": str(opened)}},
        {"lane": "degraded", "fingerprint": "degraded log_loss v4", "word": "watch", "since": opened,
         "opened_at": start_of(opened) + timedelta(hours=30), "model_version": 4, "severity": 0.8,
         "message": f"log_loss of version 4 is worse by less than the margin: the days since {drifted}"
                    " lie above the reference's mean 0.431: beyond 0.5 a day they add up to 5.3 standard"
                    " deviations; the limit is 5",
         "details": {"metric": "log_loss", "version": 4, "segment": ""}},
        {"lane": "drift", "fingerprint": "drift wind_gust", "word": "drifting", "since": drifted,
         "opened_at": start_of(drifted) + timedelta(hours=30),
         "message": "wind_gust: farther from the reference than any of its own days, on 2 of 3 days",
         "details": {"column": "wind_gust"}},
    ]  # fmt: skip


def states() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows for `plantao.daily_state` (only the score's) and for `plantao.daily_outcomes`."""
    chance = np.random.default_rng(3)
    centres = (np.arange(200) + 0.5) / 200
    scored, came_true = [], []
    for place in range(NEW_VERSION, DAYS):
        day = FIRST + timedelta(days=place)
        late = place >= DEGRADES - 1
        counts = chance.poisson(_scores(*((1.8, 4.6) if late else (1.5, 5.2)), 920)).tolist()
        rows = sum(counts)
        scored.append({"day": day, "rows": rows, "model_version": 4, "reference_version": 1, "state": {
            "rows": rows, "scores": {"true": counts}, "chosen": {"true": [0] * 200}, "sum": 0.0, "squares": 0.0,
            "decisions": {"true": sum(counts[100:]), "false": sum(counts[:100])}}})  # fmt: skip
        truth = centres * (0.72 if late else 1.0)
        positives = chance.binomial(counts, truth).tolist()
        bins = {
            str(b): {"true" if b >= 100 else "false": [n - p, p, (n - p) * centres[b], p * centres[b]]}
            for b, (n, p) in enumerate(zip(counts, positives, strict=True))
            if n
        }
        soon, slow = 3 * rows // 5, rows // 20
        lags = {"0": soon, "1": rows - soon - slow, "6": slow}
        state = {"kind": "binary", "decided": {"true": 1}, "bins": bins, "sums": {}, "lags": lags}
        came_true.append({"day": day, "rows": rows, "labelled": rows, "model_version": 4, "state": state})
    return scored, came_true


def runs() -> list[dict[str, Any]]:
    """Return rows for `plantao.runs`: one a day; of one day every attempt failed."""
    rows = []
    for row in metrics():
        if row["name"] != "rows":
            continue
        place = (row["window_start"].date() - FIRST).days
        base = {"model": "flight_delay", "model_version": row["model_version"], "trigger": "schedule",
                "window_start": row["window_start"], "window_end": row["window_end"], "code_version": "1",
                "environment": {}, "worker": "w", "finished_at": row["window_end"] + timedelta(minutes=1)}  # fmt: skip
        if place == 70:
            rows.append({**base, "status": "failed", "error": "the source did not answer", "error_kind": "transient"})
            continue
        rejected = 96 if place == 33 else 4
        rows.append({**base, "status": "succeeded", "rows_read": row["n"] + rejected, "rows_scored": row["n"],
                     "rows_rejected": rejected, "rows_already_scored": 0, "rows_late": 0,
                     "rows_rescored": 0})  # fmt: skip
    return rows


def data(language: Any = "en") -> ReportData:
    """Return the story as the report would read it, without a database."""
    figures = []
    for row in metrics():
        of = (row.get("column_name", ""), row.get("segment", ""), row.get("detectable"), row["model_version"])
        values = (row.get("value"), row.get("lower"), row.get("upper"), row["n"])
        point = Point(row["window_start"].date(), *values, row.get("status", "ok"), row.get("maturity"))
        figures.append(Figure(row["name"], point, *of))
    scored, came_true = states()
    state = added([{k: v for k, v in row["state"].items() if k != "kind"} for row in came_true[-28:]])
    return ReportData(
        job="flight_delay", description="Will this flight arrive more than 15 minutes late?", first=FIRST, last=LAST,
        now=start_of(LAST + timedelta(days=1)) + timedelta(hours=8), figures=figures,
        incidents=[
            Incident(row["lane"], row["word"], row["message"], row["since"], row["opened_at"], row.get("closed_at"),
                     row.get("model_version"), row["details"], row.get("until"))
            for row in incidents()
        ],
        versions=[Version(date(2013, 4, 1), 3, "ana", "the first"), Version(date(2013, 9, 13), 4, "rui", "summer")],
        runs=[
            Run(row["window_start"].date(), row.get("rows_scored", 0), row.get("rows_rejected", 0),
                row["status"] == "failed")
            for row in runs()
        ],
        score_state=added([row["state"] for row in scored[-28:]]), outcome_state={**state, "kind": "binary"},
        reference=reference(), model="flight_delay", version=4, reference_version=1, objective="minutes_saved",
        metrics=("roc_auc", "log_loss", "brier", "bias"), segments=("origin", "carrier"), control_share=0.05,
        arrived=[
            Arrived(row["day"], row["rows"], row["labelled"], {int(n): k for n, k in row["state"]["lags"].items()})
            for row in came_true
        ],
        language=language,
    )  # fmt: skip


def declare(world: Any, language: str = "en") -> Any:
    """Make the client's empty table and return the job."""
    world.sql("create table public.flights (flight_id bigint primary key, departed_at timestamptz not null)")
    return world.job(JOB.format(language=language), "flight_delay")


def tell(world: Any, language: str = "en") -> Any:
    """Write the story into a world's tables and return its job."""
    job = declare(world, language)
    for version in (3, 4):
        model = {"model": "flight_delay", "version": version, "sha256": str(version) * 64, "uri": "x",
                 "created_at": start_of(FIRST), "created_by": "ana", "environment": {}, "contract": {},
                 "reference": reference()}  # fmt: skip
        insert(world, "models", [model])
    changed = start_of(FIRST + timedelta(days=NEW_VERSION))
    insert(world, "model_timeline", [
        {"model": "flight_delay", "version": 3, "live_from": start_of(date(2013, 4, 1)), "live_until": changed,
         "who": "ana", "why": "the first that beat the rule of thumb"},
        {"model": "flight_delay", "version": 4, "live_from": changed, "who": "rui", "why": "trained with the summer"},
    ])  # fmt: skip
    scored, came_true = states()
    for table, rows in (
        ("runs", runs()), ("metrics", metrics()), ("incidents", incidents()),
        ("daily_state", [{"role": "champion", **row} for row in scored]),
        ("daily_outcomes", [{"role": "champion", **row} for row in came_true]),
    ):  # fmt: skip
        insert(world, table, [{"job": "flight_delay", **row} for row in rows])
    return job


def insert(world: Any, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows, those with the same columns at once."""
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by_columns.setdefault(tuple(row), []).append(row)
    connection = world.connect(world.home_of_results)
    with connection, connection.cursor() as cursor:
        from psycopg2.extras import execute_values

        for names, some in by_columns.items():
            values = [[json.dumps(v) if isinstance(v, dict) else v for v in row.values()] for row in some]
            execute_values(cursor, f"insert into plantao.{table} ({', '.join(names)}) values %s", values)
