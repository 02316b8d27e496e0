"""Checks that are run one after the other, whatever came of those before, and the table of their outcomes."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Check:
    """A command that has to succeed and to print its figure."""

    title: str
    command: tuple[str, ...]
    figure: str
    """A pattern; the last line of the output with it is shown."""
    environment: Mapping[str, str] = field(default_factory=dict)
    absent: str | None = None
    """A pattern that the output must not have, such as that of a test that was skipped."""


@dataclass(frozen=True)
class Outcome:
    """What came of a check."""

    title: str
    passed: bool
    seconds: float
    figure: str


def check_all(checks: Mapping[str, Check], logs: Path) -> list[Outcome]:
    """Run every check, also after one has failed, and leave what each has printed in `logs`."""
    logs.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for name, check in checks.items():
        log = logs / f"{name}.log"
        print(f"{check.title}: {log}", flush=True)
        outcomes.append(run(check, log))
        print(f"  {_result(outcomes[-1])}, {outcomes[-1].seconds:.0f} s", flush=True)
    return outcomes


def run(check: Check, log: Path) -> Outcome:
    """Run one check; without its figure it has failed, since it has not done what it is for."""
    began = time.monotonic()
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "include")])
    environment = {**os.environ, "PYTHONPATH": paths, **check.environment}
    with log.open("wb") as output:
        done = subprocess.run(
            check.command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    said = log.read_text(encoding="utf-8", errors="replace")
    found = re.findall(rf"(?m){check.figure}", said)
    figure = found[-1].strip() if found else "its figure is missing"
    unwanted = check.absent is not None and re.search(check.absent, said)
    if unwanted:
        figure = f"the output has {check.absent!r}"
    elif done.returncode != 0:
        figure = next((line for line in reversed(said.splitlines()) if line.strip()), "it printed nothing").strip()
    passed = done.returncode == 0 and bool(found) and not unwanted
    return Outcome(check.title, passed, time.monotonic() - began, figure)


def _result(outcome: Outcome) -> str:
    return "passed" if outcome.passed else "FAILED"


def lines(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the table: a line per check with its name, its result, its seconds and its figure."""
    width = max((len(one.title) for one in outcomes), default=0)
    yield f"{'check':{width}}  result  seconds  figure"
    for one in outcomes:
        yield f"{one.title:{width}}  {_result(one)}  {one.seconds:7.0f}  {one.figure}"
    failed = sum(not one.passed for one in outcomes)
    yield f"{len(outcomes)} checks, {failed} failed"
