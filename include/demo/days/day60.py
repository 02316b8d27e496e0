"""Day 60: the model has silently decayed."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from demo.days.stage import JOB, RECIPE
from demo.train import ZONE, honest_scores

if TYPE_CHECKING:
    import pandas as pd

    from demo.days.stage import Stage

FIRST, CHANGE = date(2013, 4, 1), date(2013, 4, 21)
DAY = timedelta(days=1)
PATIENCE = 7
"""So many nights at most pass until somebody is told."""
LEARNED = CHANGE + timedelta(days=14)
# From the day of the change on, other flights of a day have its delays: the earlier one leaves the worse, by and large.
# Not one input changes, so no check of the data can see it.
DECAY = f"""
with ranked as (
  select flight_id, arrival_minutes, local.day,
    row_number() over (partition by local.day order by dep_hour + flight_id * 7919 % 1000 / 100.0, flight_id) as place,
    row_number() over (partition by local.day order by arrival_minutes desc, flight_id) as worst
  from demo.landings join public.flights using (flight_id)
  cross join lateral (select (departed_at at time zone '{ZONE}')::date as day) as local where local.day >= '{CHANGE}')
update demo.landings as l set arrival_minutes = other.arrival_minutes
from ranked as one join ranked as other on other.day = one.day and other.worst = one.place
where one.flight_id = l.flight_id
"""
SINCE_THE_CHANGE = (
    f"select s.departed_at, {', '.join(f's.{name}' for name in RECIPE.columns)}, a.{RECIPE.label}"
    f" from ({RECIPE.source}) as s join public.arrivals as a using (flight_id)"
    f" where s.departed_at >= '{CHANGE} {ZONE}' and s.departed_at < '{LEARNED} {ZONE}'"
    " order by s.departed_at, s.flight_id"
)
BASELINE = ("--timestamp", "departed_at", "--outcome", RECIPE.label, "--score", "score")


def act(stage: Stage) -> None:
    """Other flights are late than before: nothing fails, and within days on-call hears that the model is worse."""
    stage.title("Day 60: the model has silently decayed")
    stage.job(ends=f"ends = {LEARNED + 30 * DAY}")
    stage.plantao("init", show=False)
    stage.tell("A model is trained on January to March, and registered with what its days looked like.")
    _register(stage, stage.training_frame())
    stage.sql(DECAY)
    stage.clock(f"{CHANGE} 06:00")
    _score(stage, FIRST, CHANGE)
    said = stage.send(show=False)
    stage.expect("The model has degraded" not in said, "the model was called degraded before it was")
    stage.tell(f"It scores and is measured, day by day: ROC AUC{_auc(stage, FIRST, CHANGE)}.")

    stage.tell(
        f"From {CHANGE} on other flights are late than before. Every run is green, every check of the data passes."
    )
    day, said = CHANGE, ""
    while "The model has degraded" not in said:
        day += DAY
        stage.expect(day <= CHANGE + PATIENCE * DAY, "nobody was told")
        stage.clock(f"{day} 06:00")
        _score(stage, day - DAY, day)
        stage.tell(f"{day}, 06:00. The day before is scored and measured: ROC AUC{_auc(stage, day - DAY, day)}.")
        said = stage.send()
    stage.expect("[picture]" in said, "there was no picture")
    stage.plantao("report", JOB, "--out", "report.html")

    stage.tell("The report says since when and for whom. After two weeks there is enough to learn the new world from.")
    stage.clock(f"{LEARNED} 06:00")
    _score(stage, day, LEARNED)
    stage.send(show=False)
    _register(stage, stage.training_frame(SINCE_THE_CHANGE))
    stage.plantao("models", "promote", JOB, "2", "--why", "trained on the flights since the change")
    until = LEARNED + 3 * DAY
    stage.clock(f"{until + DAY} 06:00")
    for number in range((until - LEARNED).days):
        window = ("--from", str(LEARNED + number * DAY), "--to", str(LEARNED + (number + 1) * DAY))
        stage.plantao("run", JOB, *window, show=False)
    stage.plantao("measure", JOB, "--from", str(LEARNED), "--to", str(until), show=False)
    stage.tell(f"Three days later: ROC AUC{_auc(stage, LEARNED, until)}.")
    said = stage.send()
    stage.expect("A degradation is over" in said, "on-call was not told that it is over")
    versions = stage.sql(
        f"select model_version, min(source_timestamp)::date from predictions.{JOB} group by 1 order by 1"
    )
    stage.tell(
        "Each day keeps the predictions of its version: " + ", ".join(f"{v} since {d}" for v, d in versions) + "."
    )


def _register(stage: Stage, frame: pd.DataFrame) -> None:
    """Register a version with honest scores, so that it is known how good it was on each day of its training."""
    frame = frame.assign(score=honest_scores(RECIPE, frame))
    stage.fit(frame)
    stage.plantao("models", "register", "model.joblib", "--name", JOB, "--frame", "training.parquet", *BASELINE)


def _score(stage: Stage, first: date, until: date) -> None:
    """Score days one by one, each with the version of its time, and measure them."""
    days = ("--from-date", str(first), "--to-date", str(until - DAY))
    stage.plantao("backfill", JOB, *days, show=False)
    stage.plantao("measure", JOB, "--from", str(first), "--to", str(until), show=False)


def _auc(stage: Stage, first: date, until: date) -> str:
    """Return the mean of the daily ROC AUC, where it is known."""
    known = stage.sql(
        "select value from plantao.metrics_latest where name = 'roc_auc' and role = 'champion' and segment = ''"
        f" and value is not null and window_start >= '{first} {ZONE}' and window_end <= '{until} {ZONE}'"
    )
    return (
        f" {sum(value for (value,) in known) / len(known):.2f} on {len(known)} day{'s' * (len(known) > 1)}"
        if known
        else " not known yet"
    )
