"""Day 0: "but it works on my machine". It is said before a row is read, by the check and by the run alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def plantao(world, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "plantao", "-q", *arguments],
        env={**os.environ, **world.environment},
        capture_output=True,
        text=True,
        check=False,
    )


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


def test_the_ledger_says_on_which_machine_and_with_what_a_run_was_made(world):
    world.ready()
    assert plantao(world, "run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02").returncode == 0
    environment, worker = world.results("select environment, worker from plantao.runs")[0]
    assert set(environment) == {"python", "platform", "scikit-learn", "numpy", "scipy", "pandas", "joblib"}
    assert worker
