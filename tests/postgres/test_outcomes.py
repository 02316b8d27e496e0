"""Predictions held against what really happened: the sums are those that pandas finds, in one database and in two."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score

from plantao.errors import OutcomeUnreadable
from plantao.ledger import session
from plantao.ledger.grants import SCORER
from plantao.measure.outcomes import join
from plantao.measure.profile.sketch import added
from plantao.release import promotion
from world import ANALYST, JOB, classifier, day, regressor, training_frame

FIRST, SECOND = date(2013, 4, 1), date(2013, 4, 2)
NOW = datetime(2013, 4, 6, tzinfo=UTC)
MEASURE = """
[measure]
segments = ["city"]
outcome = { table = "public.truth", column = "bad" }
"""
ARRIVED = MEASURE.replace("}", ', arrived_at = "known_at" }')
TRUTH = "create table public.truth (id bigint, bad {}, known_at timestamptz)"


class Certain(LogisticRegression):
    """A model that never doubts."""

    def predict_proba(self, frame):
        likely = np.where(frame["x"] > 0, 1.0, 1e-200)
        return np.column_stack([1 - likely, likely])


@pytest.fixture(params=["one", "two"])
def client(request):
    """Predictions beside the outcomes, and in another database."""
    return request.getfixturevalue("world" if request.param == "one" else "two_databases")


def ready(world, measure=MEASURE, kind="boolean", *, model=None, frame=None, days=2, per_day=20):
    world.fill(days=days, per_day=per_day)
    world.sql(TRUTH.format(kind))
    manifest = world.register(model, frame)
    job = world.job(JOB + measure)
    for number in range(1, days + 1):
        world.score(job, day(number))
    return job, {manifest.version: manifest.output}


def tell(world, ids, value=lambda i: i % 3 == 0, known_at=None):
    for i in ids:
        world.sql("insert into truth values (%s, %s, %s)", (i, value(i), known_at))


def tally(world, job, outputs, days=(FIRST, SECOND)):
    with session.session(job, world.place) as connection:
        return join.tally_days(job, world.place, connection, days, outputs)


def look(world, job, now=NOW):
    with session.session(job, world.place) as connection:
        return join.days_to_look_at(connection, job, world.place, now)


def kept(world, segment="", on=FIRST, role="champion", version=1):
    found = world.results(
        "select rows, labelled, state from plantao.daily_outcomes"
        " where segment = %s and day = %s and role = %s and model_version = %s",
        (segment, on, role, version),
    )
    return found[0] if found else None


def joined(world, table="predictions.bad_reading", where="true"):
    """Return predictions with their outcomes and segments, as pandas joins them."""
    rows = world.results(f"select id, prediction, score, source_timestamp, model_version from {table} where {where}")
    predictions = pd.DataFrame(rows, columns=["id", "decision", "score", "at", "version"])
    truth = pd.DataFrame(world.sql("select id, bad from truth"), columns=["id", "bad"])
    cities = pd.DataFrame(world.sql("select id, city from readings"), columns=["id", "city"])
    frame = predictions.merge(cities, on="id").merge(truth, on="id", how="left")
    frame["day"] = pd.to_datetime(frame["at"], utc=True).dt.date
    return frame


def check_binary(state, frame, positive=True):
    """Compare the sums of a state with those that NumPy finds over labelled rows."""
    known = frame[frame["bad"].notna()]
    y, p = (known["bad"] == positive).to_numpy(dtype=float), known["score"].to_numpy()
    cells = {}
    for score, decision, label in zip(p, known["decision"], y, strict=True):
        text = str(decision).lower() if isinstance(decision, (bool, np.bool_)) else str(decision)
        cell = cells.setdefault(str(min(int(score * 200), 199)), {}).setdefault(text, [0, 0, 0.0, 0.0])
        cell[int(label)] += 1
        cell[2 + int(label)] += score
    assert join.same(state["bins"], cells)
    loss = -np.log(np.where(y == 1, p, 1 - p))
    for name, values in {"log_loss": loss, "squared_error": (p - y) ** 2, "residual": p - y}.items():
        assert state["sums"][name] == pytest.approx([values.sum(), (values**2).sum()])
    assert sum(state["decided"].values()) == len(frame)


# --- binary ----------------------------------------------------------------------------------------------------------


def test_the_sums_are_those_that_pandas_and_scikit_learn_find(client):
    job, outputs = ready(client, per_day=60)
    tell(client, [*range(1000, 1045), *range(2000, 2060)])
    changed = tally(client, job, outputs)
    assert [(c.day, c.role, c.rows, c.labelled) for c in changed] == [
        (FIRST, "champion", 60, 45), (SECOND, "champion", 60, 60)]  # fmt: skip
    frame = joined(client)
    for on in (FIRST, SECOND):
        of_day = frame[frame["day"] == on]
        rows, labelled, state = kept(client, on=on)
        assert (rows, labelled) == (60, of_day["bad"].notna().sum())
        assert (state["kind"], state["conflicting"], state["unusable"]) == ("binary", 0, 0)
        assert "lags" not in state
        check_binary(state, of_day)
        for city in ("Porto", "Recife"):
            rows, labelled, state = kept(client, f"city={city}", on)
            part = of_day[of_day["city"] == city]
            assert (rows, labelled) == (len(part), part["bad"].notna().sum())
            check_binary(state, part)
    whole = added([kept(client, on=on)[2] for on in (FIRST, SECOND)])
    known = frame[frame["bad"].notna()]
    y = known["bad"].astype(bool)
    assert whole["sums"]["log_loss"][0] / len(known) == pytest.approx(log_loss(y, known["score"]))
    matrix = {"false": [0, 0], "true": [0, 0]}
    for cell in whole["bins"].values():
        for decision, (negatives, positives, _, _) in cell.items():
            matrix[decision][0] += negatives
            matrix[decision][1] += positives
    expected = confusion_matrix(y, known["decision"].astype(bool))
    assert np.array_equal(np.array([matrix["false"], matrix["true"]]).T, expected)
    bins = np.minimum(np.floor(known["score"] * 200), 199)
    assert 0 < roc_auc_score(y, bins) < 1


def test_tallying_again_changes_nothing(client):
    job, outputs = ready(client)
    tell(client, range(1000, 1020))
    tally(client, job, outputs)
    before = client.results("select * from plantao.daily_outcomes order by day, segment")
    assert tally(client, job, outputs) == []
    assert client.results("select * from plantao.daily_outcomes order by day, segment") == before


def test_a_day_without_labels_still_tells_how_many_rows_each_segment_has(client):
    job, outputs = ready(client)
    tally(client, job, outputs)
    rows, labelled, state = kept(client)
    assert (rows, labelled, state["bins"], state["sums"]["log_loss"]) == (20, 0, {}, [0, 0])
    assert kept(client, "city=Porto")[:2] == (10, 0)


def test_a_large_day_is_cut_and_its_sums_are_the_same(world, monkeypatch):
    job, outputs = ready(world, per_day=60)
    tell(world, range(1000, 1060))
    tally(world, job, outputs)
    before = world.results("select segment, rows, labelled, state from plantao.daily_outcomes order by day, segment")
    world.results("delete from plantao.daily_outcomes")
    monkeypatch.setattr(join, "ROWS_AT_ONCE", 17)
    tally(world, job, outputs)
    after = world.results("select segment, rows, labelled, state from plantao.daily_outcomes order by day, segment")
    assert join.same(before, after)


# --- what comes late, twice or wrong ---------------------------------------------------------------------------------


def test_late_labels_and_revised_ones_are_found(client):
    job, outputs = ready(client)
    assert look(client, job) == [FIRST, SECOND]
    tally(client, job, outputs)
    assert look(client, job) == []
    tell(client, range(1000, 1010))
    assert look(client, job) == [FIRST]
    assert [(c.day, c.labelled) for c in tally(client, job, outputs, [FIRST])] == [(FIRST, 10)]
    tell(client, range(1010, 1020))
    assert look(client, job) == [FIRST]
    tally(client, job, outputs, [FIRST])
    assert kept(client)[:2] == (20, 20)
    assert look(client, job) == []
    client.sql("update truth set bad = not bad where id = 1000")  # a day that has all its labels
    assert look(client, job) == [FIRST]
    assert [(c.day, c.labelled) for c in tally(client, job, outputs, [FIRST])] == [(FIRST, 20)]
    check_binary(kept(client)[2], joined(client, where="id < 2000"))
    assert look(client, job) == []


def test_after_a_month_a_day_with_all_labels_is_left_alone_and_after_longer_any_day(client):
    job, outputs = ready(client)
    tell(client, range(1000, 1020))
    tally(client, job, outputs)
    client.sql("update truth set bad = not bad where id = 1000")
    tell(client, [2000])
    assert look(client, job, datetime(2013, 5, 6, tzinfo=UTC)) == [SECOND]
    assert look(client, job, datetime(2013, 6, 6, tzinfo=UTC)) == []


def test_rows_that_were_scored_again_or_later_are_found(client):
    job, outputs = ready(client)
    tally(client, job, outputs)
    client.insert(1, [1500, 1501])
    client.score(job, day(1))
    assert look(client, job) == [FIRST]
    assert look(client, job, datetime(2013, 9, 6, tzinfo=UTC)) == [FIRST]
    tally(client, job, outputs, [FIRST])
    assert kept(client)[0] == 22
    assert look(client, job) == []
    client.score(job, day(2), rescore=True)
    assert look(client, job) == [SECOND]


def test_equal_outcomes_count_once_and_contradicting_ones_not_at_all(client):
    job, outputs = ready(client)
    tell(client, [*range(1000, 1010), 1000, 1001])
    tell(client, [1002, 1003], lambda i: i % 3 != 0)
    tally(client, job, outputs)
    rows, labelled, state = kept(client)
    assert (rows, labelled, state["conflicting"]) == (20, 8, 2)


def test_the_newest_of_several_outcomes_counts(client):
    job, outputs = ready(client, ARRIVED)
    tell(client, range(1000, 1010), known_at="2013-04-03 00:00Z")
    tell(client, [1002], lambda _: True, known_at="2013-04-05Z")
    tell(client, [1003], lambda _: True, known_at="2013-04-02Z")
    tell(client, [1004], lambda i: i % 3 != 0, known_at="2013-04-03Z")
    tell(client, [1005], lambda _: True)
    tally(client, job, outputs)
    rows, labelled, state = kept(client)
    assert (rows, labelled, state["conflicting"]) == (20, 9, 1)
    assert state["lags"] == {"1": 7, "2": 1, "3": 1}  # the reading 1000 was two days before to the second
    ones = sum(cell[1] for bins in state["bins"].values() for cell in bins.values())
    assert ones == len({1002, *(i for i in range(1000, 1010) if i % 3 == 0)} - {1004})


def test_an_outcome_that_is_no_class_is_unusable(client):
    frame = training_frame().assign(bad=lambda f: np.where(f["bad"], "bad", "good"))
    job, outputs = ready(client, kind="text", model=classifier(frame), frame=frame)
    tell(client, range(1000, 1010), lambda i: ["bad", "good", "ugly"][i % 3])
    tally(client, job, outputs)
    rows, labelled, state = kept(client)
    ugly = sum(i % 3 == 2 for i in range(1000, 1010))
    assert (rows, labelled, state["unusable"]) == (20, 10 - ugly, ugly)
    assert set(state["decided"]) <= {"bad", "good"}


# --- segments and arms -----------------------------------------------------------------------------------------------


def test_rare_values_of_a_segment_are_counted_together(world):
    job, outputs = ready(world, per_day=0, days=1)
    for i in range(70):
        world.insert(1, [1000 + 3 * i, 1001 + 3 * i] if i < 40 else [1000 + 3 * i], city=f"town {i:02}")
    world.insert(1, [5000, 5001])
    world.score(job, day(1))
    world.sql("update readings set city = null where id >= 5000")
    tell(world, range(1000, 1300))
    tally(world, job, outputs)
    counts = dict(world.results("select segment, rows from plantao.daily_outcomes where segment like 'city=%'"))
    assert len(counts) == 52
    assert (counts["city=(missing)"], counts["city=(other)"]) == (2, 20)
    assert sum(counts.values()) == kept(world)[0] == 112
    world.insert(2, [9000 + i for i in range(30)], city="town 69")
    world.score(job, day(2))
    tally(world, job, outputs, [SECOND])  # those that were counted first keep their names
    assert kept(world, "city=(other)", SECOND)[0] == 30


def test_the_control_group_and_what_the_client_did_are_segments(client):
    measure = MEASURE + 'control_group = 0.3\naction = { table = "public.done", column = "acted" }\n'
    client.sql("create table public.done (id bigint, acted boolean)")
    job, outputs = ready(client, measure)
    client.sql("insert into done select i, i % 2 = 0 from generate_series(1000, 1009) as i")
    client.grant()
    tell(client, range(1000, 1020))
    tally(client, job, outputs)
    control = client.results("select count(*) from predictions.bad_reading where in_control_group and id < 2000")[0][0]
    assert kept(client, "@control")[:2] == (control, control)
    assert kept(client, "@treated")[:2] == (20 - control, 20 - control)
    assert (kept(client, "@acted")[0], kept(client, "@not_acted")[0]) == (5, 5)


def test_versions_beside_the_champion_are_tallied_on_their_own(client):
    job, outputs = ready(client)
    for seed in (1, 2):
        manifest = client.register(frame=training_frame(seed=seed))
        promotion.mark("bad_reading", manifest.version, "let us see", client.place, "challenger")
        outputs[manifest.version] = manifest.output
    client.insert(3, list(range(3000, 3020)))
    client.score(job, day(3))
    tell(client, range(3000, 3020))
    third = date(2013, 4, 3)
    assert look(client, job) == [FIRST, SECOND, third]
    assert [(c.role, c.rows) for c in tally(client, job, outputs, [third])] == [("challenger", 40), ("champion", 20)]
    shadow = joined(client, "predictions.bad_reading_shadow")
    for version in (2, 3):
        rows, labelled, state = kept(client, on=third, role="challenger", version=version)
        assert (rows, labelled) == (20, 20)
        check_binary(state, shadow[shadow["version"] == version])


def test_a_version_that_nobody_describes_is_left_out(client):
    job, outputs = ready(client)
    tell(client, range(1000, 1020))
    assert tally(client, job, {}) == []
    assert kept(client) is None
    assert len(tally(client, job, outputs)) == 2


# --- other models ----------------------------------------------------------------------------------------------------


def test_labels_that_are_numbers_meet_outcomes_of_other_types(client):
    frame = training_frame().assign(bad=lambda f: f["bad"].astype(int))
    job, outputs = ready(client, kind="numeric(3, 1)", model=classifier(frame), frame=frame)
    tell(client, range(1000, 1020), lambda i: float(i % 3 == 0))
    tally(client, job, outputs)
    assert kept(client)[:2] == (20, 20)
    check_binary(kept(client)[2], joined(client, where="id < 2000"), positive=1)
    client.sql("alter table truth alter bad type boolean using bad <> 0")
    assert tally(client, job, outputs) == []


def test_several_classes(client):
    frame = training_frame()
    frame["bad"] = np.select([frame["x"] < -0.5, frame["x"] < 0.5], ["low", "middle"], "high")
    job, outputs = ready(client, kind="text", model=classifier(frame), frame=frame, per_day=60)
    tell(client, range(1000, 1050), lambda i: ["low", "middle", "high", "none"][i % 4])
    tally(client, job, outputs)
    rows, labelled, state = kept(client)
    assert (rows, labelled, state["unusable"]) == (60, 38, 12)
    lines = client.results(
        "select id, prediction, scores from predictions.bad_reading where id < 1050 and id % 4 <> 3 order by id"
    )
    names = ["low", "middle", "high"]
    truth = [names[i % 4] for i, _, _ in lines]
    p = np.array([[scores[name] for name in names] for _, _, scores in lines])
    y = np.array([[name == label for name in names] for label in truth], dtype=float)
    confusion, bins = {}, {}
    for (_, decision, scores), label in zip(lines, truth, strict=True):
        row = confusion.setdefault(decision, {})
        row[label] = row.get(label, 0) + 1
        for name in names:
            cell = bins.setdefault(name, {}).setdefault(str(min(int(scores[name] * 200), 199)), [0, 0])
            cell[label == name] += 1
    assert (state["confusion"], state["bins"]) == (confusion, bins)
    loss, squared = -np.log((p * y).sum(axis=1)), ((p - y) ** 2).sum(axis=1)
    assert state["sums"]["log_loss"] == pytest.approx([loss.sum(), (loss**2).sum()])
    assert state["sums"]["squared_error"] == pytest.approx([squared.sum(), (squared**2).sum()])
    assert sum(state["decided"].values()) == 60


def test_a_regression(client):
    frame = training_frame()
    job, outputs = ready(client, kind="numeric", model=regressor(frame), frame=frame)
    tell(client, range(1000, 1018), lambda i: i % 7)
    client.sql("insert into truth values (1018, 'NaN'), (1019, 1e80)")
    exact = client.results("select score from predictions.bad_reading where id = 1000")[0][0]
    client.sql("update truth set bad = %s::float8::text::numeric where id = 1000", (exact,))
    tally(client, job, outputs)
    rows, labelled, state = kept(client)
    assert (rows, labelled, state["unusable"], state["kind"]) == (20, 18, 2, "regression")
    known = joined(client, where="id < 1018")
    y = known["bad"].astype(float).to_numpy()
    error = known["score"].to_numpy() - y
    expected = {"absolute_error": abs(error), "squared_error": error**2, "residual": error, "outcome": y}
    for name, values in expected.items():
        assert state["sums"][name] == pytest.approx([values.sum(), (values**2).sum()])
    sizes = ["zero" if e == 0 else str(math.ceil(math.log(abs(e)) / math.log(1.02))) for e in error]
    assert state["errors"] == pd.Series(sizes).value_counts().to_dict()
    assert "zero" in state["errors"]
    assert "decided" not in state


def test_probabilities_that_are_nearly_certain_do_no_harm(world):
    frame = training_frame()[["x", "bad"]]
    job, outputs = ready(world, model=Certain().fit(frame[["x"]], frame["bad"]), frame=frame)
    tell(world, range(1000, 1020))
    tally(world, job, outputs)
    frame = joined(world, where="id < 2000")
    assert set(frame["score"]) == {1e-200, 1.0}
    p = frame["score"].clip(1e-15, 1 - 1e-15)
    loss = -np.log(np.where(frame["bad"], p, 1 - p))
    assert kept(world)[2]["sums"]["log_loss"] == pytest.approx([loss.sum(), (loss**2).sum()], rel=1e-3)


# --- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said", "advice"),
    [
        ("drop table truth", "does not exist", "create the table"),
        ("alter table truth drop bad", "outcome column 'bad' is missing in public.truth", "measure"),
        ("alter table truth rename id to key", "key column 'id' is missing in public.truth", "measure"),
        ("alter table truth alter id type text", "types of the key columns do not compare", "key"),
        ("alter table readings rename city to town", "segment column 'city' is missing in the source", "measure"),
        (f"revoke all on truth from {SCORER}", "permission denied", 'grant select on "public"."truth" to'),
    ],
)
def test_outcomes_that_cannot_be_read_say_what_to_do_and_lose_nothing(client, damage, said, advice):
    job, outputs = ready(client)
    tell(client, range(1000, 1010))
    tally(client, job, outputs)
    before = client.results("select * from plantao.daily_outcomes order by day, segment")
    client.sql(damage)
    with pytest.raises(OutcomeUnreadable, match=said) as caught:
        tally(client, job, outputs)
    assert caught.value.permanent
    assert advice in caught.value.next_step
    with pytest.raises(OutcomeUnreadable, match=said):
        look(client, job)
    assert client.results("select * from plantao.daily_outcomes order by day, segment") == before


def test_a_regression_needs_outcomes_that_are_numbers(world):
    frame = training_frame()
    job, outputs = ready(world, kind="text", model=regressor(frame), frame=frame)
    with pytest.raises(OutcomeUnreadable, match="outcome column 'bad' is text"):
        tally(world, job, outputs)


def test_the_reader_role_reads_the_sums(client):
    job, outputs = ready(client)
    tally(client, job, outputs)
    at = client.home_of_results
    assert client.sql("select count(*) from plantao.daily_outcomes", at=at, user=ANALYST) == [(6,)]


def test_a_local_day_is_the_jobs(world):
    world.fill(days=2)
    world.sql(TRUTH.format("boolean"))
    output = world.register().output
    job = world.job(JOB.replace("starts", 'timezone = "America/New_York"\nstarts') + MEASURE)
    world.score(job, day(1))
    assert look(world, job) == [date(2013, 3, 31), FIRST]
    tally(world, job, {1: output}, [date(2013, 3, 31), FIRST])
    assert kept(world, on=date(2013, 3, 31))[0] + kept(world, on=FIRST)[0] == 20


def test_keys_of_several_columns_and_types(client):
    client.sql("create table public.readings (city text, id uuid, at timestamptz, x float8, y float8)")
    client.sql(
        "insert into readings select c, md5(i::text)::uuid, '2013-04-01Z'::timestamptz + i * interval '1 hour', i, i"
        " from generate_series(1, 10) as i, unnest(array['Porto', 'Recife', 'naïve \"x\"']) as c"
    )
    client.sql("create table public.truth (town text, code uuid, bad boolean)")
    client.sql("insert into truth select city, id, x > 5 from readings where city <> 'Recife'")
    output = client.register().output
    measure = MEASURE.replace("}", ', key = ["town", "code"] }')
    job = client.job(JOB.replace('key       = ["id"]', 'key       = ["city", "id"]') + measure)
    client.score(job, day(1))
    tally(client, job, {1: output}, [FIRST])
    assert kept(client)[:2] == (30, 20)
    assert kept(client, 'city=naïve "x"')[:2] == (10, 10)
    assert kept(client, "city=Recife")[:2] == (10, 0)
