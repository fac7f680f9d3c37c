"""Opens an audio file if it is a regular file within the limits."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from staanet.audio.containers.declared import fail
from staanet.audio.embedded import open_embedded, split_embedded
from staanet.audio.limits import AudioLimits
from staanet.errors import StorageFault, UnusableClip


@contextlib.contextmanager
def open_audio(path: Path | str, limits: AudioLimits) -> Iterator[tuple[BinaryIO, int]]:
    """The open regular file and its size; a pipe is never waited for, a device never opened.

    A path ``FILE.parquet#ROW`` is the sound inside that row.
    """
    try:
        if (embedded := split_embedded(path)) is not None:
            file, row = embedded
            _check_regular(_status(file))
            with open_embedded(file, row, limits) as sound:
                yield sound
            return
        _check_regular(_status(path))
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            _check_regular(status)
            if status.st_size > limits.max_bytes:
                raise UnusableClip(
                    f"its {status.st_size} bytes exceed the limit of {limits.max_bytes} bytes",
                    remedy=limits.bytes_remedy,
                )
            yield stream, status.st_size
    except OSError as error:
        if error.errno == errno.ELOOP:
            fail("not a regular file (a loop of links)")
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # not the clip's fault
            what = f"cannot be opened ({reason})"
            raise StorageFault(
                what, where=path, remedy="Close other programs, run again"
            ) from error
        fail(f"cannot be read ({reason})")


def _status(path: Path | str) -> os.stat_result:
    try:
        return Path(path).stat()
    except ValueError as error:  # NUL or a lone surrogate in the name
        fail(f"no file can have this name ({error})")


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnusableClip("not a regular file", remedy="Drop the row")
