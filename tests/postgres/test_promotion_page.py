"""The way that docs/promotion.md describes, walked command by command."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import joblib
import pytest

from plantao import cli
from world import JOB, classifier, training_frame

PAGE = (Path(__file__).parents[2] / "docs" / "promotion.md").read_text(encoding="utf-8")


def sections() -> dict[str, list[str]]:
    """Return the commands of the page, stage by stage."""
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        blocks = re.findall(r"^```(\w*)\n(.*?)^```$", part, flags=re.DOTALL | re.MULTILINE)
        found[part.splitlines()[0]] = [line for kind, text in blocks if not kind for line in text.splitlines()]
    return found


@pytest.fixture
def walk(world, monkeypatch, capsys, tmp_path):
    """Return a function that runs a stage's commands, each of which must succeed, and gives back what they said."""
    frame = training_frame(seed=1)
    frame.to_parquet(tmp_path / "training.parquet")
    joblib.dump(classifier(frame), tmp_path / "model.joblib")
    monkeypatch.chdir(tmp_path)
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)

    def call(stage: str) -> str:
        said = ""
        for line in sections()[stage]:
            assert line.startswith("plantao "), line
            monkeypatch.setattr(sys, "argv", shlex.split(line))
            with pytest.raises(SystemExit) as ended:
                cli.entry()
            captured = capsys.readouterr()
            assert not ended.value.code, f"{line}\n{captured.out}\n{captured.err}"
            said += captured.out
        return said

    return call


def test_the_page_has_commands_for_every_stage():
    assert {stage: len(lines) for stage, lines in sections().items()} == {
        "On the laptop": 4,
        "On staging": 4,
        "In production": 2,
        "Back": 3,
    }


def test_the_way_there_and_back(world, walk):
    world.ready(JOB.replace("starts ", "ends = 2013-04-06\nstarts "))
    said = walk("On the laptop")
    assert "decisions changed" in said
    assert world.results("select count(*), min(model_version) from predictions.bad_reading_shadow") == [(20, 2)]
    walk("On staging")
    walk("In production")
    assert world.results("select version from plantao.model_timeline where live_until is null") == [(2,)]
    said = walk("Back")
    assert world.results("select version from plantao.model_timeline where live_until is null") == [(1,)]
    for word in ("0.03 more AUC on the same rows", "the client sees too many alarms", "rolled back", "promoted"):
        assert word in said
    assert world.results("select state from plantao.model_states order by version") == [("champion",), ("retired",)]
