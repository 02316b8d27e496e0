"""The model store: a folder with `MODEL/VERSION/model.joblib` and `MODEL/VERSION/manifest.json`.

A version is written beside its place and renamed into it, so a reader never finds half of one, and a version that
exists is never written again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from plantao.errors import ModelMissing, ModelUnreadable, UsageError
from plantao.score.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

MODEL_FILE = "model.joblib"
MANIFEST_FILE = "manifest.json"


def folder_of(store: str) -> Path:
    """Return the folder that a store's address names. Raises UsageError for what is no local folder."""
    path = store.removeprefix("file://")
    if "://" in path:
        message = f"the model store {store!r} is not a local folder."
        raise UsageError(message, "set PLANTAO_MODEL_STORE to a folder (a bucket may be mounted as one)")
    return Path(path).absolute()


def versions(store: str, model: str) -> list[int]:
    """Return the numbers of the versions in the store, ascending."""
    folder = folder_of(store) / model
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and path.is_dir())


def models(store: str) -> list[str]:
    """Return the names of the models in the store, in alphabetical order."""
    folder = folder_of(store)
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and versions(store, path.name))


def read_manifest(store: str, model: str, version: int) -> Manifest:
    """Return the manifest of a version. Raises ModelMissing, or ModelUnreadable when it is not a manifest."""
    path = folder_of(store) / model / str(version) / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"model {model}/{version} is not in the store {store} ({error.strerror}). No row was read."
        raise ModelMissing(message, f"copy the version's folder there; the store has {_shown(store, model)}") from error
    except ValidationError as error:
        message = f"{path} is not a manifest: {error.error_count()} mistakes, the first at {error.errors()[0]['loc']}."
        raise ModelUnreadable(message, "restore the version's folder from a backup") from error


def read_bytes(store: str, manifest: Manifest) -> bytes:
    """Return the bytes of the model file, without looking into them."""
    path = folder_of(store) / manifest.model / str(manifest.version) / manifest.file
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"the file of model {manifest.name} cannot be read ({error.strerror}: {path}). No row was read."
        raise ModelMissing(message, "restore the version's folder from a backup") from error


def write_version(store: str, manifest: Manifest, content: bytes) -> Path:
    """Put a new version into the store and return its folder. Raises UsageError when the version exists."""
    folder = folder_of(store) / manifest.model
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / str(manifest.version)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{manifest.version}-", dir=folder))
    try:
        (unfinished / manifest.file).write_bytes(content)
        (unfinished / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        os.rename(unfinished, place)  # noqa: PTH104 - Path.rename promises less: this one fails on a full folder
    except OSError as error:
        if place.exists():
            message = f"model {manifest.name} exists already; a version never changes."
            raise UsageError(message, "register without --version to get the next number") from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place


def next_version(store: str, model: str, taken: Iterable[int] = ()) -> int:
    """Return the first number after every one that the store, or a database, knows."""
    return max([0, *versions(store, model), *taken]) + 1


def _shown(store: str, model: str) -> str:
    found = versions(store, model)
    if found:
        return f"versions {', '.join(map(str, found))} of {model}"
    return f"the models {', '.join(models(store)) or '(none)'}"
