"""A queue of Arrow batches that never makes the reader wait.

The reader holds a snapshot of the client's database, and must let go of it as soon as a plain COPY would. So what
scoring cannot take yet goes to a temporary file beyond a few megabytes of memory, written by a thread of its own while
the next batch is read. The file has no name and disappears with the process, however that ends. The room of a batch
that was taken is used again: fresh pages of a file cost many times what writing to known ones does.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from plantao.errors import DatabaseUnavailable, DiskFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

MEMORY_BYTES = 8 << 20
# Batches are of nearly the same size; rounded up like this, most fit where another one was.
ROOM_BYTES = 256 << 10


@dataclass(frozen=True)
class _Room:
    """A stretch of the file."""

    start: int
    size: int


@dataclass
class _Waiting:
    """A batch that was put and not taken yet: in memory until it is written to the file."""

    batch: pa.RecordBatch | None
    is_counted: bool
    schema: pa.Schema
    room: _Room | None = None
    length: int = 0


class Spool:
    """Batches in the order they were read; one thread puts, another takes."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_left = memory_bytes
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._file: IO[bytes] | None = None
        self._file_end = 0
        self._free: list[_Room] = []
        self._error: BaseException | None = None
        self._complete = False
        self._abandoned = False
        self.spilled_bytes = 0

    # --- called by the thread that reads ----------------------------------------------------------------------------

    def put(self, batch: pa.RecordBatch) -> bool:
        """Add a batch; False says that nobody wants more of them. Raises DiskFull when the last one found no room."""
        with self._changed:
            waiting = _Waiting(batch, batch.nbytes <= self._memory_left, batch.schema)
            if waiting.is_counted:
                self._memory_left -= batch.nbytes
            self._waiting.append(waiting)
            self._changed.notify()
        if not waiting.is_counted:
            self._hand_to_writer(waiting)
        return not self._abandoned

    def close(self, error: BaseException | None = None) -> None:
        """Say that the last batch was put, or why there will be no more."""
        if self._writer is not None:
            self._writer.shutdown()
        with self._changed:
            self._complete, self._error = True, error
            self._changed.notify()
            self._release()

    def _hand_to_writer(self, waiting: _Waiting) -> None:
        """Let it be written while the next batch is read, once the one before it is."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "plantao-spool")
        if self._writing is not None:
            self._writing.result()
        self._writing = self._writer.submit(self._spill, waiting)

    # --- called by the thread that takes ----------------------------------------------------------------------------

    def batches(self, patience: float) -> Iterator[pa.RecordBatch]:
        """Yield the batches until the last one, or raise what stopped the reader.

        Raises DatabaseUnavailable when the reader has put nothing for `patience` seconds.
        """
        while self._has_another(patience):
            yield self._taken()  # in no variable, which would keep the batch in memory while it is scored

    def abandon(self) -> None:
        """Say that no more batches are wanted, or that all of them were taken."""
        with self._changed:
            self._abandoned = True
            self._release()

    def _has_another(self, patience: float) -> bool:
        with self._changed:
            while not self._waiting and not self._complete:
                if not self._changed.wait(patience):
                    message = f"the source sent no row for {patience:g} s."
                    raise DatabaseUnavailable(message, "nothing: it is retried", "extract")
            if not self._waiting and self._error is not None:
                raise self._error
            return bool(self._waiting)

    def _taken(self) -> pa.RecordBatch:
        with self._changed:
            waiting = self._waiting.popleft()
            batch, waiting.batch = waiting.batch, None
            if batch is not None:
                self._memory_left += batch.nbytes if waiting.is_counted else 0
                return batch
        return self._read_back(waiting)

    # --- the file ---------------------------------------------------------------------------------------------------

    def _release(self) -> None:
        if self._complete and self._abandoned and self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self, waiting: _Waiting) -> None:
        """Write a batch to the file, unless it is taken before that is done."""
        if (batch := waiting.batch) is None:
            return
        content = batch.serialize()
        room = self._room_for(content.size)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="plantao-")  # noqa: SIM115 - lives as long as the spool
            _write(self._file, content, room.start)
        except OSError as error:
            message = (
                f"rows that wait to be scored cannot be kept on this machine: {error.strerror}. Nothing was written."
            )
            advice = "make room where temporary files go, or let TMPDIR name another folder; then run it again"
            raise DiskFull(message, advice, "extract") from error
        with self._changed:
            self.spilled_bytes += content.size
            if waiting.batch is None:
                self._free.append(room)
            else:
                waiting.batch, waiting.room, waiting.length = None, room, content.size

    def _room_for(self, length: int) -> _Room:
        with self._changed:
            found = next((room for room in self._free if room.size >= length), None)
            if found is not None:
                self._free.remove(found)
                return found
            room = _Room(self._file_end, -(-length // ROOM_BYTES) * ROOM_BYTES)
            self._file_end += room.size
            return room

    def _read_back(self, waiting: _Waiting) -> pa.RecordBatch:
        assert self._file is not None
        assert waiting.room is not None
        content = os.pread(self._file.fileno(), waiting.length, waiting.room.start)
        with self._changed:
            self._free.append(waiting.room)
        return pa.ipc.read_record_batch(pa.py_buffer(content), waiting.schema)


def _write(file: IO[bytes], content: pa.Buffer, start: int) -> None:
    """Write all of it: a disk that fills up takes a part first, and says so only when it is asked again."""
    rest = memoryview(content)
    while rest:
        taken = os.pwrite(file.fileno(), rest, start)
        rest, start = rest[taken:], start + taken
