"""The errors of the drivers: their SQLSTATE, their sentence, and the error of ours that they become."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, NoReturn

import psycopg2
import psycopg2.extensions
import sqlalchemy
import sqlalchemy.exc

from plantao.errors import DatabaseUnavailable, PlantaoError
from plantao.postgres import sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator


# The second is what SQLAlchemy says at the next statement after a session was lost.
SQLALCHEMY_ERRORS = (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.PendingRollbackError)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the five-letter code of a database error; psycopg2 loses it when the session itself was ended."""
    original = getattr(error, "orig", None) or error
    state = getattr(original, "pgcode", None) or getattr(original, "sqlstate", None)
    return str(state) if state else None


def sentence_of(error: BaseException) -> str:
    """Return what the server said in one line, without DETAIL and CONTEXT: these quote rows, and rows are private."""
    original = getattr(error, "orig", None) or error
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    if primary:
        return str(primary)
    # The word for its severity is in the server's language; two blanks follow it.
    text = re.sub(r"^.*?\S:  ", "", str(original), count=1, flags=re.DOTALL)
    return text.split("\n")[0].strip() or type(original).__name__


@contextlib.contextmanager
def explained(step: str, refused: type[PlantaoError], doing: str) -> Iterator[None]:
    """Turn a driver's error into ours: `DatabaseUnavailable` where a retry can help, else `refused`."""
    import adbc_driver_manager

    try:
        yield
    except (psycopg2.Error, *SQLALCHEMY_ERRORS, adbc_driver_manager.Error) as error:
        raise_explained(error, step, refused, doing)


def raise_explained(error: Exception, step: str, refused: type[PlantaoError], doing: str) -> NoReturn:
    """Raise our error for a driver's one."""
    state = sqlstate_of(error)
    more = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    said = f"{sentence_of(error)} ({state or 'the session ended'}) while {doing}{more}."
    if is_passing(error):
        raise DatabaseUnavailable(said, "nothing: it is retried", step) from error
    raise refused(said, sqlstate.cure(state), step) from error


def is_passing(error: Exception) -> bool:
    """Tell whether the same call may succeed later: by its code, else by the kind of failure, never by its words."""
    import adbc_driver_manager

    state = sqlstate_of(error)
    if state is not None:
        return sqlstate.is_passing(state)
    if getattr(error, "connection_invalidated", False):
        return True
    original = getattr(error, "orig", None) or error
    lasting = (
        *(psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.IntegrityError, psycopg2.NotSupportedError),
        *(adbc_driver_manager.ProgrammingError, adbc_driver_manager.DataError, adbc_driver_manager.NotSupportedError),
    )
    return not isinstance(original, lasting)
