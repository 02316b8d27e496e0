"""`make release-check` runs every check, whatever came of those before, and each line of its table has a figure."""

from __future__ import annotations

import sys

import pytest

from release.checks import CHECKS
from release.table import Check, check_all, lines


def check(program: str, **more) -> Check:
    return Check(program[:20], (sys.executable, "-c", program), r"\d+ rows", **more)


def test_a_failure_does_not_stop_the_checks_after_it(tmp_path, capfd):
    checks = {
        "good": check("print('3 rows'); print('4 rows'); print('done')"),
        "bad": check("print('5 rows'); raise SystemExit('it went wrong')"),
        "last": check("import os; print(os.environ['HOW_MANY'], 'rows')", environment={"HOW_MANY": "6"}),
    }
    outcomes = check_all(checks, tmp_path)
    assert [(one.passed, one.figure) for one in outcomes] == [
        (True, "4 rows"), (False, "it went wrong"), (True, "6 rows"),
    ]  # fmt: skip
    assert "it went wrong" in (tmp_path / "bad.log").read_text()
    table = list(lines(outcomes))
    assert [line.split()[-2:] for line in table[1:4]] == [["4", "rows"], ["went", "wrong"], ["6", "rows"]]
    assert table[-1] == "3 checks, 1 failed"


@pytest.mark.parametrize(
    ("found", "figure"),
    [
        (check("print('nothing was counted')"), "its figure is missing"),
        (check("print('7 rows'); print('1 skipped')", absent="skipped"), "the output has 'skipped'"),
    ],
    ids=["without its figure", "skipped"],
)
def test_a_check_that_did_nothing_has_failed(tmp_path, found, figure):
    (outcome,) = check_all({"one": found}, tmp_path)
    assert (outcome.passed, outcome.figure) == (False, figure)


def test_every_check_has_a_name_and_a_command_of_this_python():
    assert {"kills", "celery", "containers", "alarms", "bench"} < set(CHECKS)
    assert {one.command[0] for one in CHECKS.values()} == {sys.executable}
    assert len({one.title for one in CHECKS.values()}) == len(CHECKS)
