"""Day 1: it stopped in the night, and nobody knew."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from demo.days.stage import JOB
from demo.stack import Stack
from plantao.errors import PlantaoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from demo.days.stage import Stage

# A night lasts as long as one likes: here a day is a minute, and a window is late after a quarter of one.
LATE_AFTER = timedelta(seconds=15)
LOOK_EVERY_SECONDS = 5
PATIENCE_SECONDS = 600
LONGEST_SILENCE = timedelta(minutes=3)
"""How late the watchdog may be after a window was due, on a slow machine; it looks every five seconds."""
# The flights of one day of 2013 leave now, one every second.
FLIGHTS = """
create table public.flights_now (like public.flights including all);
insert into public.flights_now select flight_id, date_trunc('minute', now()) - interval '3 minutes'
  + row_number() over (order by flight_id) * interval '1 second' as departed_at, carrier, flight_number, tailnum,
  origin, dest, distance, dep_hour, day_of_week, scheduled_minutes, plane_year, plane_seats
from public.flights order by flight_id limit 1800
"""
NOW = f"""
description = "Will this flight arrive more than 15 minutes late?"
owner    = "ops-analytics"
schedule = "* * * * *"
starts   = {{begins:%Y-%m-%dT%H:%M:%SZ}}

[extract]
table     = "public.flights_now"
key       = ["flight_id"]
timestamp = "departed_at"
late_rows = "5 minutes"

[score]
model = "{JOB}"

[load]
table = "predictions.{JOB}"

[alert]
channel    = "#on-call"
late_after = "{{late_after}} seconds"
"""


def act(stage: Stage) -> None:
    """Airflow's scheduler is killed; the watchdog speaks for the window that nobody scores, and for what is filled."""
    stage.title("Day 1: it stopped in the night, and nobody knew")
    stage.plantao("init", show=False)
    stage.fit(stage.training_frame())
    airflow = Stack(stage.place.settings, {"AIRFLOW_CONN_SLACK": stage.environment["AIRFLOW_CONN_SLACK"]})
    stage.sql(FLIGHTS)
    begins = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
    stage.job(NOW.format(begins=begins, late_after=LATE_AFTER.seconds))
    stage.plantao("models", "register", "model.joblib", "--name", JOB, "--frame", "training.parquet", show=False)
    stage.tell("Airflow runs, and its scheduler scores the flights of every minute.")
    airflow.start()
    stage.environment["PLANTAO_AIRFLOW_URL"] = airflow.url
    # None is in flight then, so the first window that nobody scores is one for which no run was ever started.
    _wait(lambda: len(_scored(stage)) >= 2 and not _running(stage), "Airflow scored no window")
    with _watchdog(stage):
        _night(stage, airflow)


def _night(stage: Stage, airflow: Stack) -> None:
    airflow.kill("scheduler")
    killed = datetime.now(UTC)
    stage.tell(f"{killed:%H:%M:%S}. The scheduler is killed. Nothing in Airflow can say so.")
    _wait(lambda: _has_arrived(stage, "is not scored"), "the watchdog did not speak")
    spoke = datetime.now(UTC)
    end = _scored(stage)[-1] + timedelta(minutes=2)  # of the first window that nobody scored
    said = stage.phone()
    stage.expect("no run was ever started for it" in said, "it was not said why")
    stage.tell(
        f"{spoke:%H:%M:%S}. The window that ended at {end:%H:%M} was due {LATE_AFTER.seconds} s later;"
        f" {(spoke - end - LATE_AFTER).total_seconds():.0f} s after that on-call knew."
    )
    stage.expect(spoke - end <= LATE_AFTER + LONGEST_SILENCE, "that is later than three minutes")

    stage.tell("On-call starts the scheduler again, as the message says. What was missed is caught up by itself.")
    airflow.start()
    _wait(lambda: _has_arrived(stage, "no window is late any more"), "the recovery was not told")
    said = stage.phone()
    stage.expect("filled now" in said, "it was not said what was filled")
    rows = stage.sql(f"select count(*), count(distinct flight_id) from predictions.{JOB}")[0]
    owed = stage.sql(
        "select count(*) from public.flights_now as s where departed_at >= (select min(window_start) from plantao.runs)"
        " and departed_at < (select max(window_end) from plantao.runs where status = 'succeeded')"
    )[0][0]
    stage.expect(
        rows == (owed, owed), f"{owed} rows were there, {rows[0]} have a prediction, {rows[1]} of them different"
    )
    stage.tell(f"Of {owed} flights that left since, each has one prediction.")


def _scored(stage: Stage) -> list[datetime]:
    """Return the starts of the windows that are scored, oldest first."""
    rows = stage.sql("select distinct window_start from plantao.runs where status = 'succeeded' order by 1")
    return [start for (start,) in rows]


def _running(stage: Stage) -> bool:
    return bool(stage.sql("select from plantao.runs where status = 'running'"))


def _has_arrived(stage: Stage, words: str) -> bool:
    return any(words in one.words for one in stage.slack.posted[stage.heard :])


@contextmanager
def _watchdog(stage: Stage) -> Iterator[None]:
    """Let the watchdog look, in a process of its own that nothing of Airflow can harm."""
    with (stage.home / "watchdog.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "plantao", "watch", "--every", str(LOOK_EVERY_SECONDS)],
            env=stage.environment,
            cwd=stage.home,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait(what: Callable[[], object], otherwise: str) -> None:
    """Wait until something holds. Raises PlantaoError when it does not in time."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not what():
        if time.monotonic() > until:
            message = f"waited {PATIENCE_SECONDS} s in vain: {otherwise}"
            raise PlantaoError(message, "look into .plantao/days/day1")
        time.sleep(0.5)
