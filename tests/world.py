"""A small client to test against: sensors that report readings, and a model that finds the bad ones."""

from __future__ import annotations

import contextlib
import io
import itertools
import select
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import fsspec
import joblib
import numpy as np
import pandas as pd
import psycopg2
from psycopg2.extras import execute_values
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from plantao.config import job_file, settings
from plantao.ledger import session as ledger_session
from plantao.ledger.grants import READER, SCORER, grants
from plantao.ledger.migrate import upgrade
from plantao.ledger.request import Request
from plantao.postgres import embedded, session
from plantao.postgres.session import driver_connection, dsn
from plantao.release import register as registration
from plantao.release.describe import describe
from plantao.run import run
from plantao.runtime import Place
from plantao.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from plantao.config.address import Address
    from plantao.config.job import Job
    from plantao.config.settings import ModelStore
    from plantao.models.manifest import Manifest
    from plantao.release.describe import Baseline
    from plantao.run.report import Report

# Who the product and the client's readers log in as: members of the roles that `plantao init --print-grants` prints.
WORKER, ANALYST = "worker", "analyst"
APRIL = datetime(2013, 4, 1, tzinfo=UTC)
_numbers = itertools.count()
_STRATEGIES: dict[Path, str] = {}
"""How a server makes a database from the template, by its folder."""
_ADMINISTRATORS: dict[Path, Any] = {}
"""The connections that make and remove databases, by the folder of their server."""

JOB = """
description = "Will this reading be bad?"
schedule = "daily"
starts   = 2013-04-01

[extract]
table     = "public.readings"
key       = ["id"]
timestamp = "at"
late_rows = "3 days"

[score]
model = "bad_reading"

[load]
table = "predictions.bad_reading"
"""

TABLE = """
create table public.readings (
  id bigint primary key, at timestamptz not null, x double precision, y double precision, city text,
  edited_at timestamptz not null default '2013-01-01Z')
"""


def day(number: int) -> Window:
    """Return the window of a day of April 2013."""
    start = APRIL + timedelta(days=number - 1)
    return Window(start, start + timedelta(days=1))


def training_frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return readings whose label depends on x and on the city; y has gaps."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=rows), rng.normal(size=rows)
    y[::17] = np.nan
    city = rng.choice(["Porto", "São Paulo", "Recife"], size=rows)
    bad = x + 0.5 * (city == "Recife") + rng.normal(scale=0.3, size=rows) > 0.4
    return pd.DataFrame({"x": x, "y": y, "city": city, "bad": bad, "amount": 3 * x + 10})


def preparation(*, strict: bool = False) -> Any:
    """Return the preprocessing; `strict` raises for a city it has not seen."""
    encode = OneHotEncoder(handle_unknown="error" if strict else "ignore")
    return make_column_transformer((encode, ["city"]), (SimpleImputer(), ["x", "y"]))


def classifier(frame: pd.DataFrame, label: str = "bad", *, strict: bool = False) -> Any:
    """Return a pipeline fitted on the frame."""
    return make_pipeline(preparation(strict=strict), LogisticRegression()).fit(frame[["x", "y", "city"]], frame[label])


def regressor(frame: pd.DataFrame) -> Any:
    """Return a regression pipeline fitted on the frame."""
    return make_pipeline(preparation(), LinearRegression()).fit(frame[["x", "y", "city"]], frame["amount"])


def _dumped(model: Any) -> bytes:
    content = io.BytesIO()
    joblib.dump(model, content)
    return content.getvalue()


def _fitted(frame: pd.DataFrame) -> bytes:
    """Return the classifier of a frame as it is dumped; of the same frame the same, which is fitted once."""
    mark = str(joblib.hash(frame))
    if mark not in _CLASSIFIERS:
        _CLASSIFIERS[mark] = _dumped(classifier(frame))
    return _CLASSIFIERS[mark]


def _described(model: Any, frame: pd.DataFrame, **given: Any) -> Manifest:
    """Describe a model; the same one on the same frame once, since most tests register the same."""
    mark = str(joblib.hash((given["sha256"], frame, given["baseline"])))
    if mark not in _MANIFESTS:
        _MANIFESTS[mark] = describe(model, frame, **given)
    told = ("version", "created_at", "created_by", "environment")
    return _MANIFESTS[mark].model_copy(update={"model": given["name"], **{name: given[name] for name in told}})


