"""`plantao check`: whatever is broken, exactly that is named, with its cure, and nothing that rests on it is asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import tempfile
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Self
from urllib.parse import quote

import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from plantao import cli
from plantao.ledger.grants import LEDGER_RIGHTS, SCORER
from plantao.models import store
from plantao.preflight import database as connection
from plantao.preflight import machine, sample
from plantao.preflight.grants import DECIDED_ELSEWHERE
from plantao.release import promotion
from world import JOB, administer, classifier, training_frame

SCHEDULED = JOB.replace("starts ", "ends = 2013-04-06\nstarts ")
HEALTHY = [
    "bad_reading: job file",
    "client_db: connection",
    "client_db: clock",
    "client_db: ledger",
    "bad_reading: model",
    "bad_reading: source",
    "bad_reading: key",
    "bad_reading: timestamps",
    "bad_reading: source rights",
    "bad_reading: predictions",
    "bad_reading: live data",
    "disk",
    "airflow",
    "slack",
]


class Here:
    """A place where a job works, under a login with the printed rights and nothing beyond."""

    def __init__(self, world, monkeypatch, capsys) -> None:
        self.world, self.monkeypatch, self.capsys = world, monkeypatch, capsys
        for name, value in world.environment.items():
            monkeypatch.setenv(name, value)

    def plantao(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; return its exit status, its output and its errors."""
        self.monkeypatch.setattr(sys, "argv", ["plantao", "-q", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.entry()
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    def log_in(self, name: str = "client_db", **others: str) -> str:
        """Let the product log in as a member of the scorer role, here and from now on; return the login."""
        for database in self.world.databases:
            self.world.sql(self.plantao("init", "--print-grants")[1], at=database)
        address = self.world.address(name)
        login = f"checker_{self.world.databases[name]}"
        make = f"create role {login} login password 'right' in role {SCORER}"
        administer(self.world.server, f"do $$ begin {make}; exception when duplicate_object then null; end $$")
        self.set_address(name, user=login, **others)
        return str(address.parameters["dbname"]) and login

    def set_address(self, name: str, **others: str) -> None:
        address = self.world.address(name)
        changed = replace(address, parameters={**address.parameters, **others})
        self.monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", changed.url())

    def check(self, *arguments: str) -> tuple[int, list[dict[str, str]]]:
        status, out, _ = self.plantao("check", "--json", *arguments)
        return status, json.loads(out)["lines"]

    def is_fine(self, *arguments: str) -> list[dict[str, str]]:
        """Assert that the page has no fault; return its lines."""
        status, lines = self.check(*arguments)
        assert [line for line in lines if line["state"] != "OK" and line["of"] != "slack"] == []
        assert status == 0
        return lines

    def names_only(self, state: str, of: str, said: str, cure: str, status: int | None = None) -> list[str]:
        """Assert that the page has this one fault, said in these words; return what else was asked."""
        found, lines = self.check()
        faults = [line for line in lines if line["state"] != "OK" and line["of"] != "slack"]
        assert [(line["state"], line["of"]) for line in faults] == [(state, of)], faults
        assert re.search(said, faults[0]["what"]), faults[0]["what"]
        assert re.search(cure, faults[0]["cure"]), faults[0]["cure"]
        assert found == (status if status is not None else {"WARN": 0, "FAIL": 1}[state])
        assert self.world.attempts() == []
        return [line["of"] for line in lines if line["state"] == "OK"]


@pytest.fixture
def here(world, monkeypatch, capsys) -> Here:
    found = Here(world, monkeypatch, capsys)
    world.ready(SCHEDULED)
    found.login = found.log_in()
    return found


def edited_manifest(world, change) -> None:
    path = world.folder / "models" / "bad_reading" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


class Answering:
    """A server on this machine that gives everybody the same answer."""

    def __init__(self, answer, status: int = 200) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, self.headers.get("Authorization")))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        asked: list[tuple[str, str | None]] = []
        self.asked = asked
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


# --- nothing is wrong ------------------------------------------------------------------------------------------------


def test_a_healthy_place_gives_only_ok_and_says_that_digests_go_to_the_log(here):
    status, lines = here.check()
    assert [line["of"] for line in lines] == HEALTHY
    assert [(line["of"], line["state"]) for line in lines if line["state"] != "OK"] == [("slack", "WARN")]
    assert "AIRFLOW_CONN_SLACK" in lines[-1]["cure"]
    assert status == 0
    said = {line["of"]: line["what"] for line in lines}
    assert said["bad_reading: live data"] == "none of 20 rows of 2013-04-05 would be set aside"
    assert said["bad_reading: predictions"] == "predictions.bad_reading will be made by the first run"


