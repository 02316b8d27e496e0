"""The model store, wherever it is, and the cache in front of a bucket."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from plantao.config.settings import ModelStore
from plantao.errors import ModelMissing, ModelStoreUnavailable, ModelTampered, ModelUnreadable, UsageError
from plantao.models import cache
from plantao.models import store as model_store
from plantao.models.store_bucket import Bucket
from plantao.release.describe import describe
from world import Inside, classifier, training_frame

WORKER = Path(__file__).with_name("cache_worker.py")
# `local://` is the same disk, but by way of fsspec: it stands for what is neither a bucket nor a folder of ours.
KINDS = ("a folder", "file://", "memory://", "local://")
BUCKETS = ("memory://", "local://")


@pytest.fixture(scope="module")
def template():
    when = datetime(2013, 4, 1, tzinfo=UTC)
    known = {"version": 1, "sha256": "0" * 64, "file": "model.joblib", "created_by": "me", "created_at": when}
    return describe(classifier(training_frame()), training_frame(), name="m", environment={}, **known)


@pytest.fixture
def version(template):
    """Make a version: its manifest, and bytes that it vouches for."""

    def make(number=1, content=b"bytes", model="m"):
        sha256 = hashlib.sha256(content).hexdigest()
        return template.model_copy(update={"model": model, "version": number, "sha256": sha256}), content

    return make


def store_of(kind, tmp_path):
    addresses = {
        "a folder": str(tmp_path / "store"),
        "file://": f"file://{tmp_path}/store",
        "memory://": f"memory://{uuid.uuid4()}/models/",
        "local://": f"local://{tmp_path}/store",
    }
    (tmp_path / "store").mkdir()
    return ModelStore(addresses[kind], tmp_path / "code", tmp_path / "cache")


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    return store_of(request.param, tmp_path)


@pytest.fixture(params=BUCKETS)
def bucket(request, tmp_path):
    return store_of(request.param, tmp_path)


# --- what holds wherever the store is --------------------------------------------------------------------------------


def test_a_version_is_written_whole_and_never_again(store, version):
    manifest, content = version()
    assert model_store.write_version(store, manifest, content).endswith("/m/1")
    with pytest.raises(UsageError, match="m/1 exists already; a version never changes"):
        model_store.write_version(store, *version(content=b"others"))
    assert model_store.read_bytes(store, manifest) == content
    assert model_store.read_manifest(store, "m", 1) == manifest
    assert Inside(store).all() == ["m/1/manifest.json", "m/1/model.joblib"]


def test_versions_and_models_are_listed(store, version):
    assert (model_store.models(store), model_store.versions(store, "m")) == ([], [])
    assert model_store.next_version(store, "m") == 1
    for number in (1, 2, 10):
        model_store.write_version(store, *version(number))
    model_store.write_version(store, *version(3, model="another"))
    assert model_store.versions(store, "m") == [1, 2, 10]
    assert model_store.models(store) == ["another", "m"]
    assert model_store.next_version(store, "m") == 11
    assert model_store.next_version(store, "m", taken=[14, 2]) == 15


def test_a_version_without_a_manifest_is_no_version_and_its_number_is_spent(store, version):
    model_store.write_version(store, *version())
    inside = Inside(store)
    inside.put("m/2/model.joblib", b"the registrar died here")
    inside.put("m/.3-abc/manifest.json", b"or here")
    inside.put("m/x/4/manifest.json", b"not a version's place")
    inside.put("m/05/manifest.json", b"nor this")
    inside.put("m/notes.txt", b"nor this")
    inside.put("README.md", b"nor this")
    assert model_store.versions(store, "m") == [1]
    assert model_store.models(store) == ["m"]
    assert model_store.next_version(store, "m") == 3
    with pytest.raises(ModelMissing, match=r"m/2 is not in the store .*has versions 1 of m"):
        model_store.read_manifest(store, "m", 2)
    with pytest.raises(UsageError, match="exists already"):
        model_store.write_version(store, *version(2))
    assert inside.get("m/2/model.joblib") == b"the registrar died here"


def test_what_is_missing_or_broken_is_named(store, version):
    with pytest.raises(ModelMissing, match=r"m/1 is not in the store .*has the models \(none\)"):
        model_store.read_manifest(store, "m", 1)
    manifest, content = version()
    model_store.write_version(store, manifest, content)
    Inside(store).remove("m/1/model.joblib")
    with pytest.raises(ModelMissing, match=r"the file of model m/1 cannot be read"):
        model_store.read_bytes(store, manifest)
    for junk in (b'{"model": "m"}', b"", b"\xff\xfe"):
        Inside(store).put("m/1/manifest.json", junk)
        with pytest.raises(ModelUnreadable, match=r"m/1/manifest\.json is not a manifest"):
            model_store.read_manifest(store, "m", 1)


def test_a_manifest_of_another_version_is_refused(store, version):
    for number in (1, 2):
        model_store.write_version(store, *version(number))
    inside = Inside(store)
    inside.put("m/1/manifest.json", inside.get("m/2/manifest.json"))
    with pytest.raises(ModelTampered, match=r"the folder of model m/1 holds the manifest of m/2"):
        model_store.read_manifest(store, "m", 1)


@pytest.mark.parametrize("file", ["../../secret", "model.pkl", "/etc/passwd"])
def test_a_manifest_cannot_point_elsewhere(store, version, file):
    manifest, _ = version()
    text = manifest.model_dump_json().replace("model.joblib", file)
    Inside(store).put("m/1/manifest.json", text.encode())
    with pytest.raises(ModelUnreadable, match="'file'"):
        model_store.read_manifest(store, "m", 1)


def test_a_version_beside_the_code_is_found_when_the_store_lacks_it(store, version):
    beside = ModelStore(str(store.beside_code), store.beside_code, store.cache)
    kept, content = version(3, b"beside")
    model_store.write_version(beside, kept, content)
    (store.beside_code / "README.md").touch()
    assert model_store.read_manifest(store, "m", 3) == kept
    assert model_store.read_bytes(store, kept) == content
    assert model_store.versions(store, "m") == [3]
    assert model_store.models(store) == ["m"]
    assert model_store.next_version(store, "m") == 4
    assert model_store.address_of(store, kept) == f"{store.beside_code}/m/3"


def test_the_store_comes_before_what_is_beside_the_code(store, version):
    beside = ModelStore(str(store.beside_code), store.beside_code, store.cache)
    model_store.write_version(beside, *version(1, b"beside"))
    manifest, content = version(1, b"stored")
    address = model_store.write_version(store, manifest, content)
    assert model_store.read_bytes(store, model_store.read_manifest(store, "m", 1)) == content
    assert model_store.address_of(store, manifest) == address


# --- two registrars, and registrations that fail ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a folder", "file://"])
def test_of_many_registrars_at_once_one_gets_the_number(kind, tmp_path, version):
    store = store_of(kind, tmp_path)
    offers = [version(1, f"bytes {n}".encode() * 10_000) for n in range(8)]
    start, won, refused = threading.Barrier(len(offers)), [], []

    def register(offer):
        start.wait()
        try:
            model_store.write_version(store, *offer)
            won.append(offer)
        except UsageError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=register, args=(offer,)) for offer in offers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((manifest, content),) = won
    assert len(refused) == len(offers) - 1
    assert all("exists already" in line for line in refused)
    assert model_store.read_manifest(store, "m", 1) == manifest
    assert model_store.read_bytes(store, manifest) == content
    assert [path.name for path in (tmp_path / "store" / "m").iterdir()] == ["1"]


@pytest.mark.parametrize("meets", ["m/1/model.joblib", "m/1/manifest.json"])
def test_in_a_bucket_a_second_registrar_meets_the_first_at_any_moment_and_is_refused(
    bucket, version, monkeypatch, meets
):
    """The first is stopped just after it has written `meets`; what it leaves is then whole, and its own."""
    manifest, content = version()
    real, seen = Bucket._create, []

    def create(self, path, written):
        real(self, path, written)
        if path.endswith(meets) and not seen:
            seen.append(model_store.versions(bucket, "m"))
            with pytest.raises(UsageError, match="exists already"):
                model_store.write_version(bucket, *version(content=b"others"))

    monkeypatch.setattr(Bucket, "_create", create)
    model_store.write_version(bucket, manifest, content)
    assert seen == [[] if meets.endswith("joblib") else [1]]  # half a version is none
    assert model_store.read_manifest(bucket, "m", 1) == manifest
    assert model_store.read_bytes(bucket, manifest) == content


def test_in_a_bucket_a_registrar_that_was_overtaken_after_it_looked_is_refused(bucket, version, monkeypatch):
    manifest, content = version(content=b"faster")
    real, overtaken = Bucket._create, []

    def create(self, path, written):
        if not overtaken:
            overtaken.append(path)
            model_store.write_version(bucket, manifest, content)
        real(self, path, written)

    monkeypatch.setattr(Bucket, "_create", create)
    with pytest.raises(UsageError, match="exists already"):
        model_store.write_version(bucket, *version(content=b"slower"))
    assert overtaken[0].endswith("m/1/model.joblib")
    assert model_store.read_manifest(bucket, "m", 1) == manifest
    assert model_store.read_bytes(bucket, manifest) == content


def test_a_version_that_is_there_is_refused_by_a_store_that_knows_no_conditional_write(tmp_path, version, monkeypatch):
    store = store_of("memory://", tmp_path)
    files = fsspec.get_filesystem_class("memory")
    real = files.pipe_file
    monkeypatch.setattr(files, "pipe_file", lambda self, path, value, **_: real(self, path, value))
    manifest, content = version()
    model_store.write_version(store, manifest, content)
    with pytest.raises(UsageError, match="exists already"):
        model_store.write_version(store, *version(content=b"others"))
    assert model_store.read_bytes(store, manifest) == content


@pytest.mark.parametrize("failing", ["rename", "fsync"])
def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path, version, monkeypatch, failing):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(UsageError, match=r"m/1 cannot be written .*No space left on device.*PLANTAO_MODEL_STORE"):
        model_store.write_version(store_of("a folder", tmp_path), *version())
    assert list((tmp_path / "store" / "m").iterdir()) == []


# --- addresses -------------------------------------------------------------------------------------------------------


def at(address, tmp_path):
    return ModelStore(address, tmp_path / "code", tmp_path / "cache")


@pytest.mark.parametrize(
    ("address", "extra"),
    [("s3://b/m", "s3"), ("gs://b/m", "gs"), ("gcs://b", "gs"), ("abfs://c@a.dfs.core.windows.net/m", "abfs")],
)
def test_a_missing_package_is_named_by_its_extra(tmp_path, monkeypatch, address, extra):
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"{address} needs a package .*install 'plantao\[{extra}\]'"):
        model_store.versions(at(address, tmp_path), "m")


def test_every_extra_that_a_message_names_exists():
    import tomllib

    from plantao.models.store_bucket import EXTRAS

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(EXTRAS.values()) <= set(extras)


def test_an_address_that_cannot_be_one_is_refused_with_the_variable(tmp_path):
    with pytest.raises(UsageError, match="PLANTAO_MODEL_STORE"):
        model_store.versions(at("s4://bucket", tmp_path), "m")


def test_an_address_with_a_password_is_refused_without_being_printed(tmp_path):
    with pytest.raises(UsageError, match="holds a password") as caught:
        model_store.versions(at("sftp://me:topsecret@host/models", tmp_path), "m")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("error", [PermissionError(13, "Access Denied"), TimeoutError("no answer"), RuntimeError("?")])
@pytest.mark.parametrize("asked", ["cat_file", "find", "pipe_file"])
def test_a_bucket_that_does_not_serve_us_can_be_tried_again(tmp_path, version, monkeypatch, error, asked):
    store = store_of("memory://", tmp_path)
    manifest, content = version()

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), asked, fail)
    actions = {
        "cat_file": lambda: model_store.read_manifest(store, "m", 1),
        "find": lambda: model_store.versions(store, "m"),
        "pipe_file": lambda: model_store.write_version(store, manifest, content),
    }
    with pytest.raises(ModelStoreUnavailable, match=rf"{store} cannot be used: {type(error).__name__}") as caught:
        actions[asked]()
    assert not caught.value.permanent


def test_a_local_store_loads_neither_fsspec_nor_skops(tmp_path, version):
    store = store_of("a folder", tmp_path)
    model_store.write_version(store, *version())
    code = f"""