_CLASSIFIERS: dict[str, bytes] = {}
_MANIFESTS: dict[str, Manifest] = {}


@contextmanager
def serving(state: Path) -> Iterator[embedded.Server]:
    """Start a server, with a template for worlds that has the ledger in it.

    It does not wait for the disk: what a test must not lose it loses by a killed process, never by a power cut.
    """
    server = embedded.Server(state)
    embedded.start(server, databases=("template_client",))
    try:
        (version,) = administer(
            server, "alter system set fsync = off", "select pg_reload_conf()", "show server_version_num"
        )
        if int(version) >= 180_000:
            administer(server, "alter system set file_copy_method = clone", "select pg_reload_conf()")
        # Files are copied in half the time that it takes to log every page of them, which is what the default does.
        _STRATEGIES[state] = "strategy file_copy" if int(version) >= 150_000 else ""
        with session.session(server.address("client_db", "template_client"), "plantao") as connection:
            upgrade(connection, "plantao")
        _make_roles(server)
        yield server
    finally:
        if state in _ADMINISTRATORS:
            _ADMINISTRATORS.pop(state).close()
        embedded.stop(server)


def _make_roles(server: embedded.Server) -> None:
    """Let the printed grants create the roles, as a client does, and give each a login.

    The databases that are made from the template have from it what is taken from everybody.
    """
    with contextlib.closing(psycopg2.connect(dsn(server.address("client_db", "template_client"), "tests"))) as template:
        with template, template.cursor() as cursor:
            cursor.execute("revoke all on schema public from public")
            cursor.execute(grants([], ["client_db"], "plantao")["client_db"])
            for role, login in ((SCORER, WORKER), (READER, ANALYST)):
                cursor.execute(f"create role {login} login in role {role}")


class CreatesAFile:
    """A pickle that runs code when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Inside:
    """The files of a store, as somebody sees them who may do anything to them."""

    def __init__(self, store: ModelStore) -> None:
        self.files, root = fsspec.url_to_fs(store.address)
        self.root = root.rstrip("/")

    def put(self, path: str, content: bytes) -> None:
        self.files.makedirs(f"{self.root}/{path}".rpartition("/")[0], exist_ok=True)
        self.files.pipe_file(f"{self.root}/{path}", content)

    def get(self, path: str) -> bytes:
        return self.files.cat_file(f"{self.root}/{path}")

    def remove(self, path: str) -> None:
        self.files.rm(f"{self.root}/{path}", recursive=True)

    def all(self) -> list[str]:
        return sorted(path.removeprefix(f"{self.root}/") for path in self.files.find(self.root))


def administer(server: embedded.Server, *statements: str) -> Any:
    """Run statements that stand outside of any transaction; return the last one's first row, if it has one."""
    admin = _ADMINISTRATORS.get(server.state)
    if not _is_alive(admin):
        admin = _ADMINISTRATORS[server.state] = psycopg2.connect(dsn(server.address("postgres", "postgres"), "tests"))
        admin.autocommit = True
    with admin.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchone() if cursor.description else None


def _is_alive(connection: Any) -> bool:
    """Tell whether a connection can be used; to an idle one the server writes nothing but the reason why it ends."""
    return connection is not None and not connection.closed and not select.select([connection], [], [], 0)[0]


