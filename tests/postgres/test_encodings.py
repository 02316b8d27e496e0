"""Databases that are not in UTF-8, as source, as target and as ledger."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from accents import filled, predictions
from plantao.cli import setup
from plantao.errors import SourceRefused
from plantao.postgres import encoding
from plantao.preflight.check import check
from plantao.run.reconcile import reconcile
from world import World, day

SAME = ["UTF8", "LATIN1", "WIN1252", "SQL_ASCII"]
PAIRS = [*zip(SAME, SAME, strict=True), ("LATIN1", "UTF8"), ("UTF8", "WIN1252")]


def test_predictions_are_the_same_in_every_encoding(server, tmp_path):
    found = {}
    for source, results in PAIRS:
        folder = tmp_path / f"{source} {results}"
        folder.mkdir()
        encodings = {"client_db": source, "results_db": results}
        with World.create(server, folder, "results_db", encodings) as world:
            job = filled(world)
            assert world.score(job, day(1)).counts.scored == 20
            world.sql("insert into readings values ('ação tardia', '2013-04-01 09:00Z', 0.3, 'Brasília')")
            assert world.score(job, day(2)).counts.late == 1
            assert reconcile(job, world.place).in_order
            found[source, results] = predictions(world)
    assert {label for _, label, _ in found["UTF8", "UTF8"]} == {"sim", "não"}
    assert all(rows == found["UTF8", "UTF8"] for rows in found.values())


@pytest.mark.parametrize("name", ["LATIN1", "SQL_ASCII"])
def test_texts_of_ours_lose_what_the_ledgers_encoding_lacks(server, tmp_path, monkeypatch, name):
    with World.create(server, tmp_path, "results_db", {"results_db": name}) as world:
        look_at_texts(world, monkeypatch, name)


def look_at_texts(world, monkeypatch, name):
    job = filled(world)
    world.sql("create function fails() returns float8 language plpgsql as $$ begin raise exception 'falhou…'; end $$")
    world.sql("alter table readings rename to behind")
    world.sql('create view readings as select "código", at, fails() as x, "município" from behind')
    world.grant()
    with pytest.raises(SourceRefused, match="falhou…"):
        world.score(job, day(1))
    ((error, description),) = world.results(
        "select error, description from plantao.runs join plantao.jobs on jobs.job = runs.job"
    )
    lost = "…" if name == "SQL_ASCII" else "?"
    assert f"falhou{lost}" in error
    assert f"sim {lost} ou não" in description
    (line,) = [line.answer for line in check(world.place).lines if line.of == "results_db: ledger"]
    assert (line.state, name in line.what, "UTF8" in line.cure) == ("WARN", True, True)
    for variable, value in world.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AIRFLOW_CONN_RESULTS_DB", world.owner("results_db").url())
    said = CliRunner().invoke(_command(setup.init), []).output
    assert f"its database is in {name}" in said


def _command(function):
    app = typer.Typer()
    app.command()(function)
    return app


def test_what_a_codec_lacks_is_replaced_in_texts_lists_and_json():
    given = {"a": "é € b", "b": ["…", 1, None], "c": '{"d": "\\u2026 \\u00e9 \\n", "e": 1.5}', "f": "{no json \\u2026"}
    assert encoding.replaced(given, "iso8859_1") == {
        "a": "é ? b",
        "b": ["?", 1, None],
        "c": '{"d": "? é \\n", "e": 1.5}',
        "f": "{no json \\u2026",
    }
