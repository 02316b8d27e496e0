"""Bad rows: each is set aside with its reason, the rest is scored, and a row that is mended is scored later."""

from __future__ import annotations

import pytest

from plantao.errors import ModelFailed, TooManyRejected
from world import JOB, classifier, day, training_frame

LENIENT = JOB + "\n[validate]\nat_most_rejected = 1.0\n"


def open_rejects(world):
    return world.results(
        "select key, reason, column_name from plantao.rejected_rows where resolved_at is null order by reject_id"
    )


def spoil(world, assignment, where="id = 1003"):
    world.sql(f"update readings set {assignment} where {where}")


@pytest.mark.parametrize(
    ("assignment", "reason", "column"),
    [
        ("x = null", "null_feature", "x"),
        ("x = 'NaN'", "not_finite", "x"),
        ("x = 'Infinity'", "not_finite", "x"),
        ("y = '-Infinity'", "not_finite", "y"),
        ("city = null", "null_feature", "city"),
    ],
)
def test_a_bad_value_sets_its_row_aside_and_no_other(world, assignment, reason, column):
    job = world.ready(LENIENT)
    spoil(world, assignment)
    report = world.score(job, day(1))
    assert world.attempts() == [("succeeded", 20, 19, 1, 0)]
    assert open_rejects(world) == [({"id": 1003}, reason, column)]
    assert report.reject_reasons == {reason: 1}
    assert 1003 not in [row[0] for row in world.predictions()]


@pytest.mark.parametrize("assignment", ["y = null", "y = 'NaN'"])
def test_a_gap_where_the_training_had_gaps_is_scored(world, assignment):
    job = world.ready()
    spoil(world, assignment)
    assert world.score(job, day(1)).counts.scored == 20


def test_an_unknown_category_is_scored_when_the_model_can(world):
    job = world.ready()
    spoil(world, "city = 'Atlantis'")
    assert world.score(job, day(1)).counts.scored == 20


def test_an_unknown_category_is_set_aside_when_the_model_would_raise(world):
    world.fill()
    world.register(classifier(training_frame(), strict=True))
    spoil(world, "city = 'Atlantis'")
    world.score(world.job(LENIENT), day(1))
    assert open_rejects(world) == [({"id": 1003}, "unknown_category", "city")]


def test_limits_of_the_job_file_come_on_top(world):
    rules = "[validate.columns.x]\nmin = -5\nmax = 5\n[validate.columns.city]\nvalues = ['Porto', 'Recife']\n"
    job = world.ready(LENIENT + rules)
    spoil(world, "x = 5.5")
    spoil(world, "x = -7", "id = 1004")
    spoil(world, "city = 'São Paulo'", "id = 1005")
    world.score(job, day(1))
    assert [row[1:] for row in open_rejects(world)] == [
        ("out_of_range", "x"),
        ("out_of_range", "x"),
        ("out_of_range", "city"),
    ]


def test_a_row_that_is_mended_is_scored_and_its_reject_resolved(world):
    job = world.ready(LENIENT)
    spoil(world, "x = null")
    world.score(job, day(1))
    spoil(world, "x = 1")
    report = world.score(job, day(2))
    assert (report.counts.scored, report.counts.late) == (21, 1)
    assert open_rejects(world) == []
    assert world.results("select resolved_by_run from plantao.rejected_rows") == [(report.run_id,)]


def test_a_row_that_stays_bad_stays_one_open_reject(world):
    job = world.ready(LENIENT)
    spoil(world, "x = null")
    world.score(job, day(1))
    spoil(world, "x = 'NaN'")
    counts = world.score(job, day(1)).counts
    assert (counts.read, counts.rejected, counts.already_scored) == (20, 1, 19)
    assert open_rejects(world) == [({"id": 1003}, "not_finite", "x")]


def test_too_many_bad_rows_stop_the_run_before_anything_is_visible(world):
    job = world.ready()
    spoil(world, "x = null", "id in (1003, 1004)")
    with pytest.raises(TooManyRejected, match=r"2 of 20 rows .* 2 null_feature \(x\); for instance \{'id': 1003\}"):
        world.score(job, day(1))
    assert world.predictions() == []
    assert open_rejects(world) == []
    status, error, kind = world.attempts("status, error, error_kind")[0]
    assert (status, kind) == ("failed", "permanent")
    assert "Nothing was written" in error


