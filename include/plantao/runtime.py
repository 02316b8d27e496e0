"""Where this process works: its settings, and how it finds the address of a connection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from plantao.config import address, settings
from plantao.errors import UsageError
from plantao.postgres import embedded

if TYPE_CHECKING:
    from collections.abc import Callable

    from plantao.config.address import Address
    from plantao.config.settings import Settings

# The connection that the embedded server stands in for until somebody sets it.
DEFAULT_CONNECTION = "client_db"
# Where a job writes that shall be tried on staging: the client's own database, until somebody sets another.
RESULTS_CONNECTION = "results_db"


@dataclass(frozen=True)
class Place:
    """The settings, and the function from a connection's name to its address."""

    settings: Settings
    address: Callable[[str], Address]


def from_environment() -> Place:
    """Return the place that the environment describes."""
    settings.let_threads_sleep()
    return with_connections(settings.read())


def with_connections(chosen: Settings, look_up: Callable[[str], Address | None] = address.from_environment) -> Place:
    """Return the place with these settings, whose connections `look_up` knows."""
    return Place(chosen, lambda name: find_address(name, chosen, look_up))


def find_address(
    name: str, chosen: Settings, look_up: Callable[[str], Address | None] = address.from_environment
) -> Address:
    """Return the address of a connection: the variable AIRFLOW_CONN_<NAME>, else the embedded server's.

    `look_up` may know connections from elsewhere. Raises UsageError when nobody knows it.
    """
    found = look_up(name)
    if found is not None:
        return found
    if name == RESULTS_CONNECTION:
        return replace(find_address(DEFAULT_CONNECTION, chosen, look_up), name=name)
    server = embedded.Server(chosen.state)
    if name == DEFAULT_CONNECTION and server.exists:
        return server.address(name, "client")
    message = f"the connection {name!r} is not known here."
    advice = f"set AIRFLOW_CONN_{name.upper()} to postgres://user:password@host:5432/database"
    raise UsageError(message, advice)


def start_default(chosen: Settings) -> bool:
    """Start the embedded server, unless the environment names another in its place; return whether it does serve."""
    if address.from_environment(DEFAULT_CONNECTION) is not None:
        return False
    embedded.start(embedded.Server(chosen.state))
    return True
