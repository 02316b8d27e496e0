"""The ways that are measured, each in a process of its own."""

from __future__ import annotations

import importlib
import io
import json
import time
from contextlib import contextmanager

from ground import FEATURES, cpu_seconds, peak_memory, server_cpu_seconds, sql, window


def measure(way: str, model: str) -> None:
    """Run one way and print its figures as JSON. Loading libraries and making tables is part of no figure."""
    from plantao import runtime

    here = runtime.from_environment()
    for library in LIBRARIES:
        importlib.import_module(library)
    from plantao.run import malloc
    from plantao.score.loader import bounded_threads

    if way in STAGES:
        malloc.keep_freed()  # as in a whole run
    prepared = WAYS[way](here, model)
    with bounded_threads(here.settings.threads):
        before, server_before, began = cpu_seconds(), server_cpu_seconds(), time.perf_counter()
        more = prepared()
        figures = {
            "seconds": time.perf_counter() - began,
            "cpu": cpu_seconds() - before,
            "server_cpu": server_cpu_seconds() - server_before,
            "memory": peak_memory(),
        }
    print(json.dumps(figures | (more or {})))


def challenged(here, model):
    """Return a whole run with a challenger of equal cost that reads other columns."""
    return ours(here, f"{model}_pair")


def ours(here, model):
    """Return a whole run of Plantão, on an empty prediction table; it tells how long it held the source open."""
    from plantao.config.job_file import read_job
    from plantao.ledger.request import Request
    from plantao.run import run

    empty(here, model)
    request = Request(read_job(here.settings.jobs, model), window())

    def score_window():
        with held_open() as held:
            run.score_window(request, here)
        return held

    return score_window


def unmeasured(here, model):
    """Return a whole run that folds nothing into the daily state."""
    from plantao.measure.profile.sketch import Sketch

    Sketch.add = lambda *_: None
    return ours(here, model)


def slow(here, model):
    """Return a run whose model takes its time, to see whether that holds the source open."""
    from plantao.score import batch

    predict = batch.predict

    def slowly(*given):
        time.sleep(0.2)
        return predict(*given)

    batch.predict = slowly
    return ours(here, model)


@contextmanager
def held_open():
    """Measure for how long a run's transaction on the source lasts."""
    from plantao.postgres import snapshot as snapshots

    found, original = {}, snapshots.open_snapshot

    def timed(*arguments):
        snapshot = original(*arguments)
        close, began = snapshot.close, time.perf_counter()

        def timed_close():
            close()
            found["source_seconds"] = time.perf_counter() - began

        snapshot.close = timed_close
        return snapshot

    snapshots.open_snapshot = timed
    try:
        yield found
    finally:
        snapshots.open_snapshot = original


def copy(here, model, form=""):
    """Return a plain COPY of the same rows, thrown away as they come."""
    from plantao.extract import query

    source, manifest = source_and_manifest(here, model)
    columns = query.select_features([manifest.contract], source.types).named
    statement = f"copy ({selected(here, source, columns)}) to stdout {form}"
    return lambda: sql(statement, Nowhere())


def copy_binary(here, model):
    """Return the same in PostgreSQL's own binary form, which costs the server less."""
    return copy(here, model, "(format binary)")


class Nowhere(io.RawIOBase):
    """A file that takes everything and keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, content) -> int:
        return len(content)


def extract(here, model):
    """Return the reading alone: the same SELECT, every batch thrown away."""
    from plantao.postgres.replaced import whole_snapshot

    source, manifest = source_and_manifest(here, model)
    packing = packing_of(source, manifest)
    statement = selected(here, source, packing.columns)

    def read() -> None:
        with whole_snapshot(here.address("client_db")) as snapshot:
            for batch in snapshot.batches(statement):
                packing.unpack(batch)

    return read


def score(here, model):
    """Return validating and scoring alone, of batches that are in memory."""
    from plantao.log import Stopwatch
    from plantao.score.batch import BatchScorer

    source, manifest = source_and_manifest(here, model)
    batches = batches_of(here, source, manifest)
    scorer = BatchScorer(source.job, manifest, load_model(here, manifest))

    def score_all() -> None:
        for batch in batches:
            scorer.score(batch, Stopwatch())

    return score_all


def load(here, model):
    """Return the writing alone, of predictions that are in memory: encoding, COPY and commit."""
    import pyarrow as pa

    from plantao.ledger import runs
    from plantao.load import write
    from plantao.load.existing import ensure_table
    from plantao.load.table import prediction_table
    from plantao.log import Stopwatch
    from plantao.postgres import session as database
    from plantao.score.batch import BatchScorer

    empty(here, model)
    source, manifest = source_and_manifest(here, model)
    batches = batches_of(here, source, manifest)
    scorer = BatchScorer(source.job, manifest, load_model(here, manifest))
    scored = [scorer.score(batch, Stopwatch()).scored for batch in batches]
    del batches
    pa.default_memory_pool().release_unused()
    table = prediction_table(source.job, source.key_types, manifest.output)

    def load_all() -> None:
        with database.session(here.address("client_db"), here.settings.schema) as connection:
            ensure_table(connection, table)
            origin = runs.Origin("manual", None, "bench", "bench", {})
            run_id = runs.start(connection, source.job, window(), 1, origin)
            loading = write.Load(connection, table, manifest.output, run_id, 1, replace=False)
            for batch in scored:
                loading.add(batch)
            loading.wait()
            counts = runs.Counts(loading.scored, loading.scored, 0, 0, 0, 0)
            runs.succeed(connection, run_id, counts, snapshot="", seconds={}, profile={})
            connection.commit()

    return load_all


def usual(here, model):
    """Return the usual way to the same table: read_sql in chunks, predict_proba, to_sql."""
    import pandas as pd
    import sqlalchemy

    address = here.address("client_db").url().replace("postgresql://", "postgresql+psycopg2://")
    engine = sqlalchemy.create_engine(address)
    _, manifest = source_and_manifest(here, model)
    fitted = plain_model(here, manifest)
    usual_table()

    def score_all() -> None:
        with engine.connect().execution_options(stream_results=True) as connection:
            for chunk in pd.read_sql(usual_query(), connection, chunksize=50_000):
                predictions_of(chunk, fitted).to_sql("usual", engine, if_exists="append", index=False)

    return score_all


def spark(here, model):
    """Return Spark on this machine, in its warm second run."""
    import spark_local

    return spark_local.prepared(plain_model(here, source_and_manifest(here, model)[1]))


# --- what they share --------------------------------------------------------------------------------------------------


def empty(here, model) -> None:
    """Forget what was scored, and leave the table of predictions as it is before a day's run: there."""
    from plantao.load.existing import ensure_table
    from plantao.load.table import prediction_table
    from plantao.postgres import session as database

    sql(f"drop table if exists predictions.{model}, predictions.{model}_history, predictions.{model}_shadow")
    source, manifest = source_and_manifest(here, model)
    with database.session(here.address("client_db"), here.settings.schema) as connection:
        ensure_table(connection, prediction_table(source.job, source.key_types, manifest.output))
    sql("checkpoint")


