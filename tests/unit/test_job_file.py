"""Job files: what is accepted, and that a person needs one round to mend a broken one."""

from __future__ import annotations

import itertools
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import croniter
import jsonschema
import pytest

from plantao.config import field_types
from plantao.config.field_types import parse_duration
from plantao.config.job import Job
from plantao.config.job_file import json_schema, parse, read_folder, read_job
from plantao.config.table_name import parse_table, parse_target
from plantao.errors import JobFileError, UsageError

ROOT = Path(__file__).parents[2]
MINIMAL = """
[extract]
table = "public.flights"
key = ["flight_id"]
timestamp = "departed_at"
[score]
model = "flight_delay"
[load]
table = "predictions.flight_delay"
"""


def read(text: str, name: str = "a_job") -> Job:
    return parse(name, text, read_query=lambda file: {"q.sql": "select 1;\n"}[file])


def complaints(text: str, name: str = "a_job") -> list[str]:
    with pytest.raises(JobFileError) as caught:
        read(text, name)
    assert str(caught.value).startswith(f"job file {name}.toml has ")
    return [line.removeprefix(f"{name}.toml, ") for line in caught.value.complaints]


def changed(old: str, new: str) -> str:
    assert old in MINIMAL
    return MINIMAL.replace(old, new)


def test_the_complete_example_of_the_design_is_a_job():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    job = read(re.search(r"```toml\n(.*?)```", text, flags=re.DOTALL)[1])
    assert job.cron == "0 0 * * *"
    assert job.starts_at == datetime(2013, 4, 1, 4, tzinfo=UTC)
    assert job.ends_at == datetime(2013, 12, 31, 5, tzinfo=UTC)
    assert job.extract.late_rows == timedelta(days=3)
    assert job.measure.outcome.known_after == timedelta(days=1)
    assert job.alert.degraded[0].of == 5


def test_three_sections_are_enough():
    job = read(MINIMAL)
    assert (job.name, job.schedule, job.cron, job.timezone, job.query) == ("a_job", "on demand", None, "UTC", None)
    assert job.extract.connection == job.load.connection == "client_db"
    assert job.validation.at_most_rejected == 0.05
    assert job.score.threshold == 0.5


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("0 0 30 2 *", "a schedule that fires; no day is one of this cron expression"),
        ("0 0 31 2,4,6,9,11 *", "a schedule that fires"),
        ("R R * * *", "without R or H, whose ticks differ each time it is read"),
        ("0 r(1-2) * * *", "without R or H"),
        ("H 0 * * *", "without R or H"),
        ("0 0 * * 9", "a cron expression of five fields"),
        ("0 0 * * * *", "a cron expression of five fields"),
    ],
)
def test_a_schedule_that_never_fires_or_means_nothing_certain_is_refused(schedule, said):
    (found,) = complaints(f"schedule = '{schedule}'\nstarts = 2013-04-01\n{MINIMAL}")
    assert found.startswith(f"schedule: found '{schedule}'; accepted is ")
    assert said in found


@pytest.mark.parametrize("schedule", ["0 0 29 2 *", "0 0 29 2 mon#5", "15 6 L * *", "0 0 * mar thu-fri", "*/5 * * * *"])
def test_a_schedule_that_fires_however_seldom_is_accepted(schedule):
    assert read(f"schedule = '{schedule}'\nstarts = 2013-04-01\n{MINIMAL}").cron == schedule


def test_what_an_unknown_syntax_makes_of_a_schedule_must_be_the_same_twice(monkeypatch):
    hours = itertools.count()

    class Random(croniter.croniter):
        def __init__(self, _: str, start: datetime) -> None:
            super().__init__(f"0 {next(hours)} * * *", start)

        is_valid = staticmethod(lambda _: True)

    monkeypatch.setattr(field_types, "croniter", Random)
    (found,) = complaints(f"schedule = '0 ~ * * *'\nstarts = 2013-04-01\n{MINIMAL}")
    assert "whose ticks are the same each time it is read" in found