def test_it_is_still_healthy_after_a_run_and_in_plain_lines(here):
    assert here.plantao("run", "bad_reading")[0] == 0
    status, out, _ = here.plantao("check", "bad_reading")
    assert status == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["state", "of", "what", "cure"]
    assert {line[0] for line in lines[1:-1]} == {"OK"}
    assert ["OK", "bad_reading: predictions", "predictions.bad_reading fits and may be written", "-"] in lines


def test_a_check_writes_nothing_and_leaves_nothing_behind(here):
    written = "select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables"
    count = f"select ({written}), (select count(*) from pg_class)"
    here.world.sql("select pg_stat_force_next_flush()")
    before = here.world.sql(count)
    here.check()
    assert here.world.sql(count) == before


def test_no_secret_is_on_the_page(here):
    here.set_address("client_db", user=here.login, password="hunter2secret")
    with Answering({"ok": False, "error": "invalid_auth"}) as there:
        here.monkeypatch.setenv("AIRFLOW_CONN_SLACK", f"slack://:xoxb-hunter2secret@/?base_url={quote(there.url)}")
        for command in (["check"], ["check", "--json"]):
            _, out, err = here.plantao(*command)
            assert "hunter2secret" not in out + err


# --- job files -------------------------------------------------------------------------------------------------------


def test_a_typo_in_a_job_file(here):
    path = here.world.folder / "jobs" / "broken.toml"
    path.write_text(JOB.replace("late_rows", "laterows"))
    asked = here.names_only("FAIL", "broken: job file", "laterows.*late_rows", r"mend .*/jobs/broken\.toml", status=2)
    assert "bad_reading: live data" in asked
    here.is_fine("bad_reading")
    assert here.check("broken")[0] == 2


def test_no_job_file_at_all(here):
    (here.world.folder / "jobs" / "bad_reading.toml").unlink()
    asked = here.names_only("WARN", "job files", "there is none in", "PLANTAO_JOBS")
    assert asked == ["disk", "airflow"]


def test_a_job_that_starts_in_the_future(here):
    here.world.job(JOB.replace("2013-04-01", "2999-04-01"))
    here.names_only(
        "WARN", "bad_reading: job file", "nothing is due before it starts, on 2999-04-01", "correct `starts`"
    )


# --- databases -------------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_answer(here):
    here.monkeypatch.setenv("AIRFLOW_CONN_CLIENT_DB", "postgres://someone:hunter2secret@127.0.0.1:1/nowhere")
    asked = here.names_only(
        "FAIL", "client_db: connection", "refused.*127.0.0.1:1/nowhere", "start the server.*AIRFLOW_CONN_CLIENT_DB"
    )
    assert asked == ["bad_reading: job file", "disk", "airflow"]


def test_a_connection_that_nobody_has_set(here):
    here.monkeypatch.delenv("AIRFLOW_CONN_CLIENT_DB")
    here.names_only("FAIL", "client_db: connection", "is not known here", "set AIRFLOW_CONN_CLIENT_DB to postgres://")


@pytest.mark.parametrize(
    ("others", "said", "cure"),
    [
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist', "correct the database name"),
        ({"user": "nobody_here"}, 'role "nobody_here" does not exist', "let this login in"),
    ],
)
def test_a_login_that_leads_nowhere(here, others, said, cure):
    here.set_address("client_db", **{"user": here.login, **others})
    here.names_only("FAIL", "client_db: connection", said, cure)


