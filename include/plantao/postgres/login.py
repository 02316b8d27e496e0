"""Why a login failed, as SQLSTATE: in the sentence of the server's language no program can look for it."""

from __future__ import annotations

import ctypes
import re
import select
import time

import psycopg2
import psycopg2.extensions
from psycopg2 import _psycopg

SECONDS = 5
NOT_GIVEN = "28P01"
VERBOSE = 2  # PQERRORS_VERBOSE: the client library writes the code between the severity and the sentence


def connect(dsn: str) -> psycopg2.extensions.connection:
    """Connect. An error says by `sqlstate` why the server refused the login; None when it was something else."""
    try:
        return psycopg2.connect(dsn)
    except psycopg2.OperationalError as error:
        error.sqlstate = sqlstate(dsn)  # type: ignore[attr-defined]
        raise


def sqlstate(dsn: str) -> str | None:
    """Log in once more and return the code with which the server refuses it.

    The client library shows the code of a failed login only to whoever asks it before the answer is there, and
    neither driver does.
    """
    try:
        connection = psycopg2.connect(dsn, async_=True)
    except psycopg2.Error:
        return None
    try:
        _write_codes(connection)
        _wait(connection)
    except psycopg2.Error as error:
        said = re.search(r":  ([0-9A-Z]{5}): ", str(error))
        return said[1] if said else NOT_GIVEN if connection.info.needs_password else None
    finally:
        connection.close()
    return None


def _write_codes(connection: psycopg2.extensions.connection) -> None:
    library = ctypes.CDLL(_psycopg.__file__)
    library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.PQsetErrorVerbosity(connection.pgconn_ptr, VERBOSE)


def _wait(connection: psycopg2.extensions.connection) -> None:
    until = time.monotonic() + SECONDS
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK and time.monotonic() < until:
        waits = [connection.fileno()]
        reads = state == psycopg2.extensions.POLL_READ
        select.select(waits if reads else [], [] if reads else waits, [], max(0, until - time.monotonic()))