def test_a_date_beyond_what_clocks_and_time_zones_can_count_is_refused():
    text = f"schedule = 'daily'\ntimezone = 'Asia/Tokyo'\nstarts = 0001-01-01\nends = 9999-12-31\n{MINIMAL}"
    accepted = "accepted is a date from 1900 to 2999"
    assert complaints(text) == [f"starts: found '0001-01-01'; {accepted}", f"ends: found '9999-12-31'; {accepted}"]


def test_every_mistake_comes_at_once_each_with_what_would_be_right():
    text = """
schedul = "daily"
timezone = "America/NewYork"
starts = "2013-04-01"
[extract]
tabel = "x"
key = []
timestamp = 3
late_rows = "3 dayz"
on_change = "rescore"
[validate]
at_most_rejected = 5
[validate.columns.dep_hour]
minn = 0
[score]
threshold = 0.5
[load]
table = "a.b.c"
[measure]
metrics = ["auc"]
outcome = { table = "x", key = ["a", "b"], column = "c" }
[alert]
degraded = [{ metric = "roc_auc", runs = 3, of = 2 }]
"""
    found = complaints(text)
    for expected in (
        "schedul: found an unknown key; did you mean 'schedule'?",
        "timezone: found 'America/NewYork'; accepted is an IANA time zone; did you mean 'America/New_York'?",
        "starts: found '2013-04-01'; accepted is a date such as 2013-04-01 (without quotes) or a date with time",
        "[extract] tabel: found an unknown key; did you mean 'table'?",
        '[extract] late_rows: found \'3 dayz\'; accepted is a duration such as "90 minutes", "6 hours", "3 days" or',
        '[extract] changed_at: missing; on_change = "rescore" needs the column that moves when a row is edited',
        "[validate] at_most_rejected: found 5; accepted is less than or equal to 1",
        "[validate.columns.dep_hour] minn: found an unknown key; did you mean 'min'?",
        "[score] model: missing; a value is required here",
        "[load] table: found 'a.b.c'; accepted is a table name",
        "[measure.outcome] key: found 2 columns; accepted is one for each of the 0 in [extract] key",
        "[alert.degraded.0] below: accepted is exactly one of below and above",
        "[alert.degraded.0] of: found 2, fewer than runs = 3; accepted is of >= runs",
    ):
        assert [line for line in found if line.startswith(expected)], (expected, found)
    assert len(found) == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "[extract]: missing; a section is required here"),
        (changed('table = "public.flights"', ""), "[extract] table: missing; accepted is exactly one of"),
        (
            changed('table = "public.flights"', 'table = "x"\nquery = "select 1"'),
            "[extract] table: found table and query; accepted is exactly one of",
        ),
        (changed('table = "public.flights"', 'query = "delete from x"'), "[extract] query: found a statement that"),
        (changed('table = "public.flights"', 'query = "-- nothing"'), "[extract] query: found a statement that starts"),
        (changed('["flight_id"]', '["prediction"]'), "[extract] key: found 'prediction', a column of every prediction"),
        (changed('["flight_id"]', '["a", "a"]'), "[extract] key: found"),
        ('schedule = "daily"\n' + MINIMAL, "starts: missing; schedule = 'daily' needs the date of the first window"),
        ('schedule = "0 0 * *"\n' + MINIMAL, "schedule: found '0 0 * *'"),
        ('schedule = "dayly"\n' + MINIMAL, "schedule: found 'dayly'"),
        ("starts = 2013-04-02\nends = 2013-04-01\n" + MINIMAL, "ends: found 2013-04-01, which is not after starts"),
        (MINIMAL + "[validate.columns.x]\nmin = 2\nmax = 1\n", "[validate.columns.x] min: found 2, which is above"),
        (MINIMAL.replace('"predictions.flight_delay"', f'"{"t" * 56}"'), "[load] table: found"),
        ("owner = 3\n" + MINIMAL, "owner: found 3; accepted is a valid string"),
        ("extract = 3\n", "[extract]: found 3"),
        ("a = \n", "not TOML"),
        ("a = 1\na = 2\n", "not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_in_one_line(text, said):
    assert any(line.removeprefix("a_job.toml: ").startswith(said) for line in complaints(text)), complaints(text)


@pytest.mark.parametrize("name", ["Job", "1job", "a-job", "a b", "x" * 41])
def test_a_name_that_cannot_name_a_dag_is_a_mistake(name):
    assert "it becomes the name of the DAG" in complaints(MINIMAL, name)[0]


def test_a_query_file_is_read_and_a_missing_one_is_a_mistake():
    assert read(changed('table = "public.flights"', 'query_file = "q.sql"')).query == "select 1"
    with pytest.raises(JobFileError, match=r"\[extract\] query_file: .*No such file.*beside the job file"):
        parse(
            "a_job",
            changed('table = "public.flights"', 'query_file = "nowhere.sql"'),
            read_query=lambda file: Path("/no/such", file).read_text(),
        )


def test_one_broken_file_harms_no_other(tmp_path):
    (tmp_path / "good.toml").write_text(MINIMAL)
    (tmp_path / "bad.toml").write_text("nonsense")
    (tmp_path / "latin.toml").write_bytes(b'description = "\xe9"')
    found = read_folder(tmp_path)
    assert isinstance(found["good"], Job)
    assert isinstance(found["bad"], JobFileError)
    assert isinstance(found["latin"], JobFileError)


def test_a_misspelt_job_is_answered_with_the_nearest(tmp_path):
    (tmp_path / "flight_delay.toml").write_text(MINIMAL)
    assert read_job(tmp_path, "flight_delay").name == "flight_delay"
    with pytest.raises(UsageError, match="Did you mean 'flight_delay'"):
        read_job(tmp_path, "fligth_delay")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90 minutes", 5400), ("45 seconds", 45), ("1 hour", 3600), (" 3 days ", 259_200), ("2 weeks", 1_209_600)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["3", "days", "-1 day", "1.5 hours", "1 fortnight", 3, None])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("flights", ("public", "flights")),
        ("a.b", ("a", "b")),
        ('"My Schema"."Tab.le"', ("My Schema", "Tab.le")),
        ('"say ""hi"""', ("public", 'say "hi"')),
        ("ünï.çödé", ("ünï", "çödé")),
    ],
)
def test_table_names(text, names):
    assert parse_table(text) == names


