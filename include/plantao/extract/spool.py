"""A queue of Arrow batches that never makes the reader wait.

The reader holds a snapshot of the client's database, and must let go of it as soon as a plain COPY would. So what
scoring cannot take yet goes to a temporary file beyond a few megabytes of memory. The file has no name and
disappears with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from typing import TYPE_CHECKING

import pyarrow as pa

from plantao.errors import DatabaseUnavailable, DiskFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

MEMORY_BYTES = 8 << 20


class Spool:
    """Batches in the order they were read; one thread puts, another takes."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_left = memory_bytes
        self._items: deque[pa.RecordBatch | tuple[int, int, pa.Schema]] = deque()
        self._changed = threading.Condition()
        self._file: IO[bytes] | None = None
        self._file_end = 0
        self._error: BaseException | None = None
        self._complete = False
        self._abandoned = False
        self.spilled_bytes = 0

    def put(self, batch: pa.RecordBatch) -> bool:
        """Add a batch; False says that nobody wants more of them."""
        with self._changed:
            in_memory = batch.nbytes <= self._memory_left
            if in_memory:
                self._memory_left -= batch.nbytes
                self._items.append(batch)
        if not in_memory:
            place = self._spill(batch)
            with self._changed:
                self._items.append((*place, batch.schema))
        with self._changed:
            self._changed.notify()
            return not self._abandoned

    def close(self, error: BaseException | None = None) -> None:
        """Say that the last batch was put, or why there will be no more."""
        with self._changed:
            self._complete, self._error = True, error
            self._changed.notify()
            self._release()

    def abandon(self) -> None:
        """Say that no more batches are wanted, or that all of them were taken."""
        with self._changed:
            self._abandoned = True
            self._release()

    def _release(self) -> None:
        if self._complete and self._abandoned and self._file is not None:
            self._file.close()
            self._file = None

    def batches(self, patience: float) -> Iterator[pa.RecordBatch]:
        """Yield the batches until the last one, or raise what stopped the reader.

        Raises DatabaseUnavailable when the reader has put nothing for `patience` seconds.
        """
        while self._has_another(patience):
            yield self._taken()  # in no variable, which would keep the batch in memory while it is scored

    def _has_another(self, patience: float) -> bool:
        with self._changed:
            while not self._items and not self._complete:
                if not self._changed.wait(patience):
                    message = f"the source sent no row for {patience:g} s."
                    raise DatabaseUnavailable(message, "nothing: it is retried", "extract")
            if not self._items and self._error is not None:
                raise self._error
            return bool(self._items)

    def _taken(self) -> pa.RecordBatch:
        with self._changed:
            item = self._items.popleft()
            if isinstance(item, pa.RecordBatch):
                self._memory_left += item.nbytes
                return item
        return self._read_back(*item)

    def _spill(self, batch: pa.RecordBatch) -> tuple[int, int]:
        content = batch.serialize()
        start = self._file_end
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="plantao-")  # noqa: SIM115 - lives as long as the spool
            _write(self._file, content, start)
        except OSError as error:
            message = (
                f"rows that wait to be scored cannot be kept on this machine: {error.strerror}. Nothing was written."
            )
            advice = "make room where temporary files go, or let TMPDIR name another folder; then run it again"
            raise DiskFull(message, advice, "extract") from error
        self._file_end += content.size
        self.spilled_bytes += content.size
        return start, content.size

    def _read_back(self, start: int, size: int, schema: pa.Schema) -> pa.RecordBatch:
        assert self._file is not None
        content = os.pread(self._file.fileno(), size, start)
        return pa.ipc.read_record_batch(pa.py_buffer(content), schema)


def _write(file: IO[bytes], content: pa.Buffer, start: int) -> None:
    """Write all of it: a disk that fills up takes a part first, and says so only when it is asked again."""
    rest = memoryview(content)
    while rest:
        taken = os.pwrite(file.fileno(), rest, start)
        rest, start = rest[taken:], start + taken