def source_and_manifest(here, model):
    from plantao.config.job_file import read_job
    from plantao.extract.read import source_of
    from plantao.models import store
    from plantao.postgres import session as database
    from plantao.postgres.replaced import whole_snapshot

    job = read_job(here.settings.jobs, model)
    with (
        database.session(here.address("client_db"), here.settings.schema) as session,
        whole_snapshot(here.address("client_db")) as snapshot,
    ):
        return source_of(job, snapshot, session), store.read_manifest(here.settings.model_store, model, 1)


def batches_of(here, source, manifest) -> list:
    """Return all rows, as a run gives them to the model."""
    from plantao.postgres.replaced import whole_snapshot

    packing = packing_of(source, manifest)
    with whole_snapshot(here.address("client_db")) as snapshot:
        return [packing.unpack(batch) for batch in snapshot.batches(selected(here, source, packing.columns))]


def packing_of(source, manifest):
    from plantao.extract import packing as packed
    from plantao.extract import query

    return packed.Packing(query.select_features([manifest.contract], source.types))


def selected(here, source, columns) -> str:
    """Return the SELECT of a run."""
    from plantao.extract import query
    from plantao.postgres import session as database

    rows = query.select_rows(source, window(), [query.Branch(source.within(window()))], columns)
    with database.session(here.address("client_db"), here.settings.schema) as session:
        return database.quoted(session, rows)


def load_model(here, manifest):
    from plantao.models import store
    from plantao.score import loader

    return loader.load(store.read_bytes(here.settings.model_store, manifest), manifest, manifest.sha256)


def plain_model(here, manifest):
    """Return the model as joblib gives it to everybody, without our shortcuts."""
    from plantao.models import store
    from plantao.score import loader

    return loader.opened(store.read_bytes(here.settings.model_store, manifest), manifest.name)


def predictions_of(chunk, fitted):
    """Return the predictions of a frame in the columns of our own table."""
    import pandas as pd

    score = fitted.predict_proba(chunk[FEATURES])[:, 1]
    result = pd.DataFrame({"id": chunk["id"], "source_timestamp": chunk["at"], "prediction": score >= 0.5})
    result["score"] = score
    result["model_version"], result["run_id"] = 1, 1
    result["scored_at"], result["in_control_group"] = pd.Timestamp.now("UTC"), False
    return result


def usual_table() -> None:
    """Make the table of the ways that are not ours, with our columns and our primary key."""
    sql("drop table if exists public.usual")
    sql(
        "create table public.usual (id bigint primary key, source_timestamp timestamptz, prediction boolean,"
        " score double precision, model_version integer, run_id bigint, scored_at timestamptz,"
        " in_control_group boolean)"
    )


def usual_query() -> str:
    """Return the SELECT of the ways that are not ours."""
    return f"select id, at, {', '.join(FEATURES)} from public.rows where at >= '2013-04-01Z' and at < '2013-04-02Z'"


WAYS = {
    "unmeasured": unmeasured,
    "ours": ours,
    "challenged": challenged,
    "slow": slow,
    "copy": copy,
    "copy_binary": copy_binary,
    "extract": extract,
    "score": score,
    "load": load,
    "usual": usual,
    "spark": spark,
}
STAGES = ("extract", "score", "load")
LIBRARIES = (
    *("joblib", "pandas", "sklearn.ensemble", "sklearn.impute", "plantao.run.run", "plantao.score.batch"),
    *("adbc_driver_postgresql.dbapi", "sqlalchemy.dialects.postgresql.psycopg2"),
)
