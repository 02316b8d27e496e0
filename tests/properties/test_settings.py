"""Whatever settings a login has and whatever encodings the databases have: the same predictions as with the defaults.

The settings are drawn from those of `pg_settings` that a user may change, their values from what the server allows. For
more examples: EXAMPLES=200 .venv/bin/python -m pytest tests/properties/test_settings.py
"""

from __future__ import annotations

import os
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accents import ROWS, filled, predictions
from examples import examples
from plantao.run.reconcile import reconcile
from world import WORKER, World, administer, day

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("EXAMPLES", "0")) or examples(4)
# These refuse work or take a machine's memory, and mean no other thing: who sets them wants that.
LEFT = {"default_transaction_read_only", "transaction_read_only", "temp_buffers", "role", "session_authorization"}
STRINGS = {
    "search_path": ["public, pg_catalog", '"$user", public', ""],
    "DateStyle": ["SQL, DMY", "German", "Postgres, MDY"],
    "TimeZone": ["America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Chatham"],
    "client_encoding": ["LATIN1", "SQL_ASCII", "WIN1252"],
    "timezone_abbreviations": ["Australia", "India"],
}


@cache
def choices(server):
    """Return the settings that a user may change, each with the values to draw from."""
    found = dict(STRINGS)
    names = "select json_agg(s) from pg_settings s where context = 'user'"
    for line in administer(server, names)[0]:
        name, kind = line["name"], line["vartype"]
        if name in LEFT or name.startswith(("transaction_", "local_preload", "debug_", "log_", "trace_")):
            continue
        if kind == "bool":
            found[name] = ["on", "off"]
        elif kind == "enum":
            found[name] = line["enumvals"]
        elif kind in {"integer", "real"} and float(line["max_val"]) <= 1_000_000:
            found[name] = [line["min_val"], line["max_val"]]
    return found


@pytest.fixture(scope="module")
def expected(server, tmp_path_factory):
    with World.create(server, tmp_path_factory.mktemp("defaults"), "results_db") as world:
        assert world.score(filled(world), day(1)).counts.scored == ROWS
        return predictions(world)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_predictions_do_not_depend_on_settings_and_encodings(server, tmp_path_factory, expected, data):
    known = choices(server)
    encodings = st.sampled_from(["UTF8", "LATIN1", "WIN1252", "SQL_ASCII"])
    drawn = {"client_db": data.draw(encodings, "source"), "results_db": data.draw(encodings, "target")}
    with World.create(server, tmp_path_factory.mktemp("world"), "results_db", drawn) as world:
        job = filled(world)
        for connection, database in world.databases.items():
            for name in data.draw(st.lists(st.sampled_from(sorted(known)), max_size=12, unique=True), connection):
                value = data.draw(st.sampled_from(known[name]), name)
                given_value = value if name == "search_path" and value else f"'{value}'"
                administer(server, f'alter role {WORKER} in database {database} set "{name}" = {given_value}')
        assert world.score(job, day(1)).counts.scored == ROWS
        assert world.score(job, day(1)).counts.already_scored == ROWS
        assert reconcile(job, world.place).in_order
        assert predictions(world) == expected
