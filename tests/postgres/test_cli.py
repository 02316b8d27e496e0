"""The command line: what it prints, and the exit status that a script decides by."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import joblib
import pytest
import skops.io

from world import JOB, CreatesAFile, classifier, day, training_frame


@pytest.fixture
def job(world):
    return world.ready(JOB.replace("starts ", "ends = 2013-04-06\nstarts "))


def test_run_scores_the_last_complete_window_by_default(plantao, world, job):
    status, out, err = plantao("run", "bad_reading")
    assert status == 0
    assert "window          2013-04-05" in out
    assert "scored          20" in out
    assert "score finished: job=bad_reading run=1 step=score window=2013-04-05 rows_in=20 rows_out=20" in err
    assert [row[0] for row in world.predictions()] == list(range(5000, 5020))


def test_run_takes_a_window_in_the_jobs_time_zone(plantao, job):
    status, out, _ = plantao("-q", "run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02T12:00", "--json")
    report = json.loads(out)
    assert (status, report["rows_scored"]) == (0, 30)
    assert report["window"] == {"start": "2013-04-01T00:00:00+00:00", "end": "2013-04-02T12:00:00+00:00"}


def test_a_run_that_fails_says_so_with_status_1(plantao, world, job):
    world.sql("alter table readings drop x")
    status, out, err = plantao("-q", "run", "bad_reading")
    assert (status, out) == (1, "")
    assert "column 'x' is missing" in err
    assert "nothing was written" in err
    assert "Next: ask the client what changed" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run", "bad_readin"], "Did you mean 'bad_reading'?"),
        (["run", "bad_reading", "--from", "2013-04-01"], "from and to belong together"),
        (["run", "bad_reading", "--from", "yesterday", "--to", "2013-04-02"], "'yesterday' is not a date"),
        (["run", "bad_reading", "--from", "2013-04-02", "--to", "2013-04-01"], "must start before it ends"),
        (["run"], "Missing argument"),
        (["models", "register", "--name", "x"], "nothing to register"),
        (["models", "verify", "nobody"], "no registered version of nobody"),
        (["db", "url", "elsewhere"], "set AIRFLOW_CONN_ELSEWHERE"),
    ],
)
def test_wrong_usage_is_status_2_with_the_cure(plantao, job, command, said):
    status, _, err = plantao(*command)
    assert status == 2
    assert said in " ".join(err.split())


def test_a_job_file_with_five_mistakes_names_all_of_them_with_status_2(plantao, world, job):
    text = (
        JOB.replace("late_rows", "laterows").replace('"daily"', '"dayly"').replace("[score]", "[score]\nthreshold = 2")
    )
    world.folder.joinpath("jobs", "broken.toml").write_text(
        text.replace('["id"]', "[]") + "[alert]\ndigest = 'often'\n"
    )
    for command in (["run", "broken"], ["check"], ["check", "broken"], ["jobs", "list"]):
        status, out, err = plantao(*command)
        assert status == 2
        for said in ("laterows", "dayly", "threshold", "[extract] key", "digest"):
            assert said in out + err, (command, said)
    assert world.attempts() == []


def test_backfill_scores_exactly_the_windows_of_the_period(plantao, world, job):
    status, out, _ = plantao("-q", "backfill", "bad_reading", "--from-date", "2013-04-02", "--to-date", "2013-04-04")
    assert status == 0
    assert [line.split("\t")[:3] for line in out.splitlines()[1:]] == [
        ["2013-04-02", "1", "succeeded"],
        ["2013-04-03", "2", "succeeded"],
        ["2013-04-04", "3", "succeeded"],
    ]
    assert world.attempts("trigger, rows_scored") == [("backfill", 20)] * 3


def test_a_dry_backfill_lists_the_windows_and_what_is_owed(plantao, world, job):
    plantao("-q", "run", "bad_reading", "--from", "2013-04-02", "--to", "2013-04-03")
    command = ("backfill", "bad_reading", "--from-date", "2013-04-01", "--to-date", "2013-04-03", "--dry-run", "--json")
    status, out, _ = plantao(*command)
    assert (status, [line["state"] for line in json.loads(out)]) == (0, ["owed", "done", "owed"])
    assert len(world.attempts()) == 1


def test_a_backfill_that_fails_says_how_far_it_came(plantao, world, job):
    world.sql("update readings set x = null where id >= 3000 and id < 4000")
    status, out, err = plantao("-q", "backfill", "bad_reading", "--from-date", "2013-04-01", "--to-date", "2013-04-05")
    assert status == 1
    assert len(out.splitlines()) == 3
    assert "at_most_rejected" in err
    assert world.attempts("status") == [("succeeded",), ("succeeded",), ("failed",)]


def test_status_shows_what_is_owed_and_is_1_when_a_job_is_not_fine(plantao, job):
    assert plantao("status")[0] == 0
    plantao("-q", "backfill", "bad_reading", "--from-date", "2013-04-01", "--to-date", "2013-04-04")
    status, out, _ = plantao("status", "bad_reading", "--json")
    state = json.loads(out)
    assert (status, state["health"], state["windows_owed"]) == (1, "late", 1)
    assert state["owed"] == [{"start": "2013-04-05T00:00:00+00:00", "end": "2013-04-06T00:00:00+00:00"}]
    assert len(state["attempts"]) == 4
    plantao("-q", "run", "bad_reading")
    assert plantao("status", "bad_reading")[0] == 0


def test_init_creates_the_ledger_and_repeats_without_harm(plantao, world, job, monkeypatch):
    world.sql("drop schema plantao cascade")
    status, _, err = plantao("init")
    assert (status, "permission denied for database" in err) == (1, True)
    with monkeypatch.context() as owner:  # to make a schema is more than the scorer role may
        owner.setenv("AIRFLOW_CONN_CLIENT_DB", world.owner("client_db").url())
        assert "001_ledger.sql" in plantao("init")[1]
        assert "nothing to do" in plantao("init")[1]
    world.grant()
    assert "nothing to do" in plantao("init")[1]  # as at every start of the deployment


def test_init_prints_the_rights_that_are_needed(plantao, world, job):
    status, out, _ = plantao("init", "--print-grants")
    assert status == 0
    assert 'grant select on "public"."readings" to plantao_scorer;' in out
    world.sql(out)  # it can be run as it is


def test_a_model_can_be_registered_from_a_file_and_a_frame(plantao, world, tmp_path):
    world.fill()
    world.job()
    joblib.dump(classifier(training_frame()), tmp_path / "model.joblib")
    training_frame().to_parquet(tmp_path / "frame.parquet")
    (tmp_path / "metrics.json").write_text('{"roc_auc": 0.9}')
    command = ["models", "register", str(tmp_path / "model.joblib"), "--name", "bad_reading"]
    status, out, _ = plantao(
        *command, "--frame", str(tmp_path / "frame.parquet"), "--metrics", str(tmp_path / "metrics.json")
    )
    assert status == 0
    assert "bad_reading/1" in out
    assert "champion" in out
    status, out, _ = plantao(*command, "--frame", str(tmp_path / "frame.parquet"))
    assert "bad_reading/2" in out
    assert "the champion stays" in out
    listed = json.loads(plantao("models", "list", "--json")[1])
    assert [(line["version"], line["metrics"]) for line in listed] == [(1, {"roc_auc": 0.9}), (2, {})]
    assert plantao("models", "verify")[0] == 0
    assert plantao("-q", "run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02")[0] == 0


@pytest.fixture
def skops_command(world, tmp_path):
    """A .skops file, and the command that registers it but for what it trusts."""
    world.fill()
    training_frame().to_parquet(tmp_path / "training.parquet")
    skops.io.dump(classifier(training_frame()), tmp_path / "model.skops")
    command = ["models", "register", str(tmp_path / "model.skops"), "--name", "bad_reading"]
    return [*command, "--frame", str(tmp_path / "training.parquet")]


def test_a_skops_file_is_registered_with_the_types_that_were_accepted(plantao, world, skops_command):
    job = world.job()
    status, _, err = plantao(*skops_command)
    assert status == 2
    assert "types that nobody has accepted: numpy.dtype" in err
    options = err[err.index("--trust") :].split()
    status, out, _ = plantao(*skops_command, *options)
    assert status == 0
    assert "trusted       numpy.dtype" in out
    manifest = json.loads((world.folder / "models" / "bad_reading" / "1" / "manifest.json").read_text())
    assert (manifest["file"], "numpy.dtype" in manifest["trusted"]) == ("model.skops", True)
    assert plantao("check")[0] == plantao("models", "verify")[0] == 0
    assert world.score(job, day(1)).counts.scored == 20


def test_a_type_that_the_manifest_does_not_trust_is_not_made(plantao, world, skops_command):
    world.job()
    plantao(*skops_command, "--trust", "numpy.dtype")
    path = world.folder / "models" / "bad_reading" / "1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trusted": []}))
    status, out, _ = plantao("check")
    assert status == 1
    assert "types that were not accepted at its registration: numpy.dtype" in out


def test_what_is_only_named_skops_is_not_opened(plantao, world, skops_command, tmp_path):
    (tmp_path / "model.skops").write_bytes(pickle.dumps(CreatesAFile(tmp_path / "canary")))
    status, _, err = plantao(*skops_command)
    assert status == 2
    assert "is no .skops file, and is not opened as anything else" in err
    assert not (tmp_path / "canary").exists()


def test_a_version_beside_the_code_is_registered_by_its_number_and_scores(plantao, world):
    job = world.ready()
    (world.folder / "include").mkdir()
    (world.folder / "models").rename(world.folder / "include" / "models")
    world.sql("truncate plantao.models, plantao.model_timeline, plantao.model_events")
    status, out, _ = plantao("models", "register", "--name", "bad_reading", "--version", "1")
    assert status == 0
    assert "in client_db  champion" in out
    assert world.results("select uri from plantao.models") == [(f"{world.folder}/include/models/bad_reading/1",)]
    assert plantao("check")[0] == 0
    assert world.score(job, day(1)).counts.scored == 20
    world.register()  # goes to the store, under the next number
    assert (world.folder / "models" / "bad_reading" / "2" / "manifest.json").exists()


def test_a_model_can_be_registered_with_a_query(plantao, world, tmp_path):
    world.fill(per_day=60)
    world.job()
    world.sql("alter table readings add bad boolean; update readings set bad = x > 0")
    from plantao.extract.read import read_frame
    from plantao.postgres import session as database
    from plantao.postgres.pinned import LOGIN_PATH
    from plantao.postgres.replaced import whole_snapshot

    query = "select x, y, city, bad from readings order by id"
    with (
        database.session(world.address("client_db"), "plantao") as session,
        whole_snapshot(world.address("client_db"), path=LOGIN_PATH) as snapshot,
    ):
        frame = read_frame(snapshot, session, query)
    joblib.dump(classifier(frame), tmp_path / "model.joblib")
    (tmp_path / "frame.sql").write_text(query + ";\n")
    command = ["models", "register", str(tmp_path / "model.joblib"), "--name", "bad_reading"]
    assert plantao(*command, "--query", f"@{tmp_path / 'frame.sql'}")[0] == 0
    assert plantao("-q", "run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02")[0] == 0


def test_verify_puts_every_version_through_the_gate(plantao, world, job):
    path = world.folder / "models" / "bad_reading" / "1" / "model.joblib"
    path.write_bytes(path.read_bytes()[:-1])
    world.register()
    status, out, _ = plantao("models", "verify", "--json")
    assert status == 1
    assert [line["state"] for line in json.loads(out)] == ["FAIL", "OK"]


def test_measure_writes_figures_once(plantao, world, job):
    plantao("-q", "run", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02")
    status, out, _ = plantao("measure", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02", "--json")
    figures = {(m["name"], m["column"]): m["value"] for m in json.loads(out)}
    assert status == 0
    assert figures[("rows", "")] == 20
    mean = world.results("select avg(score) from predictions.bad_reading")[0][0]
    assert figures[("mean_score", "")] == pytest.approx(mean)
    plantao("measure", "bad_reading", "--from", "2013-04-01", "--to", "2013-04-02")
    written = world.results("select count(*) from plantao.metrics where not starts_with(name, 'check_')")
    assert written == [(len(figures),)]


def test_the_url_of_a_connection_is_for_psql(plantao, world):
    assert plantao("db", "url")[1].strip() == world.address("client_db").url()


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "plantao", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("plantao ")
