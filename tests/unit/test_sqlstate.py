"""Every code of PostgreSQL is one after which a retry can help, or one after which it cannot."""

from __future__ import annotations

import adbc_driver_manager
import psycopg2
import pytest
from psycopg2 import errorcodes

from plantao.postgres import driver_errors, sqlstate

CODES = {
    name: code
    for name, code in vars(errorcodes).items()
    if isinstance(code, str) and len(code) == 5 and not name.startswith("_")
}
PASSING = {
    # connection exceptions
    *("08000", "08001", "08003", "08004", "08006", "08007", "08P01"),
    # time-outs of a transaction or of a session that is idle in one; the second came with PostgreSQL 17
    *("25P03", "25P04"),
    # serialization, deadlock, and a transaction that was rolled back
    *("40000", "40001", "40002", "40003", "40P01"),
    # disk, memory, connections, a limit of the configuration
    *("53000", "53100", "53200", "53300", "53400"),
    # in use, or locked
    *("55006", "55P03"),
    # cancelled; the server stops, crashes, starts; the database was dropped; a session that was idle too long
    *("57014", "57P01", "57P02", "57P03", "57P04", "57P05"),
    # the system around the server
    *("58000", "58030", "58P01", "58P02"),
    "72000",
    # foreign servers: the error is not further said, memory, handles, and whatever a lost connection becomes
    *("HV000", "HV001", "HV00K", "HV00L", "HV00M", "HV00N", "HV014"),
}


def test_each_code_is_classified_as_the_table_says():
    assert len(CODES) > 200
    passing = {code for code in CODES.values() if sqlstate.is_passing(code)}
    assert passing - PASSING <= {"58P03"}
    assert {code for code in PASSING if not sqlstate.is_passing(code)} == set()


@pytest.mark.parametrize("code", sorted(code for code in CODES.values() if code.startswith("HV")))
def test_a_foreign_servers_errors_are_looked_at_code_by_code(code):
    assert sqlstate.is_passing(code) == (code in PASSING)


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (psycopg2.OperationalError("la connexion a été refusée"), True),
        (psycopg2.InterfaceError("connection already closed"), True),
        (psycopg2.ProgrammingError("invalid connection option"), False),
        (psycopg2.NotSupportedError(""), False),
        (adbc_driver_manager.OperationalError("", status_code=adbc_driver_manager.AdbcStatusCode.IO), True),
        (adbc_driver_manager.DataError("", status_code=adbc_driver_manager.AdbcStatusCode.INVALID_DATA), False),
    ],
)
def test_without_a_code_the_kind_of_failure_decides(error, passing):
    assert driver_errors.is_passing(error) == passing
