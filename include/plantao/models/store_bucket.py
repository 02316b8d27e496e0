"""A model store behind a URL: a bucket, or whatever else fsspec can reach.

A bucket cannot rename a folder. So the model file is written first and the manifest, which makes a version one, last;
each is created and never overwritten. On S3, Google Cloud Storage and Azure to look and to create is one step of the
store's own. Elsewhere fsspec looks first and writes then: two registrars at the same instant may spoil that version for
each other, which the hash gives away.
"""

from __future__ import annotations

import contextlib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from plantao.errors import ModelStoreUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The start of an address, and the extra of this package that can read it.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfs", "az": "abfs"}


class Bucket:
    """What a URL names. Every failure but a missing or an existing file becomes a ModelStoreUnavailable."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, root = _open(address)
        self._root = root.rstrip("/")

    def names(self) -> list[str]:
        """Return the names of the folders in it."""
        with self._asking(), contextlib.suppress(FileNotFoundError):
            return [path.rstrip("/").rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]
        return []

    def files(self, folder: str) -> list[str]:
        """Return the paths of all files in a folder, as seen from there."""
        start = f"{self._root}/{folder}/"
        with self._asking(), contextlib.suppress(FileNotFoundError):
            return [path.removeprefix(start) for path in self._files.find(start)]
        return []

    def read(self, path: str) -> bytes:
        """Return the bytes of a file. Raises FileNotFoundError when it is not there."""
        with self._asking():
            return bytes(self._files.cat_file(f"{self._root}/{path}"))

    def publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write the files into `folder`, in their order. Raises FileExistsError when one is there already."""
        if self.files(folder):
            raise FileExistsError(folder)
        with self._asking():
            for name, content in files.items():
                self._create(f"{self._root}/{folder}/{name}", content)

    def _create(self, path: str, content: bytes) -> None:
        try:
            self._files.pipe_file(path, content, mode="create")
        except FileNotFoundError:
            # Not a bucket, but something with real folders. Those of the version are made, and none above them: a
            # bucket whose name was mistyped must not come into being.
            version = path.rpartition("/")[0]
            for missing in (version.rpartition("/")[0], version):
                with contextlib.suppress(FileExistsError):
                    self._files.mkdir(missing, create_parents=False)
            self._files.pipe_file(path, content, mode="create")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._files.invalidate_cache()  # another process may have written since
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            message = (
                f"the model store {self.address} cannot be used: {type(error).__name__}: {error}. No row was read."
            )
            raise ModelStoreUnavailable(message, "check the address, the network and the credentials") from error


def _open(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path within it."""
    import fsspec

    protocol = address.partition("://")[0]
    if re.search(r"://[^/]*:[^/]*@", address):
        message = "the address of the model store holds a password, and addresses are printed and written down."
        raise UsageError(message, "give the credentials as the store's own variables, and the address without them")
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        advice = f"install 'plantao[{extra}]'" if extra else str(error)
        message = f"the model store {address} needs a package that is not installed here."
        raise UsageError(message, advice) from error
    except ValueError as error:
        message = f"the model store {address} is neither a folder nor an address that can be read."
        raise UsageError(message, "set PLANTAO_MODEL_STORE to a folder, s3://…, gs://… or abfs://…") from error
    try:
        files, path = fsspec.url_to_fs(address)
    except Exception as error:
        message = f"the model store {address} cannot be used: {type(error).__name__}: {error}. No row was read."
        raise ModelStoreUnavailable(message, "check the address, the network and the credentials") from error
    return files, str(path)
