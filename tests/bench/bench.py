"""How fast is a run? Rows per second of the whole, of each stage alone, and of the usual way with pandas.

    make bench                          1,000,000 rows
    make bench BENCH="--rows 200000"    fewer

One window of rows with 20 features (12 doubles, one of them with 6 % NULL, 4 integers, 4 texts) is scored with two
pipelines, encoding inside: logistic regression and HistGradientBoosting. Every measurement is a process of its own, in
the same order for each way, after one that is not counted. *The ceiling* is what the stages alone allow: the CPU
seconds of all stages, the server's included, divided by the cores, or the slowest stage, whichever is longer.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

FLOATS = [f"f{i}" for i in range(12)]
INTEGERS = [f"i{i}" for i in range(4)]
TEXTS = [f"t{i}" for i in range(4)]
FEATURES = [*FLOATS, *INTEGERS, *TEXTS]
MODELS = ("linear", "tree")
WAYS = ("ours", "extract", "score", "load", "usual")
JOB = """
schedule = "daily"
starts = 2013-04-01
[extract]
table = "public.rows"
key = ["id"]
timestamp = "at"
[score]
model = "{model}"
[load]
table = "predictions.{model}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="counted runs of each way; the median is printed")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure_one(*options.one)
        return
    with tempfile.TemporaryDirectory(prefix="plantao-bench-") as folder:
        benchmark(options, Path(folder))


def benchmark(options: argparse.Namespace, folder: Path) -> None:
    """Make the server, the rows and the models; then measure every way in turn."""
    from plantao import embedded

    server = embedded.Server(folder / ".plantao")
    embedded.start(server, databases=("client",))
    (folder / "include" / "jobs").mkdir(parents=True)
    environment = {
        **os.environ,
        "PLANTAO_HOME": str(folder),
        "AIRFLOW_CONN_CLIENT_DB": server.address("client_db", "client").url(),
        "BENCH_SERVER": (server.data / "postmaster.pid").read_text().split()[0],
    }
    for name in ("PLANTAO_JOBS", "PLANTAO_MODEL_STORE", "PLANTAO_SCHEMA"):
        environment.pop(name, None)
    os.environ.clear()
    os.environ.update(environment)
    try:
        say(f"{machine()}; {options.rows:,} rows x {len(FEATURES)} features; medians of {options.repeat}")
        fill(options.rows)
        prepare_models(folder)
        everything = {}
        for model in options.models:
            figures: dict[str, list[dict]] = {way: [] for way in options.ways}
            for turn in range(options.repeat + 1):
                for way in options.ways:
                    found = one(way, model)
                    if turn or way == "usual":  # the first turn warms the server's memory; the usual way is slow enough
                        figures[way].append(found)
                    if way == "usual":
                        say(f"  {model}: turn {turn} of {options.repeat}")
            everything[model] = figures
            show(model, figures, options.rows)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine(), "rows": options.rows, "figures": everything}))
    finally:
        embedded.stop(server)


def one(way: str, model: str) -> dict:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--one", way, model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def show(model: str, figures: dict[str, list[dict]], rows: int) -> None:
    """Print the medians of a model as a table."""
    middle = {
        way: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for way, runs in figures.items()
        if runs
    }
    say(f"\n{model}\n{'':22}{'rows/s':>12}{'seconds':>10}{'CPU s':>8}{'peak MB':>9}")
    names = {
        "ours": "a whole run",
        "extract": "  extract alone",
        "score": "  score alone",
        "load": "  load alone",
        "usual": "the usual way (pandas)",
    }
    for way, found in middle.items():
        figure = f"{rows / found['seconds']:>12,.0f}{found['seconds']:>10.2f}"
        say(f"{names[way]:<22}{figure}{found['cpu']:>8.2f}{found['memory']:>9.0f}")
    stages = [middle[way] for way in ("extract", "score", "load") if way in middle]
    if len(stages) == 3 and "ours" in middle:
        cpu = sum(stage["cpu"] + stage["server_cpu"] for stage in stages) / cores()
        ceiling = rows / max(cpu, *(stage["seconds"] for stage in stages))
        share = rows / middle["ours"]["seconds"] / ceiling
        say(f"{'the ceiling':<22}{ceiling:>12,.0f}      a whole run reaches {share:.2f} of it")
    if {"ours", "usual"} <= set(middle):
        ratio = middle["usual"]["seconds"] / middle["ours"]["seconds"]
        say(f"{'':22}{'':12}      a whole run is {ratio:.1f} times as fast as the usual way")


# --- what is measured ------------------------------------------------------------------------------------------------


