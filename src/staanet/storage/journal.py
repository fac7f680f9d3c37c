"""An append-only file of JSON lines that records finished work."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from staanet.errors import InvalidInput
from staanet.storage.files import (
    MAX_READ_BYTES,
    open_regular,
    refuse_to_replace,
    storage_faults,
    sync_folder,
    write_all,
)
from staanet.storage.strict_json import parse_json


class Journal:
    """An append-only file of JSON lines that records finished work; a torn last line is skipped."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record and flush it to the disk; ``StorageFault`` leaves the file as it was."""
        line = json.dumps(record, allow_nan=False, sort_keys=True).encode("ascii") + b"\n"
        with storage_faults(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            refuse_to_replace(self.path)
            is_new = not self.path.exists()
            descriptor = os.open(
                self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666
            )
            try:
                end = _end_of_lines(descriptor)
                os.ftruncate(descriptor, end)  # a torn line must not swallow the next one
                try:
                    write_all(descriptor, line)
                    os.fsync(descriptor)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, end)
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                sync_folder(self.path.parent)

    def records(self) -> list[dict[str, Any]]:
        """All whole records, oldest first; none where the file is missing.

        Raises ``InvalidInput`` where a line other than a torn last one is not a JSON object.
        """
        return list(self)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The records one by one, however long the file is; see ``records``."""
        if not os.path.lexists(self.path):
            return
        with open_regular(self.path) as (stream, _):
            for number, line in enumerate(iter(partial(stream.readline, MAX_READ_BYTES), b""), 1):
                where = f"{self.path}:{number}"
                if not line.endswith(b"\n"):
                    if len(line) == MAX_READ_BYTES:
                        raise InvalidInput(
                            f"this line is longer than {MAX_READ_BYTES} bytes",
                            where=where,
                            remedy="Mend the file, or write it again",
                        )
                    return
                record = parse_json(line, where)
                if not isinstance(record, dict):
                    raise InvalidInput("not a JSON object", where=where)
                yield record


def _end_of_lines(descriptor: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 65_536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
