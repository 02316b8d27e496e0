"""The rights that a scorer and a reader need, and nothing beyond. Pure: jobs in, SQL text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plantao.job_types import parse_table_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.job import Job

SCORER, READER = "plantao_scorer", "plantao_reader"
# What a scorer does to the tables and views of the ledger; `plantao check` asks whether it may.
LEDGER_RIGHTS = {
    "select": ("schema_migrations", "status", "metrics_latest", "model_states"),
    "select, insert": ("models", "model_events", "metrics", "alerts", "reconciliations"),
    "select, insert, update": ("model_timeline", "runs", "parts", "rejected_rows", "jobs"),
}


def grants(jobs: Sequence[Job], schema: str) -> str:
    """Return the GRANTs for two roles, to be run by the owner after `plantao init`."""
    ledger = _quoted(schema)
    lines = [
        "-- Run this as the owner of the databases, after `plantao init`. Give the roles members of your own.",
        f"-- {SCORER}: reads the sources, writes predictions and the ledger, changes nothing of the client's.",
        f"-- {READER}: reads predictions, metrics and the status.",
        *(
            f"do $$ begin create role {role} nologin; exception when duplicate_object then null; end $$;"
            for role in (SCORER, READER)
        ),
        "",
        f"grant usage on schema {ledger} to {SCORER}, {READER};",
        *(
            f"grant {rights} on {', '.join(f'{ledger}.{table}' for table in tables)} to {SCORER};"
            for rights, tables in LEDGER_RIGHTS.items()
        ),
        f"grant select on {ledger}.model_states to {READER};",
        f"grant select on {ledger}.status, {ledger}.metrics_latest, {ledger}.model_timeline to {READER};",
        f"grant select on {ledger}.reconciliations to {READER};",
    ]
    for job in jobs:
        lines += ["", f"-- job {job.name}, on connection {job.extract.connection}: the source"]
        if job.query is not None:
            lines.append(f"-- it reads a query: grant {SCORER} SELECT on every table that the query names")
        else:
            source_schema, source = parse_table_name(job.extract.table or "")
            lines.append(f"grant usage on schema {_quoted(source_schema)} to {SCORER};")
            lines.append(f"grant select on {_quoted(source_schema)}.{_quoted(source)} to {SCORER};")
        target_schema, target = parse_table_name(job.load.table)
        place = _quoted(target_schema)
        lines += [
            f"-- job {job.name}, on connection {job.load.connection}: the predictions",
            f"create schema if not exists {place};",
            f"grant usage, create on schema {place} to {SCORER};",
            f"grant usage on schema {place} to {READER};",
            f"do $$ begin grant select on {place}.{_quoted(target)} to {READER};",
            "exception when undefined_table then null; end $$;",
        ]
    return "\n".join(lines)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
