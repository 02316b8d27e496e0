"""The model store: `MODEL/VERSION/model.joblib` (or `model.skops`), with `MODEL/VERSION/manifest.json` beside it.

It is a folder or a bucket; what it lacks is looked for among the versions that travel with the code. A version is one
when its manifest is there, which is written last, and a version that exists is never written again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from plantao.errors import ModelMissing, ModelTampered, ModelUnreadable, UsageError
from plantao.models import cache
from plantao.models.manifest import Manifest
from plantao.models.store_folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from plantao.config.settings import ModelStore

MANIFEST_FILE = "manifest.json"


class Shelf(Protocol):
    """What can hold versions. Paths are `MODEL/VERSION/FILE`; what is missing is an OSError."""

    address: str

    def names(self) -> list[str]:
        """Return the names of the folders in it."""

    def files(self, folder: str) -> list[str]:
        """Return what is in a folder: of that of a model, `VERSION/FILE`."""

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""

    def publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write a version, the last file last. Raises FileExistsError when one is there already."""


def versions(store: ModelStore, model: str) -> list[int]:
    """Return the numbers of the versions that can be read, ascending."""
    return sorted({number for shelf in _shelves(store) for number in _numbers(shelf, model, MANIFEST_FILE)})


def models(store: ModelStore) -> list[str]:
    """Return the names of the models that have a version, in alphabetical order."""
    names = {name for shelf in _shelves(store) for name in shelf.names()}
    return sorted(name for name in names if versions(store, name))


def next_version(store: ModelStore, model: str, taken: Iterable[int] = ()) -> int:
    """Return the first number after every one that the store, or a database, knows.

    The number of a version that was begun and never finished is not used again.
    """
    begun = {number for shelf in _shelves(store) for number in _numbers(shelf, model)}
    return max([0, *begun, *taken]) + 1


def read_manifest(store: ModelStore, model: str, version: int) -> Manifest:
    """Return the manifest of a version.

    Raises ModelMissing, ModelUnreadable when it is not a manifest, and ModelTampered when it is another version's.
    """
    path = f"{model}/{version}/{MANIFEST_FILE}"
    try:
        manifest = Manifest.model_validate_json(_read(store, path))
    except OSError as error:
        message = f"model {model}/{version} is not in the store {store} ({_reason(error)}). No row was read."
        raise ModelMissing(message, f"copy the version's folder there; the store has {_shown(store, model)}") from error
    except ValidationError as error:
        message = f"{path} is not a manifest: {error.error_count()} mistakes, the first at {error.errors()[0]['loc']}."
        raise ModelUnreadable(message, "restore the version's folder from a backup") from error
    if (manifest.model, manifest.version) != (model, version):
        message = f"the folder of model {model}/{version} holds the manifest of {manifest.name}. No row was read."
        raise ModelTampered(message, "restore the version's folder from a backup")
    return manifest


def read_bytes(store: ModelStore, manifest: Manifest) -> bytes:
    """Return the bytes of the model file, without looking into them; those of a bucket go through the cache."""

    def fetch() -> bytes:
        return _read(store, f"{manifest.model}/{manifest.version}/{manifest.file}")

    try:
        if _local_path(store.address) is not None:
            return fetch()
        return cache.read(store.cache / "models", manifest.sha256, fetch)
    except OSError as error:
        message = f"the file of model {manifest.name} cannot be read ({_reason(error)}) from {store}. No row was read."
        raise ModelMissing(message, "restore the version's folder from a backup") from error


def write_version(store: ModelStore, manifest: Manifest, content: bytes) -> str:
    """Put a new version into the store and return its address. Raises UsageError when the version exists."""
    shelf = _shelf(store.address)
    text = manifest.model_dump_json(indent=1) + "\n"
    try:
        # The manifest comes last: it makes the version one.
        shelf.publish(manifest.name, {manifest.file: content, MANIFEST_FILE: text.encode()})
    except FileExistsError as error:
        message = f"model {manifest.name} exists already; a version never changes."
        raise UsageError(message, "register without --version to get the next number") from error
    except OSError as error:
        message = f"model {manifest.name} cannot be written to the store {store}: {_reason(error)}."
        raise UsageError(
            message, "make the bucket or folder, room in it or the right to write, or set PLANTAO_MODEL_STORE"
        ) from error
    return f"{shelf.address}/{manifest.name}"


def address_of(store: ModelStore, manifest: Manifest) -> str:
    """Return where a version is: in the store, or beside the code."""
    holding = (s for s in _shelves(store) if manifest.version in _numbers(s, manifest.model, MANIFEST_FILE))
    return f"{next(holding, _shelf(store.address)).address}/{manifest.name}"


def _shelves(store: ModelStore) -> Iterator[Shelf]:
    """Give the store and, to who asks for more, the versions beside the code."""
    yield _shelf(store.address)
    yield Folder(store.beside_code)


def _shelf(address: str) -> Shelf:
    path = _local_path(address)
    if path is not None:
        return Folder(path)
    from plantao.models.store_bucket import Bucket

    return Bucket(address)


def is_fetched(store: ModelStore) -> bool:
    """Tell whether model files are fetched from elsewhere, and so go through the cache."""
    return _local_path(store.address) is None


def _local_path(address: str) -> Path | None:
    path = address.removeprefix("file://")
    return None if "://" in path else Path(path)


def _numbers(shelf: Shelf, model: str, file: str | None = None) -> set[int]:
    """Return the versions of which there is anything, or this file."""
    found = (path.partition("/") for path in shelf.files(model))
    return {int(number) for number, _, name in found if re.fullmatch("[1-9][0-9]*", number) and file in {None, name}}


def _read(store: ModelStore, path: str) -> bytes:
    """Read from the first place that has the file. Raises the store's own error when none has."""
    errors = []
    for shelf in _shelves(store):
        try:
            return shelf.read(path)
        except OSError as error:
            errors.append(error)
    raise errors[0]


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _shown(store: ModelStore, model: str) -> str:
    found = versions(store, model)
    if found:
        return f"versions {', '.join(map(str, found))} of {model}"
    return f"the models {', '.join(models(store)) or '(none)'}"