import sys
from pathlib import Path
from plantao import preflight
from plantao.config.settings import ModelStore
from plantao.models import store as model_store
from plantao.release import register
from plantao.run import attempt, run
from plantao.score import loader
store = ModelStore({store.address!r}, Path("/nowhere"), Path("/nowhere"))
model_store.read_bytes(store, model_store.read_manifest(store, "m", 1))
assert not {{"fsspec", "skops", "plantao.models.store_bucket"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def entry(bucket, version):
    """A version in a bucket, and where the cache keeps it."""
    manifest, content = version(content=b"0123456789" * 1_000)
    model_store.write_version(bucket, manifest, content)
    return bucket, manifest, content, bucket.cache / "models" / manifest.sha256


def test_what_was_fetched_once_is_not_fetched_again(entry):
    store, manifest, content, kept = entry
    assert model_store.read_bytes(store, manifest) == content
    Inside(store).remove("m/1/model.joblib")
    assert model_store.read_bytes(store, manifest) == content
    assert list(kept.parent.iterdir()) == [kept]


def test_a_folder_needs_no_cache(tmp_path, version):
    store = store_of("a folder", tmp_path)
    manifest, content = version()
    model_store.write_version(store, manifest, content)
    assert model_store.read_bytes(store, manifest) == content
    assert not store.cache.exists()


@pytest.mark.parametrize("damage", [b"", b"others", b"0123456789" * 999])
def test_a_damaged_entry_is_thrown_away_and_fetched_again(entry, caplog, damage):
    store, manifest, content, kept = entry
    model_store.read_bytes(store, manifest)
    kept.write_bytes(damage)
    assert model_store.read_bytes(store, manifest) == content
    assert kept.read_bytes() == content
    assert "a damaged model was thrown out of the cache" in caplog.text


def test_a_damaged_entry_is_gone_even_when_the_store_does_not_answer(entry):
    store, manifest, _, kept = entry
    model_store.read_bytes(store, manifest)
    kept.write_bytes(b"others")
    Inside(store).remove("m/1/model.joblib")
    with pytest.raises(ModelMissing):
        model_store.read_bytes(store, manifest)
    assert not kept.exists()


def test_what_is_not_what_the_manifest_says_is_never_kept(entry):
    store, manifest, _, kept = entry
    Inside(store).put("m/1/model.joblib", b"tampered")
    assert model_store.read_bytes(store, manifest) == b"tampered"  # the gate refuses it, and says why
    assert not kept.parent.exists()


def test_a_cache_that_cannot_be_written_costs_only_another_fetch(entry, caplog):
    store, manifest, content, _ = entry
    store.cache.touch()  # a file where the folder should be
    for _ in range(2):
        assert model_store.read_bytes(store, manifest) == content
    assert caplog.text.count("the model cache cannot be written") == 2
    assert "set PLANTAO_CACHE" in caplog.text


def test_a_full_disk_leaves_no_entry_and_nothing_unfinished(entry, monkeypatch):
    store, manifest, content, kept = entry

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert model_store.read_bytes(store, manifest) == content
    assert list(kept.parent.iterdir()) == []


def test_the_cache_forgets_what_nobody_reads_and_what_the_killed_have_left(entry):
    store, manifest, _, kept = entry
    kept.parent.mkdir(parents=True)
    now = time.time()
    ages = {"a" * 64: 31, "b" * 64: 29, ".0123456789abcdef": 1.1, ".123456789abcdef0": 0.9, "notes.txt": 400}
    for name, days in ages.items():
        (kept.parent / name).touch()
        os.utime(kept.parent / name, (now - days * 86_400,) * 2)
    model_store.read_bytes(store, manifest)
    assert {path.name for path in kept.parent.iterdir()} == {
        kept.name, "b" * 64, ".123456789abcdef0", "notes.txt"
    }  # fmt: skip


def test_reading_an_entry_keeps_it_young(entry):
    store, manifest, _, kept = entry
    model_store.read_bytes(store, manifest)
    os.utime(kept, (0, 0))
    model_store.read_bytes(store, manifest)
    assert time.time() - kept.stat().st_mtime < 60


# --- workers that share the cache ------------------------------------------------------------------------------------


@pytest.fixture
def workers(tmp_path, version):
    """Start worker processes on one store and one cache."""
    manifest, content = version(content=os.urandom(1_000_000))
    store = store_of("a folder", tmp_path)
    model_store.write_version(store, manifest, content)
    started = []

    def start(stop_at="nowhere"):
        command = [sys.executable, str(WORKER), store.address, str(store.cache), stop_at]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, **pipes))
        return started[-1]

    start.manifest, start.store = manifest, store
    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def says(process):
    return process.stdout.readline().strip()


