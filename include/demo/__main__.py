"""`python -m demo`: what `make demo`, `make up` and `make down` call."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import TYPE_CHECKING

import joblib
import typer

from demo import client_data, summary
from demo.stack import Stack
from demo.train import RECIPES, TRAINING, honest_scores, train
from plantao import runtime
from plantao.config.job import Job
from plantao.config.job_file import read_folder
from plantao.errors import DatabaseUnavailable, PlantaoError, UsageError
from plantao.ledger.migrate import upgrade
from plantao.models import store
from plantao.postgres import embedded
from plantao.postgres import session as database
from plantao.release.describe import Baseline
from plantao.release.register import enter, register

if TYPE_CHECKING:
    from plantao.runtime import Place

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The demo: a client, its models, and Airflow.")
PATIENCE_SECONDS = 600


@app.command()
def prepare() -> None:
    """Start the embedded database, fill the client's tables, train and register the models; each only once."""
    _prepare(runtime.from_environment())


@app.command()
def run() -> None:
    """Prepare, let Airflow's scheduler score every window that is owed, print what came of it, stop Airflow."""
    here = runtime.from_environment()
    _prepare(here)
    stack = Stack(here.settings)
    started = _start(stack)
    try:
        _wait_for_airflow(stack, here)
    finally:
        if started:
            _say("stopping Airflow; the database goes on")
            stack.stop()
    summary.show(here, _jobs(here))


@app.command()
def up() -> None:
    """Prepare, start Airflow and leave it running."""
    here = runtime.from_environment()
    _prepare(here)
    stack = Stack(here.settings)
    _start(stack)
    typer.echo(f"\nAirflow:  {stack.url}\nlogin:    admin\npassword: {stack.facts['password']}\n\n`make down` ends it.")


@app.command()
def down() -> None:
    """Stop Airflow and the embedded database."""
    here = runtime.from_environment()
    typer.echo("Airflow is stopped" if Stack(here.settings).stop() else "Airflow was not running")
    server = embedded.Server(here.settings.state)
    typer.echo("the database is stopped" if embedded.stop(server) else "the database was not running")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def airflow(context: typer.Context) -> None:
    """Run Airflow's own command line on the demo's Airflow."""
    stack = Stack(runtime.from_environment().settings)
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *context.args], stack.environment)


@app.command()
def clock(moment: str) -> None:
    """Move the demo's present to MOMENT; arrivals up to then can be seen."""
    with client_data.connected(runtime.from_environment()) as connection:
        client_data.set_clock(connection, moment)


def _prepare(here: Place) -> None:
    runtime.start_default(here.settings)
    address = here.address(runtime.DEFAULT_CONNECTION)
    with client_data.connected(here) as connection:
        if not client_data.is_filled(connection):
            _say("filling the client's database with the 336,776 flights of 2013")
            client_data.fill(connection)
        with database.session(address, here.settings.schema) as session:
            upgrade(session, here.settings.schema)
        for recipe in RECIPES:
            there = store.versions(here.settings.model_store, recipe.model)
            if there:
                manifest = store.read_manifest(here.settings.model_store, recipe.model, there[0])
                enter(manifest, here, [runtime.DEFAULT_CONNECTION])
                continue
            job = _job_with(recipe.model, here)
            _say(f"training {recipe.model} on January to March")
            frame = client_data.training_frame(here, recipe.query)
            model, metrics = train(recipe, frame)
            content = io.BytesIO()
            joblib.dump(model, content)
            training = {"from": TRAINING[0], "until": TRAINING[1]}
            frame["score"] = honest_scores(recipe, frame)
            baseline = Baseline(
                timestamp="departed_at",
                outcome=recipe.label,
                score="score",
                zone=job.zone,
                threshold=job.score.threshold,
            )
            manifest, _ = register(
                content.getvalue(),
                frame,
                here,
                name=recipe.model,
                metrics=metrics,
                training=training,
                baseline=baseline,
            )
            _say(f"registered {manifest.name}; on unseen March: {metrics}")
        client_data.set_clock(connection, "2013-04-15")


def _start(stack: Stack) -> bool:
    _say("starting Airflow: api-server, scheduler, dag-processor, triggerer")
    began = time.monotonic()
    started = stack.start()
    _say(f"Airflow is healthy after {time.monotonic() - began:.0f} s" if started else "Airflow runs already")
    return started


def _wait_for_airflow(stack: Stack, here: Place) -> None:
    """Return when Airflow has finished a run for every window of every job that has a schedule."""
    jobs, shown, began = _jobs(here), set[str](), time.monotonic()
    expected = {job.name: len(summary.windows(job)) for job in jobs}
    finished = dict.fromkeys(expected, 0)
    _say(f"Airflow's scheduler scores {', '.join(f'{n} windows of {name}' for name, n in expected.items())}")
    while any(finished[name] < count for name, count in expected.items()):
        if time.monotonic() - began > PATIENCE_SECONDS:
            message = f"Airflow did not finish in {PATIENCE_SECONDS} s: {finished} of {expected} runs."
            raise DatabaseUnavailable(message, f"look at {stack.url} after `make up`, or read the logs in {stack.home}")
        for name in expected:
            query = f"dags/{name}/dagRuns?run_type=scheduled&limit=100&order_by=run_after"
            try:
                runs = stack.ask(query)["dag_runs"]
            except OSError:  # the DAG is not known yet
                continue
            if failed := [run["dag_run_id"] for run in runs if run["state"] == "failed"]:
                message = f"the run {failed[0]} of {name} failed."
                raise DatabaseUnavailable(message, f"read its log under {stack.home / 'logs'}")
            done = [run["dag_run_id"] for run in runs if run["state"] == "success"]
            finished[name] = len(done)
            for run_id in done:
                if f"{name} {run_id}" not in shown:
                    shown.add(f"{name} {run_id}")
                    _say(f"  {name:<16} {run_id}")
        time.sleep(1)
    _say(f"all windows are scored and measured, {time.monotonic() - began:.0f} s after Airflow was healthy")


def _jobs(here: Place) -> list[Job]:
    return [job for job in read_folder(here.settings.jobs).values() if isinstance(job, Job) and job.cron]


def _job_with(model: str, here: Place) -> Job:
    for job in _jobs(here):
        if job.score.model == model:
            return job
    message = f"no job file in {here.settings.jobs} has the model {model} of the demo. Airflow was not started."
    raise UsageError(message, "let the project's own job files be used:\nunset PLANTAO_HOME PLANTAO_JOBS")


def _say(text: str) -> None:
    typer.echo(f"demo: {text}")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        app()
    except PlantaoError as error:
        sys.exit(str(error))