@pytest.fixture
def passwords_are_asked_for(here):
    """Let the server ask this login for its password."""
    rules = here.world.server.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all {here.login} scram-sha-256\n{before}")
    administer(here.world.server, "select pg_reload_conf()")
    deadline = time.monotonic() + 20
    while here.check()[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    yield
    rules.write_text(before)
    administer(here.world.server, "select pg_reload_conf()")


@pytest.mark.usefixtures("passwords_are_asked_for")
def test_a_wrong_password(here):
    here.set_address("client_db", user=here.login, password="wrong")
    here.names_only(
        "FAIL", "client_db: connection", r"password authentication failed.*\(28P01\)", "correct the password"
    )
    here.set_address("client_db", user=here.login, password="right")
    here.is_fine()


@pytest.mark.parametrize(
    ("off", "state", "said"),
    [(-30, "WARN", "30 s ahead of"), (30, "WARN", "30 s behind"), (-3600, "FAIL", "3600 s ahead of")],
)
def test_a_clock_that_is_off(here, off, state, said):
    here.monkeypatch.setattr(connection, "clock", lambda: time.time() + off)
    asked = here.names_only(state, "client_db: clock", said, "NTP")
    assert "bad_reading: live data" in asked


def test_a_slow_network_is_no_clock_that_is_off():
    assert connection.clock_answer(ahead=7.0, uncertain=6.5).state == "OK"
    assert connection.clock_answer(ahead=7.0, uncertain=0.5).state == "WARN"
    assert connection.clock_answer(ahead=-61.0, uncertain=0.5).state == "FAIL"


def test_a_database_without_a_ledger(here):
    here.world.sql("drop schema plantao cascade")
    _, lines = here.check()
    assert [(line["state"], line["of"]) for line in lines if line["state"] != "OK" and line["of"] != "slack"] == [
        ("FAIL", "client_db: ledger")
    ]
    ledger = next(line for line in lines if line["of"] == "client_db: ledger")
    assert "has no ledger" in ledger["what"]
    assert ledger["cure"] == "run: plantao init"
    asked = [line["of"] for line in lines]
    assert "bad_reading: model" not in asked
    assert "bad_reading: source rights" in asked


def test_an_older_ledger(here):
    here.world.sql(
        "delete from plantao.schema_migrations where number = (select max(number) from plantao.schema_migrations)"
    )
    here.names_only("FAIL", "client_db: ledger", r"has an older ledger \(\d+ of \d+\)", "run: plantao init")


def test_a_newer_ledger(here):
    here.world.sql("insert into plantao.schema_migrations (number, name) values (999, 'from the future')")
    asked = here.names_only("FAIL", "client_db: ledger", "has a newer ledger than this program", "git pull")
    assert "bad_reading: model" not in asked


def test_a_ledger_that_may_not_be_written(here):
    here.world.sql(f"revoke insert, update on plantao.runs from {SCORER}")
    asked = here.names_only(
        "FAIL",
        "client_db: ledger",
        "may not INSERT on plantao.runs, UPDATE on plantao.runs$",
        "plantao init --print-grants",
    )
    assert "bad_reading: model" not in asked


def test_every_right_on_every_table_of_the_ledger_is_asked_for(here):
    found = here.world.results("select relname from pg_class where relnamespace = 'plantao'::regnamespace"
                               " and relkind in ('r', 'v')")  # fmt: skip
    of_the_owner = {"runs_archive", "prunes"}  # `plantao prune` needs the owner's account
    asked_for = {table for tables in LEDGER_RIGHTS.values() for table in tables}
    assert {name for (name,) in found} == asked_for | of_the_owner
    here.world.sql(f"revoke all on all tables in schema plantao from {SCORER};"
                   f" grant select on plantao.schema_migrations to {SCORER}")  # fmt: skip
    _, lines = here.check()
    (what,) = [line["what"] for line in lines if line["of"] == "client_db: ledger"]
    lacking = set(what.removeprefix("the login may not ").split(", "))
    assert lacking == {
        f"{right.upper()} on plantao.{table}"
        for rights, tables in LEDGER_RIGHTS.items()
        for right in rights.split(", ")
        for table in tables
        if table != "schema_migrations" and (right == "select" or table not in DECIDED_ELSEWHERE)
    }


def test_who_only_scores_need_not_be_able_to_register_and_to_promote(here):
    decisions = "plantao.models, plantao.model_events, plantao.model_timeline"
    here.world.sql(f"revoke insert, update on {decisions} from {SCORER}")
    here.is_fine()


# --- the source ------------------------------------------------------------------------------------------------------


def test_a_source_that_may_not_be_read(here):
    here.world.sql(f"revoke select on readings from {SCORER}")
    asked = here.names_only(
        "FAIL", "bad_reading: source", "permission denied for table readings", "plantao init --print-grants"
    )
    assert "bad_reading: live data" not in asked


def test_a_source_column_that_may_not_be_read(here):
    here.world.sql(f"revoke select on readings from {SCORER}; grant select (id, at, x, y) on readings to {SCORER}")
    here.names_only("FAIL", "bad_reading: source", "permission denied for table readings", "grant the right")


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        ("insert, update, delete, truncate on readings", "INSERT, UPDATE, DELETE, TRUNCATE on public.readings"),
        ("update (x) on readings", "UPDATE on public.readings"),
    ],
)
def test_a_source_that_may_be_written(here, grant, said):
    here.world.sql(f"grant {grant} to {here.login}")
    asked = here.names_only(
        "WARN", "bad_reading: source rights", f"may change the client's data: {said}$", "plantao init --print-grants"
    )
    assert "bad_reading: live data" in asked


