"""A worker of the cache's tests: it fetches a version from a store that waits, and stops where it is told to."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from plantao.config.settings import ModelStore
from plantao.models import cache as model_cache
from plantao.models import store as model_store


def say(word):
    print(word, flush=True)


def stop(*_):
    say("stopped")
    time.sleep(600)


class SlowFiles(LocalFileSystem):
    """A store that gives a model file only when it is told to, by a line on standard input."""

    protocol = ("slow",)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("slow://"))

    def cat_file(self, path, **kwargs):
        content = super().cat_file(path, **kwargs)
        if path.endswith("model.joblib"):
            say("fetching")
            sys.stdin.readline()
        return content


def write_half(path, content):
    path.write_bytes(content[: len(content) // 2])
    stop()


def main(root, cache, stop_at):
    fsspec.register_implementation("slow", SlowFiles)
    if stop_at == "write":
        model_cache.write_durably = write_half
    if stop_at == "rename":
        Path.replace = stop
    store = ModelStore(f"slow://{root}", Path("/nowhere"), Path(cache))
    content = model_store.read_bytes(store, model_store.read_manifest(store, "m", 1))
    say(hashlib.sha256(content).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
