"""A client with accents in values, keys, labels and names of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from world import JOB, World, training_frame

if TYPE_CHECKING:
    from plantao.config.job import Job

PORTUGUESE = JOB.replace('["id"]', '["código"]').replace("Will this reading be bad?", "Leitura ruim € sim … ou não •")
CITIES = ["São Paulo", "Brasília", "Recife"]
ROWS = 20
_FRAME = training_frame().rename(columns={"city": "município"})
_FRAME["município"] = np.array(CITIES)[np.arange(len(_FRAME)) % 3]
_FRAME["bad"] = np.where(_FRAME["bad"] ^ (_FRAME["município"] == "Brasília"), "sim", "não")
_MODEL = make_pipeline(
    make_column_transformer((OneHotEncoder(), ["município"]), ("passthrough", ["x"])), LogisticRegression()
).fit(_FRAME[["x", "município"]], _FRAME["bad"])


def filled(world: World) -> Job:
    """Fill the source with ROWS rows of a day, register the model and return the job."""
    world.sql('create table readings ("código" text primary key, at timestamptz, x float8, "município" text)')
    for i in range(ROWS):
        row = (f"ação {i}", i / 10 - 1, CITIES[i % 3])
        world.sql("insert into readings values (%s, '2013-04-01 08:00Z', %s, %s)", row)
    world.register(_MODEL, _FRAME)
    return world.job(PORTUGUESE)


def predictions(world: World) -> list[tuple[Any, ...]]:
    """Return the predictions, in the order of their keys."""
    return sorted(world.results('select "código", prediction, score from predictions.bad_reading'))
