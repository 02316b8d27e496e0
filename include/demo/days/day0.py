"""Day 0: "but it works on my machine"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.days.stage import JOB, RECIPE

if TYPE_CHECKING:
    from demo.days.stage import Stage

# A package of the client's own, in two releases. Nobody's version check knows it, and nothing in it fails.
RELEASES = {
    "1.0": "return frame.assign(plane_year=frame['plane_year'].fillna(2000))",
    "2.0": "return frame.assign(plane_year=frame['plane_year'].fillna(1970), distance=frame['distance'] * 1.609)",
}
TRAIN = """
import sys, joblib, client_features, pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from demo.train import RECIPES, pipeline
frame, recipe = pd.read_parquet("training.parquet"), RECIPES[0]
model = make_pipeline(FunctionTransformer(client_features.prepare), pipeline(recipe))
joblib.dump(model.fit(frame[list(recipe.columns)], frame[recipe.label]), "model.joblib")
"""
WINDOW = ("--from", "2013-04-01", "--to", "2013-04-02")


def act(stage: Stage) -> None:
    """A model that answers otherwise on the server than on the laptop is refused before a row is read."""
    stage.title('Day 0: "but it works on my machine"')
    stage.job()
    stage.plantao("init", show=False)
    for release, body in RELEASES.items():
        folder = stage.home / f"client_features-{release}"
        folder.mkdir()
        (folder / "client_features.py").write_text(f"def prepare(frame):\n    {body}\n", encoding="utf-8")

    stage.tell("On a laptop, a data scientist trains a model whose first step is from client_features 1.0.")
    _install(stage, "1.0")
    stage.training_frame().drop(columns="departed_at").to_parquet(stage.home / "training.parquet")
    stage.python(TRAIN)
    stage.plantao("models", "register", "model.joblib", "--name", JOB, "--frame", "training.parquet")
    stage.plantao("models", "verify", JOB)

    stage.tell(
        "It works on that machine. On the server client_features 2.0 is installed: miles have become kilometres."
    )
    _install(stage, "2.0")
    said = stage.plantao("check", JOB, status=1)
    stage.expect("golden rows differently here" in said, "the check did not name the golden rows")

    stage.tell("Nobody looked at the check. At night the run begins:")
    stage.plantao("run", JOB, *WINDOW, status=1)
    written = stage.sql(f"select to_regclass('predictions.{JOB}')")[0][0]
    stage.expect(written is None, "predictions were written")
    stage.tell("Not a row was read, and none was written.")
    said = stage.send()
    stage.expect("golden rows" in said, "on-call was not told why")

    stage.tell("In the morning the server gets the release that the model was trained with.")
    _install(stage, "1.0")
    stage.plantao("run", JOB, *WINDOW)
    said = stage.send()
    stage.expect("scored after 1 failed try" in said, "on-call was not told that it is over")
    rows = stage.sql(f"select count(*), count(distinct flight_id) from predictions.{JOB}")[0]
    stage.expect(rows[0] == rows[1] > 900, "the rows are not there")
    stage.tell(f"{rows[0]} flights have their prediction, by the model that was tried: {RECIPE.model}/1.")


def _install(stage: Stage, release: str) -> None:
    stage.more["PYTHONPATH"] = f"{stage.environment['PYTHONPATH']}:{stage.home / f'client_features-{release}'}"
