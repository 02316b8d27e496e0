"""How fast is a run? Rows per second of the whole, of each stage alone, of the usual way with pandas, and of Spark.

    make bench                                          1,000,000 rows
    make bench BENCH="--rows 200000 --repeat 3"         fewer of both
    make bench BENCH="--ways ours spark --models tree"  only these

One window of rows with 20 features (12 doubles, one of them with 6 % NULL, 4 integers, 4 texts) is scored with two
pipelines, encoding inside: logistic regression and HistGradientBoosting. Every measurement is a process of its own, in
the same order for each way, after one that is not counted. *The ceiling* is what the stages alone allow: the CPU
seconds of all stages, the server's included, divided by the cores, or the slowest stage, whichever is longer.
Spark runs when Java, pyspark and PostgreSQL's JDBC driver are there; what is counted is its second run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import spark_local
import ways
from ground import FEATURES, MODELS, cores, fill, ground, machine, prepare_models, say

NAMES = {
    "ours": "a whole run",
    "unmeasured": "  without the daily state",
    "challenged": "  with a challenger",
    "slow": "  with a slow model",
    "copy": "  COPY to nowhere",
    "copy_binary": "  the same, binary",
    "extract": "  extract alone",
    "score": "  score alone",
    "load": "  load alone",
    "usual": "the usual way (pandas)",
    "spark": "Spark local[2], warm",
}


def main() -> None:
    """Measure as the options say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5, help="counted runs of each way; the median is printed")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--ways", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        ways.measure(*options.one)
        return
    if "spark" in options.ways and (missing := missing_for_spark()):
        say(f"Spark is left out: {missing}")
        options.ways = [way for way in options.ways if way != "spark"]
    with ground() as folder:
        benchmark(options, folder)


def benchmark(options: argparse.Namespace, folder: Path) -> None:
    """Measure every way in turn, and print what was found."""
    say(f"{machine()}; {options.rows:,} rows x {len(FEATURES)} features; medians of {options.repeat}")
    fill(options.rows)
    prepare_models(folder)
    everything = {}
    for model in options.models:
        figures: dict[str, list[dict]] = {way: [] for way in options.ways}
        for turn in range(options.repeat + 1):
            for way in options.ways:
                found = one(way, model)
                if turn:  # the first turn warms the server's memory
                    figures[way].append(found)
        everything[model] = figures
        show(figures, model, options.rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": options.rows, "figures": everything}))


def one(way: str, model: str) -> dict:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--one", way, model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def show(figures: dict[str, list[dict]], model: str, rows: int) -> None:
    """Print the medians of a model as a table, and the ratios between them."""
    middle = {way: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
              for way, runs in figures.items()}  # fmt: skip
    say(f"\n{model}\n{'':24}{'rows/s':>10}{'seconds':>10}{'CPU s':>8}{'server CPU s':>14}{'peak MB':>9}")
    for way, found in middle.items():
        figure = f"{rows / found['seconds']:>10,.0f}{found['seconds']:>10.2f}"
        say(f"{NAMES[way]:<24}{figure}{found['cpu']:>8.2f}{found['server_cpu']:>14.2f}{found['memory']:>9.0f}")
    for line in ratios(middle, rows):
        say(f"{'':24}{line}")


def ratios(middle: dict[str, dict], rows: int) -> list[str]:
    """Return what the figures say about a whole run, a sentence each."""
    if "ours" not in middle:
        return []
    ours, lines = middle["ours"], []
    if {"extract", "score", "load"} <= set(middle):
        stages = [middle[way] for way in ("extract", "score", "load")]
        cpu = sum(stage["cpu"] + stage["server_cpu"] for stage in stages) / cores()
        fastest = max(cpu, *(stage["seconds"] for stage in stages))
        lines.append(
            f"a whole run reaches {fastest / ours['seconds']:.2f} of the ceiling, {rows / fastest:,.0f} rows/s"
        )
    lines += [
        f"a whole run is {middle[way]['seconds'] / ours['seconds']:.1f} times as fast as {NAMES[way]}"
        for way in ("usual", "spark")
        if way in middle
    ]
    if "unmeasured" in middle:
        without = middle["unmeasured"]
        seconds, cpu = (ours[name] / without[name] - 1 for name in ("seconds", "cpu"))
        lines.append(
            f"the daily state of {len(FEATURES) + 1} columns costs {seconds:.1%} of the time, {cpu:.1%} of the CPU"
        )
    if "challenged" in middle:
        alone, together = ours["seconds"], middle["challenged"]["seconds"]
        lines.append(f"with a challenger of equal cost it takes {together / alone:.2f} times as long")
    for way, name in (("ours", "it"), ("slow", "with a slow model it")):
        if {way, "copy", "copy_binary"} <= set(middle):
            text, binary = (middle[way]["source_seconds"] / middle[form]["seconds"] for form in ("copy", "copy_binary"))
            lines.append(
                f"{name} holds the source open {text:.2f} times as long as a COPY ({binary:.2f}: a binary one)"
            )
    return lines


def missing_for_spark() -> str | None:
    """Return what Spark lacks here, and how to get it."""
    if shutil.which("java") is None:
        return "there is no Java (apt-get install default-jre-headless)"
    if importlib.util.find_spec("pyspark") is None:
        return f"pyspark is not installed ({sys.executable} -m pip install pyspark)"
    if spark_local.jdbc_driver() is None:
        return "there is no JDBC driver (apt-get install libpostgresql-jdbc-java, or set PGJDBC to its file)"
    return None


if __name__ == "__main__":
    main()
