"""Train the demo's two models on January to March, as a data scientist at the client's would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

JOBS = Path(__file__).parents[1] / "jobs"
ZONE = "America/New_York"
TRAINING = ("2013-01-01 00:00 America/New_York", "2013-04-01 00:00 America/New_York")
NUMBERS = ["distance", "dep_hour", "scheduled_minutes"]
NAMES = ["carrier", "origin", "dest"]


@dataclass(frozen=True)
class Recipe:
    """What a model learns: its columns, its label and the rows it is trained on."""

    model: str
    columns: tuple[str, ...]
    label: str
    source: str

    @property
    def query(self) -> str:
        """The SELECT of the training rows: the flights that have landed by now, with what came of them."""
        columns = ", ".join(f"s.{name}" for name in self.columns)
        since, until = TRAINING
        return (
            f"select s.departed_at, {columns}, a.{self.label} from ({self.source}) as s"
            f" join public.arrivals as a using (flight_id)"
            f" where s.departed_at >= '{since}' and s.departed_at < '{until}' order by s.departed_at, s.flight_id"
        )


RECIPES = (
    Recipe(
        model="flight_delay",
        columns=(*NAMES, *NUMBERS, "day_of_week", "plane_year", "plane_seats"),
        label="late",
        source="select * from public.flights",
    ),
    Recipe(
        model="arrival_minutes",
        columns=(*NAMES, *NUMBERS, "temp", "wind_speed", "precip", "visib"),
        label="arrival_minutes",
        source=(JOBS / "arrival_minutes.sql").read_text(encoding="utf-8"),
    ),
)


def pipeline(recipe: Recipe) -> Any:
    """Return the unfitted pipeline, preprocessing included."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=200, sparse_output=False)
    prepare = make_column_transformer((encode, NAMES), remainder="passthrough", verbose_feature_names_out=False)
    learn = HistGradientBoostingClassifier if recipe.label == "late" else HistGradientBoostingRegressor
    return make_pipeline(prepare, learn(max_iter=80, learning_rate=0.08, random_state=0))


def honest_scores(recipe: Recipe, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return a score for each training row from a pipeline that has not seen the row's day."""
    from sklearn.model_selection import GroupKFold, cross_val_predict

    days = frame["departed_at"].dt.tz_convert(ZONE).dt.date
    given = {"groups": days, "cv": GroupKFold(5), "method": "predict_proba" if recipe.label == "late" else "predict"}
    scores = cross_val_predict(pipeline(recipe), frame[list(recipe.columns)], frame[recipe.label], **given)
    return scores[:, 1] if scores.ndim > 1 else scores


def train(recipe: Recipe, frame: pd.DataFrame) -> tuple[Any, dict[str, float]]:
    """Return the fitted pipeline and its metrics on March, measured with a pipeline that saw only what was before."""
    march = frame["departed_at"] >= "2013-03-01"
    columns = list(recipe.columns)
    trial = pipeline(recipe).fit(frame.loc[~march, columns], frame.loc[~march, recipe.label])
    metrics = evaluate(trial, frame.loc[march, columns], frame.loc[march, recipe.label])
    return pipeline(recipe).fit(frame[columns], frame[recipe.label]), metrics


def evaluate(model: Any, inputs: pd.DataFrame, truth: pd.Series[Any]) -> dict[str, float]:
    """Return the classic metrics of a model on rows it has not seen."""
    from sklearn import metrics

    if hasattr(model, "predict_proba"):
        score = model.predict_proba(inputs)[:, 1]
        found = {
            "roc_auc": metrics.roc_auc_score(truth, score),
            "average_precision": metrics.average_precision_score(truth, score),
            "brier": metrics.brier_score_loss(truth, score),
        }
    else:
        predicted = model.predict(inputs)
        found = {
            "mae": metrics.mean_absolute_error(truth, predicted),
            "rmse": metrics.root_mean_squared_error(truth, predicted),
        }
    return {name: round(float(value), 4) for name, value in found.items()}
