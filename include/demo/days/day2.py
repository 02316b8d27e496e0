"""Day 2: the fix brings the incompatibilities back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.days.stage import JOB, RECIPE

if TYPE_CHECKING:
    from demo.days.stage import Stage

MONDAY = ("--from", "2013-04-01", "--to", "2013-04-02")
TUESDAY = ("--from", "2013-04-02", "--to", "2013-04-03")


def act(stage: Stage) -> None:
    """A version that needs a column which the client does not have is refused, and if it is forced nothing is lost."""
    stage.title("Day 2: the bug fix brings the incompatibilities back")
    stage.job()
    stage.plantao("init", show=False)
    frame = stage.training_frame()
    stage.fit(frame)
    stage.plantao("models", "register", "model.joblib", "--name", JOB, "--frame", "training.parquet", show=False)
    stage.tell("Version 1 scores Monday.")
    stage.plantao("run", JOB, *MONDAY)

    stage.tell("A fix is made in a hurry. In its notebook the column plane_seats is called seats.")
    renamed = {"plane_seats": "seats"}
    stage.fit(frame.rename(columns=renamed), [renamed.get(name, name) for name in RECIPE.columns])
    stage.plantao("models", "register", "model.joblib", "--name", JOB, "--frame", "training.parquet")
    said = stage.plantao("models", "promote", JOB, "2", "--why", "fixes the rounding of seats", status=1)
    stage.expect("seats" in said, "the promotion did not name the column")

    stage.tell("It was refused with its reason, before anything was changed. They are sure, though, and force it.")
    stage.plantao("models", "promote", JOB, "2", "--why", "we know what we do", "--force")
    said = stage.send()
    stage.expect("against the gate" in said, "on-call was not told of the forced promotion")

    stage.tell("At night Tuesday's run begins:")
    stage.plantao("run", JOB, *TUESDAY, status=1)
    said = stage.send()
    stage.expect("seats" in said, "on-call was not told which column")
    versions = stage.sql(f"select distinct model_version from predictions.{JOB}")
    stage.expect(versions == [(1,)], "something was written")

    stage.tell("Monday is as it was, and of Tuesday there is nothing by half. One command goes back.")
    stage.plantao("models", "rollback", JOB, "--why", "version 2 needs a column that the client does not have")
    stage.plantao("run", JOB, *TUESDAY)
    said = stage.send()
    stage.expect("scored after 1 failed try" in said, "on-call was not told that it is over")
    stage.plantao("models", "timeline", JOB)
    found = stage.sql(
        f"select count(*), count(distinct flight_id), min(model_version), max(model_version) from predictions.{JOB}"
    )[0]
    stage.expect(found[0] == found[1] and found[2:] == (1, 1), "rows are missing, double, or by another version")
    stage.tell(f"{found[0]} flights of both days have one prediction each, all by version 1.")
