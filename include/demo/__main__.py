"""`python -m demo`: prepare the demo's client and models, or move its clock."""

from __future__ import annotations

import io
import sys
from contextlib import closing

import joblib
import psycopg2
import typer

from demo import client_data
from demo.train import RECIPES, TRAINING, train
from plantao import database, place
from plantao.errors import PlantaoError
from plantao.extract.read import read_frame
from plantao.schema.migrate import upgrade
from plantao.score import model_store
from plantao.score.register import enter, register

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The demo's client and its models.")


@app.command()
def prepare() -> None:
    """Start the embedded database, fill the client's tables, and train and register the models; once each."""
    here = place.from_environment()
    place.start_default(here.settings)
    address = here.address("client_db")
    with closing(psycopg2.connect(database.dsn(address, "plantao/demo"))) as connection:
        if client_data.is_filled(connection):
            _say("the client's tables are filled")
        else:
            _say("filling the client's tables with 336,776 flights")
            client_data.fill(connection)
    with database.session(address, here.settings.schema) as session:
        upgrade(session, here.settings.schema)
        for recipe in RECIPES:
            there = model_store.versions(here.settings.model_store, recipe.model)
            if there:
                manifest = model_store.read_manifest(here.settings.model_store, recipe.model, there[0])
                enter(manifest, here, ["client_db"])
                _say(f"model {manifest.name} is registered")
                continue
            _say(f"training {recipe.model} on January to March")
            with database.snapshot(address) as snapshot:
                frame = read_frame(snapshot, session, recipe.query)
            model, metrics = train(recipe, frame)
            content = io.BytesIO()
            joblib.dump(model, content)
            training = {"from": TRAINING[0], "until": TRAINING[1]}
            manifest, _ = register(
                content.getvalue(), frame, here, name=recipe.model, metrics=metrics, training=training
            )
            _say(f"registered {manifest.name}, on unseen March: {metrics}")


@app.command()
def clock(moment: str) -> None:
    """Move the demo's present to MOMENT; arrivals up to then can be seen."""
    address = place.from_environment().address("client_db")
    with closing(psycopg2.connect(database.dsn(address, "plantao/demo"))) as connection:
        client_data.set_clock(connection, moment)


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    try:
        app()
    except PlantaoError as error:
        sys.exit(str(error))
