"""The address of a database, spelt as an Airflow connection.

The same variable serves inside and outside Airflow: `AIRFLOW_CONN_CLIENT_DB` holds a URI
(`postgres://user:password@host:5432/database?sslmode=require`) or Airflow's JSON. Printing an address never
shows its password.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from plantao.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What of a connection's "extra" goes on to PostgreSQL's client library; the rest is Airflow's own business.
LIBPQ_OPTIONS = {
    *("host", "hostaddr", "port", "options", "passfile", "service", "target_session_attrs", "load_balance_hosts"),
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "ssl_min_protocol_version"),
    *("gssencmode", "krbsrvname", "channel_binding", "require_auth", "connect_timeout", "client_encoding"),
}


@dataclass(frozen=True)
class Address:
    """Where a database is and how to log in; `parameters` are those of PostgreSQL's client library."""

    name: str
    parameters: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.url(password=False)})"

    def url(self, *, password: bool = True) -> str:
        """Return the address as a URL that `psql` takes, with or without the password."""
        rest = dict(self.parameters)
        user, secret = quote(rest.pop("user", ""), safe=""), quote(rest.pop("password", ""), safe="")
        host = rest.get("host", "")
        login = f"{user}:{secret if password else '***'}@" if secret else f"{user}@" if user else ""
        place = ""
        if host and not host.startswith("/"):
            del rest["host"]
            place = f"[{host}]" if ":" in host else host
            place += f":{rest.pop('port')}" if "port" in rest else ""
        database = quote(rest.pop("dbname", ""), safe="")
        return f"postgresql://{login}{place}/{database}" + (f"?{urlencode(rest)}" if rest else "")


def parse(name: str, text: str) -> Address:
    """Read an Airflow connection, a URI or JSON. Raises UsageError without ever repeating the text, a secret."""
    try:
        found = fields(text)
        if not re.fullmatch(r"postgres(ql)?(\+\w+)?", found.get("conn_type", "postgres")):
            raise ValueError  # noqa: TRY301 - like everything else that is wrong with the text
        return from_parts(
            name,
            host=found.get("host"),
            port=found.get("port"),
            database=found.get("schema"),
            login=found.get("login"),
            password=found.get("password"),
            extra=found["extra"],
        )
    except (ValueError, TypeError, AttributeError) as error:
        variable = f"AIRFLOW_CONN_{name.upper()}"
        message = f"the connection {name!r} cannot be read ({type(error).__name__})."
        advice = f"write {variable} as postgres://user:password@host:5432/database, special characters %-encoded"
        raise UsageError(message, advice) from None


def from_parts(  # noqa: PLR0913 - the fields of an Airflow connection
    name: str,
    *,
    host: str | None,
    port: int | None,
    database: str | None,
    login: str | None,
    password: str | None,
    extra: Mapping[str, Any],
) -> Address:
    """Put an address together from the fields of an Airflow connection."""
    parts = {"host": host, "port": port, "dbname": database, "user": login, "password": password}
    chosen = {key: str(value) for key, value in extra.items() if key in LIBPQ_OPTIONS}
    return Address(name, {**chosen, **{key: str(value) for key, value in parts.items() if value}})


def from_connection(name: str, found: Any) -> Address:
    """Return the address in a connection object of Airflow's, wherever Airflow has looked it up."""
    return from_parts(
        name,
        host=found.host,
        port=found.port,
        database=found.schema,
        login=found.login,
        password=found.password,
        extra=found.extra_dejson,
    )


def fields(text: str) -> dict[str, Any]:
    """Return the fields of an Airflow connection, a URI or JSON, under Airflow's own names; `extra` is a mapping."""
    if text.lstrip().startswith("{"):
        content = json.loads(text)
        extra = content.get("extra") or {}
        return {**content, "extra": json.loads(extra) if isinstance(extra, str) else extra}
    parts = urlsplit(text)
    extra = dict(parse_qsl(parts.query))
    return {
        "conn_type": parts.scheme,
        "host": unquote(parts.hostname or ""),
        "port": parts.port,
        "schema": unquote(parts.path.lstrip("/")),
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "extra": json.loads(extra["__extra__"]) if "__extra__" in extra else extra,
    }


def from_environment(name: str, environment: Mapping[str, str] | None = None) -> Address | None:
    """Return the address that AIRFLOW_CONN_<NAME> gives, or None when it is not set (or set to nothing)."""
    text = (environment or os.environ).get(f"AIRFLOW_CONN_{name.upper()}")
    return parse(name, text) if text else None
