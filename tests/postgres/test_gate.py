"""No model runs unverified: every refusal says what differs and what to do, and writes only the failed attempt."""

from __future__ import annotations

import io
import json
import pickle

import joblib
import pytest

from plantao.errors import (
    EnvironmentDiffers,
    GoldenRowsDiffer,
    ModelMissing,
    ModelTampered,
    ModelUnreadable,
    NotInitialised,
    UsageError,
)
from plantao.score.register import register
from world import JOB, classifier, day, training_frame


@pytest.fixture
def job(world):
    return world.ready()


def model_path(world, version=1):
    return world.folder / "models" / "bad_reading" / str(version) / "model.joblib"


def manifest_path(world):
    return model_path(world).with_name("manifest.json")


def refused(world, job, error, said):
    """The run raises `error`, and nothing was written but a failed attempt with the same sentence."""
    with pytest.raises(error, match=said) as caught:
        world.score(job, day(1))
    assert caught.value.permanent
    assert world.attempts("status, error_kind") == [("failed", "permanent")]
    assert world.attempts("error")[0][0] == str(caught.value)
    assert world.results("select to_regclass('predictions.bad_reading'), count(*) from plantao.rejected_rows") == [
        (None, 0)
    ]


def test_a_changed_byte_is_refused(world, job):
    content = bytearray(model_path(world).read_bytes())
    content[len(content) // 2] ^= 1
    model_path(world).write_bytes(content)
    refused(world, job, ModelTampered, "the file of model bad_reading/1 is not the one that was registered")


class CreatesAFile:
    """A pickle that runs code when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_tampered_file_is_not_even_opened(world, job):
    canary = world.folder / "canary"
    evil = pickle.dumps(CreatesAFile(str(canary)))
    model_path(world).write_bytes(evil)
    refused(world, job, ModelTampered, "It was not opened")
    assert not canary.exists()


def test_a_manifest_that_was_edited_to_match_the_file_does_not_help(world, job):
    import hashlib

    canary = world.folder / "canary"
    evil = pickle.dumps(CreatesAFile(str(canary)))
    model_path(world).write_bytes(evil)
    manifest = json.loads(manifest_path(world).read_text())
    manifest["sha256"] = hashlib.sha256(evil).hexdigest()
    manifest_path(world).write_text(json.dumps(manifest))
    refused(world, job, ModelTampered, "is not the one that was registered")
    assert not canary.exists()


def test_a_model_of_another_scikit_learn_is_refused_by_its_manifest(world, job):
    manifest = json.loads(manifest_path(world).read_text())
    manifest["environment"]["scikit-learn"] = "1.5.2"
    manifest_path(world).write_text(json.dumps(manifest))
    refused(world, job, EnvironmentDiffers, "scikit-learn was 1.5.2 at training and is .* here")


def test_a_model_of_another_scikit_learn_is_refused_by_its_own_bytes(world, monkeypatch):
    world.fill()
    content = io.BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", "1.5.2")
        joblib.dump(classifier(training_frame()), content)
    with pytest.warns(UserWarning, match=r"version 1\.5\.2"):
        register(content.getvalue(), training_frame(), world.place, name="bad_reading", connections=["client_db"])
    refused(world, world.job(), EnvironmentDiffers, r"from version 1\.5\.2")


def test_other_differences_are_left_to_the_golden_rows(world, job):
    manifest = json.loads(manifest_path(world).read_text())
    manifest["environment"]["pandas"] = "2.0.0"
    manifest_path(world).write_text(json.dumps(manifest))
    assert world.score(job, day(1)).status == "succeeded"


def test_a_model_that_answers_its_golden_rows_differently_is_refused(world, job):
    manifest = json.loads(manifest_path(world).read_text())
    manifest["golden"]["answers"][3][1] += 0.01
    manifest_path(world).write_text(json.dumps(manifest))
    refused(world, job, GoldenRowsDiffer, r"answers 1 of its \d+ golden rows differently here .*by up to 0\.01;")


def test_a_model_that_cannot_be_loaded_here_names_what_is_missing(world):
    world.fill()
    content = io.BytesIO()
    joblib.dump(classifier(training_frame()), content)
    broken = content.getvalue().replace(b"sklearn.pipeline", b"sklearn.pipedrem")
    from plantao.score import model_store, registry

    manifest = world.register()
    import hashlib

    from plantao import database

    changed = manifest.model_copy(update={"version": 2, "sha256": hashlib.sha256(broken).hexdigest()})
    model_store.write_version(world.place.settings.model_store, changed, broken)
    with database.session(world.address("client_db"), "plantao") as session:
        registry.register(session, changed, "here", registry.Decision("test", "test"))
    with pytest.raises(ModelUnreadable, match=r"No module named 'sklearn\.pipedrem'"):
        world.score(world.job(), day(1), model_version=2)


def test_a_model_that_nobody_registered_is_refused_with_the_command(world):
    world.fill()
    refused(world, world.job(), ModelMissing, "has no champion .* plantao models register")


def test_a_version_that_is_not_there_is_refused(world, job):
    with pytest.raises(ModelMissing, match="bad_reading/7 is not registered"):
        world.score(job, day(1), model_version=7)


def test_a_version_whose_folder_vanished_is_refused(world, job):
    model_path(world).parent.rename(world.folder / "gone")
    refused(world, job, ModelMissing, "bad_reading/1 is not in the store")


def test_a_broken_manifest_is_refused(world, job):
    manifest_path(world).write_text('{"model": "bad_reading"}')
    refused(world, job, ModelUnreadable, "is not a manifest")


def test_the_first_version_becomes_champion_and_the_second_does_not(world, job):
    frame = training_frame(seed=3)
    world.register(classifier(frame), frame)
    assert world.results("select version from plantao.models order by 1") == [(1,), (2,)]
    assert world.results("select version, live_until, why from plantao.model_timeline") == [
        (1, None, "the first version registered")
    ]
    assert world.score(job, day(1)).model_version == 1


def test_a_version_never_changes(world, job):
    with pytest.raises(Exception, match="a registered version never changes"):
        world.results("update plantao.models set sha256 = repeat('0', 64)")
    with pytest.raises(Exception, match="a registered version never changes"):
        world.results("delete from plantao.models")


def test_two_versions_are_never_live_at_once(world, job):
    world.register()
    with pytest.raises(Exception, match="one_champion_at_a_time"):
        world.results(
            "insert into plantao.model_timeline (model, version, live_from, who, why)"
            " values ('bad_reading', 2, now() + interval '1 hour', 'me', 'why not')"
        )


def test_a_version_of_the_store_can_be_entered_into_another_database(two_databases):
    from plantao.score import register as registering

    manifest = two_databases.register()
    two_databases.fill(days=0)
    two_databases.job(JOB + 'connection = "client_db"\n')  # so that the ledger's rights there are granted
    entries = registering.enter(manifest, two_databases.place, ["client_db"])
    assert [(e.connection, e.became_champion) for e in entries] == [("client_db", True)]
    assert [e.became_champion for e in registering.enter(manifest, two_databases.place, ["client_db"])] == [False]


def test_a_version_cannot_be_entered_with_another_hash(world, job):
    from plantao.score import model_store
    from plantao.score import register as registering

    manifest = model_store.read_manifest(world.place.settings.model_store, "bad_reading", 1)
    other = manifest.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(UsageError, match="registered already, with another file"):
        registering.enter(other, world.place, ["client_db"])


def test_a_database_without_a_ledger_is_refused_with_the_command(world, job):
    world.sql("drop schema plantao cascade")
    with pytest.raises(NotInitialised, match=r"has no ledger.*plantao init"):
        world.score(job, day(1))