def test_old_rejects_do_not_stop_a_run_that_has_little_new(world):
    job = world.ready()
    spoil(world, "x = null")
    world.score(job, day(1))
    assert world.score(job, day(1)).counts.already_scored == 19


def test_null_and_double_keys_of_a_query_are_set_aside_each_on_its_own(world):
    text = LENIENT.replace(
        'table     = "public.readings"',
        'query = "select nullif(nullif(id, 1001), 1002) as id, at, x, y, city from readings'
        ' union all select id, at, x, y, city from readings where id = 1005"',
    )
    job = world.ready(text)
    world.score(job, day(1))
    world.score(job, day(1))
    assert world.attempts() == [("succeeded", 21, 17, 4, 0), ("succeeded", 21, 0, 4, 17)]
    assert sorted(open_rejects(world), key=str) == [
        ({"id": 1005}, "duplicate_key", None),
        ({"id": 1005}, "duplicate_key", None),
        ({"id": None}, "null_key", None),
        ({"id": None}, "null_key", None),
    ]


def test_rejects_keep_no_values_unless_the_job_asks(world):
    job = world.ready(LENIENT)
    spoil(world, "x = null, city = 'private'")
    world.score(job, day(1))
    assert world.results('select detail, "row" from plantao.rejected_rows') == [
        ("NULL, which the model was not trained on", None)
    ]


def test_rejects_keep_the_row_when_the_job_asks(world):
    job = world.ready(LENIENT + "keep_rejected_rows = true\n")
    spoil(world, "x = 'NaN', y = 2, city = 'Porto'")
    world.score(job, day(1))
    assert world.results('select "row" from plantao.rejected_rows') == [({"x": "nan", "y": 2.0, "city": "Porto"},)]


class RaisesOnNegative:
    """A model with a bug of its own: it raises as soon as one x is below -2."""

    def __init__(self, model):
        self.model = model
        self.classes_ = model.classes_
        self.feature_names_in_ = model.feature_names_in_

    def predict_proba(self, frame):
        if (frame["x"] < -2).any():
            message = "x is below -2"
            raise ZeroDivisionError(message)
        return self.model.predict_proba(frame)

    def __sklearn_tags__(self):
        return self.model.__sklearn_tags__()


def test_a_row_on_which_the_model_raises_is_found_and_set_aside_alone(world):
    frame = training_frame()
    world.fill()
    world.register(RaisesOnNegative(classifier(frame)), frame[frame["x"] > -2])
    spoil(world, "x = greatest(x, -2)", "true")
    spoil(world, "x = -3", "id in (1003, 1011)")
    world.score(world.job(LENIENT), day(1))
    assert world.attempts() == [("succeeded", 20, 18, 2, 0)]
    assert open_rejects(world) == [({"id": 1003}, "model_error", None), ({"id": 1011}, "model_error", None)]


class AnswersNonsense(RaisesOnNegative):
    """A model that does not raise, and whose answer cannot be one."""

    def predict_proba(self, frame):
        answers = self.model.predict_proba(frame)
        answers[(frame["x"] < -2).to_numpy()] = self.nonsense
        return answers


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), 1.5, -0.5])
def test_a_row_with_an_impossible_answer_is_set_aside_alone(world, nonsense):
    frame = training_frame()
    world.fill()
    model = AnswersNonsense(classifier(frame))
    model.nonsense = nonsense
    world.register(model, frame[frame["x"] > -2])
    spoil(world, "x = greatest(x, -2)", "true")
    spoil(world, "x = -3")
    world.score(world.job(LENIENT), day(1))
    assert world.attempts() == [("succeeded", 20, 19, 1, 0)]
    assert open_rejects(world) == [({"id": 1003}, "bad_output", None)]


def test_a_model_that_raises_on_everything_fails_the_run(world, monkeypatch):
    monkeypatch.setattr("plantao.score.predict.FAILING_ROWS", 5)
    frame = training_frame()
    world.fill()
    world.register(RaisesOnNegative(classifier(frame)), frame[frame["x"] > -2])
    spoil(world, "x = -3", "true")
    with pytest.raises(ModelFailed, match="ZeroDivisionError on more than 5 rows"):
        world.score(world.job(LENIENT), day(1))
    assert world.predictions() == []
