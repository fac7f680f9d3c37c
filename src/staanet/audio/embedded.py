"""Audio inside a Parquet file, as Hugging Face ``datasets`` writes it, named ``FILE.parquet#ROW``.

A column of structs holds ``bytes`` (a whole audio file) and ``path`` (its original name). Rows are
counted from 0. Rows are read in batches and the reader keeps its position, so a corpus that is read in
order decodes each page once.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from staanet.audio.limits import AudioLimits
from staanet.errors import StorageFault, UnusableClip

EMBEDDED = re.compile(r"(?P<file>.+\.parquet)#(?P<row>[0-9]+)", re.IGNORECASE | re.DOTALL)
BATCH_ROWS = 16


def split_embedded(path: Path | str) -> tuple[Path, int] | None:
    """Return the Parquet file and the row of an embedded sound; None for any other path.

    >>> split_embedded("data/train.parquet#7")
    (PosixPath('data/train.parquet'), 7)
    >>> split_embedded("a.wav") is None
    True
    """
    match = EMBEDDED.fullmatch(str(path))
    if match is None or os.path.lexists(path):
        return None
    return Path(match["file"]), int(match["row"])


def source_file(path: Path | str) -> Path:
    """Return the file on disk that holds a sound: the Parquet file of an embedded one.

    >>> source_file("data/train.parquet#7"), source_file("a.wav")
    (PosixPath('data/train.parquet'), PosixPath('a.wav'))
    """
    embedded = split_embedded(path)
    return Path(path) if embedded is None else embedded[0]


@contextlib.contextmanager
def open_embedded(file: Path, row: int, limits: AudioLimits) -> Iterator[tuple[BinaryIO, int]]:
    """Yield the bytes of a row as an open file, and their number.

    Raises ``UnusableClip`` where the row holds no sound or more bytes than the limit, and for another or
    a damaged Parquet file.
    """
    with _LOCK:
        data = _reader(file).read_bytes(row)
    if data is None:
        raise UnusableClip(
            f"row {row} names audio that the file does not contain",
            remedy="Write the file again with the audio inside",
        )
    if len(data) > limits.max_bytes:
        raise UnusableClip(
            f"its {len(data)} bytes exceed the limit of {limits.max_bytes} bytes",
            remedy=limits.bytes_remedy,
        )
    with _temporary_file(data) as stream:  # decoders read from a descriptor
        yield stream, len(data)


def _temporary_file(data: bytes) -> BinaryIO:
    """Return an unnamed file that holds ``data``; ``StorageFault`` where it cannot be written."""
    try:
        stream = tempfile.TemporaryFile()  # noqa: SIM115 closed by the caller
        stream.write(data)
        stream.flush()
        stream.seek(0)
    except OSError as problem:
        raise StorageFault(
            f"no temporary file can be written ({problem.strerror})",
            where=tempfile.gettempdir(),
            remedy="Free space, or set TMPDIR to another folder",
        ) from problem
    return stream


_LOCK = threading.Lock()
_OPEN: dict[str, _Reader] = {}


def _reader(file: Path) -> _Reader:
    """Return the reader of a file: the same as in the last call if the file is unchanged."""
    status = file.stat()
    key = f"{file}\0{status.st_mtime_ns}\0{status.st_size}\0{os.getpid()}"
    if key not in _OPEN:
        reader = _Reader(file)
        _OPEN.clear()
        _OPEN[key] = reader
    return _OPEN[key]


class _Reader:
    """Reads rows of the audio column of one Parquet file; fast where they are read in order."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._errors_as_unusable():
            self.parquet = pq.ParquetFile(file, page_checksum_verification=True)
            sounds = [
                column.name
                for column in self.parquet.schema_arrow
                if pa.types.is_struct(column.type)
                and {"bytes", "path"} <= {f.name for f in column.type}
            ]
        if not sounds:
            raise UnusableClip("has no column of sounds", remedy="Drop the row")
        self.column = sounds[0]
        self.first_row = self.next_row = 0
        self.cells: list[Any] = []
        self.batches: Iterator[Any] = iter(())
        self.last_row = 0

    def read_bytes(self, row: int) -> bytes | None:
        """Return the bytes of a row, or None where it holds none."""
        if not self.first_row <= row < self.last_row or row < self.next_row - len(self.cells):
            self._open_row_group(row)
        while row >= self.next_row:
            with self._errors_as_unusable():
                batch = next(self.batches, None)
            if batch is None:
                raise UnusableClip(f"has no row {row}", remedy="Drop the row")
            self.cells = batch.column(self.column).field("bytes").to_pylist()
            self.next_row += len(self.cells)
        data: bytes | None = self.cells[row - self.next_row]
        return data

    def _open_row_group(self, row: int) -> None:
        """Start to read at the row group that holds a row."""
        metadata, first = self.parquet.metadata, 0
        for group in range(metadata.num_row_groups):
            count = metadata.row_group(group).num_rows
            if first <= row < first + count:
                leaf = f"{self.column}.bytes"
                self.batches = self.parquet.iter_batches(
                    BATCH_ROWS, row_groups=[group], columns=[leaf]
                )
                self.first_row = self.next_row = first
                self.last_row, self.cells = first + count, []
                return
            first += count
        raise UnusableClip(f"has no row {row}", remedy="Drop the row")

    @contextlib.contextmanager
    def _errors_as_unusable(self) -> Iterator[None]:
        """Raise ``UnusableClip`` for what pyarrow raises on a damaged file."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, ValueError, KeyError, MemoryError) as problem:
            what = " ".join(str(problem).split())[:200]
            raise UnusableClip(f"is not a readable Parquet file ({what})") from problem
