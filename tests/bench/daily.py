"""What a daily run costs the client's server while the statistics of its tables grow old.

    python tests/bench/daily.py                          2,600 rows a day over 370 days
    python tests/bench/daily.py --per-day 10000          more rows a day

The history is scored in one window and both tables are analysed. From then on autovacuum leaves them alone, and each
day is scored by a run of its own that looks three days back. The last run comes after another ANALYZE.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ground import FEATURES, JOB, fill, ground, machine, prepare_models, say, server_cpu_seconds, sql

if TYPE_CHECKING:
    from pathlib import Path

START = datetime(2013, 4, 1, tzinfo=UTC)
SOME = 100_000


def main() -> None:
    """Score day after day, and print what each costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-day", type=int, default=2_600)
    parser.add_argument("--days", type=int, default=370)
    parser.add_argument("--new-days", type=int, default=8, help="of these, scored one by one after the ANALYZE")
    options = parser.parse_args()
    with ground() as folder:
        say(
            f"{machine()}; {options.per_day:,} rows a day x {len(FEATURES)} features, {options.days} days; linear model"
        )
        known = options.days - options.new_days - 1
        make_days(folder, options.per_day, options.days, known)
        began = time.perf_counter()
        run(0, known)
        say(f"{known} days in one window   {time.perf_counter() - began:6.2f} s")
        for table in ("public.rows", "predictions.linear"):
            sql(f"vacuum analyze {table}")
            sql(f"alter table {table} set (autovacuum_enabled = off)")
        say(f"{'day after ANALYZE':>18}{'seconds':>10}{'server CPU s':>14}{'rows':>8}")
        for number in range(1, options.new_days + 1):
            report(str(number), known + number - 1, options.per_day)
        sql("vacuum analyze public.rows")
        sql("vacuum analyze predictions.linear")
        report("ANALYZE again", known + options.new_days, options.per_day)


def report(name: str, day: int, per_day: int) -> None:
    """Let the day's rows arrive, score it, and print what that took."""
    columns = ", ".join(["id", "at", *FEATURES])
    sql(f"insert into public.rows ({columns}) select {columns} from public.later"
        f" where id >= {day * per_day} and id < {(day + 1) * per_day}")  # fmt: skip
    began, before = time.perf_counter(), server_cpu_seconds()
    scored = run(day, day + 1)
    seconds, server = time.perf_counter() - began, server_cpu_seconds() - before
    say(f"{name:>18}{seconds:>10.2f}{server:>14.2f}{scored:>8,}")


def run(first: int, last: int) -> int:
    """Score some days in one window, and return how many rows that were."""
    from plantao import runtime
    from plantao.config.job_file import read_job
    from plantao.ledger.request import Request
    from plantao.run.run import score_window
    from plantao.window import Window

    here = runtime.from_environment()
    window = Window(START + timedelta(days=first), START + timedelta(days=last))
    return score_window(Request(read_job(here.settings.jobs, "linear"), window), here).counts.scored


def make_days(folder: Path, per_day: int, days: int, known: int) -> None:
    """Make the rows of all days, those of the new ones in a table from which they arrive day by day."""
    fill(SOME)
    prepare_models(folder)
    text = JOB.format(model="linear").replace("[score]", 'late_rows = "3 days"\n[score]')
    (folder / "include" / "jobs" / "linear.toml").write_text(text)
    columns, total = ", ".join(FEATURES), per_day * days
    sql("alter table public.rows rename to first_rows")
    sql("create table public.later (like public.first_rows)")
    for number in range(-(-total // SOME)):
        key = f"(id + {number * SOME})"
        moment = f"timestamptz '2013-04-01Z' + make_interval(secs => {key} * {86_400 / per_day}::float8)"
        sql(f"insert into public.later (id, at, {columns}) select {key}, {moment}, {columns} from public.first_rows"
            f" where {key} < {total}")  # fmt: skip
    sql("drop table public.first_rows")
    sql("create table public.rows (like public.later, primary key (id))")
    sql(f"insert into public.rows select * from public.later where id < {per_day * known}")
    sql("create index on public.rows (at)")
    sql("create index on public.later (id)")


if __name__ == "__main__":
    main()
