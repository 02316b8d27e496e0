"""Day 0: "but it works on my machine". It is said before a row is read, by the check and by the run alike."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import warm
from world import training_frame


def plantao(world, *arguments):
    return warm.module("plantao", "-q", *arguments, environment={**os.environ, **world.environment})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["environment"].update({"scikit-learn": "1.2.2"}), "scikit-learn was 1.2.2 at training"),
        (lambda m: m["golden"]["answers"][0].__setitem__(0, 0.987), "golden rows differently here"),
    ],
    ids=["another library", "other answers"],
)
def test_a_model_that_worked_elsewhere_is_refused_here_with_what_differs_and_what_to_do(world, change, said):
    world.ready()
    path = world.folder / "models" / "bad_reading" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))

    checked = plantao(world, "check")
    assert checked.returncode == 1
    assert said in checked.stdout

    ran = plantao(world, "run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02")
    assert ran.returncode == 1
    assert said in ran.stderr
    assert "nothing was written" in ran.stderr
    assert "Next: " in ran.stderr
    assert "Traceback" not in ran.stderr
    assert world.attempts("status") == [("failed",)]
    assert world.results("select to_regclass('predictions.bad_reading')") == [(None,)]


LIBRARY = """
def prepare(frame):
    {body}
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A package that the model's preprocessing comes from, and how to install another release of it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def install(body):
        (folder / "client_features.py").write_text(LIBRARY.format(body=body))

    yield install
    sys.modules.pop("client_features", None)


def test_an_upgrade_that_changes_what_the_model_answers_is_caught_by_the_check_the_promotion_and_the_run(
    world, library
):
    library("return frame.fillna(0.0)")
    import client_features

    frame = training_frame()
    features = make_pipeline(FunctionTransformer(client_features.prepare), LogisticRegression())
    world.fill()
    world.job()
    for _ in range(2):
        world.register(features.fit(frame[["x", "y"]], frame["bad"]), frame)
    first = ("run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02")
    second = ("run", "bad_reading", "--from", "2013-04-02", "--to", "2013-04-03")
    assert plantao(world, "check").returncode == 0
    assert plantao(world, *first).returncode == 0

    # The next release fills gaps with something else. Nothing fails, no version that anybody compares is another one.
    library("return frame.fillna(frame.mean() + 1.0)")
    checked, ran = plantao(world, "check"), plantao(world, *second)
    promoted = plantao(world, "models", "promote", "bad_reading", "2", "--why", "it was trained again")
    assert (checked.returncode, promoted.returncode, ran.returncode) == (1, 1, 1)
    said = r"answers \d+ of its \d+ golden rows differently here than at registration \(by up to 0\.\d+; 1e-06"
    assert re.search(rf"FAIL\tbad_reading: model\t.*{said}", checked.stdout)
    assert re.search(said, ran.stderr)
    assert re.search(
        rf"does not let bad_reading/2 become champion; nothing was changed:\n  - .*{said}", promoted.stderr
    )
    assert world.results("select version from plantao.model_timeline") == [(1,)]
    assert world.attempts("status") == [("succeeded",), ("failed",)]
    assert world.results("select count(*) from predictions.bad_reading") == [(20,)]

    # And one that only computes in another way is let through.
    library("return frame.where(frame.notna(), 0.0) * 1.0")
    assert plantao(world, "check").returncode == plantao(world, *second).returncode == 0
    assert world.results("select count(*) from predictions.bad_reading") == [(40,)]


def test_another_lock_file_is_a_warning_of_the_check(world):
    lock = world.folder / "requirements.txt"
    lock.write_text("scikit-learn==1.9.1\n")
    world.ready()
    assert "bad_reading: environment" not in plantao(world, "check").stdout
    lock.write_text("scikit-learn==1.9.1 # and more\n")
    checked = plantao(world, "check")
    assert checked.returncode == 0
    assert "WARN\tbad_reading: environment\tlock was sha256:" in checked.stdout
    assert plantao(world, "run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02").returncode == 0
    written = world.results("select environment->>'lock' from plantao.runs")
    assert written == [(f"sha256:{hashlib.sha256(lock.read_bytes()).hexdigest()}",)]


def test_the_ledger_says_on_which_machine_and_with_what_a_run_was_made(world):
    world.ready()
    assert plantao(world, "run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02").returncode == 0
    environment, worker = world.results("select environment, worker from plantao.runs")[0]
    assert set(environment) == {"python", "platform", "scikit-learn", "numpy", "scipy", "pandas", "joblib"}
    assert worker
