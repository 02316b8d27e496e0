"""A database of a job: does it answer, is its clock this machine's, and is there a ledger we may write to?"""

from __future__ import annotations

import contextlib
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao.errors import DatabaseUnavailable, PlantaoError
from plantao.ledger import migrate
from plantao.postgres import driver_errors, sqlstate
from plantao.postgres import session as database
from plantao.postgres.encoding import UTF8
from plantao.preflight import grants
from plantao.preflight.result import fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from plantao.preflight.result import Answer, Page
    from plantao.runtime import Place

ANSWER_SECONDS = 30
NOT_UTF8 = "texts lose the characters that this encoding lacks, and a key or a label with one stops its run"
UTF8_CURE = "make a database for the ledger with: create database … template template0 encoding 'UTF8'"
CLOCK_WARN_SECONDS, CLOCK_FAIL_SECONDS = 5.0, 60.0
clock: Callable[[], float] = time.time


@dataclass(frozen=True)
class Reached:
    """What of a connection can be built upon."""

    answers: bool
    has_ledger: bool


def ask(page: Page, name: str, place: Place, *, holds_ledger: bool) -> Reached:
    """Ask about one connection; about its ledger only where a job writes to it."""
    with contextlib.ExitStack() as stack:
        session = page.ask(f"{name}: connection", lambda: _open(stack, name, place))
        if session is None:
            return Reached(answers=False, has_ledger=False)
        page.ask(f"{name}: clock", lambda: (_clock(session), True))
        ledger = page.ask(f"{name}: ledger", lambda: (_ledger(session, name, place), True)) if holds_ledger else None
        return Reached(answers=True, has_ledger=ledger is not None)


@contextmanager
def session_at(name: str, place: Place, doing: str) -> Iterator[Connection]:
    """Open a session on a connection to ask something."""
    with (
        database.session(place.address(name), place.settings.schema, "plantao/check") as session,
        asking(session, doing),
    ):
        yield session


@contextmanager
def asking(session: Connection, doing: str) -> Iterator[None]:
    """Wait at most ANSWER_SECONDS for answers, and explain what goes wrong."""
    with driver_errors.explained("", PlantaoError, doing), database.deadline(session, ANSWER_SECONDS):
        yield


def _open(stack: contextlib.ExitStack, name: str, place: Place) -> tuple[Answer, Connection | None]:
    address = place.address(name)
    try:
        session = stack.enter_context(database.session(address, place.settings.schema, "plantao/check"))
    except DatabaseUnavailable as error:
        cure = f"start the server, or let this machine reach it; AIRFLOW_CONN_{name.upper()} says where it is"
        return fail(error.what, cure), None
    return ok(f"{address}: {database.server_of(session)}"), session


def _clock(session: Connection) -> Answer:
    with asking(session, "reading the clock"):
        return clock_answer(*_measured(session))


def _measured(session: Connection) -> tuple[float, float]:
    """Return how many seconds the database's clock is ahead, and how far off that may be: half a round trip."""
    found = []
    for _ in range(3):
        sent = clock()
        with session.begin():
            there = session.execute(text("select extract(epoch from clock_timestamp())::float8")).scalar_one()
        received = clock()
        found.append((there - (sent + received) / 2, (received - sent) / 2))
    return min(found, key=lambda pair: pair[1])


def clock_answer(ahead: float, uncertain: float) -> Answer:
    """Judge the difference between two clocks; only what no delay on the way explains counts. Pure."""
    certain = max(0.0, abs(ahead) - uncertain)
    if certain < CLOCK_WARN_SECONDS:
        return ok(f"as this machine's, within {abs(ahead) + uncertain:.1g} s")
    what = f"{certain:.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    cure = "let both machines follow NTP; `timedatectl` on each says whether it does"
    return (fail if certain >= CLOCK_FAIL_SECONDS else warn)(what, cure)


def _ledger(session: Connection, name: str, place: Place) -> Answer:
    schema, where = place.settings.schema, str(place.address(name))
    with asking(session, f"looking at the ledger in {where}"):
        number = migrate.require_current(session, schema, where)
        lacking = grants.lacking_at_ledger(session, schema)
        policies = grants.under_policies(session, schema)
    if lacking:
        return fail(f"the login may not {', '.join(lacking)}", grants.cure(name))
    if policies:
        return fail(f"policies (row-level security) hide rows of {', '.join(policies)}", sqlstate.POLICY_CURE)
    server = database.server_of(session)
    if server.read_only or server.in_recovery:
        return fail(f"nothing can be written there: {server}", sqlstate.cure("25006"))
    if server.encoding != UTF8:
        return warn(f"schema {schema}, migration {number}; its database is in {server.encoding}: {NOT_UTF8}", UTF8_CURE)
    return ok(f"schema {schema}, migration {number}")
