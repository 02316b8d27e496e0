"""A folder of model versions on this machine, or on a disk that is mounted here."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Folder:
    """A folder. A version is written beside its place and renamed into it, so nobody ever finds half of one."""

    def __init__(self, path: Path) -> None:
        self.root = path.absolute()
        self.address = str(self.root)

    def names(self) -> list[str]:
        """Return the names of the folders in it."""
        return [path.name for path in self.root.iterdir() if path.is_dir()] if self.root.is_dir() else []

    def files(self, folder: str) -> list[str]:
        """Return the paths of the files one level down in a folder, as seen from there."""
        return [f"{path.parent.name}/{path.name}" for path in (self.root / folder).glob("*/*")]

    def read(self, path: str) -> bytes:
        """Return the bytes of a file. Raises OSError when it cannot be read."""
        return (self.root / path).read_bytes()

    def publish(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Make `folder` with the files in it, all at once. Raises FileExistsError when it is there already."""
        place = self.root / folder
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            for name, content in files.items():
                write_durably(unfinished / name, content)
            unfinished.chmod(0o755)
            os.rename(unfinished, place)  # noqa: PTH104 - Path.rename promises less: this one fails on a full folder
        except OSError as error:
            if place.exists():
                raise FileExistsError(error.errno, "is there already", str(place)) from error
            raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        _sync_folder(place.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it, so that after a power cut no name stands for half a file."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # some network file systems know no such thing
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
