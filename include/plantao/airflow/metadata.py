"""Sessions on Airflow's own database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


@contextmanager
def metadata_transaction() -> Iterator[Connection]:
    """Open a transaction on a connection of its own.

    An ORM session here would be the scheduler's, and closing it ends the scheduler.
    """
    from airflow import settings

    assert settings.engine is not None
    with settings.engine.begin() as connection:
        yield connection
