"""The rights that a scorer and a reader need, and nothing beyond. Pure. Jobs in, SQL text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.config.job import Job
    from plantao.config.table_name import Table

SCORER, READER = "plantao_scorer", "plantao_reader"
MARKS = "plantao_tables"
"""The table, in the schema of predictions, that names the owner of each prediction table there."""
# What a scorer does to the tables and views of the ledger; `plantao check` asks whether it may.
LEDGER_RIGHTS = {
    "select": ("schema_migrations", "ledger", "status", "metrics_latest", "model_states", "all_runs"),
    "select, insert": (
        *("models", "model_events", "metrics", "reconciliations", "reference_versions", "log_events"),
        "incident_events",
    ),
    "select, insert, update": (
        *("runs", "parts", "rejected_rows", "jobs", "incidents", "heartbeats"),
        *("alerts", "digests", "table_checks", "coverage"),
    ),
    "select, insert, update, delete": ("daily_state", "daily_outcomes"),  # sums that can be counted anew
    "select, insert, delete": ("stale_days",),
    "select, insert, update (live_until)": ("model_timeline",),  # an interval is closed, and never written anew
}
READ_BY_ALL = (
    *("daily_state", "daily_outcomes", "incidents", "incident_events", "reference_versions"),
    *("heartbeats", "log_events"),
)


def grants(jobs: Sequence[Job], ledgers: Sequence[str], schema: str) -> dict[str, str]:
    """Return the GRANTs for two roles, by connection: each text is complete for the database of its connection.

    `ledgers` are the connections where `plantao init` has made a ledger, in `schema`: those that the jobs load into.
    """
    lines = {connection: _ledger(connection, schema) for connection in ledgers}
    for job in jobs:
        lines.setdefault(job.extract.connection, _database(job.extract.connection, SCORER))
        lines[job.extract.connection] += ["", *_source(job), *_outcomes(job)]
        lines[job.load.connection] += ["", *_predictions(job)]
    return {connection: "\n".join(text) for connection, text in lines.items()}


def _database(connection: str, *roles: str) -> list[str]:
    return [
        f"-- connection {connection}: run this there as the owner, after `plantao init`, then grant to your logins:",
        f"-- {SCORER}: reads the sources, writes predictions and the ledger, changes nothing of the client's.",
        f"-- {READER}: reads predictions, metrics and the status.",
        *(_unless("duplicate_object", f"create role {role} nologin") for role in roles),
        *(_in_this_database(f"grant connect on database %I to {role}") for role in roles),
    ]


def _ledger(connection: str, schema: str) -> list[str]:
    ledger = _quoted(schema)
    return [
        *_database(connection, SCORER, READER),
        _in_this_database(f"grant temporary on database %I to {SCORER}"),
        "",
        f"grant usage on schema {ledger} to {SCORER}, {READER};",
        *(
            f"grant {rights} on {', '.join(f'{ledger}.{table}' for table in tables)} to {SCORER};"
            for rights, tables in LEDGER_RIGHTS.items()
        ),
        f"grant select on {ledger}.model_states to {READER};",
        f"grant select on {ledger}.status, {ledger}.metrics_latest, {ledger}.model_timeline to {READER};",
        f"grant select on {ledger}.reconciliations to {READER};",
        f"grant select on {', '.join(f'{ledger}.{table}' for table in READ_BY_ALL)} to {READER};",
    ]


def _source(job: Job) -> list[str]:
    if job.query is not None:
        asked = f"grant {SCORER} SELECT on every table that the query names, and USAGE on their schemas"
        return [f"-- job {job.name}: the source is a query: {asked}"]
    assert job.extract.table is not None
    schema, source = job.extract.table
    return [
        f"-- job {job.name}: the source",
        f"grant usage on schema {_quoted(schema)} to {SCORER};",
        f"grant select on {_quoted(schema)}.{_quoted(source)} to {SCORER};",
    ]


def _outcomes(job: Job) -> list[str]:
    lines = []
    for what, where in (("outcomes", job.measure.outcome), ("actions", job.measure.action)):
        if where is not None:
            grant = reading(where.table)
            # The client may make the table later than the job; its owner then runs this again.
            lines += [f"-- job {job.name}: the {what}", *(_unless(condition, one) for condition, one in grant)]
    return lines


def reading(table: Table) -> list[tuple[str, str]]:
    """Return the GRANTs with which a scorer may read a table, each with the condition of its not being there yet."""
    schema, name = table
    return [
        ("invalid_schema_name", f"grant usage on schema {_quoted(schema)} to {SCORER}"),
        ("undefined_table", f"grant select on {_quoted(schema)}.{_quoted(name)} to {SCORER}"),
    ]


def _predictions(job: Job) -> list[str]:
    place = _quoted(job.load.table.schema)
    table, history = (f"{place}.{_quoted(one.name)}" for one in (job.load.table, job.load.table.history))
    there_already = [
        f"grant select on {table} to {READER}",
        f"grant select, insert, delete on {table} to {SCORER}",
        f"grant select on {history} to {READER}",
        f"grant select, insert on {history} to {SCORER}",
        f"grant select on {place}.{MARKS} to {READER}",
        f"grant select, insert, update on {place}.{MARKS} to {SCORER}",
    ]
    return [
        f"-- job {job.name}: the predictions",
        f"create schema if not exists {place};",
        f"grant usage, create on schema {place} to {SCORER};",
        f"grant usage on schema {place} to {READER};",
        *(_unless("undefined_table", statement) for statement in there_already),
    ]


def _unless(condition: str, statement: str) -> str:
    # A literal and no dollar quotes: a name may hold dollars.
    return f"do {_literal(f'begin {statement}; exception when {condition} then null; end')};"


def _in_this_database(statement: str) -> str:
    return f"do {_literal(f'begin execute format({_literal(statement)}, current_database()); end')};"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
