"""No model runs unverified: every refusal says what differs and what to do, and writes only the failed attempt."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import uuid

import fsspec
import joblib
import pytest

from plantao.errors import (
    EnvironmentDiffers,
    GoldenRowsDiffer,
    ModelMissing,
    ModelStoreUnavailable,
    ModelTampered,
    ModelUnreadable,
    NotInitialised,
    UsageError,
)
from plantao.models import registry, store
from plantao.postgres import session as database
from plantao.preflight import check
from plantao.release.register import enter, register
from plantao.score import loader
from world import JOB, CreatesAFile, Inside, classifier, day, on_call, training_frame


@pytest.fixture
def job(world):
    return world.ready()


@pytest.fixture(params=["a folder", "a bucket"])
def stored(request, world):
    """The files of a store, in both of its forms, with a registered version; what is fetched is not cached yet."""
    if request.param == "a bucket":
        world.model_store = f"memory://{uuid.uuid4()}/models"
    world.ready()
    shutil.rmtree(world.store.cache, ignore_errors=True)
    return Inside(world.store)


FILE, MANIFEST = "bad_reading/1/model.joblib", "bad_reading/1/manifest.json"


def manifest_path(world):
    return world.folder / "models" / MANIFEST


def refused(world, job, error, said):
    """The check and the run say no in the same words, and nothing was written but a failed attempt with them."""
    lines = [line.answer for line in check.check(world.place).lines if line.answer.state == "FAIL"]
    with pytest.raises(error, match=said) as caught:
        world.score(job, day(1))
    assert [(line.what, line.cure) for line in lines] == [(caught.value.what, caught.value.next_step)]
    assert caught.value.permanent
    assert world.attempts("status, error_kind") == [("failed", "permanent")]
    assert world.attempts("error")[0][0] == str(caught.value)
    assert world.results("select to_regclass('predictions.bad_reading'), count(*) from plantao.rejected_rows") == [
        (None, 0)
    ]


# --- somebody else can write to the store ----------------------------------------------------------------------------


@pytest.fixture
def canary(world):
    """What appears when the evil pickle is opened; it does, as the fixture shows."""
    path = world.folder / "canary"
    pickle.loads(evil(path))
    path.unlink()
    return path


def evil(canary):
    return pickle.dumps(CreatesAFile(canary))


def edited(text, **changes):
    return json.dumps(json.loads(text) | changes).encode()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_changed_byte_is_refused(world, stored):
    content = bytearray(stored.get(FILE))
    content[len(content) // 2] ^= 1
    stored.put(FILE, bytes(content))
    refused(world, world.job(), ModelTampered, "the file of model bad_reading/1 is not the one that was registered")


def test_a_file_that_was_cut_short_is_refused(world, stored):
    stored.put(FILE, stored.get(FILE)[:-50])
    refused(world, world.job(), ModelTampered, "the file of model bad_reading/1 is not the one that was registered")


def test_a_file_that_is_swapped_between_check_and_opening_is_not_opened(world, stored, canary, monkeypatch):
    on_call(monkeypatch, loader, "verify_environment", 1, lambda: stored.put(FILE, evil(canary)))
    assert world.score(world.job(), day(1)).status == "succeeded"  # with the bytes that were checked
    assert stored.get(FILE) == evil(canary)
    assert not canary.exists()


def test_a_tampered_file_is_not_even_opened(world, stored, canary):
    stored.put(FILE, evil(canary))
    refused(world, world.job(), ModelTampered, "It was not opened")
    assert not canary.exists()


def test_a_manifest_that_was_edited_to_match_the_file_does_not_help(world, stored, canary):
    stored.put(FILE, evil(canary))
    stored.put(MANIFEST, edited(stored.get(MANIFEST), sha256=sha256(evil(canary))))
    refused(world, world.job(), ModelTampered, "the file of model bad_reading/1 is not the one that was registered")
    assert not canary.exists()


def swap(stored):
    """Exchange the folders of versions 1 and 2."""
    for name in ("model.joblib", "manifest.json"):
        one, two = stored.get(f"bad_reading/1/{name}"), stored.get(f"bad_reading/2/{name}")
        stored.put(f"bad_reading/1/{name}", two)
        stored.put(f"bad_reading/2/{name}", one)


@pytest.fixture
def second(world, stored, canary):
    """A second version, registered by somebody who did not mind what opening it does."""
    smuggled(world, evil(canary))


def test_swapped_folders_are_refused(world, stored, second, canary):
    swap(stored)
    refused(world, world.job(), ModelTampered, "the folder of model bad_reading/1 holds the manifest of bad_reading/2")
    assert not canary.exists()


def test_swapped_folders_whose_manifests_were_edited_are_refused(world, stored, second, canary):
    swap(stored)
    for version in (1, 2):
        path = f"bad_reading/{version}/manifest.json"
        stored.put(path, edited(stored.get(path), version=version))
    refused(world, world.job(), ModelTampered, "the file of model bad_reading/1 is not the one that was registered")
    assert not canary.exists()


def test_a_swapped_file_is_refused(world, stored, second, canary):
    stored.put(FILE, stored.get("bad_reading/2/model.joblib"))
    refused(world, world.job(), ModelTampered, "the file of model bad_reading/1 is not the one that was registered")
    assert not canary.exists()


def test_a_folder_that_vanished_is_refused(world, stored):
    stored.remove("bad_reading/1")
    refused(world, world.job(), ModelMissing, "bad_reading/1 is not in the store")


def test_a_broken_manifest_is_refused(world, stored):
    stored.put(MANIFEST, b'{"model": "bad_reading"}')
    refused(world, world.job(), ModelUnreadable, "is not a manifest")


def test_an_evil_entry_in_the_cache_is_not_opened(world, canary):
    world.model_store = f"memory://{uuid.uuid4()}"
    job = world.ready()
    (entry,) = (world.store.cache / "models").iterdir()
    entry.write_bytes(evil(canary))
    assert world.score(job, day(1)).status == "succeeded"
    assert not canary.exists()


def test_what_was_fetched_before_the_store_was_tampered_with_still_scores(world, canary):
    world.model_store = f"memory://{uuid.uuid4()}"
    job = world.ready()
    Inside(world.store).put(FILE, evil(canary))
    assert world.score(job, day(1)).status == "succeeded"  # from the cache: the bytes that were registered
    assert not canary.exists()


def test_a_bucket_that_does_not_answer_is_tried_again(world, monkeypatch):
    world.model_store = f"memory://{uuid.uuid4()}"
    job = world.ready()

    def fail(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    with pytest.raises(ModelStoreUnavailable, match="cannot be used: TimeoutError"):
        world.score(job, day(1))
    assert world.attempts("status, error_kind") == [("failed", "transient")]


# --- another machine -------------------------------------------------------------------------------------------------


def test_a_model_of_another_scikit_learn_is_refused_by_its_manifest(world, job):
    manifest = json.loads(manifest_path(world).read_text())
    manifest["environment"]["scikit-learn"] = "1.5.2"
    manifest_path(world).write_text(json.dumps(manifest))
    refused(world, job, EnvironmentDiffers, "scikit-learn was 1.5.2 at training and is .* here")


def test_a_model_of_another_scikit_learn_is_not_registered_and_refused_by_its_own_bytes(world, job, monkeypatch):
    content = io.BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", "1.5.2")
        joblib.dump(classifier(training_frame()), content)
    with pytest.raises(EnvironmentDiffers, match=r"from version 1\.5\.2"):
        register(content.getvalue(), training_frame(), world.place, name="bad_reading", connections=["client_db"])
    assert store.versions(world.store, "bad_reading") == [1]
    smuggled(world, content.getvalue())
    with pytest.raises(EnvironmentDiffers, match=r"from version 1\.5\.2"):
        world.score(job, day(1), model_version=2)


def smuggled(world, content):
    """Put bytes into store and database as version 2, with the manifest of version 1 and without opening them."""
    manifest = store.read_manifest(world.store, "bad_reading", 1)
    manifest = manifest.model_copy(update={"version": 2, "sha256": sha256(content)})
    store.write_version(world.store, manifest, content)
    with database.session(world.address("client_db"), "plantao") as session:
        registry.register(session, manifest, "here", registry.Decision("test", "test"))


def test_another_patch_level_of_scikit_learn_is_a_warning_of_the_check(world, job):
    manifest = json.loads(manifest_path(world).read_text())
    now = manifest["environment"]["scikit-learn"]
    manifest["environment"]["scikit-learn"] = then = now + "9"
    manifest_path(world).write_text(json.dumps(manifest))
    lines = [line.answer for line in check.check(world.place).lines if line.of == "bad_reading: environment"]
    assert [(answer.state, answer.what) for answer in lines] == [
        ("WARN", f"scikit-learn was {then} at training and is {now} here")
    ]
    assert world.score(job, day(1)).status == "succeeded"


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


def test_a_difference_as_between_two_processors_is_none(world, job):
    manifest = json.loads(manifest_path(world).read_text())
    manifest["golden"]["answers"] = [[p + 1e-9, 1 - p - 1e-9] for p, _ in manifest["golden"]["answers"]]
    manifest_path(world).write_text(json.dumps(manifest))
    assert world.score(job, day(1)).status == "succeeded"


def test_a_model_that_cannot_be_loaded_here_names_what_is_missing(world, job):
    content = io.BytesIO()
    joblib.dump(classifier(training_frame()), content)
    smuggled(world, content.getvalue().replace(b"sklearn.pipeline", b"sklearn.pipedrem"))
    with pytest.raises(ModelUnreadable, match=r"No module named 'sklearn\.pipedrem'"):
        world.score(job, day(1), model_version=2)


def test_a_model_that_nobody_registered_is_refused_with_the_command(world):
    world.fill()
    refused(world, world.job(), ModelMissing, "has no champion .* plantao models register")


def test_a_version_that_is_not_there_is_refused(world, job):
    with pytest.raises(ModelMissing, match="bad_reading/7 is not registered"):
        world.score(job, day(1), model_version=7)


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
    manifest = two_databases.register()
    two_databases.fill(days=0)
    two_databases.job(JOB + 'connection = "client_db"\n')  # so that the ledger's rights there are granted
    entries = enter(manifest, two_databases.place, ["client_db"])
    assert [(e.connection, e.became_champion) for e in entries] == [("client_db", True)]
    assert [e.became_champion for e in enter(manifest, two_databases.place, ["client_db"])] == [False]


def test_a_version_cannot_be_entered_with_another_hash(world, stored):
    stored.put(FILE, b"others")
    manifest = store.read_manifest(world.store, "bad_reading", 1)
    with pytest.raises(ModelTampered, match="the file of model bad_reading/1 is not the one"):
        enter(manifest, world.place, ["client_db"])
    stored.put(MANIFEST, edited(stored.get(MANIFEST), sha256=sha256(b"others")))
    manifest = store.read_manifest(world.store, "bad_reading", 1)
    with pytest.raises(UsageError, match="registered already, with another file"):
        enter(manifest, world.place, ["client_db"])


def test_a_database_without_a_ledger_is_refused_with_the_command(world, job):
    world.sql("drop schema plantao cascade")
    with pytest.raises(NotInitialised, match=r"has no ledger.*plantao init"):
        world.score(job, day(1))
