"""What is measured on: a server of the bench's own, one table of rows, and two trained pipelines."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import tempfile
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOATS = [f"f{i}" for i in range(12)]
INTEGERS = [f"i{i}" for i in range(4)]
TEXTS = [f"t{i}" for i in range(4)]
FEATURES = [*FLOATS, *INTEGERS, *TEXTS]
MODELS = ("linear", "tree")
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


@contextmanager
def ground() -> Iterator[Path]:
    """Start the server in a folder of its own, and let this process and its children find it; yield the folder.

    It listens on a port of the loopback address too, because a JVM knows no Unix sockets.
    """
    from plantao.postgres import embedded

    with tempfile.TemporaryDirectory(prefix="plantao-bench-") as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        embedded.SETTINGS = (*embedded.SETTINGS, "listen_addresses=127.0.0.1", f"port={port}")
        folder = Path(name)
        server = embedded.Server(folder / ".plantao")
        for variable in [variable for variable in os.environ if variable.startswith(("PLANTAO_", "AIRFLOW"))]:
            del os.environ[variable]
        os.environ["PGPORT"] = port
        embedded.start(server, databases=("client", "results"))
        try:
            os.environ |= {
                "PLANTAO_HOME": str(folder),
                "AIRFLOW_CONN_CLIENT_DB": server.address("client_db", "client").url(),
                "AIRFLOW_CONN_RESULTS_DB": server.address("results_db", "results").url(),
                "BENCH_SERVER": (server.data / "postmaster.pid").read_text().split()[0],
            }
            (server.data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")
            sql("select pg_reload_conf()")
            (folder / "include" / "jobs").mkdir(parents=True)
            yield folder
        finally:
            embedded.stop(server)


def window():
    """Return the day that holds all rows."""
    from plantao.window import Window

    return Window(datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 4, 2, tzinfo=UTC))


def fill(rows: int) -> None:
    """Make the rows with a fixed seed."""
    import io

    import numpy as np
    import pandas as pd

    columns = [f"{name} double precision" for name in FLOATS] + [f"{name} integer" for name in INTEGERS]
    columns += [f"{name} text" for name in TEXTS]
    sql(f"create table public.rows (id bigint primary key, at timestamptz not null, {', '.join(columns)})")
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2013-04-01", tz="UTC")
    for first in range(0, rows, 100_000):
        count = min(100_000, rows - first)
        ids = np.arange(first, first + count)
        frame = features(rng, count)
        frame.insert(0, "id", ids)
        frame.insert(1, "at", start + pd.to_timedelta(ids * (86_399 / rows), unit="s"))
        sql("copy public.rows from stdin (format csv)", io.StringIO(frame.to_csv(index=False, header=False)))
    sql("create index on public.rows (at)")
    sql("vacuum analyze public.rows")


def features(rng, count: int):
    """Return the features of so many rows."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({name: rng.normal(size=count) for name in FLOATS})
    frame.loc[rng.random(count) < 0.06, "f11"] = np.nan
    for name in INTEGERS:
        frame[name] = rng.integers(0, 1000, count)
    for name, size in zip(TEXTS, (5, 20, 100, 500), strict=True):
        frame[name] = rng.choice(np.array([f"value {i}" for i in range(size)]), count)
    return frame


def label(frame):
    """Return the label that the models learn."""
    import numpy as np

    value = frame["f0"] + 0.5 * frame["f1"] + (frame["t0"] == "value 1") + np.sin(frame["i0"])
    return (value > 0.5).rename("label")


def prepare_models(folder: Path) -> None:
    """Train and register the two pipelines on 30,000 of the rows."""
    from plantao import runtime
    from plantao.extract.read import read_frame
    from plantao.ledger.migrate import upgrade
    from plantao.postgres import session as database
    from plantao.postgres.replaced import whole_snapshot
    from plantao.release import promotion
    from plantao.release.register import register

    here = runtime.from_environment()
    address = here.address("client_db")
    with database.session(address, here.settings.schema) as session, whole_snapshot(address) as snapshot:
        upgrade(session, here.settings.schema)
        frame = read_frame(snapshot, session, f"select {', '.join(FEATURES)} from public.rows order by id limit 30000")
    for name, make in (("linear", linear), ("tree", tree)):
        (folder / "include" / "jobs" / f"{name}.toml").write_text(JOB.format(model=name))
        fitted = bytes_of(make(FEATURES).fit(frame[FEATURES], label(frame)))
        register(fitted, frame, here, name=name)
        # The same model with a challenger of its kind that reads one column less.
        pair = f"{name}_pair"
        (folder / "include" / "jobs" / f"{pair}.toml").write_text(JOB.format(model=pair))
        register(fitted, frame, here, name=pair)
        fewer = [feature for feature in FEATURES if feature != "f1"]
        register(bytes_of(make(fewer).fit(frame[fewer], label(frame))), frame, here, name=pair)
        promotion.mark(pair, 2, "the bench", here, "challenger")


def bytes_of(model) -> bytes:
    """Return a model as a joblib file."""
    import io

    import joblib

    content = io.BytesIO()
    joblib.dump(model, content)
    return content.getvalue()


def linear(features):
    """Return the logistic regression, encoding inside."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    encode = OneHotEncoder(handle_unknown="ignore")
    columns = [name for name in features if name not in TEXTS]
    return make_pipeline(make_column_transformer((numbers, columns), (encode, TEXTS)), LogisticRegression(max_iter=200))


def tree(features):
    """Return the boosted trees, encoding inside."""
    del features
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(
        make_column_transformer((codes, TEXTS), remainder="passthrough"), HistGradientBoostingClassifier()
    )


def sql(statement: str, stream=None, at: str = "client_db") -> list[tuple]:
    """Run a statement, or a COPY that reads from or writes to `stream`; return the rows, if it has any."""
    import psycopg2

    from plantao import runtime
    from plantao.postgres.session import dsn

    with closing(psycopg2.connect(dsn(runtime.from_environment().address(at), "bench"))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            if stream is not None:
                cursor.copy_expert(statement, stream, size=1 << 20)
                return []
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def cores() -> int:
    from plantao.config.settings import usable_cores

    return usable_cores()


def machine() -> str:
    import platform

    return f"{cores()} cores ({platform.machine()}), Python {platform.python_version()}"


def cpu_seconds() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_memory() -> float:
    """Return the most memory that this process has held, in megabytes; what its parent held does not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError


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
    """Print a line at once."""
    print(text, flush=True)