def tell(process):
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("go\n")
        process.stdin.flush()


@pytest.mark.parametrize("stop_at", ["download", "write", "rename"])
def test_of_two_workers_that_fetch_the_same_version_one_is_killed_in_the_middle(workers, stop_at):
    killed, other = workers(stop_at), workers()
    assert [says(killed), says(other)] == ["fetching", "fetching"]  # both are in the middle of it
    if stop_at != "download":
        tell(killed)
        assert says(killed) == "stopped"
    killed.kill()
    killed.wait()
    folder = workers.store.cache / "models"
    assert not (folder / workers.manifest.sha256).exists()
    tell(other)
    assert says(other) == workers.manifest.sha256
    assert other.wait() == 0
    entries = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    assert entries == [workers.manifest.sha256]
    assert hashlib.sha256((folder / entries[0]).read_bytes()).hexdigest() == entries[0]
    assert len(list(folder.glob(".*"))) == (stop_at != "download")  # what the killed one left, for a day

    (Path(workers.store.address) / "m" / "1" / "model.joblib").unlink()
    third = workers()
    assert says(third) == workers.manifest.sha256  # from the cache: it never asked the store


def test_many_workers_that_fetch_the_same_version_at_once_all_get_it(workers):
    several = [workers() for _ in range(4)]
    assert [says(process) for process in several] == ["fetching"] * 4
    for process in several:
        tell(process)
    assert [says(process) for process in several] == [workers.manifest.sha256] * 4
    assert [path.name for path in (workers.store.cache / "models").iterdir()] == [workers.manifest.sha256]


def test_a_worker_that_removes_an_entry_disturbs_no_other(tmp_path):
    content = b"x" * 1_000_000
    sha256 = hashlib.sha256(content).hexdigest()
    stop, seen = threading.Event(), set()

    def vandal():
        while not stop.is_set():
            with contextlib.suppress(OSError):
                (tmp_path / sha256).write_bytes(b"damaged")
            with contextlib.suppress(OSError):
                (tmp_path / sha256).unlink()

    def reader():
        for _ in range(100):
            seen.add(cache.read(tmp_path, sha256, lambda: content) == content)

    others = [threading.Thread(target=reader) for _ in range(3)]
    thread = threading.Thread(target=vandal)
    for each in (thread, *others):
        each.start()
    for each in others:
        each.join()
    stop.set()
    thread.join()
    assert seen == {True}