def measure_one(way: str, model: str) -> None:
    """Run one way and print its figures as JSON. Loading the model and the libraries is part of no figure."""
    for library in ("joblib", "pandas", "sklearn.ensemble", "plantao.run"):
        importlib.import_module(library)
    from threadpoolctl import threadpool_limits

    from plantao import place

    here = place.from_environment()
    prepared = {"ours": ours, "extract": extract, "score": score, "load": load, "usual": usual}[way](here, model)
    with threadpool_limits(here.settings.threads):
        before, server_before, began = cpu_seconds(), server_cpu_seconds(), time.perf_counter()
        prepared()
        figures = {
            "seconds": time.perf_counter() - began,
            "cpu": cpu_seconds() - before,
            "server_cpu": server_cpu_seconds() - server_before,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    print(json.dumps(figures))


def ours(here, model):
    """Return a whole run of Plantão, on an empty prediction table."""
    from plantao import run
    from plantao.job_file import read_job
    from plantao.request import Request

    empty(here, model)
    request = Request(read_job(here.settings.jobs, model), window())
    return lambda: run.score_window(request, here)


def extract(here, model):
    """Return the reading alone: the same SELECT, every batch thrown away."""
    from plantao import database

    source, manifest = source_and_manifest(here, model)
    statement = select(here, source, manifest)

    def read() -> None:
        with database.snapshot(here.address("client_db")) as snapshot:
            for _ in snapshot.batches(statement):
                pass

    return read


def score(here, model):
    """Return validating and scoring alone, of batches that are in memory."""
    from plantao import database
    from plantao.log import Stopwatch
    from plantao.score.batch import BatchScorer

    source, manifest = source_and_manifest(here, model)
    with database.snapshot(here.address("client_db")) as snapshot:
        batches = list(snapshot.batches(select(here, source, manifest)))
    scorer = BatchScorer(source.job, manifest, load_model(here, manifest))

    def score_all() -> None:
        for batch in batches:
            scorer.score(batch, Stopwatch())

    return score_all


def load(here, model):
    """Return the writing alone, of predictions that are in memory: encoding, COPY and commit."""
    import pyarrow as pa

    from plantao import database, ledger
    from plantao.load import write
    from plantao.load.table import prediction_table
    from plantao.log import Stopwatch
    from plantao.score.batch import BatchScorer

    empty(here, model)
    source, manifest = source_and_manifest(here, model)
    with database.snapshot(here.address("client_db")) as snapshot:
        batches = list(snapshot.batches(select(here, source, manifest)))
    scorer = BatchScorer(source.job, manifest, load_model(here, manifest))
    scored = [scorer.score(batch, Stopwatch()).scored for batch in batches]
    del batches
    pa.default_memory_pool().release_unused()
    table = prediction_table(source.job, source.key_types, manifest.output)

    def load_all() -> None:
        with database.session(here.address("client_db"), here.settings.schema) as connection:
            write.ensure_table(connection, table)
            origin = ledger.Origin("manual", None, "bench", "bench", {})
            run_id = ledger.start(connection, source.job, window(), 1, origin)
            loading = write.Load(connection, table, manifest.output, run_id, 1, replace=False)
            for batch in scored:
                loading.add(batch)
            loading.wait()
            counts = ledger.Counts(loading.scored, loading.scored, 0, 0, 0, 0)
            ledger.succeed(connection, run_id, counts, snapshot="", seconds={}, profile={})
            connection.commit()

    return load_all


def usual(here, model):
    """Return the usual way to the same table: read_sql in chunks, predict_proba, to_sql."""
    import pandas as pd
    import sqlalchemy

    address = here.address("client_db").url().replace("postgresql://", "postgresql+psycopg2://")
    engine = sqlalchemy.create_engine(address)
    _, manifest = source_and_manifest(here, model)
    fitted = load_model(here, manifest)
    sql(here, "drop table if exists public.usual")
    sql(
        here,
        "create table public.usual (id bigint primary key, source_timestamp timestamptz, prediction boolean,"
        " score double precision, model_version integer, run_id bigint, scored_at timestamptz,"
        " in_control_group boolean)",
    )

    def score_all() -> None:
        query = (
            f"select id, at, {', '.join(FEATURES)} from public.rows where at >= '2013-04-01Z' and at < '2013-04-02Z'"
        )
        with engine.connect().execution_options(stream_results=True) as connection:
            for chunk in pd.read_sql(query, connection, chunksize=50_000):
                score = fitted.predict_proba(chunk[FEATURES])[:, 1]
                result = pd.DataFrame({"id": chunk["id"], "source_timestamp": chunk["at"], "prediction": score >= 0.5})
                result["score"] = score
                result["model_version"], result["run_id"] = 1, 1
                result["scored_at"], result["in_control_group"] = pd.Timestamp.now("UTC"), False
                result.to_sql("usual", engine, if_exists="append", index=False)

    return score_all


# --- what it is measured on ------------------------------------------------------------------------------------------


def window():
    from plantao.extract.window import Window

    return Window(datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 4, 2, tzinfo=UTC))


def empty(here, model) -> None:
    """Forget what was scored."""
    sql(here, f"drop table if exists predictions.{model}, predictions.{model}_history")
    sql(here, "checkpoint")


