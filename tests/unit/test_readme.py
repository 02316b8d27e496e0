"""What the README shows is true: its job file is one, its commands and links exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from plantao.cli import app
from plantao.config import job_file

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_job_file_it_shows_is_a_job():
    (shown,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    job = job_file.parse("flight_delay", shown, read_query=lambda _: "")
    whole = tomllib.loads((ROOT / "include" / "jobs" / "flight_delay.toml").read_text())
    for section, values in tomllib.loads(shown).items():
        if isinstance(values, dict):
            assert values.items() <= whole[section].items()
        else:
            assert whole[section] == values
    assert job.cron == "0 0 * * *"


def commands() -> list[list[str]]:
    block = README[README.index("plantao check                    will") :]
    return [line.split()[1:] for line in block[: block.index("```")].splitlines() if line.startswith("plantao ")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_it_names_exists(words):
    import typer.main

    command = typer.main.get_command(app)
    assert words[0] in command.commands
    group = command.commands[words[0]]
    if hasattr(group, "commands"):
        named = [words[1], *(words[place + 1] for place, word in enumerate(words) if word == "|")]
        assert set(named) <= set(group.commands)
        group = group.commands[words[1]]
    options = {option for parameter in group.params for option in parameter.opts}
    assert {word.strip(";,") for word in words if word.startswith("--")} <= options


def test_every_command_there_is_is_named():
    import typer.main

    assert set(typer.main.get_command(app).commands) == {words[0] for words in commands()}


@pytest.mark.parametrize("page", ["README.md", *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/*.md"))])
def test_its_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_every_make_target_it_names_exists():
    lines = re.findall(r"^([a-z0-9 -]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    targets = {target for line in lines for target in line.split()}
    assert set(re.findall(r"make ([a-z0-9-]+)", README)) <= targets