@pytest.mark.parametrize("source", ["a query", "a view", "a partition"])
def test_a_source_that_may_be_written_behind_a_query(here, source):
    world, login = here.world, here.login
    if source == "a partition":
        world.sql("alter table readings rename to stored")
        world.sql("create table readings (like stored including defaults) partition by range (at);"
                  " alter table readings attach partition stored default")  # fmt: skip
    if source == "a view":
        world.sql("alter table readings rename to stored; create view readings as select * from stored")
    world.sql(f"grant select on all tables in schema public to {SCORER}")
    if source != "a view":
        query = "with r as (select * from readings) select r.* from r left join (values (1)) v (n) on true"
        world.job(SCHEDULED.replace('table     = "public.readings"', f'query = "{query}"'))
    here.is_fine()
    written = "stored" if source == "a view" else "readings"
    world.sql(f"grant insert on {written} to {login}")
    here.names_only("WARN", "bad_reading: source rights", f"INSERT on public.{written}$", "no more rights")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("drop y", "column 'y' is missing"),
        ("rename y to y_new", "column 'y' is missing .there is a column 'y_new': was it renamed"),
        ("alter x type text", "column 'x' is text, but the model was trained on float"),
        ("alter at type text", "timestamp column 'at' is text"),
    ],
)
def test_a_column_that_has_changed(here, change, said):
    here.world.sql(f"alter table readings {change}")
    asked = here.names_only("FAIL", "bad_reading: source", said, "ask the client what changed")
    assert "bad_reading: live data" not in asked


def test_a_source_that_is_gone(here):
    here.world.sql("alter table readings rename to other")
    here.names_only("FAIL", "bad_reading: source", "42P01", "correct its name in the job file")


# --- the model -------------------------------------------------------------------------------------------------------


def test_a_segment_that_the_source_lacks(here):
    here.world.job(SCHEDULED + '[measure]\nsegments = ["city", "town"]\n')
    asked = here.names_only(
        "FAIL", "bad_reading: segments", "no column 'town', .* it has at, city", r"correct \[measure\] segments"
    )
    assert "bad_reading: live data" in asked
    here.world.job(SCHEDULED + '[measure]\nsegments = ["city"]\n')
    here.is_fine()


def test_a_tampered_model_file(here):
    path = here.world.folder / "models" / "bad_reading" / "1" / "model.joblib"
    path.write_bytes(path.read_bytes() + b"x")
    asked = here.names_only(
        "FAIL", "bad_reading: model", "file of model bad_reading/1 is not the one that was registered", "from a backup"
    )
    assert "bad_reading: source" in asked
    assert "bad_reading: live data" not in asked


def test_another_scikit_learn(here):
    edited_manifest(here.world, lambda manifest: manifest["environment"].update({"scikit-learn": "1.2.2"}))
    here.names_only("FAIL", "bad_reading: model", "scikit-learn was 1.2.2 at training", "install the lock file")


def test_another_pandas_is_only_said(here):
    edited_manifest(here.world, lambda manifest: manifest["environment"].update({"pandas": "2.0.0"}))
    asked = here.names_only("WARN", "bad_reading: environment", "pandas was 2.0.0 at training", "golden rows agree")
    assert "bad_reading: live data" in asked


def test_a_golden_row_that_is_answered_differently(here):
    def change(manifest):
        manifest["golden"]["answers"][3][1] += 0.01

    edited_manifest(here.world, change)
    here.names_only("FAIL", "bad_reading: model", r"answers 1 of its \d+ golden rows differently", "compare")
    edited_manifest(here.world, lambda manifest: manifest["environment"].update({"pandas": "2.0.0"}))
    here.names_only("FAIL", "bad_reading: model", "What else differs: pandas was 2.0.0", "install the lock file")


def test_a_model_that_nobody_registered(here):
    here.world.job(SCHEDULED.replace('model = "bad_reading"', 'model = "another"'))
    here.names_only("FAIL", "bad_reading: model", "'another' has no champion", "plantao models register")


def test_a_challenger_is_put_through_the_gate_beside_the_champion(here):
    frame = training_frame(seed=3).rename(columns={"y": "z"})
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(frame[["x", "z"]], frame["bad"])
    for other in (here.world.register(frame=training_frame(seed=3)), here.world.register(model, frame)):
        promotion.mark("bad_reading", other.version, "to compare", here.world.place, "challenger")
    asked = here.names_only(
        "WARN", "bad_reading: challenger 3", "column 'z' is missing", "plantao models retire bad_reading 3"
    )
    assert "bad_reading: challenger 2" in asked
    here.world.sql("alter table readings add z double precision")
    here.is_fine()
    path = here.world.folder / "models" / "bad_reading" / "2" / "model.joblib"
    path.write_bytes(path.read_bytes() + b"x")
    here.names_only("WARN", "bad_reading: challenger 2", "is not the one that was registered", "or retire it")


