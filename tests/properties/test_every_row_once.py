"""Whatever the client does and in whatever order windows are scored: every row once.

A client inserts, deletes, edits, moves, spoils and mends rows while windows are scored in any order, overlapping, dry,
or again. Once every day has been scored once more, in order, the promises hold. For more examples than the few of
`make test`: EXAMPLES=500 .venv/bin/python -m pytest tests/properties/test_every_row_once.py
"""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import examples
from plantao.window import Window
from world import JOB, World, classifier, day, training_frame

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("EXAMPLES", "0")) or examples(6)
DAYS = st.integers(1, 6)
JOBS = {
    "keep": JOB.replace('late_rows = "3 days"', 'late_rows = "6 days"') + "[validate]\nat_most_rejected = 1.0\n",
    "rescore": JOB.replace(
        'late_rows = "3 days"', 'late_rows = "6 days"\non_change = "rescore"\nchanged_at = "edited_at"'
    )
    + "[validate]\nat_most_rejected = 1.0\n",
}
MODEL = classifier(training_frame())
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), DAYS, st.integers(1, 6)),
        st.tuples(st.sampled_from(["delete", "edit", "spoil", "mend"]), st.integers(0, 40)),
        st.tuples(st.just("move"), st.integers(0, 40), DAYS),
        st.tuples(st.just("score"), DAYS, st.integers(1, 3)),
        st.tuples(st.sampled_from(["dry", "rescore"]), DAYS),
    ),
    min_size=4,
    max_size=10,
)


class Client:
    """A client who changes rows; it remembers which were touched after their insertion."""

    def __init__(self, world: World, kind: str) -> None:
        self.world = world
        world.fill(days=0)
        world.register(MODEL)
        self.job = world.job(JOBS[kind])
        self.count, self.edits, self.touched = 0, 0, set[int]()

    def act(self, action, *values) -> None:
        getattr(self, action)(*values)

    def insert(self, number: int, rows: int) -> None:
        self.world.insert(number, list(range(self.count, self.count + rows)))
        self.count += rows

    def _change(self, key: int, assignment: str) -> None:
        self.edits += 1
        self.touched.add(key)
        moment = day(1).start + timedelta(seconds=self.edits)
        self.world.sql(f"update readings set {assignment}, edited_at = %s where id = %s", [moment, key])

    def edit(self, key: int) -> None:
        self._change(key, "x = x + 0.5")

    def spoil(self, key: int) -> None:
        self._change(key, "x = null")

    def mend(self, key: int) -> None:
        self._change(key, "x = coalesce(x, 0.25)")

    def move(self, key: int, number: int) -> None:
        self._change(key, f"at = '{day(number).start + timedelta(hours=7)}'")

    def delete(self, key: int) -> None:
        self.touched.add(key)
        self.world.sql("delete from readings where id = %s", [key])

    def score(self, first: int, days: int = 1) -> None:
        self.world.score(self.job, Window(day(first).start, day(first + days - 1).end))

    def dry(self, number: int) -> None:
        self.world.score(self.job, day(number), dry_run=True)

    def rescore(self, number: int) -> None:
        self.world.score(self.job, day(number), rescore=True)


@pytest.mark.parametrize("results", ["client_db", "results_db"])
@pytest.mark.parametrize("kind", ["keep", "rescore"])
@given(actions=ACTIONS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_row_has_one_prediction_or_one_reject(server, tmp_path_factory, results, kind, actions):
    with World.create(server, tmp_path_factory.mktemp("world"), results) as world:
        client = Client(world, kind)
        client.insert(1, 3)
        for action in actions:
            client.act(*action)
        for number in range(1, 8):
            client.score(number)
        check(world, client, kind)


def check(world: World, client: Client, kind: str) -> None:
    source = world.sql("select id, x, y, city, edited_at from readings order by id")
    predictions = {row[0]: row for row in world.predictions("id, score, source_timestamp")}
    rejects = world.results(
        "select (key->>'id')::bigint, copy from plantao.rejected_rows where resolved_at is null order by 1"
    )
    assert len(set(rejects)) == len(rejects)
    rejected = {key for key, _ in rejects}
    ids = {row[0] for row in source}
    # A row that was rejected and then deleted keeps its entry, and one that was predicted its prediction.
    if kind == "keep":
        assert not set(predictions) & rejected & ids
    assert ids <= set(predictions) | rejected
    assert set(predictions) | rejected <= ids | client.touched
    unbalanced = "rows_read is distinct from rows_scored + rows_rejected + rows_already_scored"
    assert world.results(f"select count(*) from plantao.runs where status <> 'failed' and ({unbalanced})") == [(0,)]
    assert world.results("select count(*) from plantao.runs where status = 'failed'") == [(0,)]
    still = [row for row in source if row[0] in predictions and (kind == "rescore" or row[0] not in client.touched)]
    still = [row for row in still if row[1] is not None]
    if still:
        frame = pd.DataFrame([row[1:4] for row in still], columns=["x", "y", "city"])
        expected = MODEL.predict_proba(frame)[:, 1]
        # Batches of other sizes round the last bit differently.
        np.testing.assert_allclose([predictions[row[0]][1] for row in still], expected, rtol=1e-12)
