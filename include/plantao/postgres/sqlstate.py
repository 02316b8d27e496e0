"""What PostgreSQL's five-letter codes mean to us: may the same call succeed later, and if not, what to do. Pure."""

from __future__ import annotations

# Classes and codes after which the same call may succeed: connection, resources, operator intervention, serialization
# and deadlock, object in use, lock not available, time-outs, a snapshot that is too old, the system around the server.
PASSING = ("08", "53", "57P", "40", "55006", "55P03", "57014", "25P03", "25P04", "58", "72")
# A foreign server's class of errors has both kinds. These are: not further said, no memory, no connection, no execution
# or reply (a connection that was lost meanwhile), too many handles.
PASSING_FOREIGN = ("HV000", "HV001", "HV00K", "HV00L", "HV00M", "HV00N", "HV014")
POLICY_CURE = (
    "let the login see all rows, if a policy (row-level security) is named: ALTER ROLE … BYPASSRLS, or a view of a"
    " role that sees them"
)
WIDER = "move to a database in UTF8 (CREATE DATABASE … ENCODING 'UTF8'): the encoding of this one lacks a character"
CURES = {
    "22021": "correct the bytes in the client's database: they are no text in its encoding",
    "22P05": WIDER,
    "25006": "connect to the primary, or let the login write: ALTER ROLE … SET default_transaction_read_only = off",
    "28000": "let this login in at the server (CREATE ROLE … LOGIN, pg_hba.conf), or correct the connection",
    "28P01": "correct the password of the connection",
    "3D000": "correct the database name of the connection",
    # A missing right and a policy have one code, and the words are in the server's language.
    "42501": f"grant the right that is named (plantao init --print-grants lists what is needed); {POLICY_CURE}",
    "42601": "correct the query in the job file",
    "42703": "correct the column in the job file, or ask the client what became of it",
    "42P01": "create the table, or correct its name in the job file",
}


def is_passing(code: str) -> bool:
    """Tell whether the same call may succeed later."""
    return code.startswith(PASSING) or code in PASSING_FOREIGN


def cure(code: str | None) -> str:
    """Return what to do when a call was refused for good."""
    return CURES.get(code or "", "read the server's message above")
