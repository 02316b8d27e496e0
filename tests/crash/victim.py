"""What a worker process does in the crash test: score one window, and die where it is told to.

Every statement, COPY, commit and batch is a *point*, before and after. A victim counts them and kills itself at one of
them, so that "at every instant" is a list that can be gone through.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import adbc_driver_postgresql.dbapi
import joblib
import pandas as pd
import psycopg2
import psycopg2.extensions
import sklearn.compose
import sklearn.linear_model
import sqlalchemy

from plantao import runtime
from plantao.config import job_file
from plantao.errors import PlantaoError
from plantao.ledger.request import Request
from plantao.load import write
from plantao.models import registry, store
from plantao.postgres import session, snapshot
from plantao.run import origin, run
from plantao.score import batch, loader

if TYPE_CHECKING:
    from plantao.window import Window

# Imported here so that the process from which victims are forked has them, and a victim starts in milliseconds.
PRELOADED = (
    adbc_driver_postgresql.dbapi,
    sklearn.compose,
    sklearn.linear_model,
    batch,
    loader,
    store,
    registry,
)

FINE, PERMANENT, TRANSIENT, UNEXPECTED = 0, 3, 4, 5
NEVER = -1


@dataclass(frozen=True)
class Orders:
    """What a victim is to do: `point` is where it kills itself, or loses the answer to its commit."""

    environment: dict[str, str]
    job: str
    window: Window
    rescore: bool = False
    airflow_run: str = "crash test"
    point: int = NEVER
    lose_commit: bool = False
    naive: str | None = None
    table: str = "readings"
    count_into: str | None = None


class Points:
    """Counts the points that were passed, and ends the process at the chosen one."""

    def __init__(self, chosen: int) -> None:
        self.chosen, self.passed = chosen, 0

    def reach(self) -> None:
        if self.passed == self.chosen:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1


def work(orders: Orders) -> None:
    """Score the window; the exit status says how it ended."""
    os.environ |= orders.environment
    sys.stderr = sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - ends with the process
    points = Points(orders.point)
    _small_steps()
    _watch(points, orders)
    status = FINE
    try:
        if orders.naive is not None:
            naive(orders, points)
        else:
            here = runtime.from_environment()
            job = job_file.read_job(here.settings.jobs, orders.job)
            request = Request(job, orders.window, "schedule", airflow_run=orders.airflow_run, rescore=orders.rescore)
            run.score_window(request, here)
    except PlantaoError as error:
        status = PERMANENT if error.permanent else TRANSIENT
        Path(orders.environment["PLANTAO_HOME"], "failed").write_text(str(error), encoding="utf-8")
    except BaseException:  # noqa: BLE001 - its kind is the result
        status = UNEXPECTED
        with Path(orders.environment["PLANTAO_HOME"], "unexpected").open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
    if orders.count_into is not None:
        Path(orders.count_into).write_text(str(points.passed))
    os._exit(status)


def _small_steps() -> None:
    """Let a small window pass through everything a large one does: several batches, and a load that overlaps."""
    snapshot.BATCH_BYTES = 8 << 10
    write.ROWS_BEFORE_LOAD = 150
    origin.code_version.cache_clear()
    origin.code_version = lambda: "crash test"


def _watch(points: Points, orders: Orders) -> None:
    class Cursor(psycopg2.extensions.cursor):
        def execute(self, *given: Any) -> None:
            points.reach()
            if "set status = case when" in str(given[0]):
                self.connection.closes_the_books = True
            super().execute(*given)
            points.reach()

        def copy_expert(self, statement: Any, stream: Any, size: int = 8192) -> None:
            points.reach()
            super().copy_expert(statement, stream, size)
            points.reach()

    class Connection(psycopg2.extensions.connection):
        closes_the_books = False

        def cursor(self, *given: Any, **named: Any) -> Any:
            return super().cursor(*given, **{"cursor_factory": Cursor, **named})

        def commit(self) -> None:
            points.reach()
            super().commit()
            if orders.lose_commit and self.closes_the_books:
                self.close()
                message = "server closed the connection unexpectedly"
                raise psycopg2.OperationalError(message)
            points.reach()

    connect = psycopg2.connect
    psycopg2.connect = lambda *given, **named: connect(*given, connection_factory=Connection, **named)
    for name in ("schema", "table"):
        setattr(snapshot.Snapshot, name, _both_sides(getattr(snapshot.Snapshot, name), points))
    batches = snapshot.Snapshot.batches

    def watched(self: snapshot.Snapshot, text: str) -> Any:
        for one in batches(self, text):
            points.reach()
            yield one
        points.reach()

    snapshot.Snapshot.batches = watched


def _both_sides(call: Any, points: Points) -> Any:
    def watched(*given: Any) -> Any:
        points.reach()
        result = call(*given)
        points.reach()
        return result

    return watched


# --- the negative control --------------------------------------------------------------------------------------------


def naive(orders: Orders, points: Points) -> None:
    """Score the window as many do: read with pandas, predict, append chunk by chunk.

    `append` writes the window again on a retry; `watermark` goes on after the newest row that is there.
    """
    here = runtime.from_environment()
    with closing(psycopg2.connect(session.dsn(here.address("client_db"), "naive"))) as connection:
        model = joblib.load(next(Path(here.settings.model_store.address).rglob("*.joblib")))
        engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=lambda: connection)
        table = f"naive_{orders.naive}"
        start = orders.window.start
        if orders.naive == "watermark":
            newest = pd.read_sql(f"select max(at) as newest from {table}", engine)["newest"][0]
            start = start if pd.isna(newest) else max(start, newest)
        within = "at >= %(s)s and at < %(e)s and (at > %(s)s or %(f)s)"
        query = f"select id, at, x, y, city from {orders.table} where {within}"
        first = start == orders.window.start
        frame = pd.read_sql(query, engine, params={"s": start, "e": orders.window.end, "f": first})
        if len(frame):
            frame["prediction"] = model.predict(frame[["x", "y", "city"]])
            frame["score"] = model.predict_proba(frame[["x", "y", "city"]])[:, 1]
        for begin in range(0, len(frame), 50):
            points.reach()
            chunk = frame[["id", "at", "prediction", "score"]].iloc[begin : begin + 50]
            chunk.to_sql(table, engine, if_exists="append", index=False, method="multi")
            connection.commit()
