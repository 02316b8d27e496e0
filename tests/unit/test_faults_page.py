"""What the pages on guarantees and faults name as their proof exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("docs/faults.md", "docs/guarantees.md")
# Tests that are written elsewhere at this moment.
COMING = {"tests/airflow/test_days.py::test_a_day_is_acted_out_and_heals", "tests/airflow/test_killed_worker.py"}


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def named(page: str) -> list[str]:
    """Return the files, folders and tests that a page names, such as `tests/unit/test_log.py::test_secrets`."""
    return sorted(set(re.findall(r"`(?:python )?(tests/[\w./]+(?:::\w+)?)", text(page))))


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("page", "test"), [(page, test) for page in PAGES for test in named(page)])
def test_what_is_named_exists(page, test):
    path, _, function = test.partition("::")
    if test in COMING and not (ROOT / path).exists():
        pytest.skip("it is being written")
    assert (ROOT / path).exists(), f"{page} names {path}"
    if function:
        assert function in functions_of(ROOT / path), f"{page} names {test}"


def test_every_fault_has_a_test_or_a_reason():
    rows = [line for line in text("docs/faults.md").splitlines() if line.startswith("|")]
    faults = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    assert [row for row in faults if len(row) != 3 and set(row) != {"---|---|---"}] == []
    faults = [row for row in faults if len(row) == 3 and row[0] != "fault"]
    assert len(faults) > 90
    for fault, done, proof in faults:
        assert done
        assert "::test_" in proof or re.match(r"none: \S", proof), fault
