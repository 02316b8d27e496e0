"""The cost model of a window in parts: what plan, a part and publish take, and what follows for many workers.

    make bench-parts

Windows of several sizes are cut into several numbers of parts, which one process scores one after the other; each
three times, of which the medians count. Straight lines through the figures give what each step takes by itself and per
row; from them, what a large window takes on many workers is computed, not measured.
"""

from __future__ import annotations

import argparse
import importlib
import time
from datetime import timedelta

import numpy as np
from ground import JOB, cores, fill, ground, machine, prepare_models, say, server_cpu_seconds, sql, window

SIZES = (0.1, 0.25, 0.5, 1.0)
PARTS = (2, 4, 8)


def main() -> None:
    """Measure, fit, and say what follows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--task-seconds", type=float, default=2.0, help="what Airflow needs around each mapped task")
    parser.add_argument("--predict", type=int, nargs=2, default=(1_000_000_000, 50), metavar=("ROWS", "WORKERS"))
    options = parser.parse_args()
    with ground() as folder:
        fill(options.rows)
        prepare_models(folder)
        say(f"{machine()}; windows of up to {options.rows:,} rows x 20 features; the linear model\n")
        say(f"{'rows':>10}{'parts':>7}{'plan s':>9}{'a part s':>10}{'publish s':>11}")
        one(folder, options.rows // 10, 2)  # warms what is measured
        say("")
        turns = [[one(folder, int(options.rows * size), parts) for size in SIZES for parts in PARTS] for _ in range(3)]
        found = [middle(turns_of_one) for turns_of_one in zip(*turns, strict=True)]
    conclude(found, options)


def one(folder, rows: int, parts: int) -> dict[str, float]:
    """Cut, score and publish one window."""
    from plantao import runtime

    here = runtime.from_environment()
    for library in ("pandas", "sklearn.pipeline"):
        importlib.import_module(library)
    from plantao.config.job_file import read_job
    from plantao.ledger.request import Request
    from plantao.run import parallel
    from plantao.run import publish as publishing
    from plantao.window import Window

    name = f"parts_{rows}_{parts}"
    text = JOB.format(model="linear").replace("predictions.linear", f"predictions.{name}")
    text = text.replace('model = "linear"', f'model = "linear"\nparts = {parts}')
    (folder / "include" / "jobs" / f"{name}.toml").write_text(text)
    job = read_job(here.settings.jobs, name)
    whole = window()
    total = sql("select count(*) from public.rows")[0][0]
    chosen = Window(whole.start, whole.start + timedelta(seconds=86_400 * rows / total))
    before, seconds = server_cpu_seconds(), []
    began = time.perf_counter()
    cut = parallel.plan(Request(job, chosen), here)
    seconds.append(time.perf_counter() - began)
    for part in cut:
        began = time.perf_counter()
        parallel.score_part(job, part, here)
        seconds.append(time.perf_counter() - began)
    server = server_cpu_seconds() - before
    began = time.perf_counter()
    report = publishing.publish(job, cut[0].run_id, here)
    publish = time.perf_counter() - began
    scored = report.counts.scored
    found = {"rows": scored, "parts": len(cut), "plan": seconds[0], "part": float(np.mean(seconds[1:]))}
    found |= {"publish": publish, "server": server / len(cut)}
    say(f"{scored:>10,}{len(cut):>7}{found['plan']:>9.2f}{found['part']:>10.2f}{publish:>11.2f}")
    sql(f"drop table predictions.{name}, predictions.{name}_history")
    return found


def middle(turns: tuple[dict[str, float], ...]) -> dict[str, float]:
    """Return the medians of what was found for one window in several turns."""
    return {name: float(np.median([turn[name] for turn in turns])) for name in turns[0]}


def conclude(found: list[dict[str, float]], options: argparse.Namespace) -> None:
    """Fit a straight line to each step, and compute a large window on many workers."""
    rows = np.array([one["rows"] for one in found])
    per_part = rows / np.array([one["parts"] for one in found])
    lines = {
        "plan": line(rows, [one["plan"] for one in found]),
        "a part": line(per_part, [one["part"] for one in found]),
        "publish": line(rows, [one["publish"] for one in found]),
        "server": line(per_part, [one["server"] for one in found]),
    }
    say("")
    for step, (fixed, slope) in lines.items():
        say(f"{step:<10}{fixed:6.2f} s + {slope * 1e6:6.2f} s per million rows")
    say("(server: the database's CPU seconds for a part, the planning included)")
    wanted, workers = options.predict
    size = 5_000_000
    parts = -(-wanted // size)
    rounds = -(-parts // workers)
    plan, part, publish, server = (
        fixed + slope * n for (fixed, slope), n in zip(lines.values(), (wanted, size, wanted, size), strict=True)
    )
    server *= parts
    scoring = rounds * (part + options.task_seconds)
    say(
        f"\n{wanted:,} rows on {workers} workers like this one, in {parts} parts of {size:,}: plan {plan / 60:.0f} min,"
        f" parts {scoring / 60:.0f} min, publish {publish / 60:.0f} min"
        f"\nthe database must give {server / scoring:.0f} cores while the parts are scored;"
        f" with {cores()} it would take {server / cores() / 60:.0f} min"
    )


def line(x, y) -> tuple[float, float]:
    """Return (fixed, slope) of the straight line through the points, neither of them below nothing."""
    slope, fixed = np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)
    return max(0.0, float(fixed)), max(0.0, float(slope))


if __name__ == "__main__":
    main()
