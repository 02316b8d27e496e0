"""Where a day is acted out: a client with a database, a model store, and a Slack to which messages go."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from demo import client_data
from demo.stack import PROJECT, Stack
from demo.train import RECIPES, pipeline
from plantao import runtime
from plantao.config import settings
from plantao.errors import PlantaoError, UsageError
from plantao.postgres import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from plantao.runtime import Place

RECIPE = RECIPES[0]
JOB = RECIPE.model


@dataclass
class Stage:
    """A home, its environment, and what was said in Slack so far."""

    place: Place
    environment: dict[str, str]
    slack: Any
    heard: int = 0
    more: dict[str, str] = field(default_factory=dict)
    """Variables that hold from now on, such as which release of a library is installed."""

    @property
    def home(self) -> Path:
        """The folder of this day; nothing outside of it is touched."""
        return self.place.settings.home

    # --- what is told ---------------------------------------------------------------------------------------------

    def title(self, text: str) -> None:
        """Say which day it is."""
        typer.secho(f"\n{text}\n{'=' * len(text)}", bold=True)

    def tell(self, text: str) -> None:
        """Say what happens now."""
        typer.echo(f"\n{text}")
        sys.stdout.flush()

    def phone(self, *, show: bool = True) -> str:
        """Print what has arrived in Slack since the last look, and return it."""
        posted = list(self.slack.posted[self.heard :])
        self.heard += len(posted)
        texts = [f"[picture] {one.text}" if one.picture else one.words for one in posted]
        if not show:
            return "\n".join(texts)
        typer.secho("\n  What on-call reads:" if posted else "\n  On-call is told nothing.", bold=True)
        for one, text in zip(posted, texts, strict=True):
            where = f"{one.channel}, in the thread" if one.thread else one.channel
            typer.echo("\n".join(f"  | {line}" for line in (where, *text.splitlines())) + "\n")
        sys.stdout.flush()
        return "\n".join(texts)

    def expect(self, truth: object, what: str) -> None:
        """Stop when something did not happen that this day is about. Raises PlantaoError."""
        if not truth:
            message = f"this day went otherwise than it should have: {what}"
            raise PlantaoError(message, f"look into {self.home}")

    # --- what is done ---------------------------------------------------------------------------------------------

    def plantao(self, *arguments: str, status: int = 0, show: bool = True) -> str:
        """Run a command as a person would, print it with what it says, and return that.

        Raises PlantaoError when its exit status is another one than `status`.
        """
        done = self._call("-m", "plantao", "-q", *arguments)
        said = (done.stdout + done.stderr).strip()
        if show or done.returncode != status:
            typer.secho(f"\n  $ plantao {shlex.join(arguments)}", fg=typer.colors.CYAN)
            typer.echo("\n".join(f"  {line}" for line in said.replace("\t", "  ").splitlines()))
            if done.returncode:
                typer.echo(f"  (exit status {done.returncode})")
            sys.stdout.flush()
        self.expect(done.returncode == status, f"`plantao {arguments[0]}` ended with {done.returncode}, not {status}")
        return said

    def python(self, program: str) -> None:
        """Run a program in this day's environment, as a notebook would. Raises PlantaoError when it fails."""
        done = self._call("-c", program)
        self.expect(done.returncode == 0, done.stderr)

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env={**self.environment, **self.more},
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )

    def send(self, *, show: bool = True) -> str:
        """Send what waits, as Airflow's DAG does every minute, print what arrived, and return it."""
        self.plantao("alerts", "digest", JOB, "--send", show=False)
        return self.phone(show=show)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run SQL in the client's database, as its owner."""
        with client_data.connected(self.place) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def clock(self, moment: str) -> None:
        """Move the client's present: arrivals up to then can be seen."""
        with client_data.connected(self.place) as connection:
            client_data.set_clock(connection, moment)

    def job(self, text: str | None = None, **changes: str) -> None:
        """Write the job file: the demo's own, or `text`, with some of its parts changed."""
        found = text or (PROJECT / "include" / "jobs" / f"{JOB}.toml").read_text(encoding="utf-8")
        for old, new in changes.items():
            found, count = re.subn(rf"(?m)^{old} .*$", new, found)
            self.expect(count == 1, f"the job file has {count} lines with {old}")
        self.place.settings.jobs.mkdir(parents=True, exist_ok=True)
        (self.place.settings.jobs / f"{JOB}.toml").write_text(found, encoding="utf-8")

    def training_frame(self, query: str = RECIPE.query) -> pd.DataFrame:
        """Return flights of the past with what came of them, as a data scientist reads them."""
        return client_data.training_frame(self.place, query)

    def fit(self, frame: pd.DataFrame, columns: Sequence[str] = RECIPE.columns) -> Path:
        """Fit the demo's model, and leave it and its frame as files where a notebook would."""
        import joblib

        model = pipeline(RECIPE).fit(frame[list(columns)], frame[RECIPE.label])
        joblib.dump(model, self.home / "model.joblib")
        frame.to_parquet(self.home / "training.parquet")
        return self.home / "model.joblib"


@contextmanager
def stage(name: str) -> Iterator[Stage]:
    """Make a fresh home with the client's tables in it; in the end everything that was started is stopped."""
    home = settings.read().state / "days" / name
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PLANTAO_", "AIRFLOW", "OMP_WAIT"))
    } | {"PYTHONPATH": str(PROJECT / "include"), "PLANTAO_HOME": str(home)}
    chosen = settings.read(environment)
    server = embedded.Server(chosen.state)
    stand_in = _stand_in()
    _clear(home, server, Stack(chosen))
    try:
        embedded.start(server)
        here = runtime.with_connections(chosen, lambda _: None)
        with client_data.connected(here) as client:
            client_data.fill(client)
        with stand_in.SlackStandIn() as slack:
            environment["AIRFLOW_CONN_SLACK"] = slack.connection()
            try:
                yield Stage(here, environment, slack)
            finally:
                page = home / "slack.html"
                page.write_text(_self_contained(stand_in.page(slack), slack), encoding="utf-8")
                typer.echo(f"\nWhat was posted, as Slack would show it: {page}")
    finally:
        Stack(chosen).stop()
        embedded.stop(server)


def _clear(home: Path, server: embedded.Server, stack: Stack) -> None:
    """Throw away what an earlier performance left."""
    if home.exists():
        stack.stop()
        embedded.stop(server)
        shutil.rmtree(home)
    home.mkdir(parents=True)


def _stand_in() -> Any:
    """Return the module of the stand-in for Slack, which the tests use too."""
    path = PROJECT / "tests" / "slack_stand_in.py"
    spec = importlib.util.spec_from_file_location("slack_stand_in", path) if path.exists() else None
    if spec is None or spec.loader is None:
        message = f"{path} is not there: the days are acted out in a clone of the project."
        raise UsageError(message, "clone the project, and run the command there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _self_contained(page: str, slack: Any) -> str:
    """Return the stand-in's page with its pictures inside, so that it can be looked at when the server is gone."""
    for one in slack.pictures:
        inside = base64.b64encode(one.picture).decode()
        page = page.replace(f'src="/picture/{one.ts}"', f'src="data:image/png;base64,{inside}"')
    return page