# --- the predictions -------------------------------------------------------------------------------------------------


def test_a_prediction_table_that_does_not_fit(here):
    here.world.sql("create table predictions.bad_reading (id bigint primary key, prediction text);"
                   f" grant select, insert, delete on predictions.bad_reading to {SCORER}")  # fmt: skip
    here.names_only(
        "FAIL",
        "bad_reading: predictions",
        "does not fit: .*'source_timestamp' is missing; column 'prediction' is text, needed is boolean",
        r"another table in \[load\]",
    )


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("drop schema predictions", "may not CREATE the schema predictions"),
        ("revoke create on schema predictions from plantao_scorer", "may not CREATE tables in the schema predictions"),
        ("revoke usage on schema predictions from plantao_scorer", "may not use the schema predictions"),
        (
            f"create table predictions.bad_reading (id int); grant select on predictions.bad_reading to {SCORER}",
            "may not DELETE on predictions.bad_reading, INSERT on predictions.bad_reading",
        ),
    ],
)
def test_predictions_that_may_not_be_written(here, statement, said):
    here.world.sql(statement)
    here.names_only("FAIL", "bad_reading: predictions", said, "plantao init --print-grants")


# --- live data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "state"),
    [("id % 10 = 0", "FAIL"), ("id = 5000", "WARN"), ("id < 5000", None)],
)
def test_live_rows_that_would_be_set_aside(here, share, state):
    here.world.sql(f"update readings set x = null where {share}")
    if state is None:
        here.is_fine()
        return
    count = {"FAIL": 2, "WARN": 1}[state]
    said = rf"^{count} of 20 rows of 2013-04-05 .* \(at_most_rejected = 0.05\): {count} null_feature \(x\)$"
    here.names_only(state, "bad_reading: live data", said, "look at these columns at the source")


def test_live_rows_on_which_the_model_raises(here):
    frame = training_frame()
    here.world.register(classifier(frame, strict=True), frame, name="strict")
    here.world.job(SCHEDULED.replace('model = "bad_reading"', 'model = "strict"'))
    here.world.sql("update readings set city = 'Braga'")
    here.names_only("FAIL", "bad_reading: live data", r"20 unknown_category \(city\)", "train a version")


def test_live_rows_with_values_that_the_training_never_had(here):
    here.world.sql("update readings set city = 'Braga' where id % 4 = 0")
    here.names_only(
        "WARN",
        "bad_reading: live data",
        "none of 20 .* set aside; scored with .*: 5 an unknown city$",
        "train a version",
    )


def test_live_gaps_that_the_job_lets_pass_and_the_training_never_had(here):
    here.world.job(SCHEDULED.replace("[load]", "[validate.columns.x]\nnullable = true\n[load]"))
    here.world.sql("update readings set x = null where id % 4 = 0")
    here.names_only(
        "WARN", "bad_reading: live data", "none of 20 .* scored with .*: 5 NULL in x$", "look at these columns"
    )


def test_fewer_live_rows_than_expected(here):
    here.world.job(SCHEDULED.replace("[load]", "[validate]\nat_least_rows = 50\n[load]"))
    here.names_only("WARN", "bad_reading: live data", "at_least_rows = 50", "whether the feed is complete")


def test_without_a_row_in_the_last_window_the_newest_rows_are_looked_at(here):
    for text in (JOB, JOB.replace('"daily"', '"on demand"')):
        here.world.job(text)
        here.world.sql("update readings set x = null where id between 5000 and 5009")
        here.names_only("FAIL", "bad_reading: live data", r"10 of 100 newest rows", "look at these columns")


def test_only_a_bounded_number_of_rows_is_looked_at(here):
    here.monkeypatch.setattr(sample, "ROWS", 7)
    here.world.job(JOB)
    here.world.sql("update readings set x = null where id = 5019")
    here.names_only("FAIL", "bad_reading: live data", "1 of 7 newest rows", "look at")


def test_a_source_without_a_row(here):
    here.world.sql("delete from readings")
    here.names_only("WARN", "bad_reading: live data", "no row up to now", "check again")


