"""The settings that every session pins before its first statement that matters. Pure.

A session inherits the settings of the server, of the database and of the login. Some of them change what SQL means, or
how values are written. `STATEMENT` sets all of PINNED in one round trip. A server that is too old for a setting has no
need of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pin(NamedTuple):
    """A setting, its value, and the reason for it."""

    name: str
    value: str
    reason: str


PINNED = (
    Pin("row_security", "off", "a policy would hide rows in silence; off, the server refuses with 42501"),
    # what SQL means
    Pin("standard_conforming_strings", "on", "off, a backslash in a quoted key begins an escape"),
    Pin("backslash_quote", "safe_encoding", "how E'' strings read a quote"),
    Pin("escape_string_warning", "on", "the default; a warning is kept out of the results by client_min_messages"),
    Pin("array_nulls", "on", "off, a NULL in an array is the text 'NULL'"),
    Pin("transform_null_equals", "off", "on, `x = NULL` means `x IS NULL`"),
    Pin("gin_fuzzy_search_limit", "0", "otherwise a search by a GIN index finds only some of its rows"),
    Pin("quote_all_identifiers", "off", "names that the server writes would change"),
    Pin("xmlbinary", "base64", "how binary values are written in XML"),
    Pin("xmloption", "content", "what text may become XML"),
    Pin("timezone_abbreviations", "Default", "what `EST` means in a timestamp"),
    Pin("default_transaction_isolation", "read committed", "statements after a wait see what was committed meanwhile"),
    Pin("default_transaction_deferrable", "off", "on, a read-only serializable transaction waits before it begins"),
    Pin("exit_on_error", "off", "on, the server ends a session at its first error, and the next step finds none"),
    Pin("restrict_nonsystem_relation_kind", "", "'view' and 'foreign-table' refuse sources of these kinds"),
    # how values are written
    Pin("client_encoding", "UTF8", "both drivers read UTF-8, whatever encoding the database has"),
    Pin("datestyle", "ISO, YMD", "dates as text, both ways"),
    Pin("intervalstyle", "postgres", "intervals as text"),
    Pin("timezone", "UTC", "instants as text and local days; a job's zone is named where it counts"),
    Pin("extra_float_digits", "1", "floats as text keep every bit"),
    Pin("bytea_output", "hex", "bytes as text"),
    Pin("lc_numeric", "C", "to_char and to_number"),
    Pin("lc_monetary", "C", "money as text"),
    Pin("lc_time", "C", "names of days and months in to_char"),
    # time-outs
    Pin("statement_timeout", "{statement:g}s", "no statement waits for ever"),
    Pin("lock_timeout", "{lock:g}s", "a session in the client's way gives up"),
    Pin("idle_in_transaction_session_timeout", "{idle:g}s", "a frozen worker holds no lock for ever"),
    Pin("transaction_timeout", "0", "the limits above count; a login's own would cut a long read or load"),
    Pin("idle_session_timeout", "0", "the ledger's session is idle while a window is scored"),
    Pin("client_min_messages", "warning", "a notice is no result"),
)

# The path of a session that runs only our SQL: no function of anybody else's is ever called.
CLOSED_PATH = "pg_catalog, pg_temp"
# ADBC reads the types of the catalog while it connects, with the path and the quoting that the session has by then.
AT_CONNECT = "-c search_path=pg_catalog,pg_temp -c quote_all_identifiers=off"
# The path of a session that also runs SQL of a job file: as the login has it, behind pg_catalog.
LOGIN_PATH = None

# With their schema, and without operators: the login's own path still counts while this runs.
_SETTING = (
    "case when pg_catalog.current_setting({name}, true) is not null"
    " then pg_catalog.set_config({name}, {value}, false) end"
)
_AS_BYTES = (
    "case when pg_catalog.current_setting('server_encoding') operator(pg_catalog.=) 'SQL_ASCII'"
    " then pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) end"
)
_SET_PATH = "pg_catalog.set_config('search_path', {path}, {local})"
PATH_OF_LOGIN = "pg_catalog.btrim(pg_catalog.concat('pg_catalog, ', pg_catalog.current_setting('search_path')), ', ')"


def statement(
    path: str, application: str, process: int | None, seconds: Mapping[str, float], *, unchecked: bool = False
) -> str:
    """Return the SELECT that pins everything; `seconds` has the time-outs `statement`, `lock` and `idle`.

    `path` is a list of names that are quoted already. With `process`, the one of the server that the driver knows, it
    pins nothing and returns no row when another one answers: then a pooler is in between. `unchecked` is for whoever
    can do with bytes that are no text: a database without an encoding (SQL_ASCII) would refuse to send them as UTF-8.
    """
    settings = [
        _SETTING.format(name=_literal(pin.name), value=_literal(pin.value.format_map(seconds))) for pin in PINNED
    ]
    settings += [
        f"pg_catalog.set_config('application_name', {_literal(application[:63])}, false)",
        _SET_PATH.format(path=_literal(path), local="false"),
    ]
    if unchecked:
        settings.append(_AS_BYTES)
    only_there = "" if process is None else f" where pg_catalog.pg_backend_pid() operator(pg_catalog.=) {process}"
    return f"select {', '.join(settings)}{only_there}"


def follow_login() -> tuple[str, str]:
    """Return the statements that give a transaction the path of LOGIN_PATH, in a session that has another one."""
    return "set local search_path to default", f"select {_SET_PATH.format(path=PATH_OF_LOGIN, local='true')}"


def _literal(value: str) -> str:
    """Return a string in the one form that means the same whatever `standard_conforming_strings` is."""
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
