"""How often is somebody woken for nothing, and how soon when something is wrong? On simulated streams without drift.

    python tests/bench/alarms.py                  200 streams of 100 production days
    python tests/bench/alarms.py --streams 1000   more

`tests/streams.py` says what the streams are. The lane opens when something opens and nothing was open before.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "include")]

import streams  # noqa: E402 this is a command, and the streams are the tests' too

MODELS = {"independent rows, AUC .96": (4.5, 0.0), "independent rows, AUC .76": (1.1, -1.3)}
COLUMNS = 20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    count, rng = options.streams, np.random.default_rng(options.seed)
    print(f"False episodes per 100 days, {count} streams of {streams.PRODUCTION} days")
    print(f"{'':40}{'lane':>7}" + "".join(f"{metric:>10}" for metric in streams.METRICS) + f"{'improved':>10}")
    for name, model in MODELS.items():
        metrics = streams.independent_days(rng, count * len(streams.DAYS), *model)
        show_degraded(name, streams.false_episodes(metrics, count), count)
    degraded, broken = Counter(), Counter()
    flights = streams.flights()
    for _ in range(count):
        metrics, columns, scores = flights.stream(rng)
        degraded.update(streams.false_episodes(metrics, 1))
        broken.update(streams.false_breaks(columns, scores))
    show_degraded("flights, days in random order", degraded, count)
    independent = Counter()
    for _ in range(count):
        independent.update(streams.false_breaks(*streams.independent_stream(rng, COLUMNS)))
    show_broken(f"independent rows, {COLUMNS} columns", independent, count)
    show_broken(f"flights, {len(flights.values)} columns", broken, count)
    for name, model in MODELS.items():
        metrics = streams.independent_days(rng, count * len(streams.DAYS), *model, flipped=0.05)
        delays = streams.first_alarms(metrics, count)
        within = ", ".join(f"{(delays <= d).mean():.0%} within {d}" for d in (1, 3, 7))
        print(f"5 % of the labels flipped, {name}: median day {np.median(delays):g}; {within}")
    show_faults(rng, flights)


def show_degraded(name: str, found: Counter[str], count: int) -> None:
    """Print the line of a world for the lane DEGRADED."""
    improved = sum(value for key, value in found.items() if key.endswith("improved"))
    figures = [*(found[metric] / count for metric in streams.METRICS), improved / count]
    columns = "".join(f"{figure:10.2f}" for figure in figures)
    print(f"{f'DEGRADED {name}':<40}{found[''] / count:7.2f}{columns}")


def show_broken(name: str, found: Counter[str], count: int) -> None:
    """Print the line of a world for the lane BREAK, with what opened most."""
    most = ", ".join(f"{key.removeprefix('break ')} {value / count:.2f}" for key, value in found.most_common(6) if key)
    print(f"{f'BREAK {name}':<40}{found[''] / count:7.2f}   {most}")


def show_faults(rng: np.random.Generator, flights: streams.Flights) -> None:
    """Print how many faults of single columns are found on the first day."""
    missed, tried = Counter(), 0
    for _ in range(20):
        columns, scores = streams.independent_stream(rng, COLUMNS)
        cases = [(columns, scores, streams.independent_first_day(rng, columns))]
        _, columns, scores = flights.stream(rng)
        cases.append((columns, scores, flights.first_day(rng, columns)))
        for case in cases:
            unseen, number = streams.missed_faults(*case)
            missed.update(unseen)
            tried += number
    found = tried - sum(missed.values())
    print(f"A column null, renamed, frozen or divided by 1000: {found} of {tried} found on the first day")
    for fault, number in missed.items():
        print(f"    missed {number} times: {fault}")


if __name__ == "__main__":
    main()