def test_a_look_that_takes_too_long(here):
    here.world.sql("create function wait(bigint) returns bigint language plpgsql as"
                   " $$ begin perform pg_sleep(0.3); return $1; end $$")  # fmt: skip
    query = "select wait(id) as id, at, x, y, city from readings"
    here.world.job(SCHEDULED.replace('table     = "public.readings"', f'query = "{query}"'))
    here.monkeypatch.setattr(sample, "SECONDS", 1)
    _, lines = here.check()
    faults = [line for line in lines if line["state"] != "OK" and line["of"] != "slack"]
    assert [(line["state"], line["of"]) for line in faults] == [
        ("WARN", "bad_reading: key"), ("WARN", "bad_reading: timestamps"), ("WARN", "bad_reading: live data")
    ]  # fmt: skip
    assert "could not be looked at within 1 s" in faults[0]["what"]
    assert "could not be counted within 1 s" in faults[1]["what"]
    assert "could not be read within 1 s" in faults[2]["what"]
    assert "index on at" in faults[2]["cure"]


# --- this machine and its neighbours ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "state"), [("WARN_BYTES", "WARN"), ("FAIL_BYTES", "FAIL")])
def test_a_disk_that_is_full(here, limit, state):
    here.monkeypatch.setattr(machine, "WARN_BYTES", 1 << 60)
    here.monkeypatch.setattr(machine, limit, 1 << 60)
    here.names_only(state, "disk", r"GiB free in \S+, where batches wait", "TMPDIR")


def test_a_model_cache_that_cannot_be_written(here):
    here.monkeypatch.setattr(store, "is_fetched", lambda _: True)  # as if the store were a bucket
    here.monkeypatch.setenv("PLANTAO_CACHE", "/proc/nowhere")
    here.names_only("FAIL", "model cache", r"no temporary file .* models are kept that came from", "PLANTAO_CACHE")


def test_a_folder_that_cannot_be_written(here):
    here.monkeypatch.setattr(tempfile, "tempdir", str(here.world.folder / "nowhere"))
    here.names_only("FAIL", "disk", "no temporary file can be made: No such file", "TMPDIR")


def health(**status: str | None) -> dict[str, dict[str, str | None]]:
    parts = {"metadatabase": "healthy", "scheduler": "healthy", "triggerer": "healthy", "dag_processor": "healthy"}
    beat = "2026-03-01T02:00:00+00:00"
    return {name: {"status": s, f"latest_{name}_heartbeat": beat} for name, s in {**parts, **status}.items()}


@pytest.mark.parametrize("variable", ["PLANTAO_AIRFLOW_URL", "AIRFLOW__API__BASE_URL"])
def test_airflow_is_asked_where_it_is_configured(here, variable):
    with Answering(health(triggerer=None)) as there:
        here.monkeypatch.setenv(variable, f"{there.url}/prefix/")
        status, lines = here.check()
        assert there.asked == [("/prefix/api/v2/monitor/health", None)]
    assert status == 0
    assert next(line for line in lines if line["of"] == "airflow")["what"].endswith(
        "metadatabase, scheduler, dag_processor healthy"
    )


@pytest.mark.parametrize(
    ("status", "said", "cure"),
    [
        ({"scheduler": "unhealthy"}, r"unhealthy: scheduler \(last heard of 2026-03-01T02", "compose logs scheduler$"),
        ({"dag_processor": "unhealthy"}, "unhealthy: dag_processor", "compose logs dag-processor$"),
        ({"scheduler": None}, r"unhealthy: scheduler \(last heard of never\)", "compose logs scheduler$"),
        ({"metadatabase": "unhealthy", "scheduler": "unhealthy"}, "unhealthy: metadatabase, scheduler", "postgres"),
    ],
)
def test_an_airflow_that_says_with_status_200_that_it_is_unhealthy(here, status, said, cure):
    with Answering(health(**status)) as there:
        here.monkeypatch.setenv("PLANTAO_AIRFLOW_URL", there.url)
        here.names_only("FAIL", "airflow", said, cure)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [(b"<html>", 200, "cannot be read"), ([], 200, "cannot be read"), ({}, 502, "answers 502"), ({}, 200, "scheduler")],
)
def test_an_airflow_that_is_none(here, answer, status, said):
    with Answering(answer, status) as there:
        here.monkeypatch.setenv("PLANTAO_AIRFLOW_URL", there.url)
        here.names_only("FAIL", "airflow", said, "start")


def test_an_airflow_that_does_not_answer(here):
    here.monkeypatch.setenv("PLANTAO_AIRFLOW_URL", "http://127.0.0.1:1")
    here.names_only(
        "FAIL", "airflow", "cannot be read: .*refused", "start the api-server, or correct PLANTAO_AIRFLOW_URL"
    )
    here.monkeypatch.setenv("PLANTAO_AIRFLOW_URL", "file:///etc/hostname")
    here.names_only("FAIL", "airflow", "is no http address", "correct PLANTAO_AIRFLOW_URL")


