"""What PostgreSQL's five-letter codes mean to us: may the same call succeed later, and if not, what to do. Pure."""

from __future__ import annotations

import re

# Classes and codes after which the same call may succeed: connection, resources, operator intervention, serialization
# and deadlock, lock not available, time-outs.
PASSING = ("08", "53", "57P", "40", "55P03", "57014", "25P03", "25P04", "58")
# A login that fails has a sentence and no code by the time it gets here.
LOGIN = {
    "28P01": r"authentication failed|no password supplied",
    "28000": r"role .* does not exist|no pg_hba\.conf entry|is not permitted to log in",
    "3D000": r"database .* does not exist",
    "42501": r"permission denied for database",
}
CURES = {
    "28000": "let this login in at the server (CREATE ROLE … LOGIN, pg_hba.conf), or correct the connection",
    "28P01": "correct the password of the connection",
    "3D000": "correct the database name of the connection",
    "42501": "grant the right that is named (plantao init --print-grants lists what is needed)",
    "42601": "correct the query in the job file",
    "42703": "correct the column in the job file, or ask the client what became of it",
    "42P01": "create the table, or correct its name in the job file",
}


def of_login(said: str) -> str | None:
    """Return the code of a login that failed, from the server's sentence; None when it was something else."""
    return next((code for code, words in LOGIN.items() if re.search(words, said)), None)


def is_passing(code: str) -> bool:
    """Tell whether the same call may succeed later."""
    return code.startswith(PASSING)


def cure(code: str | None) -> str:
    """Return what to do when a call was refused for good."""
    return CURES.get(code or "", "read the server's message above")
