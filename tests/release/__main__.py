"""`make release-check`: all that takes too long for `make test`, one after the other, and a table of what came of it.

    make release-check RELEASE="--only kills celery"

It goes on after a failure, and its exit status is 1 then. What each check has printed stays under .plantao/release.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import reaper
from release.checks import CHECKS
from release.table import check_all, lines

LOGS = Path(__file__).parents[2] / ".plantao" / "release"


def main() -> int:
    """Run the checks, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(CHECKS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=" ".join(names))
    chosen = parser.parse_args().only
    reaper.watch_over(Path(tempfile.mkdtemp(prefix="plantao-release-")))
    outcomes = check_all({name: CHECKS[name] for name in names if name in chosen}, LOGS)
    print("\n" + "\n".join(lines(outcomes)))
    return 0 if all(one.passed for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
