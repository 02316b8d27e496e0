"""`make containers`: docker-compose.yml for real, production and staging side by side, from images made here."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

from containers import images, scored
from containers.engine import PODMAN, Failed, podman, require
from containers.env_files import env_files
from containers.project import ROOT, Project

CLIENTS_NETWORK = "plantao-test-client"
CHECKS = ROOT / ".plantao" / "containers"


def main() -> None:
    """Show that the stack comes up and scores, with a staging beside it; then take everything down again."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    require(*PODMAN)
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="plantao-containers-")))
        production, staging = map(Project, env_files(folder, images.base(), images.postgres()))
        for project in (production, staging):
            project.remove()  # what a run that was killed has left
            ending.callback(project.remove)
        ending.callback(podman, "network", "rm", "--force", CLIENTS_NETWORK)
        changed = [name for name in production.env if production.env[name] != staging.env[name]]
        say(f"staging's env file differs from production's in {', '.join(changed)}")
        show_image(production)
        show_start(production, "production, with the demo's client: its data, and two models trained")
        scored.wait(production, "client")
        books = scored.balance(production, production, "client")
        let_staging_read(production, staging)
        show_start(staging, "staging, beside it", models=scored.MODELS)
        scored.wait(staging, "results")
        show_staging(production, staging, books)
        show_checks(production, staging)
        say("ending")
    say("everything that was started is gone")


def let_staging_read(production: Project, staging: Project) -> None:
    """Give staging an account that can read the client's tables and nothing else, and a way to reach them."""
    password = staging.env["AIRFLOW_CONN_CLIENT_DB"].partition("staging:")[2].partition("@")[0]
    production.rows("client", f"""
        create role staging login password '{password}' nosuperuser nocreatedb nocreaterole;
        revoke create on schema public from public;
        grant usage on schema public to staging;
        grant select on public.flights, public.weather, public.arrivals to staging;
    """)  # fmt: skip
    staging.create()
    podman("network", "create", CLIENTS_NETWORK)
    reached = [production.container("client"), staging.container("init"), staging.container("scheduler")]
    for container in reached:
        podman("network", "connect", CLIENTS_NETWORK, container)


# --- what is shown --------------------------------------------------------------------------------------------------


def show_image(production: Project) -> None:
    """Build the image, as `docker compose build` does, and print how long that took and how large it is."""
    say("building the image")
    began = time.monotonic()
    with images.pip_as_here() as options:
        production.compose("build", "init", options=("--podman-build-args", " ".join(options)))
    seconds = time.monotonic() - began
    size, base = (int(podman("image", "inspect", "--format", "{{.Size}}", name)) / 1e6
                  for name in (production.env["PLANTAO_IMAGE"], production.env["BASE_IMAGE"]))  # fmt: skip
    say(f"the image has {size:,.0f} MB, {size - base:,.0f} of them on top of its base; {seconds:.0f} s to build")


def show_start(project: Project, what: str, models: tuple[str, ...] = ()) -> None:
    """Start a project, and print when each service was healthy or, if it only runs once, had succeeded.

    `models` are entered into the database of results before anything scores, version 1 of each.
    """
    say(f"starting {what}")
    if not hasattr(project, "services"):
        project.create()
    if models:
        project.start("init")
        for model in models:
            register = f"plantao models register --name {model} --version 1"
            project.compose("run", "--rm", "--no-deps", "init", *register.split())
    project.start()
    for service, at in sorted(project.ready.items(), key=lambda item: item[1]):
        healthy = "healthy" if "healthcheck" in project.services[service] else "done"
        print(f"  {service:<14} {healthy:<8} after {at:4.0f} s")
    say(f"all {len(project.ready)} services of {project.name} are up after {max(project.ready.values()):.0f} s")
    if wrong := project.not_confined():
        raise Failed("; ".join(f"{project.name}: {service} {faults}" for service, faults in wrong.items()))
    say("each runs as a user other than root, on a read-only root, without capabilities or a way to gain privileges")
    with urlopen(f"http://127.0.0.1:{project.env['AIRFLOW_PORT']}/api/v2/monitor/health", timeout=20) as page:
        health = {part: state["status"] for part, state in json.load(page).items()}
    if set(health.values()) != {"healthy"}:
        message = f"Airflow says of itself: {health}"
        raise Failed(message)
    say(f"Airflow answers on 127.0.0.1:{project.env['AIRFLOW_PORT']}, and calls all of it healthy: {', '.join(health)}")


def show_staging(production: Project, staging: Project, before: list[scored.Books]) -> None:
    """Compare what both predicted, and try to write to the client with staging's account."""
    models = "select model, version, sha256 from plantao.models order by 1, 2"
    if production.rows("client", models) != staging.rows("results", models):
        message = "staging and production have different model bytes"
        raise Failed(message)
    theirs, ours = scored.balance(production, production, "client"), scored.balance(production, staging, "results")
    if not before == theirs == ours:
        message = f"production predicted {before}, then {theirs}, and staging {ours}"
        raise Failed(message)
    say("staging has the model bytes of production, and the same predictions, bit for bit")
    attempt = (
        "import os, psycopg2\n"
        "connection = psycopg2.connect(os.environ['AIRFLOW_CONN_CLIENT_DB'])\n"
        "for statement in ('delete from public.flights', 'create schema mine', 'create table public.mine (a int)',\n"
        "                  'insert into predictions.flight_delay select * from predictions.flight_delay'):\n"
        "    try:\n"
        "        connection.cursor().execute(statement)\n"
        "        print('WROTE', statement)\n"
        "    except psycopg2.errors.InsufficientPrivilege:\n"
        "        print('refused', statement)\n"
        "    connection.rollback()\n"
    )
    answers = staging.inside("scheduler", "python", "-c", attempt).splitlines()
    if [answer.split()[0] for answer in answers] != ["refused"] * 4:
        raise Failed("\n".join(answers))
    say(
        "staging's account is refused to delete, create or insert at the client; production's predictions are untouched"
    )


def show_checks(production: Project, staging: Project) -> None:
    """Save what `plantao check` says in both, for comparison."""
    CHECKS.mkdir(parents=True, exist_ok=True)
    for project in (production, staging):
        found = project.inside("scheduler", "plantao", "check", "--json")
        (CHECKS / f"{project.name}.json").write_text(found, encoding="utf-8")
        states = sorted({line["state"] for line in json.loads(found)["lines"]})
        say(f"plantao check in {project.name}: {', '.join(states)}")
    # Fails when they differ in anything but their connections.
    other = (CHECKS / f"{production.name}.json").read_text(encoding="utf-8")
    compared = staging.inside("scheduler", "plantao", "check", "--compare", "/dev/stdin", given=other)
    (CHECKS / "parity.txt").write_text(compared, encoding="utf-8")
    say("the two differ in their connections and in nothing else:")
    print(compared)


def say(text: str) -> None:
    """Print a line with the time since the start in front."""
    print(f"{time.monotonic() - BEGAN:5.0f} s  {text}", flush=True)


BEGAN = time.monotonic()
if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        before = f"FAILED: {failure.__context__}\n\nand then " if isinstance(failure.__context__, Failed) else ""
        sys.exit(f"{before}FAILED: {failure}")
