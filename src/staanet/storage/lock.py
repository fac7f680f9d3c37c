"""The lock that keeps two runs out of one folder."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from staanet.errors import FolderLocked, InvalidInput, StorageFault, printable
from staanet.storage.files import make_folder, protect, refuse_to_replace, storage_faults, unprotect
from staanet.storage.foreign import FOREIGN, LOCK, UNFINISHED, foreign_files, require_free_names

CLIP_TABLES = "corpus-*.csv"
"""The tables of the clips that a folder is made from."""

_ATTEMPTS = 100


def _is_preparation(name: str) -> bool:
    """Whether a file holds only preparation, not work."""
    return name in (LOCK, FOREIGN, UNFINISHED) or fnmatch.fnmatch(name, CLIP_TABLES)


class FolderLock:
    """Holds a folder for one process, ``with FolderLock(run):``; the kernel frees it on any death.

    The folder is made where it is missing. Where no work was put into it, as after a mistake in the
    command line, it is left as it was before. Files in it that staanet did not write are protected while
    it is held. Raises ``FolderLocked`` with pid, host and time of the holder, ``InvalidInput`` where such
    a file has the name of a result, and as ``make_folder``.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._descriptor = -1
        self._made: list[Path] = []
        self._is_new = False
        self._before: set[str] = set()
        self._protected: set[Path] = set()

    def __enter__(self) -> Self:
        path = self.folder / LOCK
        self._made = [p for p in (self.folder, *self.folder.parents) if not os.path.lexists(p)]
        if not any(self._taken(path) for _ in range(_ATTEMPTS)):
            raise StorageFault(
                "vanishes while it is locked",
                where=self.folder,
                remedy="Choose another folder with --out",
            )
        with storage_faults(path):
            try:
                names = {entry.name for entry in self.folder.iterdir()}
                self._is_new = self._is_new or names == {LOCK}
                self._before = names - {LOCK} if self._is_new else names
                holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps(holder).encode("ascii"), 0)
                self._protect()
            except BaseException:
                self.__exit__()
                raise
        return self

    def _protect(self) -> None:
        files = foreign_files(self.folder, is_new=self._is_new)
        require_free_names(self.folder, files)
        self._protected = protect(files)

    def __exit__(self, *_: object) -> None:
        unprotect(self._protected)
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            names = {entry.name for entry in self.folder.iterdir()} - self._before
            if self._is_new and all(map(_is_preparation, names)):
                for name in sorted(names, key=lambda name: name == LOCK):  # it is ours to the last
                    (self.folder / name).unlink()
                for folder in self._made:
                    folder.rmdir()
        self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def _taken(self, path: Path) -> bool:
        """Whether the lock is ours and still the file of that name, which whoever held it may have removed."""
        try:
            make_folder(self.folder)
        except (InvalidInput, StorageFault) as problem:
            if isinstance(problem.__cause__, FileNotFoundError | FileExistsError) and not (
                os.path.lexists(self.folder)
            ):
                return False  # removed while it was made
            raise
        with storage_faults(path):
            refuse_to_replace(path)
            self._is_new = not os.path.lexists(path)
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                return False
            try:
                self._lock()
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._descriptor), path.stat()):
                        return True
            except BaseException:
                self._close()
                raise
            self._close()
            return False

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderLocked(
                f"another run holds the folder ({_holder(os.pread(self._descriptor, 4096, 0))})",
                where=self.folder,
                remedy="Wait until it ends, or choose another folder with --out",
            ) from error
        except OSError as error:
            raise FolderLocked(
                f"the file system has no locks ({os.strerror(error.errno or 0)}): another run may "
                "hold the folder",
                where=self.folder,
                remedy="Choose a folder on a local disk with --out",
            ) from error


def _holder(data: bytes) -> str:
    try:
        holder = json.loads(data)
        return printable(f"pid {holder['pid']} on {holder['host']} since {holder['since']}")
    except (ValueError, TypeError, KeyError):
        return "pid unknown"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
