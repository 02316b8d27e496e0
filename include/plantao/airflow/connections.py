"""Connections as Airflow knows them: its secrets backend, the environment, the UI."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from plantao import runtime
from plantao.config import address, settings

if TYPE_CHECKING:
    from plantao.config.address import Address
    from plantao.runtime import Place


def place_of_task() -> Place:
    """Return where a task works: its settings, and the connections that Airflow knows."""
    settings.let_threads_sleep()
    return runtime.with_connections(settings.read(), find_address)


def place_of_listener() -> Place:
    """Return where a listener works. The environment comes first: the scheduler's process may have nothing else."""
    return runtime.with_connections(settings.read(), lambda name: address.from_environment(name) or find_address(name))


def find_address(name: str) -> Address | None:
    """Return the address of a connection that Airflow knows."""
    found = _connection(name)
    return None if found is None else address.from_connection(name, found)


def slack_variable() -> dict[str, str] | None:
    """Return Airflow's connection `slack` as the variable that Plantão reads; None leaves it to the environment."""
    if "AIRFLOW_CONN_SLACK" in os.environ:
        return None
    found = _connection("slack")
    if found is None:
        return None
    fields = {"conn_type": found.conn_type, "host": found.host, "password": found.password, "extra": found.extra_dejson}
    return {"AIRFLOW_CONN_SLACK": json.dumps(fields)}


def _connection(name: str) -> Any:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
