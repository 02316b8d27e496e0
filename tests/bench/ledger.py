"""What years of history cost: a ledger with a thousand runs beside one with a million.

    PYTHONPATH=tests python tests/bench/ledger.py                       1,000 and 1,000,000 runs
    PYTHONPATH=tests python tests/bench/ledger.py --runs 1000 20000     other sizes; the last ratio is of the last two

Each line is the median of some calls in one process: what the command does, without the start of Python.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import long_ledger
from plantao.alert.send import deliver_everywhere
from plantao.ledger import jobs
from plantao.preflight.check import check
from plantao.report.read import read_report
from plantao.run import run
from plantao.window import Window
from watching import Voice, dog
from world import World, serving

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_TIMES = 1.5


def main() -> int:
    """Print the table; 1 when a ratio is beyond MOST_TIMES."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--calls", type=int, default=7)
    options = parser.parse_args()
    found: list[dict[str, float]] = []
    for runs in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o711)
            found.append(measured(Path(folder), runs, options.calls))
    print(f"{'seconds':<24}" + "".join(f"{f'{runs:,} runs':>18}" for runs in options.runs) + f"{'ratio':>8}")
    worst = 0.0
    for name in found[0]:
        ratio = found[-1][name] / found[0][name]
        worst = max(worst, ratio)
        print(f"{name:<24}" + "".join(f"{one[name]:>18.3f}" for one in found) + f"{ratio:>8.2f}")
    print(f"years of history cost at most {worst:.2f} times as much")
    return int(worst > MOST_TIMES)


def measured(folder: Path, runs: int, calls: int) -> dict[str, float]:
    """Return the median seconds of each command on a ledger with so many runs."""
    (folder / "world").mkdir()
    with serving(folder / "state") as server, World.create(server, folder / "world") as world:
        world.fill(days=2)
        world.register()
        job = long_ledger.long_job(world, runs)
        world.score(job, Window(long_ledger.NEXT - timedelta(days=1), long_ledger.NEXT))
        began = time.perf_counter()
        long_ledger.fill(world, runs)
        long_ledger.analyze(world)
        print(f"{runs:,} runs are there after {time.perf_counter() - began:.0f} s", file=sys.stderr)
        window = Window(long_ledger.NEXT, long_ledger.NEXT + timedelta(minutes=long_ledger.MINUTES))
        world.score(job, window)
        deliver_everywhere(world.place, Voice())

        def status() -> None:
            with world.place_session(job) as connection:
                jobs.status(connection)

        def report() -> None:
            with world.place_session(job) as connection:
                read_report(connection, job, (long_ledger.NEXT - timedelta(days=3)).date(), long_ledger.NEXT.date())

        commands: dict[str, Callable[[], Any]] = {
            "a run again": lambda: world.score(job, window),
            "the view status": status,
            "what is missing": lambda: run.owed_windows(job, world.place),
            "plantao watch --once": lambda: dog(world, Voice()).look(),
            "the digest": lambda: deliver_everywhere(world.place, Voice()),
            "plantao check": lambda: check(world.place),
            "the report": report,
        }
        return {name: median(call, calls) for name, call in commands.items()}


def median(call: Callable[[], Any], calls: int) -> float:
    """Return the median seconds of some calls, after one that warms up."""
    seconds = []
    for _ in range(calls + 1):
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    sys.exit(main())
