"""What does not grow with the rows, and what many small jobs cost.

    make bench-scale                              10,000,000 rows
    make bench-scale BENCH="--rows 1000000"       fewer

On a table of a hundred days: peak memory of a run over all of it against one over a tenth of it; a day that is scored
already, scored again; the reconciliation of all of it, with the predictions in the source's database and in another;
a window of 1,000 rows by `plantao run`, the start of Python included; and reading 100 job files as Airflow does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ground import (
    FEATURES,
    JOB,
    cpu_seconds,
    fill,
    ground,
    machine,
    peak_memory,
    prepare_models,
    say,
    server_cpu_seconds,
    sql,
)

DAYS = 100
START = datetime(2013, 4, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
PARSE = """
import importlib, sys, time
importlib.import_module("airflow.sdk")
began = time.perf_counter()
importlib.import_module("scoring_jobs")
print(time.perf_counter() - began)
"""


def main() -> None:
    """Measure one thing after the other, and print each as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="runs of what is short; the median is printed")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "FROM", "TO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    with ground() as folder:
        say(f"{machine()}; {options.rows:,} rows x {len(FEATURES)} features over {DAYS} days; the linear model")
        make_days(folder, options.rows)
        memory(options.rows)
        again(options.repeat)
        reconciliations(folder)
        small_window(folder, options.repeat)
        many_jobs(folder, options.repeat)


