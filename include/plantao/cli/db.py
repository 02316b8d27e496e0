"""`plantao db …`: the databases themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from plantao import runtime
from plantao.postgres import embedded
from plantao.runtime import DEFAULT_CONNECTION

app = typer.Typer(no_args_is_help=True, help="The address of a database, and the embedded server.")


@app.command()
def url(
    connection: Annotated[str, typer.Argument(help="The connection's name.")] = DEFAULT_CONNECTION,
    database: Annotated[
        str | None, typer.Option(help="Another database of the embedded server, such as airflow.")
    ] = None,
) -> None:
    """Print the URL of a connection, password included, for psql."""
    here = runtime.from_environment()
    if database is not None:
        typer.echo(embedded.Server(here.settings.state).address(connection, database).url())
        return
    typer.echo(here.address(connection).url())


@app.command()
def start() -> None:
    """Start the embedded PostgreSQL under .plantao/, unless AIRFLOW_CONN_CLIENT_DB names another server."""
    here = runtime.from_environment()
    if runtime.start_default(here.settings):
        typer.echo(f"the embedded PostgreSQL runs: {here.address(DEFAULT_CONNECTION).url()}")
    else:
        typer.echo(f"not needed: {DEFAULT_CONNECTION} is {here.address(DEFAULT_CONNECTION)}")


@app.command()
def stop() -> None:
    """Stop the embedded PostgreSQL."""
    stopped = embedded.stop(embedded.Server(runtime.from_environment().settings.state))
    typer.echo("the embedded PostgreSQL is stopped" if stopped else "the embedded PostgreSQL was not running")