def slack_at(url: str) -> str:
    return json.dumps({"conn_type": "slack", "password": "xoxb-1-secret", "extra": {"base_url": f"{url}/api/"}})


def test_slack_is_asked_who_we_are(here):
    with Answering({"ok": True, "user": "plantao", "team": "Ops"}) as there:
        here.monkeypatch.setenv("AIRFLOW_CONN_SLACK", slack_at(there.url))
        status, lines = here.check()
        assert there.asked == [("/api/auth.test", "Bearer xoxb-1-secret")]
    assert (status, lines[-1]["state"], lines[-1]["what"]) == (0, "OK", "logged in as plantao in Ops")


@pytest.mark.parametrize(
    ("answer", "said", "cure"),
    [
        ({"ok": False, "error": "invalid_auth"}, "Slack refuses the token: invalid_auth", "copy the token.*xoxb"),
        ({"ok": False, "error": "internal_error"}, "Slack answered internal_error", "again"),
        (b"<html>", "something that is not Slack", "proxy"),
        (None, "Slack cannot be reached", "let this machine reach http://127.0.0.1"),
        ("no token", "AIRFLOW_CONN_SLACK holds no token", "set AIRFLOW_CONN_SLACK to slack://"),
    ],
)
def test_a_slack_that_refuses_or_does_not_answer(here, answer, said, cure):
    with contextlib.ExitStack() as stack:
        url = "http://127.0.0.1:1" if answer is None else stack.enter_context(Answering(answer)).url
        text = '{"conn_type": "slack"}' if answer == "no token" else slack_at(url)
        here.monkeypatch.setenv("AIRFLOW_CONN_SLACK", text)
        status, lines = here.check()
    assert status == 1
    assert [line["of"] for line in lines if line["state"] != "OK"] == ["slack"]
    assert re.search(said, lines[-1]["what"]), lines[-1]
    assert re.search(cure, lines[-1]["cure"]), lines[-1]


# --- two databases, two faults ---------------------------------------------------------------------------------------


def test_each_database_is_asked_once_and_only_a_target_for_its_ledger(two_databases, monkeypatch, capsys):
    here = Here(two_databases, monkeypatch, capsys)
    two_databases.ready(SCHEDULED)
    two_databases.job(SCHEDULED.replace("predictions.bad_reading", "predictions.another"), name="another")
    status, lines = here.check()
    asked = [line["of"] for line in lines if "_db: " in line["of"]]
    assert asked == ["client_db: connection", "client_db: clock"] + [
        f"results_db: {what}" for what in ("connection", "clock", "ledger")
    ]
    monkeypatch.setenv("AIRFLOW_CONN_RESULTS_DB", "postgres://someone@127.0.0.1:1/nowhere")
    status, lines = here.check()
    assert status == 1
    assert [line["of"] for line in lines if line["state"] == "FAIL"] == ["results_db: connection"]
    assert [line["of"] for line in lines if line["of"].startswith("another")] == [
        "another: job file", "another: source", "another: key", "another: timestamps",
        "another: source rights"]  # fmt: skip


def test_two_faults_are_both_named(here):
    here.world.sql("alter table readings drop y")
    edited_manifest(here.world, lambda manifest: manifest["environment"].update({"scikit-learn": "1.2.2"}))
    here.world.sql("alter table readings alter at type text")
    _, lines = here.check()
    assert [line["of"] for line in lines if line["state"] == "FAIL"] == ["bad_reading: model", "bad_reading: source"]


# --- this environment and another ------------------------------------------------------------------------------------


@pytest.fixture
def saved(here, tmp_path):
    """The file with this environment, and what it says."""
    path = tmp_path / "other.json"
    path.write_text(here.plantao("check", "--json")[1])
    return path, json.loads(path.read_text())


def test_an_environment_says_what_decides_and_no_secret(here, saved):
    environment = saved[1]["environment"]
    content = (here.world.folder / "models" / "bad_reading" / "1" / "model.joblib").read_bytes()
    job = environment["jobs"]["bad_reading"]
    assert job["sha256"] == hashlib.sha256(content).hexdigest()
    assert (job["model"], job["version"]) == ("bad_reading", 1)
    assert environment["scikit-learn"] == version("scikit-learn")
    assert environment["packages"]["pydantic"] == version("pydantic")
    assert not set(environment["packages"]) & set(environment)
    assert environment["ledger"] == {
        "client_db": here.world.sql("select max(number) from plantao.schema_migrations")[0][0]
    }
    assert set(environment["connections"]["client_db"]) == {"host", "port", "database", "schema"}
    assert here.login not in json.dumps(environment)