@pytest.mark.parametrize("text", ["", "a.b.c", "a..b", "a b", '"open', "a\0b", "x" * 64, ".a", "a."])
def test_what_is_no_table_name(text):
    with pytest.raises(ValueError, match=r"table name|63 bytes"):
        parse_table(text)


@pytest.mark.parametrize(
    ("text", "spelt"),
    [("flights", "public.flights"), ('"a"."B c"', 'a."B c"'), ("a.B", 'a."B"'), ('x."q""q"', 'x."q""q"')],
)
def test_a_table_as_text_is_what_psql_takes_and_reads_back_as_itself(text, spelt):
    table = parse_table(text)
    assert str(table) == f"{table}" == spelt
    assert parse_table(spelt) == table


def test_a_table_for_predictions_leaves_room_for_those_beside_it():
    longest = parse_target("p." + "x" * 55)
    assert [len(table.name) for table in longest.written] == [55, 63, 62]
    with pytest.raises(ValueError, match="at most 55 bytes"):
        parse_target("p." + "ü" * 28)


def test_the_json_schema_knows_the_same_files():
    schema = json_schema()
    for path in (ROOT / "include" / "jobs").glob("*.toml"):
        content = tomllib.loads(path.read_text())
        jsonschema.validate(_plain(content), schema)
    for wrong in ({"extract": {}}, {**_plain(tomllib.loads(MINIMAL)), "schedul": "daily"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert schema["$defs"]["Extract"]["properties"]["late_rows"]["description"]


def _plain(value):
    """TOML as an editor sees it: a date is text."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if isinstance(value, (str, int, float, bool)) else value.isoformat()


def test_a_job_survives_pickling_and_never_changes():
    import pickle

    job = read(MINIMAL)
    assert pickle.loads(pickle.dumps(job)).name == "a_job"
    with pytest.raises(Exception, match="frozen"):
        job.owner = "me"
    error = JobFileError("x.toml", ["one", "two"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