def make_days(folder: Path, rows: int) -> None:
    """Make the rows: some value by value, and the others as copies of them with keys and times of their own."""
    some = min(rows, 1_000_000)
    fill(some)
    prepare_models(folder)
    copies, seconds = max(1, rows // some), DAYS * 86_400
    columns = ", ".join(FEATURES)
    sql("alter table public.rows rename to first_rows")
    sql("create table public.rows (like public.first_rows)")
    for number in range(copies):
        key = f"(id + {number * some})"
        moment = f"timestamptz '2013-04-01Z' + make_interval(secs => {key} * {seconds / (some * copies)}::float8)"
        sql(f"insert into public.rows (id, at, {columns}) select {key}, {moment}, {columns} from public.first_rows")
    sql("drop table public.first_rows")
    sql("alter table public.rows add primary key (id)")
    sql("create index on public.rows (at)")
    sql("vacuum analyze public.rows")


def memory(rows: int) -> None:
    """Compare the peak memory of a run over all days with that of one over a tenth of them."""
    tenth = one("run", 0, DAYS // 10)
    rest = one("run", DAYS // 10, DAYS)
    whole = f"{rows * 9 // 10:,} rows"
    say(f"peak memory             {rest['memory']:.0f} MB for {whole}, {tenth['memory']:.0f} MB for {rows // 10:,}:"
        f" {rest['memory'] / tenth['memory']:.2f} times as much")  # fmt: skip
    say(f"a run of {whole:<15}{rest['seconds']:.1f} s, {rows * 0.9 / rest['seconds']:,.0f} rows/s")


def again(repeat: int) -> None:
    """Score a day that is scored already, in a table that autovacuum has seen, which takes it a minute."""
    sql("vacuum analyze predictions.linear")
    while sql("select from pg_stat_activity where backend_type = 'autovacuum worker'"):
        time.sleep(0.5)
    runs = [one("run", 50, 51) for _ in range(repeat)]
    assert all(run["scored"] == 0 for run in runs)
    seconds, server = (statistics.median(run[name] for run in runs) for name in ("seconds", "server_cpu"))
    say(f"a day scored again      {seconds:.2f} s, of which the database worked {server:.2f} s")


def reconciliations(folder: Path) -> None:
    """Reconcile the whole history, with the predictions beside the source and in another database."""
    here = one("reconcile", 0, DAYS)
    say(f"reconcile, one database {here['seconds']:.1f} s, {here['memory']:.0f} MB")
    copy_results(folder)
    apart = one("reconcile apart", 0, DAYS)
    say(f"reconcile, two databases{apart['seconds']:>5.1f} s, {apart['memory']:.0f} MB")


def small_window(folder: Path, repeat: int) -> None:
    """Score 1,000 rows on the command line, from the start of Python to its end."""
    sql("create table public.few as select * from public.rows order by id limit 1000")
    sql("alter table public.few add primary key (id)")
    text = (
        JOB.format(model="linear").replace("public.rows", "public.few").replace("predictions.linear", "predictions.few")
    )
    (folder / "include" / "jobs" / "few.toml").write_text(text)
    command = [str(Path(sys.executable).with_name("plantao")), "-q", "run", "few", "--from", "2013-04-01"]
    seconds = []
    for _ in range(repeat + 1):
        sql("drop table if exists predictions.few, predictions.few_history")
        began = time.perf_counter()
        subprocess.run([*command, "--to", "2013-04-02"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    assert sql("select count(*) from predictions.few") == [(1000,)]
    say(f"plantao run, 1,000 rows {statistics.median(seconds[1:]):.2f} s, the start of Python included")


def many_jobs(folder: Path, repeat: int) -> None:
    """Read 100 job files as Airflow's DAG processor does."""
    jobs = folder / "hundred"
    jobs.mkdir()
    for number in range(100):
        (jobs / f"job_{number}.toml").write_text(
            JOB.format(model="linear").replace("predictions.linear", f"p.j{number}")
        )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("dags", "plugins", "include")),
        "PLANTAO_JOBS": str(jobs),
        "AIRFLOW_HOME": str(folder / "airflow"),
    }
    done = [subprocess.run([sys.executable, "-c", PARSE], env=environment, capture_output=True, text=True, check=True)
            for _ in range(repeat)]  # fmt: skip
    seconds = statistics.median(float(run.stdout.split()[-1]) for run in done)
    say(f"100 job files           {seconds:.2f} s")


# --- one measurement, in a process of its own -------------------------------------------------------------------------


def one(what: str, start: int, end: int) -> dict:
    """Measure one thing over some days, in a process of its own."""
    command = [sys.executable, __file__, "--one", what, str(start), str(end)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(what: str, start: str, end: str) -> dict:
    """Run one thing and return its figures."""
    from plantao import runtime

    here = runtime.from_environment()
    from plantao.config.job_file import read_job
    from plantao.ledger.request import Request
    from plantao.run import reconcile, run
    from plantao.window import Window

    window = Window(START + timedelta(days=int(start)), START + timedelta(days=int(end)))
    before, server_before, began = cpu_seconds(), server_cpu_seconds(), time.perf_counter()
    if what == "run":
        report = run.score_window(Request(read_job(here.settings.jobs, "linear"), window), here)
        found = {"scored": report.counts.scored}
    else:
        job = read_job(here.settings.jobs, "linear" if what == "reconcile" else "apart")
        result = reconcile.reconcile(job, here, window)
        assert result.in_order, result
        found = {"rows": result.found.rows_source}
    return found | {
        "seconds": time.perf_counter() - began,
        "cpu": cpu_seconds() - before,
        "server_cpu": server_cpu_seconds() - server_before,
        "memory": peak_memory(),
    }


def copy_results(folder: Path) -> None:
    """Copy predictions and ledger into the other database, and make a job of its own for them."""
    from plantao.postgres import embedded

    programs = embedded._programs()
    dump = subprocess.Popen(
        [str(programs / "pg_dump"), os.environ["AIRFLOW_CONN_CLIENT_DB"], "-n", "plantao", "-n", "predictions"],
        stdout=subprocess.PIPE,
    )
    psql = [str(programs / "psql"), "-q", "-v", "ON_ERROR_STOP=1", os.environ["AIRFLOW_CONN_RESULTS_DB"]]
    subprocess.run(psql, stdin=dump.stdout, check=True, stdout=subprocess.DEVNULL)
    assert dump.wait() == 0
    text = JOB.format(model="linear").replace("[load]", '[load]\nconnection = "results_db"')
    (folder / "include" / "jobs" / "apart.toml").write_text(text)
    sql("vacuum analyze predictions.linear", at="results_db")
    sql("update predictions.plantao_tables set job = 'apart'", at="results_db")


if __name__ == "__main__":
    main()
