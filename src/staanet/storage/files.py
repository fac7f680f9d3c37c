"""Writes files atomically, and reads only regular files.

A file is written as ``NAME.part`` beside its target, flushed to the disk and renamed. A reader sees
the old bytes or the new ones, whenever the writer dies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Self

from staanet.errors import InvalidInput, StorageFault, printable

_COPY_BYTES = 2**20

MAX_READ_BYTES = 256 * 2**20
_protected: set[Path] = set()
"""Files that staanet did not write, in the folders that this process writes into."""


def write_bytes(path: Path | str, data: bytes) -> None:
    """Put ``data`` at ``path``, wholly or not at all, making its folder where it is missing.

    Raises ``StorageFault`` when the disk fails (what stood at ``path`` stays as it was), and
    ``InvalidInput`` where ``path`` is a device, a link, a folder: those are never replaced.
    """
    with FileWriter(path) as file:
        file.write(data)


class FileWriter:
    """A file written bit by bit that is at ``path`` wholly or not at all; raises as ``write_bytes``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with FileWriter(f"{folder}/a") as file:
    ...         file.write(b"one, ")
    ...         file.write(b"two")
    ...     Path(f"{folder}/a").read_bytes()
    b'one, two'
    """

    def __init__(self, path: Path | str) -> None:
        self.target = Path(path)
        self.part = self.target.with_name(f"{self.target.name}.part")
        self._descriptor = -1

    def __enter__(self) -> Self:
        with storage_faults(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            for path in (self.target, self.part):
                refuse_to_replace(path)
            self.part.unlink(missing_ok=True)  # left by a killed writer; never written through
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self.part, flags, 0o666)
        return self

    def write(self, data: bytes) -> None:
        """Appends ``data`` to a file."""
        with storage_faults(self.target):
            write_all(self._descriptor, data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with storage_faults(self.target):
                try:
                    if kind is None:
                        os.fsync(self._descriptor)
                finally:
                    os.close(self._descriptor)
                if kind is None:
                    self.part.replace(self.target)
                    sync_folder(self.target.parent)
        except BaseException:
            self._discard()
            raise
        if kind is not None:
            self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self.part.unlink(missing_ok=True)


def copy(source: Path | str, target: Path | str) -> None:
    """The bytes of a regular file at another place, in blocks; nothing is done where they are there."""
    with open_regular(source) as (stream, size):
        if Path(target).is_file() and Path(target).stat().st_size == size:
            with open_regular(target) as (there, _):
                if blocks_equal(stream, there):
                    return
            stream.seek(0)
        with FileWriter(target) as file:
            while block := stream.read(_COPY_BYTES):
                file.write(block)


def blocks_equal(stream: BufferedReader, other: BufferedReader) -> bool:
    """Whether two streams hold the same bytes from here to their ends."""
    while block := stream.read(_COPY_BYTES):
        if block != other.read(_COPY_BYTES):
            return False
    return not other.read(1)


def make_folder(folder: Path | str) -> None:
    """Make a folder and those above it; raises ``StorageFault`` or ``InvalidInput`` where it cannot be.

    >>> make_folder("/dev/null/runs")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: /dev/null/runs: a file stands where a folder is due. ...
    """
    path = Path(folder)
    with storage_faults(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            chain = (path, *path.parents)
            if not any(os.path.lexists(part) and not part.is_dir() for part in chain):
                return make_folder(path)  # another process removed the folder meanwhile
            raise InvalidInput(
                "a file stands where a folder is due",
                where=path,
                remedy="Choose another folder with --out",
            ) from error


def remove(path: Path | str) -> None:
    """Remove a file, if it is there; ``StorageFault`` where the disk does not let us.

    Raises ``InvalidInput`` where it is protected.
    """
    with storage_faults(Path(path)):
        _refuse_protected(Path(path))
        Path(path).unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """``write_bytes`` in UTF-8; what UTF-8 cannot hold (undecodable file names) is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def read_bytes(path: Path | str, limit: int = MAX_READ_BYTES) -> bytes:
    """A regular file of at most ``limit`` bytes; ``InvalidInput`` where it is none or longer."""
    with open_regular(path) as (stream, size):
        if size > limit:
            raise InvalidInput(f"{size} bytes; at most {limit} are read", where=path)
        return stream.read(size)


def sha256(path: Path | str) -> str:
    """The sha256 of a regular file, as 64 hex digits; ``InvalidInput`` where it cannot be read."""
    with open_regular(path) as (stream, _):
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data`` to an open file; ``os.write`` alone may write a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def protect(paths: Iterable[Path]) -> set[Path]:
    """From now on these files are neither replaced nor removed; returns what ``unprotect`` takes."""
    files = {_identity(path) for path in paths} - _protected
    _protected.update(files)
    return files


def unprotect(files: set[Path]) -> None:
    """Ends the protection of what ``protect`` returned."""
    _protected.difference_update(files)


def _identity(path: Path) -> Path:
    return Path(os.path.realpath(path.parent), path.name)


def _refuse_protected(path: Path) -> None:
    if _protected and os.path.lexists(path) and _identity(path) in _protected:
        raise InvalidInput(
            "staanet did not write this file, and does not replace it",
            where=path,
            remedy="Move it away, or choose another --out",
        )


def refuse_to_replace(path: Path) -> None:
    """Raises ``InvalidInput`` where ``path`` is not a regular file, or is protected."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    _refuse_protected(path)
    if not stat.S_ISREG(mode):
        raise InvalidInput(
            "exists and is not a regular file", where=path, remedy="Choose another place to write"
        )


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot flush a folder, and need not
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_faults(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` into the ``StorageFault`` with a remedy."""
    try:
        yield
    except OSError as error:
        what, remedy = _explain(error, path.parent)
        raise StorageFault(what, where=path, remedy=remedy) from error
    except ValueError as error:  # NUL or a lone surrogate in the name
        raise InvalidInput(f"no file can have this name ({error})", where=path) from error


def _explain(error: OSError, folder: Path) -> tuple[str, str]:
    again = "Free space, run again"
    match error.errno:
        case errno.ENOSPC:
            return f"disk full: {_free(folder)} in {printable(str(folder))}", again
        case errno.EDQUOT:
            return f"disk quota used up in {printable(str(folder))}", again
        case errno.EFBIG:
            return "the file-size limit is reached", "Raise it (ulimit -f unlimited), run again"
        case errno.EROFS:
            return "the disk is read-only", "Choose another folder with --out, or mount it writable"
        case errno.ENOTDIR | errno.EEXIST:
            return "a file stands where a folder is due", "Choose another place to write"
        case errno.EACCES | errno.EPERM:
            return "no permission to write", "Choose another folder with --out, or ask for access"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot be written ({reason})", "Check the disk and the folder, run again"


def _free(folder: Path) -> str:
    try:
        space = os.statvfs(folder)
    except OSError:
        return "no space is free"
    if space.f_files and not space.f_favail:
        return f"0 of {space.f_files} files are free"
    free, total = (blocks * space.f_frsize // 2**20 for blocks in (space.f_bavail, space.f_blocks))
    return f"{free} of {total} MiB free"


@contextlib.contextmanager
def open_regular(path: Path | str) -> Iterator[tuple[BufferedReader, int]]:
    """An open regular file and its size; never waits for a pipe, never opens a device."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InvalidInput("not a regular file", where=path)
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            yield stream, os.fstat(stream.fileno()).st_size
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InvalidInput(f"cannot be read ({reason})", where=path) from error
    except ValueError as error:  # NUL or a lone surrogate in the name
        raise InvalidInput(f"no file can have this name ({error})", where=path) from error