def source_and_manifest(here, model):
    from plantao import database
    from plantao.extract.read import source_of
    from plantao.job_file import read_job
    from plantao.score import model_store

    job = read_job(here.settings.jobs, model)
    with (
        database.session(here.address("client_db"), here.settings.schema) as session,
        database.snapshot(here.address("client_db")) as snapshot,
    ):
        return source_of(job, snapshot, session), model_store.read_manifest(here.settings.model_store, model, 1)


def select(here, source, manifest) -> str:
    from plantao import database
    from plantao.extract import query

    features = query.select_features(manifest.contract, source.types)
    rows = query.select_rows(source, window(), [query.Branch(source.within(window()))], features)
    with database.session(here.address("client_db"), here.settings.schema) as session:
        return database.quoted(session, rows)


def load_model(here, manifest):
    from plantao.score import model_file, model_store

    return model_file.load(model_store.read_bytes(here.settings.model_store, manifest), manifest, manifest.sha256)


def fill(rows: int) -> None:
    """Make the rows with a fixed seed."""
    import io

    import numpy as np
    import pandas as pd

    from plantao import place

    here = place.from_environment()
    columns = [f"{name} double precision" for name in FLOATS] + [f"{name} integer" for name in INTEGERS]
    columns += [f"{name} text" for name in TEXTS]
    sql(here, f"create table public.rows (id bigint primary key, at timestamptz not null, {', '.join(columns)})")
    rng = np.random.default_rng(0)
    words = [np.array([f"value {i}" for i in range(size)]) for size in (5, 20, 100, 500)]
    start = pd.Timestamp("2013-04-01", tz="UTC")
    for first in range(0, rows, 100_000):
        count = min(100_000, rows - first)
        ids = np.arange(first, first + count)
        frame = pd.DataFrame({"id": ids, "at": start + pd.to_timedelta(ids * (86_399 / rows), unit="s")})
        for name in FLOATS:
            frame[name] = rng.normal(size=count)
        frame.loc[rng.random(count) < 0.06, "f11"] = np.nan
        for name in INTEGERS:
            frame[name] = rng.integers(0, 1000, count)
        for name, values in zip(TEXTS, words, strict=True):
            frame[name] = rng.choice(values, count)
        sql(here, "copy public.rows from stdin (format csv)", io.StringIO(frame.to_csv(index=False, header=False)))
    sql(here, "create index on public.rows (at)")
    sql(here, "vacuum analyze public.rows")


def prepare_models(folder: Path) -> None:
    """Train and register the two pipelines on 30,000 of the rows."""
    import io

    import joblib
    import numpy as np
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    from plantao import database, place
    from plantao.extract.read import read_frame
    from plantao.schema.migrate import upgrade
    from plantao.score.register import register

    here = place.from_environment()
    address = here.address("client_db")
    with database.session(address, here.settings.schema) as session, database.snapshot(address) as snapshot:
        upgrade(session, here.settings.schema)
        frame = read_frame(snapshot, session, f"select {', '.join(FEATURES)} from public.rows order by id limit 30000")
    label = (frame["f0"] + 0.5 * frame["f1"] + (frame["t0"] == "value 1") + np.sin(frame["i0"]) > 0.5).rename("label")
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    encode = OneHotEncoder(handle_unknown="ignore")
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    pipelines = {
        "linear": make_pipeline(
            make_column_transformer((numbers, [*FLOATS, *INTEGERS]), (encode, TEXTS)), LogisticRegression(max_iter=200)
        ),
        "tree": make_pipeline(
            make_column_transformer((codes, TEXTS), remainder="passthrough"), HistGradientBoostingClassifier()
        ),
    }
    for name, pipeline in pipelines.items():
        (folder / "include" / "jobs" / f"{name}.toml").write_text(JOB.format(model=name))
        content = io.BytesIO()
        joblib.dump(pipeline.fit(frame[FEATURES], label), content)
        register(content.getvalue(), frame, here, name=name)


def sql(here, statement: str, stream=None) -> None:
    import psycopg2

    from plantao.database import dsn

    with closing(psycopg2.connect(dsn(here.address("client_db"), "bench"))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            if stream is None:
                cursor.execute(statement)
            else:
                cursor.copy_expert(statement, stream)


def cores() -> int:
    from plantao.settings import usable_cores

    return usable_cores()


def machine() -> str:
    import platform

    return f"{cores()} cores ({platform.machine()}), Python {platform.python_version()}"


def cpu_seconds() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def server_cpu_seconds() -> float:
    """Return the CPU seconds of the server's processes, those of a session that has ended included."""
    import psutil

    postmaster = psutil.Process(int(os.environ["BENCH_SERVER"]))
    total = 0.0
    for process in [postmaster, *postmaster.children()]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
            if process == postmaster:
                total += times.children_user + times.children_system
    return total


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