def test_a_place_has_no_difference_from_itself(here, saved):
    status, out, _ = here.plantao("check", "--compare", str(saved[0]))
    assert (status, out.strip()) == (0, "no differences")
    assert here.plantao("check", "--compare", str(saved[0]), "--json")[:2] == (0, "[]\n")


def test_another_database_is_a_difference_that_is_expected(here, saved):
    other = f"{here.world.databases['client_db']}_2"
    here.world.leave()
    administer(here.world.server, f"create database {other} template {here.world.databases['client_db']}")
    here.set_address("client_db", dbname=other)
    status, out, _ = here.plantao("check", "--compare", str(saved[0]))
    assert status == 0
    assert out.splitlines() == [
        "what\there\tthere\t",
        f"connections.client_db.database\t{other}\t{here.world.databases['client_db']}\texpected",
    ]
    administer(here.world.server, f"drop database {other} with (force)")


def test_any_other_difference_says_what_is_here_and_what_is_there(here, saved):
    world, environment = here.world, saved[1]["environment"]
    environment["scikit-learn"] = "1.2.2"
    environment["connections"]["client_db"]["host"] = "db.example.com"
    environment["jobs"]["gone"] = {"file": "abc"}
    saved[0].write_text(json.dumps(saved[1]))
    world.job(SCHEDULED.replace("3 days", "4 days"))
    (world.folder / "requirements.txt").write_text("numpy==1\n")
    frame = training_frame(seed=3)
    world.register(classifier(frame), frame)
    world.sql("update plantao.model_timeline set live_until = now();"
              " insert into plantao.model_timeline (model, version, live_from, who, why)"
              " values ('bad_reading', 2, now(), 'me', 'better')")  # fmt: skip
    status, out, _ = here.plantao("check", "--compare", str(saved[0]))
    assert status == 1
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()[1:]}
    assert set(lines) == {
        "scikit-learn", "lock", "jobs.bad_reading.file", "jobs.bad_reading.version", "jobs.bad_reading.sha256",
        "jobs.gone.file", "connections.client_db.host"}  # fmt: skip
    assert lines["scikit-learn"][1:] == ["1.2.2", "DIFFERS"]
    assert lines["jobs.bad_reading.version"] == ["2", "1", "DIFFERS"]
    assert lines["jobs.gone.file"] == ["missing", "abc", "DIFFERS"]
    assert lines["lock"][1] == "missing"
    assert lines["connections.client_db.host"][1:] == ["db.example.com", "expected"]
    found = json.loads(here.plantao("check", "--compare", str(saved[0]), "--json")[1])
    here_is = lines["scikit-learn"][0]
    assert {"what": "scikit-learn", "here": here_is, "there": "1.2.2", "expected": False} in found


def test_a_query_belongs_to_its_job_wherever_it_is_written(here, saved):
    query = here.world.folder / "jobs" / "bad_reading.sql"
    query.write_text("select * from public.readings")
    here.world.job(SCHEDULED.replace('table     = "public.readings"', 'query_file = "bad_reading.sql"'))
    saved[0].write_text(here.plantao("check", "--json")[1])
    assert here.plantao("check", "--compare", str(saved[0]))[0] == 0
    query.write_text("select * from public.readings where x > 0")
    status, out, _ = here.plantao("check", "--compare", str(saved[0]))
    assert status == 1
    assert [line.split("\t")[0] for line in out.splitlines()[1:]] == ["jobs.bad_reading.file"]


def test_what_cannot_be_found_out_is_unknown_and_so_a_difference(here, saved):
    here.monkeypatch.setenv("AIRFLOW_CONN_CLIENT_DB", "postgres://someone@127.0.0.1:1/nowhere")
    status, out, _ = here.plantao("check", "--compare", str(saved[0]))
    assert status == 1
    assert "ledger.client_db\tunknown\t" in out
    assert "jobs.bad_reading.sha256\tunknown\t" in out


@pytest.mark.parametrize("content", [None, "no JSON", "[]", "{}", '{"environment": 1}'])
def test_what_is_no_environment_is_wrong_usage(here, tmp_path, content):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    status, _, err = here.plantao("check", "--compare", str(path))
    assert status == 2
    assert "plantao check --json > other.json" in err
    assert here.plantao("check", "bad_reading", "--compare", str(path))[0] == 2
