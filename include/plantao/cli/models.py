"""`plantao models …`: the registered model versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantao import runtime
from plantao.cli import output
from plantao.errors import PlantaoError, UsageError
from plantao.postgres import session as database
from plantao.postgres.pinned import LOGIN_PATH
from plantao.postgres.replaced import whole_snapshot
from plantao.runtime import DEFAULT_CONNECTION

if TYPE_CHECKING:
    import pandas as pd

    from plantao.release.describe import Baseline
    from plantao.runtime import Place

app = typer.Typer(no_args_is_help=True, help="The registered model versions.")

NameOption = Annotated[str, typer.Option("--name", help="The model's name, as in [score] of a job file.")]
ConnectionsOption = Annotated[
    list[str] | None,
    typer.Option("--connection", help="Databases that shall know it (default: those of the jobs that use it)."),
]


@app.command()
def register(
    name: NameOption,
    path: Annotated[Path | None, typer.Argument(help="The fitted pipeline, a file written by joblib or skops.")] = None,
    frame: Annotated[Path | None, typer.Option(help="The training frame: a Parquet or CSV file.")] = None,
    query: Annotated[str | None, typer.Option(help="Or one SELECT that reads it, or @FILE with one.")] = None,
    source: Annotated[str, typer.Option(help="The connection for --query.")] = DEFAULT_CONNECTION,
    positive: Annotated[str | None, typer.Option(help="Binary: the positive class (default: the second).")] = None,
    metrics: Annotated[Path | None, typer.Option(help="A JSON file of metrics on unseen data, name to number.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="The frame's column that tells the day of a row.")] = None,
    outcome: Annotated[str | None, typer.Option(help="The frame's column with what really happened.")] = None,
    score: Annotated[
        str | None, typer.Option(help="The frame's column with scores from outside the fit (out of fold).")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Instead: a Parquet or CSV file of rows on which the model was not fitted.")
    ] = None,
    trust: Annotated[list[str] | None, typer.Option(help="A type that the .skops file may make, repeatable.")] = None,
    connection: ConnectionsOption = None,
    version: Annotated[
        int | None, typer.Option(help="Without PATH: enter a version of the store into databases that lack it.")
    ] = None,
    why: Annotated[str, typer.Option("--why", help="The reason, for those who ask later.")] = "registered",
    json_: output.JsonOption = False,
) -> None:
    """Register a model as its next version. The first version becomes champion."""
    from plantao.models import registry, store
    from plantao.release import register as registering

    here = runtime.from_environment()
    if path is None:
        if version is None:
            message = "nothing to register: give PATH, or --version of one that is in the store."
            raise UsageError(message)
        manifest = store.read_manifest(here.settings.model_store, name, version)
        entries = registering.enter(manifest, here, connection or registry.databases_of(name, here), why)
    else:
        if version is not None:
            message = "--version goes without PATH; a new file gets the next number by itself."
            raise UsageError(message)
        manifest, entries = registering.register(
            _model(path),
            _frame(frame, query, source, here),
            here,
            name=name,
            positive=positive,
            metrics=_metrics(metrics),
            connections=connection,
            why=why,
            trust=trust or (),
            baseline=_baseline(name, here, timestamp, outcome, score, reference),
        )
    if json_:
        output.as_json({**manifest.model_dump(mode="json"), "databases": [vars(entry) for entry in entries]})
        return
    output.pairs(
        {
            "model": manifest.name,
            "sha256": manifest.sha256,
            "kind": manifest.output.kind,
            "columns": len(manifest.contract.columns),
            "golden rows": len(manifest.golden.rows),
            **({"trusted": ", ".join(manifest.trusted)} if manifest.trusted else {}),
            **{
                f"in {entry.connection}": "champion" if entry.became_champion else "registered, the champion stays"
                for entry in entries
            },
        }
    )


@app.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None, json_: output.JsonOption = False
) -> None:
    """List the versions that the databases of the jobs know, and which is champion."""
    lines: list[dict[str, Any]] = []
    for connection, rows in _registered(name, runtime.from_environment()).items():
        lines += [{"connection": connection, **row} for row in rows]
    if json_:
        output.as_json(lines)
        return
    columns = (
        "model",
        "version",
        "state",
        "champion_since",
        "created_at",
        "created_by",
        "metrics",
        "sha256",
        "connection",
    )
    for line in lines:
        line["champion_since"] = line.pop("live_from")
        line["metrics"] = ", ".join(f"{k} {v:g}" for k, v in line["metrics"].items()) or "-"
        line["sha256"] = line["sha256"][:12]
    output.table("Models", columns, [[line[column] for column in columns] for line in lines])


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    version: Annotated[int | None, typer.Option(help="Only this version.")] = None,
    json_: output.JsonOption = False,
) -> None:
    """Put registered versions through the gate on this machine: hash, environment, golden rows."""
    from plantao.models import store
    from plantao.models.environment import current_environment
    from plantao.models.manifest import environment_differences
    from plantao.score import loader

    here = runtime.from_environment()
    results = []
    for connection, rows in _registered(name, here).items():
        for row in rows:
            if version is not None and row["version"] != version:
                continue
            result = {"model": f"{row['model']}/{row['version']}", "connection": connection, "state": "OK", "what": ""}
            try:
                manifest = store.read_manifest(here.settings.model_store, row["model"], row["version"])
                loader.load(store.read_bytes(here.settings.model_store, manifest), manifest, row["sha256"])
                _, notes = environment_differences(manifest.environment, current_environment(here.settings.lock))
                if notes:
                    result |= {"state": "WARN", "what": "; ".join(notes)}
            except PlantaoError as error:
                result |= {"state": "FAIL", "what": str(error)}
            results.append(result)
    if not results:
        message = f"no registered version of {name or 'any model'}" + (f" with number {version}." if version else ".")
        raise UsageError(message, "plantao models list")
    if json_:
        output.as_json(results)
    else:
        columns = ("model", "connection", "state", "what")
        output.table("Gate", columns, [[result[column] for column in columns] for result in results])
    if any(result["state"] == "FAIL" for result in results):
        raise typer.Exit(1)


def _registered(name: str | None, here: Place) -> dict[str, list[dict[str, Any]]]:
    """Return what each database that a job writes to knows of the models."""
    from plantao.models import registry

    found = {}
    for connection in registry.databases_of(name, here):
        with registry.session(connection, here) as session:
            found[connection] = [dict(row) for row in registry.versions(session, name)]
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise UsageError(message) from error


def _model(path: Path) -> bytes:
    from plantao.score.loader import is_skops

    content = _read(path)
    if path.suffix == ".skops" and not is_skops(content):
        message = f"{path} is no .skops file, and is not opened as anything else."
        raise UsageError(message, "write it with skops.io.dump")
    return content


def _frame(path: Path | None, query: str | None, source: str, here: Place) -> pd.DataFrame:
    from plantao.extract.read import read_frame

    if (path is None) == (query is None):
        message = "the contract and the golden rows are made from the training frame: give --frame or --query."
        raise UsageError(message)
    if query is not None:
        text = Path(query[1:]).read_text(encoding="utf-8") if query.startswith("@") else query
        address = here.address(source)
        with (
            database.session(address, here.settings.schema, "plantao/models") as session,
            whole_snapshot(address, "plantao/models", LOGIN_PATH) as snapshot,
        ):
            return read_frame(snapshot, session, text)
    assert path is not None
    return _read_frame(path)


def _read_frame(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        message = f"the frame {path} cannot be read: {error}."
        raise UsageError(message, "give a .parquet or .csv file") from error


def _baseline(
    name: str, here: Place, timestamp: str | None, outcome: str | None, score: str | None, reference: Path | None
) -> Baseline:
    """Return what later days are compared with; days and decisions are those of the job that uses the model."""
    from plantao.models.registry import jobs_of
    from plantao.release.describe import Baseline

    if timestamp is None and (outcome or score):
        message = "--outcome and --score are about the days of the reference."
        raise UsageError(message, "give --timestamp too, the column that tells the day of a row")
    frame = None if reference is None else _read_frame(reference)
    job = next(iter(jobs_of(name, here)), None)
    if job is None:
        return Baseline(frame, timestamp, outcome, score)
    return Baseline(frame, timestamp, outcome, score, job.zone, job.score.threshold)


def _metrics(path: Path | None) -> dict[str, float] | None:
    if path is None:
        return None
    try:
        return {str(name): float(value) for name, value in json.loads(_read(path)).items()}
    except (ValueError, AttributeError, TypeError) as error:
        message = f"{path} is not a JSON object of names and numbers."
        raise UsageError(message) from error
