"""A client whose days are all alike until a test spoils some of them, and a model whose reference knows such days."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg2
from psycopg2.extras import execute_values

from plantao.postgres.session import dsn
from plantao.release.describe import Baseline
from plantao.window import Window
from world import APRIL, JOB, TABLE, day

if TYPE_CHECKING:
    from collections.abc import Callable

    from plantao.config.job import Job
    from world import World

PER_DAY = 40
REFERENCE_DAYS = 60
MEASURE = """
[measure]
outcome = { table = "public.truth", column = "bad", known_after = "500 days" }
"""
"""Outcomes are waited for long enough that those of 2013 are still looked for."""


def days(first: int, last: int, per_day: int = PER_DAY) -> pd.DataFrame:
    """Return the readings of some days of April (0 is the last of March); the same ones whenever they are asked for."""
    frames = []
    for number in range(first, last + 1):
        rng = np.random.default_rng(10_000 + number)
        x, y = rng.normal(size=per_day), rng.normal(size=per_day)
        y[::17] = np.nan
        city = rng.choice(["Porto", "São Paulo", "Recife"], size=per_day)
        bad = x + 0.5 * (city == "Recife") + rng.normal(scale=0.8, size=per_day) > 0.4
        place = np.arange(per_day)
        at = [APRIL + timedelta(days=number - 1, hours=24 * i / per_day) for i in place]
        columns = {"id": number * 1000 + place, "at": at, "x": x, "y": y, "city": city, "bad": bad}
        frames.append(pd.DataFrame({**columns, "amount": 3 * x + 10 + rng.normal(size=per_day)}))
    return pd.concat(frames, ignore_index=True)


def period(first: int, last: int) -> Window:
    """Return the window of some days of April."""
    return Window(day(first).start, day(last).end)


def insert(world: World, frame: pd.DataFrame) -> None:
    """Insert readings into the source."""
    put(world, "readings (id, at, x, y, city)", frame[["id", "at", "x", "y", "city"]])


def put(world: World, table: str, frame: pd.DataFrame) -> None:
    """Insert a frame into a table of the client."""
    rows = [tuple(None if pd.isna(v) else v for v in row) for row in frame.astype(object).itertuples(index=False)]
    with contextlib.closing(psycopg2.connect(dsn(world.owner("client_db"), "tests"))) as connection:
        with connection, connection.cursor() as cursor:
            execute_values(cursor, f"insert into public.{table} values %s", rows)


def reveal(
    world: World,
    first: int,
    last: int,
    told: Callable[[pd.DataFrame], Any] = lambda frame: frame["bad"],
    per_day: int = PER_DAY,
) -> None:
    """Tell the outcomes of some days, as `told` gives them for their readings."""
    frame = days(first, last, per_day)
    put(world, "truth (id, bad)", pd.DataFrame({"id": frame["id"], "bad": told(frame)}))


def ready(
    world: World,
    text: str = JOB,
    last: int = 3,
    *,
    outcome: str = "boolean",
    label: str = "bad",
    model: Any = None,
    per_day: int = PER_DAY,
) -> Job:
    """Fill the client with days, register a model whose reference has days of its own, and return the job."""
    world.sql(TABLE)
    insert(world, days(1, last, per_day))
    world.sql(f"create table public.truth (id bigint, bad {outcome}, known_at timestamptz)")
    fitted = days(-REFERENCE_DAYS - 20, -REFERENCE_DAYS)
    baseline = Baseline(days(1 - REFERENCE_DAYS, 0), timestamp="at", outcome=label)
    world.register(model(fitted) if model else None, fitted, baseline=baseline)
    return world.job(text)


def incidents(world: World, columns: str = "fingerprint, word, state", where: str = "true") -> list[Any]:
    """Return the incidents, the oldest first."""
    return world.results(f"select {columns} from plantao.incidents where {where} order by incident_id")


def alerts(world: World, columns: str = "kind") -> list[Any]:
    """Return the alerts, the oldest first; of one column its values."""
    found = world.results(f"select {columns} from plantao.alerts order by alert_id")
    return found if "," in columns else [line[0] for line in found]


def figures(world: World, name: str, columns: str = "value, n, status", where: str = "true") -> list[Any]:
    """Return the newest figures of a name, by day and column."""
    return world.results(
        f"select {columns} from plantao.metrics_latest where name = %s and {where} order by window_start, column_name",
        (name,),
    )
