"""The Debian packages that some tests need, from debian-packages.txt.

`python tests/debian_packages.py` prints the missing ones; CI installs them. Standard library only, until a test asks.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from glob import glob
from pathlib import Path

LIST = Path(__file__).with_name("debian-packages.txt")
SKIPPED = "needs the Debian package "


@dataclass(frozen=True)
class Package:
    """A Debian package, the programs that show its presence, and the reason for it."""

    name: str
    programs: tuple[str, ...]
    why: str

    def program(self) -> Path | None:
        """Return the first of its programs that this machine has."""
        for program in self.programs:
            found = sorted(glob(program)) if "/" in program else [shutil.which(program)]
            if found and found[-1]:
                return Path(found[-1])
        return None


def packages() -> dict[str, Package]:
    """Return the packages of the list by name."""
    found = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        words, _, why = line.partition("#")
        if words.strip():
            name, *programs = words.split()
            found[name] = Package(name, tuple(programs), why.strip())
    return found


def need(name: str) -> Path:
    """Return a package's program. Without it the test is skipped; in CI it fails."""
    import pytest

    program = packages()[name].program()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SKIPPED}{name}, and CI skips no test: {install([name])}", pytrace=False)
        pytest.skip(f"{SKIPPED}{name}")
    return program


def install(names: list[str]) -> str:
    """Return the command that installs packages."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {' '.join(sorted(names))}"


def summary(reasons: list[str]) -> list[str]:
    """Return what to print about missing packages, from the reasons of all skipped tests."""
    counts = Counter(reason.partition(SKIPPED)[2] for reason in reasons if SKIPPED in reason)
    if not counts:
        return []
    known = packages()
    lines = [f"  {name}: {known[name].why} ({number} skipped)" for name, number in sorted(counts.items())]
    return [
        "Tests were skipped, because these Debian packages are missing:",
        *lines,
        "Next:",
        f"  {install([*counts])}",
    ]


if __name__ == "__main__":
    print(*(package.name for package in packages().values() if package.program() is None))