def on_call(monkeypatch: Any, owner: Any, name: str, number: int, act: Any) -> None:
    """Let `act` happen just before the n-th call of something."""
    original, calls = getattr(owner, name), []

    def watched(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return original(*given, **named)

    monkeypatch.setattr(owner, name, watched)


@dataclass
class World:
    """The client's database, the job files and the model store of one test.

    The product logs in as a worker with the printed rights and no other; the test itself acts as the owner.
    """

    server: embedded.Server
    folder: Path
    databases: dict[str, str]
    home_of_results: str
    servers: dict[str, embedded.Server] = field(default_factory=dict)
    """The hot standbys, by connection."""
    jobs: dict[str, Job] = field(default_factory=dict)
    model_store: str = ""
    _open: list[Any] = field(default_factory=list)
    _own: dict[tuple[str, str], Any] = field(default_factory=dict)
    """The connections of `sql`, by address and user: a new one costs more than most statements."""

    @classmethod
    @contextmanager
    def create(
        cls,
        server: embedded.Server,
        folder: Path,
        results: str = "client_db",
        encodings: Mapping[str, str] | None = None,
    ) -> Iterator[World]:
        """Make the databases, in other encodings than UTF8 where these are given; remove them afterwards."""
        names = {name: f"test_{next(_numbers)}_{name}" for name in {"client_db", results}}
        (folder / "jobs").mkdir()
        for name in names.values():
            administer(server, f"create database {name} template template_client {_STRATEGIES.get(server.state, '')}",
                       f"revoke all on database {name} from public")  # fmt: skip
        world = cls(server, folder, names, results)
        for connection, encoding in (encodings or {}).items():
            world._make_again(connection, encoding)
        world.grant()
        try:
            yield world
        finally:
            for connection in world._open:
                connection.close()
            world.leave()
            administer(server, *(f"drop database {name} with (force)" for name in set(names.values())))

    def _make_again(self, connection: str, encoding: str) -> None:
        name = self.databases[connection]
        administer(self.server, f"drop database {name}",
                   f"create database {name} template template0 encoding '{encoding}' locale 'C'",
                   f"revoke all on database {name} from public")  # fmt: skip
        self.sql("revoke all on schema public from public", at=connection)
        with session.session(self.owner(connection), "plantao") as ledger:
            upgrade(ledger, "plantao")

    @property
    def place(self) -> Place:
        return Place(settings.read({**self.environment, "PLANTAO_THREADS": "1"}), self.address)

    @property
    def store(self) -> ModelStore:
        return self.place.settings.model_store

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process of its own works in this world."""
        urls = {f"AIRFLOW_CONN_{name.upper()}": self.address(name).url() for name in self.databases}
        return {"PLANTAO_HOME": str(self.folder), "PLANTAO_JOBS": str(self.folder / "jobs"),
                "PLANTAO_MODEL_STORE": self.model_store or str(self.folder / "models"), **urls}  # fmt: skip

    def owner(self, name: str) -> Address:
        """Return where and as whom the test itself acts."""
        return self.servers.get(name, self.server).address(name, self.databases[name])

    def address(self, name: str) -> Address:
        """Return where and as whom the product works."""
        owner = self.owner(name)
        return replace(owner, parameters={**owner.parameters, "user": WORKER})

    # --- the client and the results ---------------------------------------------------------------------------------

    def connect(self, name: str = "client_db") -> Any:
        """Return a connection of the test's own, closed at its end."""
        connection = psycopg2.connect(dsn(self.owner(name), "tests"))
        self._open.append(connection)
        return connection

    def sql(
        self, statement: str, values: Any = None, at: str = "client_db", user: str = embedded.USER
    ) -> list[tuple[Any, ...]]:
        """Run a statement and commit; return its rows, if it has any."""
        with self._own_connection(at, user) as connection, connection.cursor() as cursor:
            # A session that goes on would tell the server's statistics up to 10 s later what it has deleted.
            cursor.execute("reset all; set time zone 'UTC'; select pg_stat_force_next_flush()")
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def leave(self) -> None:
        """Close the connections of `sql`, for what nobody may be connected to, such as a template."""
        while self._own:
            self._own.popitem()[1].close()

    def _own_connection(self, at: str, user: str = embedded.USER) -> Any:
        address = dsn(self.owner(at), "tests")
        if not _is_alive(self._own.get((address, user))):
            self._own[address, user] = psycopg2.connect(address, user=user)
        return self._own[address, user]

    def results(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement where predictions and ledger are."""
        return self.sql(statement, values, at=self.home_of_results)

    def fill(self, days: int = 5, per_day: int = 20) -> None:
        """Create the table of readings, with the same number on every day."""
        self.sql(TABLE)
        for number in range(1, days + 1):
            self.insert(number, [number * 1000 + i for i in range(per_day)])

    def insert(self, number: int, ids: list[int], **columns: Any) -> None:
        """Insert readings on a day of April, spread over it."""
        rng = np.random.default_rng(ids)
        others = [name for name in columns if name not in {"x", "y", "city"}]
        rows = []
        for place, key in enumerate(ids):
            row = {"x": rng.normal(), "y": rng.normal(), "city": ["Porto", "Recife"][key % 2], **columns}
            moment = day(number).start + timedelta(hours=24 * place / len(ids))
            rows.append((key, moment, *(float(v) if isinstance(v, float) else v for v in row.values())))
        names = ", ".join(["id", "at", "x", "y", "city", *others])
        with self._own_connection("client_db") as connection, connection.cursor() as cursor:
            cursor.execute("reset all")
            execute_values(cursor, f"insert into public.readings ({names}) values %s", rows)

    # --- jobs, models, runs ------------------------------------------------------------------------------------------

    def job(self, text: str = JOB, name: str = "bad_reading") -> Job:
        """Write a job file and read it."""
        if self.home_of_results != "client_db" and "connection" not in text:
            text = text.replace("[load]", f'[load]\nconnection = "{self.home_of_results}"')
        path = self.folder / "jobs" / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        self.jobs[name] = job_file.read_file(path)
        self.grant()
        return self.jobs[name]

    def grant(self, schema: str = "plantao") -> None:
        """Do as the owner what `plantao init --print-grants` prints; again, when a source was made anew."""
        jobs = list(self.jobs.values())
        ledgers = {self.home_of_results, *(job.load.connection for job in jobs)}
        for connection, statements in grants(jobs, sorted(ledgers), schema).items():
            # A standby takes no grant, its primary does; and what is not set stands for the client's own database.
            elsewhere = connection in self.servers or connection not in self.databases
            self.sql(statements, at="client_db" if elsewhere else connection)
        if any(job.query is not None for job in jobs):  # what is printed for a query, to be done by hand
            self.sql(
                f"grant usage on schema public to {SCORER}; grant select on all tables in schema public to {SCORER}"
            )

    def register(
        self,
        model: Any = None,
        frame: pd.DataFrame | None = None,
        name: str = "bad_reading",
        baseline: Baseline | None = None,
    ) -> Manifest:
        """Register a model, by default the classifier."""
        frame = training_frame() if frame is None else frame
        connections = [self.home_of_results]
        given = _fitted(frame) if model is None else _dumped(model)
        with mock.patch.object(registration, "describe", _described):
            return registration.register(
                given, frame, self.place, name=name, connections=connections, baseline=baseline
            )[0]

    def another_ledger(self, schema: str) -> Place:
        """Make a second ledger where predictions are, and return the place of a deployment that works with it."""
        with session.session(self.owner(self.home_of_results), schema) as connection:
            upgrade(connection, schema)
        self.grant(schema)
        environment = {**self.environment, "PLANTAO_THREADS": "1", "PLANTAO_SCHEMA": schema}
        return Place(settings.read(environment), self.address)

    @contextmanager
    def place_session(self, job: Job) -> Iterator[Connection]:
        """Open a session of our own, where predictions and ledger are; in the end the server has closed it too."""
        with ledger_session.session(job, self.place) as connection:
            pid = driver_connection(connection).info.backend_pid
            yield connection
        while self.results("select from pg_stat_activity where pid = %s", (pid,)):
            time.sleep(0.01)

    def score(self, job: Job, window: Window, **request: Any) -> Report:
        """Run one attempt."""
        return run.score_window(Request(job, window, **request), self.place)

    def was_scored(self, *windows: Window, job: str = "bad_reading", started_at: datetime | None = None) -> None:
        """Write successes into the ledger as runs leave them, by default of a run that started at once after."""
        for window in windows:
            self.results(
                "insert into plantao.runs (job, model, model_version, window_start, window_end, trigger, started_at,"
                " code_version, environment, worker) values (%s, 'bad_reading', 1, %s, %s, 'manual', %s, '', '{}', '')",
                (job, window.start, window.end, started_at or window.end),
            )
        self.results(
            "update plantao.runs set status = 'succeeded', rows_read = 1, rows_scored = 1, rows_rejected = 0,"
            " rows_already_scored = 0, rows_late = 0, rows_rescored = 0, finished_at = clock_timestamp()"
            " where status = 'running' and worker = ''"
        )

    def ready(self, text: str = JOB, **fill: int) -> Job:
        """Fill the client, register the classifier and return the job."""
        self.fill(**fill)
        self.register()
        return self.job(text)

    def predictions(self, columns: str = "id, prediction, score, run_id") -> list[tuple[Any, ...]]:
        """Return the prediction table, sorted, as the client reads it."""
        select = f"select {columns} from predictions.bad_reading order by 1"
        return self.sql(select, at=self.home_of_results, user=ANALYST)

    def attempts(
        self, columns: str = "status, rows_read, rows_scored, rows_rejected, rows_already_scored"
    ) -> list[Any]:
        """Return the ledger, oldest attempt first."""
        return self.results(f"select {columns} from plantao.runs order by run_id")
