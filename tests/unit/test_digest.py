"""The digest in the talk's form, and what Slack's limits and hostile words do to it: nothing is cut uncounted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from plantao.alert.compose import run_url
from plantao.alert.digest import Addressee, Day, Frame, Notification, addressee, digest, interval, mention, page
from plantao.alert.routing import Raised, routes
from plantao.alert.slack import plain
from plantao.alert.words import masked, redacted
from plantao.config import job_file
from slack_stand_in import _problem
from world import JOB

GOLDEN = Path(__file__).parent / "golden"
NEW_YORK = ZoneInfo("America/New_York")
START = datetime(2026, 3, 2, 7, tzinfo=UTC)
END = START + timedelta(hours=1)
TO = Addressee(
    "flight_delay", "#on-call", owner="U012ABCDEF", schedule="daily", zone=NEW_YORK,
    names=frozenset({"dep_hour"}),
)  # fmt: skip
FRAME = Frame(TO, 42)
RUN = "flight_delay/scheduled__2026-03-01T05:00:00+00:00"
LINK = run_url("https://airflow.example.com/", RUN)
STORY = [
    Notification("source_changed", "flight_delay SourceChanged",
                 "flight_delay, 2026-03-01: extract: public.flights has no column 'dep_hour'.",
                 "ask the client whether it was renamed; nothing was written", START + timedelta(minutes=2),
                 link=LINK, retried=False),
    *(Notification("retrying", "flight_delay DatabaseUnavailable",
                   "flight_delay, 2026-03-01: extract: the database did not answer for 10 s.",
                   "nothing yet: it is tried again by itself", START + timedelta(minutes=minute),
                   link=LINK, retried=True, before=2) for minute in (5, 10, 15)),
    Notification("degraded", "flight_delay degraded roc_auc v4",
                 "flight_delay: roc_auc of version 4 is degraded since 2026-02-10: 0.668, usual is 0.724",
                 "see in the report since when and for whom", START + timedelta(minutes=20),
                 since=START - timedelta(days=3)),
    *(Notification("drift", f"flight_delay drift {name}", f"flight_delay: {name} has drifted", "nothing yet",
                   START + timedelta(minutes=30), since=START) for name in ("dep_hour", "carrier", "dest", "origin",
                                                                           "distance")),
    Notification("late_recovered", "flight_delay late", "flight_delay: over after 3 hours; 3 windows were missed and"
                 " are now filled", "nothing", START + timedelta(minutes=40), since=START - timedelta(hours=2)),
]  # fmt: skip


@pytest.mark.parametrize("language", ["en", "pt"])
def test_the_digest_of_the_talks_slide(language):
    told = digest(replace(FRAME, to=replace(TO, language=language)), START, END, STORY)
    golden = GOLDEN / f"digest_{language}.txt"
    assert plain(told.blocks) + "\n" == golden.read_text(encoding="utf-8")
    assert _problem(told.text, told.blocks) is None


def test_a_day_on_which_all_is_well_and_one_on_which_it_is_not():
    words = plain(digest(FRAME, START, END, [], every="daily", day=Day(24, "")).blocks)
    assert "your DAILY notification digest for *flight_delay*. There are a total of 0 notifications, 24 runs," in words
    assert "all windows complete." in words
    assert "Another 0 notifications were triggered in this interval." in words
    day = Day(23, "2026-03-01 02:00 .. 2026-03-01 03:00", ("late", "drift x", "a", "b"), told=7)
    words = plain(digest(FRAME, START, END, [], every="daily", day=day).blocks)
    assert "There are a total of 7 notifications, 23 runs, time that no run covers: 2026-03-01 02:00" in words
    assert "4 incidents are open: late, drift x, a (+1)." in words
    assert "Another 7 notifications were triggered in this interval, and told in its HOURLY digests." in words


def many(count, kinds=1, text="it broke"):
    return [
        Notification(f"kind_{number % kinds}", f"s{number}", f"{text} {number}", "look", START)
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "kinds"), [(0, 1), (1, 1), (1000, 1), (1000, 400), (60, 60)])
@pytest.mark.parametrize("text", ["it broke", "<&>" * 2000, "x" * 5000])
def test_nothing_is_cut_without_being_counted(count, kinds, text):
    told = page(FRAME, many(count, kinds, text))
    assert _problem(told.text, told.blocks) is None
    assert sum(len(block["text"]["text"]) for block in told.blocks if "text" in block) < 13_000
    words = plain(told.blocks)
    triggered = [int(line.split("triggered ")[1].split()[0]) for line in words.splitlines() if ": triggered " in line]
    another = int(words.split("Another ")[1].split()[0])
    assert sum(triggered) + another == count
    if len(text) > 1000 and count:
        assert "more characters)" in words


def test_hostile_words_are_only_words():
    evil = replace(STORY[0], message="<!channel> & <https://evil.example|click> 'x'")
    told = page(replace(FRAME, to=replace(TO, redact=False)), [evil])
    text = told.blocks[2]["text"]["text"]
    assert "&lt;!channel&gt; &amp; &lt;https://evil.example|click&gt;" in text
    assert text.count("<http") == 1  # the link to Airflow


def test_the_name_of_a_column_is_no_value():
    said = "column 'seats' is missing (there is a column 'plane_seats': was it renamed?); columns 'a', 'b' hold '42'"
    assert redacted(said, frozenset()) == said.replace("42", "…")


def test_values_do_not_leave_but_names_do():
    names = frozenset({"dep_hour"})
    said = "'Maria Silva' in \"dep_hour\" of the model's 'dep_hour', the client's; mail maria@example.com"
    assert redacted(said, names) == "'…' in \"dep_hour\" of the model's 'dep_hour', the client's; mail …"
    assert "Maria" in plain(
        page(replace(FRAME, to=replace(TO, redact=False)), [replace(STORY[0], message=said)]).blocks
    )
    assert "Maria" not in plain(page(FRAME, [replace(STORY[0], message=said)]).blocks)


@pytest.mark.parametrize(
    "secret",
    ["xoxb-12-abc", "postgres://u:hunter2@host/db", "password=hunter2", "https://hooks.slack.com/services/T/B/X"],
)
def test_secrets_never_leave(secret):
    said = masked(f"cannot use {secret} now")
    assert not {"abc", "hunter2", "T/B/X"} & set(said.replace("/", " ").split())
    assert "***" in said


def test_the_first_lines_of_a_possible_repeat_say_so():
    told = page(replace(FRAME, repeats=True), STORY[:1])
    assert plain(told.blocks).startswith(":warning: This may repeat message 42, whose acknowledgement was lost.")


def test_good_news_alone_are_good_news():
    assert page(FRAME, STORY[-1:]).text.startswith("Hey, good news from flight_delay.")
    assert page(FRAME, STORY).text.startswith("Hey, flight_delay has something to tell you now.")


@pytest.mark.parametrize(
    ("owner", "said"),
    [("U012ABCDEF", "<@U012ABCDEF>"), ("S012ABCDEF", "<!subteam^S012ABCDEF>"), ("ops", "@ops"), ("@a<b", "@a&lt;b")],
)
def test_an_owner_is_called_as_slack_calls_somebody(owner, said):
    assert mention(owner) == said


def test_a_run_has_an_address_in_airflow():
    assert run_url("http://here:8080/", "one/manual__2026-03-01T00:00:00+00:00") == (
        "http://here:8080/dags/one/runs/manual__2026-03-01T00%3A00%3A00%2B00%3A00"
    )
    assert run_url(None, RUN) is run_url("http://here", None) is run_url("http://here", "x") is None


@pytest.mark.parametrize(
    ("moment", "every", "hours"),
    [
        ("2026-03-08T12:00-04:00", "daily", 23), ("2026-11-01T12:00-05:00", "daily", 25),
        ("2026-11-01T01:30-04:00", "hourly", 1), ("2026-11-01T01:30-05:00", "hourly", 1),
        ("2026-03-02T12:34:56-05:00", "minutely", 1 / 60),
    ],
)  # fmt: skip
def test_intervals_hold_their_moment_and_days_are_the_jobs_own(moment, every, hours):
    at = datetime.fromisoformat(moment)
    start, end = interval(at, every, NEW_YORK)
    assert start <= at < end
    assert (end - start) == timedelta(hours=hours)
    assert interval(end, every, NEW_YORK)[0] == end


def test_whom_a_job_tells_is_in_its_file():
    job = job_file.parse(
        "one", 'owner = "ops"\n' + JOB + '[alert]\nlanguage = "pt"\nremind = "2 hours"', read_query=str
    )
    whom = addressee(job)
    assert (whom.owner, whom.language, whom.remind, whom.redact) == ("ops", "pt", timedelta(hours=2), True)
    assert {"id", "at", "public.readings"} <= whom.names


# --- routes ----------------------------------------------------------------------------------------------------------


def alert(number, kind, subject="s", minutes=0, **more):
    return Raised(number, START + timedelta(minutes=minutes), "one", kind, subject, **more)


def test_routes():
    waiting = [
        alert(1, "failed"), alert(2, "failed"), alert(3, "drift"), alert(4, "something_nobody_thought_of"),
        alert(5, "break"), alert(6, "break", incident_id=1), alert(7, "break", "other", incident_id=2, silenced=True),
        alert(8, "break_recovered", "other", incident_id=2), alert(9, "test", "x"), alert(10, "test", "x"),
    ]  # fmt: skip
    assert routes(waiting, [], {}, START) == {
        1: "page", 2: "counted", 3: "counted", 4: "page", 5: "counted", 6: "page", 7: "counted", 8: "counted",
        9: "page", 10: "page",
    }  # fmt: skip


def test_another_kind_of_failure_is_news_and_so_is_the_same_one_after_it_worked():
    told = [alert(1, "failed", "A")]
    assert routes([alert(2, "failed", "B", 1), alert(3, "failed", "A", 1)], told, {}, START) == {
        2: "page",
        3: "counted",
    }
    over = [*told, alert(4, "recovered", "", 2)]
    assert routes([alert(5, "failed", "A", 3)], over, {}, START) == {5: "page"}
    assert routes([alert(6, "recovered", "", 3)], over, {}, START) == {6: "counted"}


def test_what_never_stops_flapping_is_told_now_and_then():
    told = [alert(1, "late"), alert(2, "late_recovered"), alert(3, "late")]
    held, pages = [], 0
    for minute in range(1, 3 * 24 * 60, 5):
        held.append(alert(10 + minute, "late_recovered" if minute % 2 else "late", minutes=minute, held=bool(held)))
        found = routes(held, told, {}, START + timedelta(minutes=minute))
        pages += sum(route == "page" for route in found.values())
        told += [one for one in held if found[one.alert_id] == "page"]
        held = [replace(one, held=True) for one in held if found[one.alert_id] == "held"]
    assert 2 <= pages <= 9  # of 864
